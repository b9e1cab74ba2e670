"""The exercises of chapter 06: scores and temperature, log q, a mask, and a bug that was shipped.

Each task stands in the notebook; here is what its check knows. The oracles are loops over Python numbers and use
nothing of the library. Misconceptions are what people write, with `t` for the temperature and `q` for an item's share
of the train events.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

ROWS, CANDIDATES, DIM, TOTAL = 64, 96, 8, 10_000
"""Of the largest cases: users, items, length of a vector, train events."""


def _vectors(rows: int, seed: int) -> Tensor:
    """Vectors of length 1."""
    return normalize(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed)))


def _counts(seed: int) -> Tensor:
    """Train events of each candidate, some popular and most not."""
    drawn = torch.rand(CANDIDATES, generator=torch.Generator().manual_seed(seed))
    return (1 / (0.01 + drawn)).round()


def _ids(rows: int, distinct: int, seed: int) -> Tensor:
    """Ids in which some come more than once."""
    return torch.randint(distinct, (rows,), generator=torch.Generator().manual_seed(seed))


# 06.1: scores and temperature ----------------------------------------------------------------------------------------


def _logits_by_loops(users: Any, items: Any, temperature: float) -> list[list[float]]:
    rows, columns = users.tolist(), items.tolist()
    return [[sum(a * b for a, b in zip(u, v, strict=True)) / temperature for v in columns] for u in rows]


LOGITS = Exercise(
    name="06.1",
    title="Scores and temperature",
    verb="compute",
    minutes=5,
    difficulty=1,
    core=True,
    cases=(
        Case(
            name="one user, one item, temperature 1",
            arguments=dict(users=torch.tensor([[1.0, 2.0]]), items=torch.tensor([[3.0, 1.0]]), temperature=1.0),
        ),
        Case(
            name="two users, two items, temperature 0.5",
            arguments=dict(
                users=torch.tensor([[1.0, 2.0], [0.0, 1.0]]),
                items=torch.tensor([[3.0, 1.0], [1.0, 0.0]]),
                temperature=0.5,
            ),
        ),
        Case(
            name="more items than users",
            arguments=dict(
                users=torch.tensor([[1.0, 2.0], [0.0, 1.0]]),
                items=torch.tensor([[3.0, 1.0], [1.0, 0.0], [0.0, -1.0]]),
                temperature=0.1,
            ),
        ),
        Case(
            name=f"{ROWS} users, {CANDIDATES} items",
            arguments=dict(users=3 * _vectors(ROWS, 0), items=2 * _vectors(CANDIDATES, 1), temperature=0.05),
        ),
    ),
    oracle=_logits_by_loops,
    solution=lambda users, items, temperature: users @ items.T / temperature,
    misconceptions=(
        Misconception(
            name="multiplied by the temperature",
            function=lambda users, items, t: users @ items.T * t,
            sentence="The scores were multiplied by the temperature. Divided by a small one they move apart, and that "
            "is what a low temperature is for.",
        ),
        Misconception(
            name="temperature left out",
            function=lambda users, items, t: users @ items.T,
            sentence="These are the logits at temperature 1: the scores were not divided by the temperature.",
        ),
        Misconception(
            name="temperature twice",
            function=lambda users, items, t: (users / t) @ (items / t).T,
            sentence="Both sides were divided by the temperature, so the scores are divided by its square. One side "
            "is enough.",
        ),
        Misconception(
            name="transposed",
            function=lambda users, items, t: items @ users.T / t,
            sentence="Rows and columns are the wrong way round: a row belongs to a user, a column to an item.",
        ),
        Misconception(
            name="normalised here",
            function=lambda users, items, t: normalize(users) @ normalize(items).T / t,
            sentence="The vectors were brought to length 1 first. That is the towers' business: what leaves a tower "
            "is what the index stores, so the loss takes the vectors as they come.",
        ),
        Misconception(
            name="only the pairs",
            function=lambda users, items, t: (users * items[: len(users)]).sum(1) / t,
            sentence="This is one score a pair. Every user meets every item of the batch, so there is a whole row a "
            "user.",
        ),
    ),
    hints=(
        "Read the shapes again: how many rows and how many columns has the answer, and what belongs to each?",
        "All inner products of the rows of two matrices are one matrix product. Then every entry is divided by the "
        "same number.",
        "Begin with `users @ items.T`: entry (i, j) is the score of user i with item j.",
    ),
)


# 06.2: log q ---------------------------------------------------------------------------------------------------------


def _corrected_by_loops(scores: Any, temperature: float, counts: Any, total: int) -> list[list[float]]:
    log_q = [math.log(count / total) for count in counts.tolist()]
    return [[score / temperature - lq for score, lq in zip(row, log_q, strict=True)] for row in scores.tolist()]


LOG_Q = Exercise(
    name="06.2",
    title="Minus log q",
    verb="correct",
    minutes=8,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="equal scores, temperature 1",
            arguments=dict(
                scores=torch.tensor([[0.0, 0.0]]), temperature=1.0, counts=torch.tensor([50.0, 25.0]), total=100
            ),
        ),
        Case(
            name="temperature 0.5",
            arguments=dict(
                scores=torch.tensor([[1.0, 0.0], [0.5, 1.0]]),
                temperature=0.5,
                counts=torch.tensor([50.0, 10.0]),
                total=100,
            ),
        ),
        Case(
            name="more candidates than users",
            arguments=dict(
                scores=torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]]),
                temperature=0.1,
                counts=torch.tensor([40.0, 5.0, 1.0]),
                total=200,
            ),
        ),
        Case(
            name=f"{ROWS} users, {CANDIDATES} candidates",
            arguments=dict(
                scores=_vectors(ROWS, 2) @ _vectors(CANDIDATES, 3).T, temperature=0.05, counts=_counts(4), total=TOTAL
            ),
        ),
    ),
    oracle=_corrected_by_loops,
    solution=lambda scores, temperature, counts, total: scores / temperature - torch.log(counts / total),
    misconceptions=(
        Misconception(
            name="added",
            function=lambda scores, t, counts, total: scores / t + torch.log(counts / total),
            sentence="log q was added. An item that comes into the batch often must weigh less in the sum, and log q "
            "of a popular item is the larger one: subtract it.",
        ),
        Misconception(
            name="before the temperature",
            function=lambda scores, t, counts, total: (scores - torch.log(counts / total)) / t,
            sentence="log q was subtracted from the scores, before the temperature, so it was divided by the "
            "temperature too. It belongs on the final logit.",
        ),
        Misconception(
            name="logarithm to base 2",
            function=lambda scores, t, counts, total: scores / t - torch.log2(counts / total),
            sentence="This is the logarithm to base 2. The softmax takes powers of e, so only the natural logarithm "
            "turns into a division by q.",
        ),
        Misconception(
            name="logarithm to base 10",
            function=lambda scores, t, counts, total: scores / t - torch.log10(counts / total),
            sentence="This is the logarithm to base 10. The softmax takes powers of e, so only the natural logarithm "
            "turns into a division by q.",
        ),
        Misconception(
            name="counts instead of shares",
            function=lambda scores, t, counts, total: scores / t - torch.log(counts),
            sentence="This is the log of the counts. The loss would be the same, because the two differ by one "
            "constant and a constant cancels in a softmax. But q is a chance: divide the counts by `total`.",
        ),
        Misconception(
            name="shares of the batch",
            function=lambda scores, t, counts, total: scores / t - torch.log(counts / counts.sum()),
            sentence="The counts were divided by their sum over this batch. The loss would be the same, because that "
            "is one constant and cancels in a softmax. But q is the share of all train events: divide by `total`.",
        ),
        Misconception(
            name="one correction a row",
            function=lambda scores, t, counts, total: scores / t - torch.log(counts / total)[: len(scores), None],
            sentence="Each row was corrected by the log q of its own item. That is a constant of the row and cancels "
            "in its softmax. The correction differs from column to column.",
        ),
        Misconception(
            name="q instead of log q",
            function=lambda scores, t, counts, total: scores / t - counts / total,
            sentence="q itself was subtracted. To divide a weight exp(logit) by q, subtract the log of q from the "
            "logit.",
        ),
    ),
    hints=(
        "Read again what q is, on which value it is subtracted, and whether it belongs to a row or to a column.",
        "Two steps in this order: first the logit, then the correction. An item's q is its count divided by all "
        "events.",
        "Begin with `scores / temperature`. What is subtracted from it has one value for each entry of `counts`.",
    ),
)


# 06.3: a mask --------------------------------------------------------------------------------------------------------


def _mask_by_loops(users: Any, items: Any) -> list[list[bool]]:
    ids = items.tolist()
    return [[row != column and ids[row] == ids[column] for column in range(len(ids))] for row in range(len(ids))]


MASK = Exercise(
    name="06.3",
    title="The same item once more",
    verb="mask",
    minutes=8,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="two people, one item",
            arguments=dict(users=torch.tensor([1, 2]), items=torch.tensor([7, 7])),
        ),
        Case(
            name="one person twice, three items",
            arguments=dict(users=torch.tensor([5, 5, 6]), items=torch.tensor([1, 2, 3])),
        ),
        Case(
            name="the first item comes back",
            arguments=dict(users=torch.tensor([1, 2, 3]), items=torch.tensor([7, 8, 7])),
        ),
        Case(
            name="128 rows",
            arguments=dict(users=_ids(128, 90, seed=5), items=_ids(128, 40, seed=6)),
        ),
    ),
    oracle=_mask_by_loops,
    solution=lambda users, items: (items[:, None] == items[None, :]) & ~torch.eye(len(items), dtype=torch.bool),
    misconceptions=(
        Misconception(
            name="drops the positive",
            function=lambda users, items: items[:, None] == items[None, :],
            sentence="The diagonal is True: the mask drops each row's own positive, so its probability is 0 and the "
            "loss of the row infinite. The positive stays.",
        ),
        Misconception(
            name="one half only",
            function=lambda users, items: (items[:, None] == items[None, :]).triu(1),
            sentence="Only what lies above the diagonal is marked. If the item of row 0 stands in column 2 once more, "
            "that of row 2 stands in column 0 once more.",
        ),
        Misconception(
            name="compares people",
            function=lambda users, items: (users[:, None] == users[None, :]) & ~torch.eye(len(users), dtype=torch.bool),
            sentence="This compares the people. A person who comes twice is no reason; the question is whether the "
            "item of a column is the item of the row.",
        ),
        Misconception(
            name="the wrong way round",
            function=lambda users, items: (items[:, None] != items[None, :]) | torch.eye(len(items), dtype=torch.bool),
            sentence="True and False are exchanged: True means that the column is dropped.",
        ),
        Misconception(
            name="copies dropped for everybody",
            function=lambda users, items: (items[:, None] == items).triu(1).any(0).repeat(len(items), 1),
            sentence="Every later copy of an item is dropped for all rows. For a person with another item it is a "
            "negative like all others; only rows of the same item leave it out.",
        ),
    ),
    hints=(
        "Read again what True means, and what must hold on the diagonal. Which of the two arguments do you need?",
        "Compare every item with every item: that gives a square of True and False. Then set right what it says about "
        "the positives.",
        "Begin with `items[:, None] == items[None, :]`, and look at the diagonal.",
    ),
)


# 06.4: spot the bug --------------------------------------------------------------------------------------------------


def _loss_by_loops(users: Any, items: Any, share: Any, temperature: float) -> float:
    losses = []
    for row, logits in enumerate(_logits_by_loops(users, items, temperature)):
        weights = [math.exp(logit) / q for logit, q in zip(logits, share.tolist(), strict=True)]
        losses.append(-math.log(weights[row] / math.fsum(weights)))
    return math.fsum(losses) / len(losses)


def _mean_loss(logits: Tensor) -> Tensor:
    return cross_entropy(logits, torch.arange(len(logits)))


BUG = Exercise(
    name="06.4",
    title="Spot the bug",
    verb="find",
    minutes=8,
    difficulty=2,
    core=False,
    cases=(
        Case(
            name="temperature 1, where the bug does not show",
            arguments=dict(
                users=torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
                items=torch.tensor([[0.8, 0.6], [0.0, 1.0]]),
                share=torch.tensor([0.3, 0.01]),
                temperature=1.0,
            ),
        ),
        Case(
            name="the same at temperature 0.5",
            arguments=dict(
                users=torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
                items=torch.tensor([[0.8, 0.6], [0.0, 1.0]]),
                share=torch.tensor([0.3, 0.01]),
                temperature=0.5,
            ),
        ),
        Case(
            name="one candidate more than users",
            arguments=dict(
                users=torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
                items=torch.tensor([[0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]),
                share=torch.tensor([0.2, 0.05, 0.001]),
                temperature=0.2,
            ),
        ),
        Case(
            name=f"{ROWS} users, {CANDIDATES} candidates, temperature 0.05",
            arguments=dict(
                users=_vectors(ROWS, 7), items=_vectors(CANDIDATES, 8), share=_counts(9) / TOTAL, temperature=0.05
            ),
        ),
    ),
    oracle=_loss_by_loops,
    solution=lambda users, items, share, temperature: _mean_loss(users @ items.T / temperature - share.log()),
    misconceptions=(
        Misconception(
            name="as it was shipped",
            function=lambda users, items, share, t: _mean_loss((users @ items.T - share.log()) / t),
            sentence="This is still the loss as it was shipped. Compare the two cases with the same vectors: what "
            "happens to log q when the temperature falls?",
        ),
        Misconception(
            name="sign changed",
            function=lambda users, items, share, t: _mean_loss(users @ items.T / t + share.log()),
            sentence="log q is added here. Its sign was right in the code above: what was wrong is the place.",
        ),
        Misconception(
            name="correction removed",
            function=lambda users, items, share, t: _mean_loss(users @ items.T / t),
            sentence="The correction is gone. The bug with it, but popular items are pushed down again. (A correction "
            "that is the same for a whole row is as good as none.)",
        ),
        Misconception(
            name="temperature removed",
            function=lambda users, items, share, t: _mean_loss(users @ items.T - share.log()),
            sentence="The temperature is gone: this is the loss at temperature 1.",
        ),
        Misconception(
            name="repaired twice",
            function=lambda users, items, share, t: _mean_loss(users @ items.T / t - t * share.log()),
            sentence="log q is multiplied by the temperature and not divided by it any more: that is one repair too "
            "many.",
        ),
    ),
    hints=(
        "Follow one number through the code: by what is `share.log()` divided at the end, at temperature 1 and at "
        "0.05?",
        "log q undoes how often an item is drawn, and that does not depend on the temperature. So the temperature "
        "must not touch it.",
        "Begin with `logits = users @ items.T / temperature`; what is missing comes after it.",
    ),
)


EXERCISES = (LOGITS, LOG_Q, MASK, BUG)
