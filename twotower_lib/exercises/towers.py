"""The exercises of chapter 05: what a question costs, a cosine with a bias, a mean with gaps, weights by recency.

Each task stands in the notebook; here is what its check knows. The oracles are loops over Python numbers and use
nothing of the library.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

PEOPLE, LENGTH, ITEMS, DIM = 64, 20, 96, 8
"""Of the largest cases."""


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 05.1: what a question costs -----------------------------------------------------------------------------------------


def _costs_by_loops(items: int, dim: int, widths: list[int]) -> list[int]:
    dot = cross = 0
    for _ in range(items):
        dot += dim
        size = dim + dim
        for width in [*widths, 1]:
            cross += size * width
            size = width
    return [dot, cross]


def _cross(sizes: list[int]) -> int:
    """Multiplications of one run through layers of these sizes."""
    return sum(a * b for a, b in pairwise(sizes))


COST = Exercise(
    name="05.1",
    title="What a question costs",
    verb="count",
    minutes=5,
    difficulty=1,
    core=True,
    cases=(
        Case(name="one item, one hidden layer", arguments=dict(items=1, dim=2, widths=[3])),
        Case(name="ten items, one hidden layer", arguments=dict(items=10, dim=4, widths=[5])),
        Case(name="ten items, two hidden layers", arguments=dict(items=10, dim=4, widths=[8, 2])),
        Case(name="a thousand items, three hidden layers", arguments=dict(items=1000, dim=64, widths=[128, 64, 32])),
    ),
    oracle=_costs_by_loops,
    solution=lambda items, dim, widths: [items * dim, items * _cross([2 * dim, *widths, 1])],
    misconceptions=(
        Misconception(
            name="one run for all",
            function=lambda items, dim, widths: [items * dim, _cross([2 * dim, *widths, 1])],
            sentence="The network was counted once. It reads a person and one item together, so it runs again for "
            "every item.",
        ),
        Misconception(
            name="one vector read",
            function=lambda items, dim, widths: [items * dim, items * _cross([dim, *widths, 1])],
            sentence="The first layer reads two vectors, that of the person and that of the item: twice as many "
            "numbers as one vector has.",
        ),
        Misconception(
            name="no last layer",
            function=lambda items, dim, widths: [items * dim, items * _cross([2 * dim, *widths])],
            sentence="The last layer is missing: from the last hidden units to the one number that is the score.",
        ),
        Misconception(
            name="first layer only",
            function=lambda items, dim, widths: [items * dim, items * (2 * dim * sum(widths) + widths[-1])],
            sentence="Every hidden layer was counted as if it read the two vectors. From the second one on a layer "
            "reads what the layer before it gives.",
        ),
        Misconception(
            name="turned round",
            function=lambda items, dim, widths: [items * _cross([2 * dim, *widths, 1]), items * dim],
            sentence="The two numbers are the wrong way round: first the dot product, then the network.",
        ),
        Misconception(
            name="dot of one item",
            function=lambda items, dim, widths: [dim, items * _cross([2 * dim, *widths, 1])],
            sentence="The dot product was counted for one item. Without an index every item gets its own.",
        ),
    ),
    hints=(
        "Read again what a layer takes, what the first layer reads, and how often the network runs.",
        "Write down the sizes in a row: what comes in, the widths, the one number at the end. Each pair of "
        "neighbours is a layer.",
        "Begin with the sizes `[2 * dim, *widths, 1]`, and add up the products of neighbours.",
    ),
)


# 05.2: a cosine and a bias -------------------------------------------------------------------------------------------


def _item_side_by_loops(vectors: Any, bias: Any, temperature: float) -> list[list[float]]:
    made = []
    for vector, own in zip(vectors.tolist(), bias.tolist(), strict=True):
        length = math.sqrt(math.fsum(x * x for x in vector))
        made.append([x / length for x in vector] + [temperature * own])
    return made


def _extended(vectors: Tensor, column: Tensor) -> Tensor:
    return torch.cat([vectors, column[:, None]], dim=1)


BIAS = Exercise(
    name="05.2",
    title="A cosine and a bias in one dot product",
    verb="extend",
    minutes=7,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="one item, temperature 1",
            arguments=dict(vectors=torch.tensor([[3.0, 4.0]]), bias=torch.tensor([2.0]), temperature=1.0),
        ),
        Case(
            name="the same at temperature 0.5",
            arguments=dict(vectors=torch.tensor([[3.0, 4.0]]), bias=torch.tensor([2.0]), temperature=0.5),
        ),
        Case(
            name="two items",
            arguments=dict(
                vectors=torch.tensor([[3.0, 4.0], [0.0, -2.0]]), bias=torch.tensor([2.0, -1.0]), temperature=0.5
            ),
        ),
        Case(
            name=f"{ITEMS} items",
            arguments=dict(vectors=_random(ITEMS, DIM, seed=2), bias=_random(ITEMS, seed=3), temperature=0.15),
        ),
    ),
    oracle=_item_side_by_loops,
    solution=lambda vectors, bias, temperature: _extended(normalize(vectors), temperature * bias),
    misconceptions=(
        Misconception(
            name="bias not times the temperature",
            function=lambda vectors, bias, t: _extended(normalize(vectors), bias),
            sentence="The bias stands there as it is. The whole score is divided by the temperature later, and then "
            "the bias would be too: multiply it by the temperature beforehand.",
        ),
        Misconception(
            name="bias divided by the temperature",
            function=lambda vectors, bias, t: _extended(normalize(vectors), bias / t),
            sentence="The bias was divided by the temperature, and the score will be divided by it once more. To "
            "leave the bias alone in the end, multiply.",
        ),
        Misconception(
            name="not brought to length 1",
            function=lambda vectors, bias, t: _extended(vectors, t * bias),
            sentence="The vectors kept their length, so the score is no cosine: a long vector gets more from "
            "everybody it points to.",
        ),
        Misconception(
            name="bias inside the length",
            function=lambda vectors, bias, t: normalize(_extended(vectors, t * bias)),
            sentence="The vector was brought to length 1 with the bias in it, so the bias shrinks the cosine and is "
            "shrunk itself. First the length, then the bias.",
        ),
        Misconception(
            name="bias in front",
            function=lambda vectors, bias, t: torch.cat([t * bias[:, None], normalize(vectors)], dim=1),
            sentence="The bias stands in front. The 1 on the person's side is the last number, so the bias must be "
            "the last one too.",
        ),
        Misconception(
            name="columns brought to length 1",
            function=lambda vectors, bias, t: _extended(normalize(vectors, dim=0), t * bias),
            sentence="The columns were brought to length 1. A vector is a row: each item has its own length.",
        ),
        Misconception(
            name="bias everywhere",
            function=lambda vectors, bias, t: normalize(vectors) + t * bias[:, None],
            sentence="The bias was added to every number of the vector. It gets a dimension of its own, the last.",
        ),
    ),
    hints=(
        "Read again how many numbers a row of the answer has, and what stands in the last place.",
        "Three steps: divide each row by its length, multiply the bias by the temperature, put it behind the row.",
        "Begin with `torch.nn.functional.normalize(vectors)`; `torch.cat` joins it with `bias[:, None]` times "
        "something.",
    ),
)


# 05.3: a mean that leaves out the gaps -------------------------------------------------------------------------------


def _mask(people: int, length: int, seed: int) -> Tensor:
    """True where an entry is an item: the first few of each row, in the first row none."""
    lengths = torch.randint(1, length + 1, (people,), generator=torch.Generator().manual_seed(seed))
    lengths[0] = 0
    return torch.arange(length) < lengths[:, None]


def _mean_by_loops(vectors: Any, mask: Any) -> list[list[float]]:
    means = []
    for rows, marks in zip(vectors.tolist(), mask.tolist(), strict=True):
        kept = [row for row, is_item in zip(rows, marks, strict=True) if is_item]
        sums = [math.fsum(row[place] for row in kept) for place in range(len(rows[0]))]
        means.append([one / max(len(kept), 1) for one in sums])
    return means


def _kept(vectors: Tensor, mask: Tensor) -> Tensor:
    return (vectors * mask[:, :, None]).sum(dim=1)


MEAN = Exercise(
    name="05.3",
    title="A mean that leaves out the gaps",
    verb="average",
    minutes=7,
    difficulty=2,
    core=False,
    cases=(
        Case(
            name="two people without a gap",
            arguments=dict(
                vectors=torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[0.0, 4.0], [2.0, 0.0]]]),
                mask=torch.tensor([[True, True], [True, True]]),
            ),
        ),
        Case(
            name="a short history, and noise in its gap",
            arguments=dict(
                vectors=torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[0.0, 4.0], [9.0, 9.0]]]),
                mask=torch.tensor([[True, True], [True, False]]),
            ),
        ),
        Case(
            name="a person without a history",
            arguments=dict(
                vectors=torch.tensor([[[1.0, 0.0], [3.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]]),
                mask=torch.tensor([[True, True], [False, False]]),
            ),
        ),
        Case(
            name=f"{PEOPLE} people, {LENGTH} places",
            arguments=dict(vectors=_random(PEOPLE, LENGTH, DIM, seed=0), mask=_mask(PEOPLE, LENGTH, seed=1)),
        ),
    ),
    oracle=_mean_by_loops,
    solution=lambda vectors, mask: _kept(vectors, mask) / mask.sum(dim=1, keepdim=True).clamp(min=1),
    misconceptions=(
        Misconception(
            name="gaps averaged too",
            function=lambda vectors, mask: vectors.mean(dim=1),
            sentence="All places were averaged, also those where the mask is False. What stands there is no item.",
        ),
        Misconception(
            name="divided by all places",
            function=lambda vectors, mask: _kept(vectors, mask) / mask.shape[1],
            sentence="The sum is right, but it was divided by the number of places. Divide it by the number of items "
            "that this person has.",
        ),
        Misconception(
            name="mask turned round",
            function=lambda vectors, mask: _kept(vectors, ~mask) / (~mask).sum(dim=1, keepdim=True).clamp(min=1),
            sentence="The gaps were averaged and the items left out: True marks an item.",
        ),
        Misconception(
            name="not divided",
            function=lambda vectors, mask: _kept(vectors, mask),
            sentence="This is the sum of the items. A person with a long history would get a long vector for it.",
        ),
        Misconception(
            name="divided by zero",
            function=lambda vectors, mask: _kept(vectors, mask) / mask.sum(dim=1, keepdim=True),
            sentence="Where nobody has an item, this divides 0 by 0. A person without a history gets zeros.",
        ),
        Misconception(
            name="divided by the batch",
            function=lambda vectors, mask: _kept(vectors, mask) / mask.sum(),
            sentence="The sum of each person was divided by the items of the whole batch. Each person has a number of "
            "their own.",
        ),
    ),
    hints=(
        "Read again what stands where the mask is False, and what a person without an item gets.",
        "First make the gaps zero and add up over the places; then divide by how many items each person has.",
        "Begin with `vectors * mask[:, :, None]`. For the division, `clamp(min=1)` turns a count of 0 into 1.",
    ),
)


# 05.4: weights by recency --------------------------------------------------------------------------------------------


def _shares_by_loops(ages: Any, mask: Any, half_life: float) -> list[list[float]]:
    made = []
    for row, marks in zip(ages.tolist(), mask.tolist(), strict=True):
        weights = [2 ** (-age / half_life) if is_item else 0.0 for age, is_item in zip(row, marks, strict=True)]
        made.append([weight / math.fsum(weights) for weight in weights])
    return made


def _halved(ages: Tensor, mask: Tensor, half_life: float) -> Tensor:
    return 0.5 ** (ages / half_life) * mask


def _shared_out(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True)


_AGES = torch.arange(LENGTH - 1.0, -1.0, -1.0).repeat(PEOPLE, 1)
_SOME = _mask(PEOPLE + 1, LENGTH, seed=4)[1:].flip(1)  # histories stand at the right end; everybody has one

RECENCY = Exercise(
    name="05.4",
    title="Newer events weigh more",
    verb="weigh",
    minutes=8,
    difficulty=2,
    core=False,
    cases=(
        Case(
            name="one person, half-life 1",
            arguments=dict(
                ages=torch.tensor([[2.0, 1.0, 0.0]]), mask=torch.tensor([[True, True, True]]), half_life=1.0
            ),
        ),
        Case(
            name="the same, half-life 2",
            arguments=dict(
                ages=torch.tensor([[2.0, 1.0, 0.0]]), mask=torch.tensor([[True, True, True]]), half_life=2.0
            ),
        ),
        Case(
            name="two people, one with a gap",
            arguments=dict(
                ages=torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]),
                mask=torch.tensor([[True, True, True], [False, True, True]]),
                half_life=2.0,
            ),
        ),
        Case(name=f"{PEOPLE} people, {LENGTH} places", arguments=dict(ages=_AGES, mask=_SOME, half_life=5.0)),
    ),
    oracle=_shares_by_loops,
    solution=lambda ages, mask, half_life: _shared_out(_halved(ages, mask, half_life)),
    misconceptions=(
        Misconception(
            name="not shared out",
            function=_halved,
            sentence="The weights of a person do not add up to 1: divide them by their sum.",
        ),
        Misconception(
            name="gaps in the sum",
            function=lambda ages, mask, half_life: _shared_out(0.5 ** (ages / half_life)) * mask,
            sentence="The gaps got weights first and were set to 0 afterwards, so what is left adds up to less than "
            "1. Leave them out before you divide.",
        ),
        Misconception(
            name="gaps weigh too",
            function=lambda ages, mask, half_life: _shared_out(0.5 ** (ages / half_life)),
            sentence="The mask was not used: places without an item got a weight.",
        ),
        Misconception(
            name="down to 1/e",
            function=lambda ages, mask, half_life: _shared_out(torch.exp(-ages / half_life) * mask),
            sentence="After one half-life this weight is 1/e and not 1/2.",
        ),
        Misconception(
            name="the oldest weighs most",
            function=lambda ages, mask, half_life: _shared_out(2 ** (ages / half_life) * mask),
            sentence="The oldest event weighs most. The newest has age 0 and should weigh most.",
        ),
        Misconception(
            name="shared out over all people",
            function=lambda ages, mask, half_life: (
                _halved(ages, mask, half_life) / _halved(ages, mask, half_life).sum()
            ),
            sentence="The weights of all people together add up to 1. Each person's own must.",
        ),
        Misconception(
            name="ages multiplied",
            function=lambda ages, mask, half_life: _shared_out(0.5 ** (ages * half_life) * mask),
            sentence="The age was multiplied by the half-life, so a long one forgets faster. Divide the age by it.",
        ),
    ),
    hints=(
        "Read again what the weight is at age 0 and at an age of one half-life, and what a row adds up to.",
        "Weight every event, set the gaps to 0, and only then divide by the sum of the row.",
        "Begin with `0.5 ** (ages / half_life) * mask`.",
    ),
)


EXERCISES = (COST, BIAS, MEAN, RECENCY)
