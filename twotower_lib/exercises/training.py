"""The exercises of chapter 08: naming a bug from its plots, what equal scores cost, the learning rate, uniformity.

Each task stands in the notebook; here is what its check knows. The oracles are loops over Python numbers, or numbers by
hand, and use nothing of the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

ROWS, DIM = 64, 8
"""Of the largest cases."""


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# 08.1: name the bug --------------------------------------------------------------------------------------------------

BUGS = {1: 3, 2: 4, 3: 5, 4: 6}
"""Run of the picture -> number of its bug in the list."""


def _named(**other: int) -> Callable[[int], int]:
    """The right answers with some of them changed."""
    answers = BUGS | {int(run.removeprefix("run")): bug for run, bug in other.items()}
    return lambda run: answers[run]


NAME_THE_BUG = Exercise(
    name="08.1",
    title="Name the bug",
    verb="name",
    minutes=10,
    difficulty=2,
    core=True,
    cases=tuple(Case(name=f"run {run}", arguments=dict(run=run)) for run in BUGS),
    oracle=BUGS.__getitem__,
    solution=_named(),
    misconceptions=(
        Misconception(
            name="labels instead of log q",
            function=_named(run1=1),
            sentence="A poor recall alone does not mean wrong labels. In this run the positives score far above the "
            "negatives, so it has learned its pairs. With shifted labels the two histograms lie on each other.",
        ),
        Misconception(
            name="learning rate instead of temperature",
            function=_named(run2=2),
            sentence="The gradient is small here, as with a learning rate that is too high. But that run learned to "
            "tell its pairs, and in this one the loss falls little: its logits can hardly differ.",
        ),
        Misconception(
            name="no negatives instead of the leak",
            function=_named(run3=7),
            sentence="The loss is low, but it is far from 0, and the dimensions in use are more than in the healthy "
            "run. A loss without negatives collapses.",
        ),
        Misconception(
            name="log q and the leak exchanged",
            function=_named(run1=5, run3=3),
            sentence="Two runs have a low loss. A leak makes training easier, and the recall stays where it was; a "
            "wrong log q turns the ranking by popularity round, and the recall falls below popularity.",
        ),
        Misconception(
            name="temperature instead of a dead tower",
            function=_named(run4=4),
            sentence="Look at the gradient again: one of the two lines is exactly 0 and not only small.",
        ),
    ),
    hints=(
        "For each run ask first what is *not* wrong: is a gradient missing, do positives score above negatives, are "
        "there enough dimensions?",
        "One run has a gradient of exactly 0. In one the loss falls little although both gradients are there. Two have "
        "a low loss: one of them finds less than popularity, the other what the healthy run finds.",
        "Begin with the run that has no gradient on one side, and replace its `0` by the number from the list.",
    ),
)


# 08.2: equal scores --------------------------------------------------------------------------------------------------


def _mask(rows: int, *dropped: tuple[int, int]) -> Tensor:
    """A square of truth values, True at these places."""
    drop = torch.zeros(rows, rows, dtype=torch.bool)
    for row, column in dropped:
        drop[row, column] = True
    return drop


def _equal_scores_by_loops(log_q: Any, drop: Any) -> float:
    q, dropped, losses = [math.exp(one) for one in log_q.tolist()], drop.tolist(), []
    for row, own in enumerate(q):
        weights = [1 / other for other, is_dropped in zip(q, dropped[row], strict=True) if not is_dropped]
        losses.append(-math.log((1 / own) / math.fsum(weights)))
    return math.fsum(losses) / len(losses)


def _equal_scores(log_q: Tensor, drop: Tensor) -> Tensor:
    return ((-log_q).masked_fill(drop, -math.inf).logsumexp(dim=1) + log_q).mean()


EQUAL_SCORES = Exercise(
    name="08.2",
    title="What equal scores cost",
    verb="compute",
    minutes=8,
    difficulty=2,
    core=False,
    cases=(
        Case(
            name="two rows, equally popular, nothing dropped",
            arguments=dict(log_q=torch.tensor([0.5, 0.5]).log(), drop=_mask(2)),
        ),
        Case(
            name="three rows, equally popular, one column dropped for the first row",
            arguments=dict(log_q=torch.tensor([0.1, 0.1, 0.1]).log(), drop=_mask(3, (0, 2))),
        ),
        Case(
            name="three rows, one popular item and one rare one",
            arguments=dict(log_q=torch.tensor([0.5, 0.25, 0.01]).log(), drop=_mask(3)),
        ),
        Case(
            name=f"{ROWS} rows",
            arguments=dict(
                log_q=(0.001 + 0.1 * _random(ROWS, seed=0) ** 4).log(),
                drop=(_random(ROWS, ROWS, seed=1) < 0.3).fill_diagonal_(False),
            ),
        ),
    ),
    oracle=_equal_scores_by_loops,
    solution=_equal_scores,
    misconceptions=(
        Misconception(
            name="mask forgotten",
            function=lambda log_q, drop: ((-log_q).logsumexp(0) + log_q).mean(),
            sentence="The dropped columns are still in the sum. A column that is no negative for a row has no share of "
            "its probability.",
        ),
        Misconception(
            name="log q forgotten",
            function=lambda log_q, drop: (~drop).sum(1).log().mean(),
            sentence="This counts the columns that are left. With log q they weigh differently: the scores are equal, "
            "but the logits are not.",
        ),
        Misconception(
            name="logarithm of the batch",
            function=lambda log_q, drop: math.log(len(log_q)),
            sentence="This is the logarithm of the batch size: right where nothing is dropped and all items are "
            "equally popular, and only there.",
        ),
        Misconception(
            name="log q added",
            function=lambda log_q, drop: (log_q.masked_fill(drop, -math.inf).logsumexp(dim=1) - log_q).mean(),
            sentence="log q was added to the logits. It is subtracted: a popular item stands in the batch more often, "
            "so each of its columns weighs less.",
        ),
        Misconception(
            name="own logit forgotten",
            function=lambda log_q, drop: (-log_q).masked_fill(drop, -math.inf).logsumexp(dim=1).mean(),
            sentence="This is the logarithm of the sum alone. The loss of a row is that minus the logit of its own "
            "column, and with log q this logit is not 0.",
        ),
        Misconception(
            name="logarithm of a mean",
            function=lambda log_q, drop: ((-log_q).exp() * ~drop).sum(1).mul(log_q.exp()).mean().log(),
            sentence="The mean over the rows was taken before the logarithm. Each row has a loss of its own; the mean "
            "of the losses comes last.",
        ),
    ),
    hints=(
        "Write down the logit of each column when all scores are 0. Which columns does a row sum over?",
        "The loss of a row is the logarithm of the sum of exp(logit) over its columns, minus the logit of its own "
        "column. Then the mean over the rows.",
        "Begin with `logits = -log_q`, one value a column; a dropped column has minus infinity in that row.",
    ),
)


# 08.3: the learning rate ---------------------------------------------------------------------------------------------


def _rate_by_hand(step: int, total: int, warmup: int, peak: float) -> float:
    """Warm-up by adding equal steps up; then the half-angle form of the cosine, 1 + cos(a) = 2 cos(a / 2)^2."""
    if step < warmup:
        return math.fsum(peak / warmup for _ in range(step + 1))
    angle = math.pi * (step - warmup) / (total - warmup)
    return peak * math.cos(angle / 2) ** 2


def _rate_case(name: str, step: int, total: int = 100, warmup: int = 20, peak: float = 0.8) -> Case:
    return Case(name=name, arguments=dict(step=step, total=total, warmup=warmup, peak=peak))


def _falling(share: Callable[[int, int, int], float]) -> Callable[[int, int, int, float], float]:
    """A schedule with the right warm-up, and another share of the peak afterwards."""

    def rate(step: int, total: int, warmup: int, peak: float) -> float:
        return peak * (step + 1) / warmup if step < warmup else peak * share(step, total, warmup)

    return rate


LEARNING_RATE = Exercise(
    name="08.3",
    title="Up, then down",
    verb="schedule",
    minutes=8,
    difficulty=1,
    core=False,
    cases=(
        _rate_case("the first step", 0),
        _rate_case("the last step of the warm-up", 19),
        _rate_case("the first step after the warm-up", 20),
        _rate_case("a quarter of the way down", 40),
        _rate_case("half of the way down", 60),
        _rate_case("the last step", 99),
    ),
    oracle=_rate_by_hand,
    solution=_falling(lambda step, total, warmup: 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))),
    misconceptions=(
        Misconception(
            name="begins at 0",
            function=lambda step, total, warmup, peak: (
                peak * step / warmup
                if step < warmup
                else peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
            ),
            sentence="The first step has the rate 0: it computes a gradient and then does not move. Steps are counted "
            "from 0, and step 0 is the first of the equal steps up.",
        ),
        Misconception(
            name="no warm-up",
            function=lambda step, total, warmup, peak: (
                peak * 0.5 * (1 + math.cos(math.pi * max(step - warmup, 0) / (total - warmup)))
            ),
            sentence="The warm-up is missing: during its steps the rate is at the peak already.",
        ),
        Misconception(
            name="cosine over the whole run",
            function=_falling(lambda step, total, warmup: 0.5 * (1 + math.cos(math.pi * step / total))),
            sentence="The cosine is counted from the first step of the run. After the warm-up it would begin below the "
            "peak: count from the end of the warm-up.",
        ),
        Misconception(
            name="below zero",
            function=_falling(lambda step, total, warmup: math.cos(math.pi * (step - warmup) / (total - warmup))),
            sentence="This cosine goes from 1 to -1, so in the second half the rate is negative and every step goes "
            "uphill. Shift it and halve it.",
        ),
        Misconception(
            name="a straight line down",
            function=_falling(lambda step, total, warmup: 1 - (step - warmup) / (total - warmup)),
            sentence="This is a straight line down. It ends at the same place, but the cosine stays high for longer "
            "and then arrives gently.",
        ),
        Misconception(
            name="a quarter of a turn",
            function=_falling(lambda step, total, warmup: math.cos(math.pi / 2 * (step - warmup) / (total - warmup))),
            sentence="The angle ends at a quarter of a turn. It should go from 0 to pi, half of a turn: only then does "
            "the fall end gently.",
        ),
    ),
    hints=(
        "There are two cases. Which rate has the very first step, and which the last one of the warm-up?",
        "Afterwards ask which share of the way down is done: 0 at the end of the warm-up, 1 at `total`. Times pi, it "
        "is the angle of the cosine.",
        "Begin with `if step < warmup: return peak * (step + 1) / warmup`.",
    ),
)


# 08.4: uniformity ----------------------------------------------------------------------------------------------------


def _uniformity_by_loops(vectors: Any) -> float:
    rows = vectors.tolist()
    pairs = [
        math.exp(-2 * math.fsum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)))
        for i in range(len(rows))
        for j in range(i)
    ]
    return math.log(math.fsum(pairs) / len(pairs))


def _squared(vectors: Tensor) -> Tensor:
    """Squared distance of every pair of different rows, once."""
    return torch.pdist(vectors).square()


UNIFORMITY = Exercise(
    name="08.4",
    title="Uniformity",
    verb="measure",
    minutes=8,
    difficulty=2,
    core=False,
    cases=(
        Case(name="two opposite vectors", arguments=dict(vectors=torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))),
        Case(
            name="three vectors in a plane",
            arguments=dict(vectors=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])),
        ),
        Case(
            name=f"{ROWS} vectors of {DIM} numbers",
            arguments=dict(vectors=normalize(_random(ROWS, DIM, seed=2) - 0.3)),
        ),
    ),
    oracle=_uniformity_by_loops,
    solution=lambda vectors: _squared(vectors).mul(-2).exp().mean().log(),
    misconceptions=(
        Misconception(
            name="pairs with itself",
            function=lambda vectors: torch.cdist(vectors, vectors).square().mul(-2).exp().mean().log(),
            sentence="Each vector was paired with itself, too: a distance of 0 that says nothing. Only pairs of two "
            "different rows count.",
        ),
        Misconception(
            name="mean of the logarithms",
            function=lambda vectors: _squared(vectors).mul(-2).mean(),
            sentence="Logarithm and exp cancelled each other: this is the mean of the logarithms. The mean comes "
            "before the logarithm, so that near pairs count most.",
        ),
        Misconception(
            name="distance not squared",
            function=lambda vectors: torch.pdist(vectors).mul(-2).exp().mean().log(),
            sentence="The distance stands in the exponent without its square.",
        ),
        Misconception(
            name="factor 2 missing",
            function=lambda vectors: _squared(vectors).mul(-1).exp().mean().log(),
            sentence="The factor 2 before the squared distance is missing.",
        ),
        Misconception(
            name="a sum",
            function=lambda vectors: _squared(vectors).mul(-2).exp().sum().log(),
            sentence="This is the logarithm of a sum over the pairs. It would grow with the number of vectors: take "
            "the mean.",
        ),
        Misconception(
            name="sign changed",
            function=lambda vectors: -_squared(vectors).mul(-2).exp().mean().log(),
            sentence="The sign is changed. By this definition less is better spread: 0 is a single point.",
        ),
    ),
    hints=(
        "Say in words what happens to one pair, and only then what happens to all of them.",
        "For each pair of different rows: distance, square, times -2, exp. Then one mean over the pairs, and one "
        "logarithm.",
        "Begin with `torch.pdist(vectors)`: the distance of every pair of different rows, each pair once.",
    ),
)


EXERCISES = (NAME_THE_BUG, EQUAL_SCORES, LEARNING_RATE, UNIFORMITY)
