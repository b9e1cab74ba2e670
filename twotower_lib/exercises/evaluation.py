"""The exercises of chapter 03: NDCG, a paired interval, EASE without its diagonal, and a bug in a recall.

The oracles are loops over Python numbers and use nothing of the library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

PEOPLE, FILMS, DRAWS = 60, 24, 200
"""Of the largest cases."""


def _truths(people: int, k: int, seed: int) -> NDArray:
    """Hits, about one in four."""
    return np.random.default_rng(seed).random((people, k)) < 0.25


# 03.1: NDCG ----------------------------------------------------------------------------------------------------------


def _ndcg_by_loops(hits: Any, held_out: Any) -> list[float]:
    values = []
    for row, count in zip(hits.tolist(), held_out.tolist(), strict=True):
        gained = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(row, start=1) if hit)
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(count, len(row)) + 1))
        values.append(gained / best)
    return values


def _discount(hits: Any, shift: int = 1) -> NDArray:
    """1 / log2(rank + shift) of each place of the list."""
    weights: NDArray = 1 / np.log2(np.arange(1, hits.shape[1] + 1) + shift)
    return weights


def _ideal(hits: Any, held_out: Any) -> NDArray:
    best: NDArray = np.cumsum(_discount(hits))[np.minimum(held_out, hits.shape[1]) - 1]
    return best


def _found(hits: Any) -> NDArray:
    """As many as were hit, at least one so that nothing is divided by 0."""
    found: NDArray = np.maximum(hits.sum(axis=1), 1)
    return found


NDCG = Exercise(
    name="03.1",
    title="NDCG",
    verb="compute",
    minutes=8,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="a hit at rank 2, one film held out",
            arguments=dict(hits=np.array([[False, True, False]]), held_out=np.array([1])),
        ),
        Case(
            name="two people, lists of three",
            arguments=dict(hits=np.array([[True, False, True], [False, False, True]]), held_out=np.array([2, 3])),
        ),
        Case(
            name="more held out than the list is long, and no hit at all",
            arguments=dict(hits=np.array([[True, True], [False, False], [False, True]]), held_out=np.array([5, 1, 2])),
        ),
        Case(
            name=f"{PEOPLE} people, lists of {FILMS}",
            arguments=dict(
                hits=_truths(PEOPLE, FILMS, 0), held_out=_truths(PEOPLE, FILMS, 0).sum(axis=1) + 1 + np.arange(PEOPLE)
            ),
        ),
    ),
    oracle=_ndcg_by_loops,
    solution=lambda hits, held_out: hits @ _discount(hits) / _ideal(hits, held_out),
    misconceptions=(
        Misconception(
            name="ranks from 0",
            function=lambda hits, held_out: (
                hits @ _discount(hits, 2) / np.cumsum(_discount(hits, 2))[np.minimum(held_out, hits.shape[1]) - 1]
            ),
            sentence="The discounts are one place off: that of rank 1 is 1 / log2(2) = 1, that of rank 2 is "
            "1 / log2(3).",
        ),
        Misconception(
            name="DCG",
            function=lambda hits, held_out: hits @ _discount(hits),
            sentence="This is the DCG, the sum over the hits. NDCG divides it by the sum of the best list that this "
            "person could get.",
        ),
        Misconception(
            name="natural logarithm",
            function=lambda hits, held_out: hits @ (_discount(hits) / math.log(2)) / _ideal(hits, held_out),
            sentence="The hits were discounted by the natural logarithm and the best list by log2. Take log2 for both.",
        ),
        Misconception(
            name="best list as long as the list",
            function=lambda hits, held_out: hits @ _discount(hits) / _discount(hits).sum(),
            sentence="The best list was taken to be k hits. Whoever has fewer films held out can never get that: the "
            "best list has min(k, held-out films) hits.",
        ),
        Misconception(
            name="best order of what was found",
            function=lambda hits, held_out: hits @ _discount(hits) / _ideal(hits, _found(hits)),
            sentence="The best list was made of the hits that were found, put in front. Films that were not found must "
            "cost something: the best list has min(k, held-out films) hits.",
        ),
        Misconception(
            name="divided by the held-out films",
            function=lambda hits, held_out: hits @ _discount(hits) / held_out,
            sentence="The sum was divided by the number of held-out films. Divide by the discounted sum of the best "
            "list, so that a perfect list gets 1.",
        ),
        Misconception(
            name="a mean",
            function=lambda hits, held_out: (hits @ _discount(hits) / _ideal(hits, held_out)).mean(),
            sentence="This is the mean over people. Return one value a person: intervals need them.",
        ),
    ),
    hints=(
        "Read again what the best list of a person looks like: how many hits, and where do they stand?",
        "Both sums use the same weights, one a rank. For the best list add up the first few of them; how many, depends "
        "on `held_out` and on the number of columns of `hits`.",
        "Begin with the weights of ranks 1 to k: `1 / np.log2(np.arange(2, hits.shape[1] + 2))`. `np.cumsum` of them "
        "holds the sum of the best list for every possible number of hits.",
    ),
)


# 03.2: a paired interval ---------------------------------------------------------------------------------------------


def _percentile(values: list[float], share: float) -> float:
    """Between two neighbours in order the straight line, as NumPy has it."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def _interval_by_loops(one: Any, other: Any, drawn: Any) -> list[float]:
    deltas = [a - b for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    means = [math.fsum(deltas[person] for person in row) / len(row) for row in drawn.tolist()]
    return [_percentile(means, 0.025), _percentile(means, 0.975)]


def _ends(values: Any, low: float = 2.5, high: float = 97.5) -> NDArray:
    return np.percentile(values, [low, high])


def _people(seed: int, draws: int = DRAWS, people: int = PEOPLE) -> dict[str, NDArray]:
    """Two models that agree on whom it is easy to recommend to, and rows of drawn people."""
    generator = np.random.default_rng(seed)
    easy = generator.random(people)
    one, other = (easy + 0.1 * generator.random(people) for _ in range(2))
    return dict(one=one + 0.05, other=other, drawn=generator.integers(people, size=(draws, people)))


PAIRED = Exercise(
    name="03.2",
    title="A paired interval",
    verb="compare",
    minutes=7,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="two people, three draws",
            arguments=dict(
                one=np.array([0.5, 1.0]), other=np.array([0.25, 0.25]), drawn=np.array([[0, 0], [0, 1], [1, 1]])
            ),
        ),
        Case(
            name="one model is better by the same for everybody",
            arguments=dict(
                one=np.array([0.3, 0.6, 0.9]),
                other=np.array([0.2, 0.5, 0.8]),
                drawn=np.array([[0, 1, 2], [0, 0, 0], [2, 2, 1], [1, 0, 1]]),
            ),
        ),
        Case(name=f"{PEOPLE} people, {DRAWS} draws", arguments=_people(1)),
    ),
    oracle=_interval_by_loops,
    solution=lambda one, other, drawn: _ends((one - other)[drawn].mean(axis=1)),
    misconceptions=(
        Misconception(
            name="ends of two intervals subtracted",
            function=lambda one, other, drawn: _ends(one[drawn].mean(axis=1)) - _ends(other[drawn].mean(axis=1)),
            sentence="The ends of two intervals were subtracted. Subtract person by person first; then draw people and "
            "take the interval of the mean difference.",
        ),
        Misconception(
            name="two intervals as far apart as possible",
            function=lambda one, other, drawn: _ends(one[drawn].mean(axis=1)) - _ends(other[drawn].mean(axis=1))[::-1],
            sentence="This runs from one's low end minus other's high end to one's high end minus other's low end, as "
            "if the two models met different people. They met the same ones: subtract person by person first.",
        ),
        Misconception(
            name="spread over people",
            function=lambda one, other, drawn: _ends(one - other),
            sentence="These are the percentiles of the differences of single people. They say how people differ; the "
            "interval of the mean comes from the means of the drawn rows.",
        ),
        Misconception(
            name="spread over all drawn people",
            function=lambda one, other, drawn: _ends((one - other)[drawn]),
            sentence="These are percentiles over all drawn people. Take the mean of each row of `drawn` first.",
        ),
        Misconception(
            name="90 %",
            function=lambda one, other, drawn: _ends((one - other)[drawn].mean(axis=1), 5.0, 95.0),
            sentence="Between the 5th and the 95th percentile lie 90 %. A 95 % interval leaves 2.5 % on either side.",
        ),
        Misconception(
            name="the wrong way round",
            function=lambda one, other, drawn: _ends((other - one)[drawn].mean(axis=1)),
            sentence="This is other minus one. Above 0 should mean that `one` is better.",
        ),
        Misconception(
            name="unpaired draws",
            function=lambda one, other, drawn: _ends(
                one[drawn].mean(axis=1) - other[np.roll(drawn, 1, axis=0)].mean(axis=1)
            ),
            sentence="The two models were given different drawn people. Draw a person and take both of their values.",
        ),
    ),
    hints=(
        "Read again what is drawn: people, not values of a model. What does one drawn person bring along?",
        "First one difference a person, then the mean of each drawn row, last the two percentiles of those means.",
        "Begin with `difference = one - other`; `difference[drawn]` has the shape of `drawn`.",
    ),
)


# 03.3: EASE ----------------------------------------------------------------------------------------------------------


def _inverse_by_loops(matrix: list[list[float]]) -> list[list[float]]:
    """Gauss and Jordan, with the largest pivot."""
    n = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(n))] for i, row in enumerate(matrix)]
    for place in range(n):
        pivot = max(range(place, n), key=lambda i: abs(rows[i][place]))
        rows[place], rows[pivot] = rows[pivot], rows[place]
        rows[place] = [value / rows[place][place] for value in rows[place]]
        for i in range(n):
            if i != place:
                factor = rows[i][place]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[place], strict=True)]
    return [row[n:] for row in rows]


def _ease_by_loops(gram: Any, regularisation: float) -> list[list[float]]:
    given = [[value + regularisation * (i == j) for j, value in enumerate(row)] for i, row in enumerate(gram.tolist())]
    p = _inverse_by_loops(given)
    return [[0.0 if i == j else -p[i][j] / p[j][j] for j in range(len(p))] for i in range(len(p))]


def _inverse(gram: Any, regularisation: float) -> NDArray:
    inverse: NDArray = np.linalg.inv(gram + regularisation * np.eye(len(gram)))
    return inverse


def _without_diagonal(weights: NDArray) -> NDArray:
    return weights * (1 - np.eye(len(weights)))


def _gram(people: int, films: int, seed: int) -> NDArray:
    met = (np.random.default_rng(seed).random((people, films)) < np.linspace(0.2, 0.7, films)).astype(float)
    gram: NDArray = met.T @ met
    return gram


EASE = Exercise(
    name="03.3",
    title="Spot the bug in EASE",
    verb="repair",
    minutes=8,
    difficulty=3,
    core=False,
    cases=(
        Case(name="two films", arguments=dict(gram=np.array([[2.0, 1.0], [1.0, 3.0]]), regularisation=1.0)),
        Case(
            name="three films",
            arguments=dict(
                gram=np.array([[3.0, 2.0, 0.0], [2.0, 4.0, 1.0], [0.0, 1.0, 2.0]]),
                regularisation=0.5,
            ),
        ),
        Case(name="12 films, 60 people", arguments=dict(gram=_gram(PEOPLE, 12, 2), regularisation=10.0)),
    ),
    oracle=_ease_by_loops,
    solution=lambda gram, regularisation: _without_diagonal(
        -_inverse(gram, regularisation) / np.diag(_inverse(gram, regularisation))
    ),
    misconceptions=(
        Misconception(
            name="as it stands",
            function=lambda gram, regularisation: _inverse(gram, regularisation) @ gram,
            sentence="This is the function as it stands: an item may explain itself, so its own weight is the largest "
            "and nothing is learned about the others.",
        ),
        Misconception(
            name="diagonal deleted afterwards",
            function=lambda gram, regularisation: _without_diagonal(_inverse(gram, regularisation) @ gram),
            sentence="The diagonal was deleted from the solution of the wrong problem. The other weights were fitted "
            "as helpers of the item itself; without it they must be fitted anew, which is what the division by P[j, j] "
            "does.",
        ),
        Misconception(
            name="divided by rows",
            function=lambda gram, regularisation: _without_diagonal(
                -_inverse(gram, regularisation) / np.diag(_inverse(gram, regularisation))[:, None]
            ),
            sentence="Row i was divided by P[i, i]. Column j belongs to the item j that is explained: divide column j "
            "by P[j, j].",
        ),
        Misconception(
            name="sign",
            function=lambda gram, regularisation: _without_diagonal(
                _inverse(gram, regularisation) / np.diag(_inverse(gram, regularisation))
            ),
            sentence="The sign is turned around: off the diagonal B[i, j] = -P[i, j] / P[j, j].",
        ),
        Misconception(
            name="diagonal of minus 1",
            function=lambda gram, regularisation: (
                -_inverse(gram, regularisation) / np.diag(_inverse(gram, regularisation))
            ),
            sentence="Off the diagonal all is right, but the diagonal is -1. It has to be 0.",
        ),
        Misconception(
            name="not divided",
            function=lambda gram, regularisation: _without_diagonal(-_inverse(gram, regularisation)),
            sentence="The columns of P were not divided by P[j, j].",
        ),
        Misconception(
            name="regularisation forgotten",
            function=lambda gram, regularisation: _without_diagonal(
                -np.linalg.inv(gram) / np.diag(np.linalg.inv(gram))
            ),
            sentence="The regularisation was not added to the diagonal of the Gram matrix before it was inverted.",
        ),
    ),
    hints=(
        "Look at the diagonal of what the function returns now. What does it mean that an item recommends itself?",
        "P is the inverse of the Gram matrix with the regularisation on its diagonal. The answer is -P with each "
        "column divided by its own diagonal value, and a diagonal of 0.",
        "Begin with `P = np.linalg.inv(gram + regularisation * np.eye(len(gram)))`; dividing a matrix by `np.diag(P)` "
        "divides column j by P[j, j]. `np.fill_diagonal(B, 0)` sets a diagonal.",
    ),
)


# 03.4: a bug in a recall ---------------------------------------------------------------------------------------------


def _recall_by_loops(scores: Any, known: Any, held_out: Any, k: int) -> list[float]:
    values = []
    for row, seen, wanted in zip(scores.tolist(), known.tolist(), held_out.tolist(), strict=True):
        candidates = [item for item in range(len(row)) if not seen[item]]
        best = sorted(candidates, key=lambda item: -row[item])[:k]
        values.append(sum(wanted[item] for item in best) / sum(wanted))
    return values


def _top(scores: Any, k: int) -> NDArray:
    """True at the k largest of each row."""
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen


def _catalogue(seed: int) -> dict[str, Any]:
    """Distinct scores that are high for what is known; everybody has something held out."""
    generator = np.random.default_rng(seed)
    part = generator.choice(3, size=(PEOPLE, FILMS), p=[0.5, 0.25, 0.25])
    part[:, :2] = 2, 0
    scores = generator.permuted(np.tile(np.arange(float(FILMS)), (PEOPLE, 1)), axis=1) + FILMS * (part == 1)
    return dict(scores=scores, known=part == 1, held_out=part == 2, k=5)


RECALL = Exercise(
    name="03.4",
    title="Spot the bugs in a recall",
    verb="find",
    minutes=10,
    difficulty=2,
    core=False,
    cases=(
        Case(
            name="one person, the known film has the best score",
            arguments=dict(
                scores=np.array([[9.0, 3.0, 2.0, 1.0]]),
                known=np.array([[True, False, False, False]]),
                held_out=np.array([[False, True, False, False]]),
                k=1,
            ),
        ),
        Case(
            name="two people, more held out than shown",
            arguments=dict(
                scores=np.array([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]]),
                known=np.array([[True, False, False, False, False], [False, True, False, False, False]]),
                held_out=np.array([[False, True, False, True, True], [True, False, False, True, False]]),
                k=2,
            ),
        ),
        Case(name=f"{PEOPLE} people, {FILMS} films", arguments=_catalogue(3)),
    ),
    oracle=_recall_by_loops,
    solution=lambda scores, known, held_out, k: (
        (_top(np.where(known, -np.inf, scores), k) & held_out).sum(axis=1) / held_out.sum(axis=1)
    ),
    misconceptions=(
        Misconception(
            name="as it stands",
            function=lambda scores, known, held_out, k: (_top(scores, k) & held_out).sum(axis=1) / k,
            sentence="This is the function as it stands. Two things are wrong: what may stand in the list, and what "
            "the hits are divided by.",
        ),
        Misconception(
            name="known films shown",
            function=lambda scores, known, held_out, k: (_top(scores, k) & held_out).sum(axis=1) / held_out.sum(axis=1),
            sentence="Films that the person knows still take places in the list. They are no candidates: give them the "
            "score minus infinity first.",
        ),
        Misconception(
            name="divided by k",
            function=lambda scores, known, held_out, k: (
                (_top(np.where(known, -np.inf, scores), k) & held_out).sum(axis=1) / k
            ),
            sentence="The hits were divided by k. That is the precision; recall divides by the person's held-out "
            "films.",
        ),
        Misconception(
            name="capped",
            function=lambda scores, known, held_out, k: (
                (_top(np.where(known, -np.inf, scores), k) & held_out).sum(axis=1) / np.minimum(k, held_out.sum(axis=1))
            ),
            sentence="The hits were divided by min(k, held-out films). That is the capped recall; it is a fair metric "
            "with another name.",
        ),
        Misconception(
            name="held-out films shown as known",
            function=lambda scores, known, held_out, k: (
                (_top(np.where(known | ~held_out, -np.inf, scores), k) & held_out).sum(axis=1) / held_out.sum(axis=1)
            ),
            sentence="Only held-out films were ranked, so every place of the list is a hit. The candidates are all "
            "films that the person does not know.",
        ),
        Misconception(
            name="hit rate",
            function=lambda scores, known, held_out, k: (
                (_top(np.where(known, -np.inf, scores), k) & held_out).any(axis=1).astype(float)
            ),
            sentence="This is 1 wherever there is a hit, the hit rate. Recall counts the hits.",
        ),
    ),
    hints=(
        "Walk through the first case by hand: which film should stand in a list of one, and which one does?",
        "The list may hold only films that are not known. And recall is the share of what could be found, not of what "
        "was shown.",
        "Begin with `scores = np.where(known, -np.inf, scores)`, and look at the last line next.",
    ),
)


EXERCISES = (NDCG, PAIRED, EASE, RECALL)
