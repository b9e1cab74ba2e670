"""The exercises of chapter 11: reading some lists only, an end-to-end recall, one more dimension, scores by codes.

Each task stands in the notebook; here is what its check knows. The oracles are loops over Python numbers and use
nothing of the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

LISTS, ITEMS, DIM = 20, 400, 8
"""Of the largest cases."""


def _normal(*shape: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


# 11.1: which items are read -------------------------------------------------------------------------------------------


def _read_by_loops(query: Any, centroids: Any, list_of: Any, probes: int) -> list[bool]:
    scores = [math.fsum(a * b for a, b in zip(query, centroid, strict=True)) for centroid in centroids.tolist()]
    best = sorted(range(len(scores)), key=lambda number: -scores[number])[:probes]
    return [int(number) in best for number in list_of]


def _reads(order: Callable[[Any, Any], Any]) -> Callable[..., NDArray[np.bool_]]:
    """Reading the first lists by some other order than that of the scores."""
    return lambda query, centroids, list_of, probes: np.isin(list_of, np.argsort(order(query, centroids))[:probes])


def _lists_case(name: str, query: list[float], centroids: list[list[float]], list_of: list[int], probes: int) -> Case:
    vectors = dict(query=np.array(query), centroids=np.array(centroids))
    return Case(name=name, arguments=dict(**vectors, list_of=np.array(list_of), probes=probes))


THREE = [[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]

SOME_LISTS = Exercise(
    name="11.1",
    title="Read only some lists",
    verb="search",
    minutes=5,
    difficulty=1,
    core=True,
    cases=(
        _lists_case("three lists, one is read", [0.0, 1.0], THREE, [0, 1, 2, 1, 0], 1),
        _lists_case("three lists, two are read", [-0.8, 0.6], THREE, [0, 1, 2, 1, 0], 2),
        _lists_case("a long centroid", [1.0, 0.0], [[0.9, 0.0], [2.0, 2.0], [0.0, 1.0]], [2, 1, 0, 0, 1], 1),
        Case(
            name=f"{LISTS} lists, four are read",
            arguments=dict(
                query=_normal(DIM, seed=0),
                centroids=_normal(LISTS, DIM, seed=1),
                list_of=np.random.default_rng(2).integers(LISTS, size=ITEMS),
                probes=4,
            ),
        ),
    ),
    oracle=_read_by_loops,
    solution=lambda query, centroids, list_of, probes: np.isin(list_of, np.argsort(-centroids @ query)[:probes]),
    misconceptions=(
        Misconception(
            name="the farthest lists",
            function=_reads(lambda query, centroids: centroids @ query),
            sentence="These are the lists with the lowest scores. `np.argsort` begins with the smallest value.",
        ),
        Misconception(
            name="one list only",
            function=lambda query, centroids, list_of, probes: list_of == (centroids @ query).argmax(),
            sentence="Only the best list is read, whatever `probes` says.",
        ),
        Misconception(
            name="the first lists",
            function=lambda query, centroids, list_of, probes: list_of < probes,
            sentence="The lists 0 to `probes` - 1 are read for every query. Which lists are read depends on the query.",
        ),
        Misconception(
            name="the nearest centroids",
            function=_reads(lambda query, centroids: np.square(centroids - query).sum(1)),
            sentence="The lists were chosen by the distance of their centroids. The score here is the inner product, "
            "and a long centroid can win although it is far away.",
        ),
        Misconception(
            name="lists instead of items",
            function=lambda query, centroids, list_of, probes: np.isin(
                np.arange(len(centroids)), np.argsort(-centroids @ query)[:probes]
            ),
            sentence="There is one truth value for each list. One step is missing: each item stands in a list, and is "
            "read if its list is.",
        ),
    ),
    hints=(
        "Which lists are read has nothing to do with the items: only the centroids meet the query.",
        "Give each list a score, take the numbers of the `probes` best lists, and ask for each item whether the number "
        "of its list is among them.",
        "Begin with `scores = centroids @ query`, and then `np.argsort(-scores)[:probes]`.",
    ),
)


# 11.2: three recalls --------------------------------------------------------------------------------------------------


def _recalls_by_loops(exact: Any, found: Any, wanted: Any) -> list[float]:
    sums, people = [0.0, 0.0, 0.0], len(exact)
    for true, mine, held_out in zip(exact.tolist(), found.tolist(), wanted.tolist(), strict=True):
        sums[0] += sum(item in true for item in held_out) / len(held_out)
        sums[1] += sum(item in mine for item in true) / len(true)
        sums[2] += sum(item in mine for item in held_out) / len(held_out)
    return [one / people for one in sums]


def _within(these: Any, those: Any) -> NDArray[np.bool_]:
    """For each person, which of their items in the first array are among those in the second."""
    return (these[:, :, None] == those[:, None, :]).any(2)


def _recalls(exact: Any, found: Any, wanted: Any) -> list[float]:
    return [float(_within(*two).mean()) for two in ((wanted, exact), (exact, found), (wanted, found))]


def _product(exact: Any, found: Any, wanted: Any) -> list[float]:
    model, index, _ = _recalls(exact, found, wanted)
    return [model, index, model * index]


def _of_the_hits(exact: Any, found: Any, wanted: Any) -> list[float]:
    model, _, both = _recalls(exact, found, wanted)
    hits = _within(exact, wanted)
    return [model, float((hits & _within(exact, found)).sum() / hits.sum()), both]


def _drawn(seed: int, length: int, people: int = 30, items: int = 40) -> NDArray[np.int64]:
    """For each person different items."""
    generator = np.random.default_rng(seed)
    return np.array([generator.permutation(items)[:length] for _ in range(people)])


def _half_kept() -> dict[str, NDArray[np.int64]]:
    """Many people, of whose exact list an index finds a part, mostly in other places."""
    exact, other = _drawn(3, 10), _drawn(4, 10)
    found = np.array([list(dict.fromkeys([*a[::-2], *b]))[:10] for a, b in zip(exact, other, strict=True)])
    return dict(exact=exact, found=found, wanted=_drawn(5, 4))


THREE_RECALLS = Exercise(
    name="11.2",
    title="Three recalls",
    verb="split",
    minutes=7,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="one person, the index finds everything in another order",
            arguments=dict(exact=np.array([[3, 1, 4]]), found=np.array([[1, 4, 3]]), wanted=np.array([[4, 9]])),
        ),
        Case(
            name="one person, a hit is missed",
            arguments=dict(exact=np.array([[3, 1, 4]]), found=np.array([[3, 1, 7]]), wanted=np.array([[4, 3]])),
        ),
        Case(
            name="two people, for one of them a hit comes in that was not in the exact list",
            arguments=dict(
                exact=np.array([[3, 1], [5, 6]]), found=np.array([[3, 8], [6, 5]]), wanted=np.array([[8, 3], [5, 2]])
            ),
        ),
        Case(name="30 people", arguments=_half_kept()),
    ),
    oracle=_recalls_by_loops,
    solution=_recalls,
    misconceptions=(
        Misconception(
            name="a product",
            function=_product,
            sentence="The end-to-end recall was computed as a product. It has to be counted: of the wanted items, how "
            "many are in the list that was found? The product is an estimate.",
        ),
        Misconception(
            name="place by place",
            function=lambda exact, found, wanted: [
                _recalls(exact, found, wanted)[0],
                (exact == found).mean(),
                _recalls(exact, found, wanted)[2],
            ],
            sentence="The lists were compared place by place. An item that the index finds counts in whatever place.",
        ),
        Misconception(
            name="divided by the length of the list",
            function=lambda exact, found, wanted: [
                _within(exact, wanted).mean(),
                _within(exact, found).mean(),
                _within(found, wanted).mean(),
            ],
            sentence="The hits were divided by the length of the list, which gives a precision. A recall divides by "
            "the number of wanted items.",
        ),
        Misconception(
            name="recall of the hits",
            function=_of_the_hits,
            sentence="The recall of the index was counted on the hits alone. An index knows nothing of what is wanted: "
            "its recall counts all items of the exact list.",
        ),
        Misconception(
            name="whether there is a hit",
            function=lambda exact, found, wanted: [
                _within(wanted, exact).any(1).mean(),
                _within(exact, found).mean(),
                _within(wanted, found).any(1).mean(),
            ],
            sentence="This asks whether there is a hit at all. Recall is the share of the wanted items.",
        ),
    ),
    hints=(
        "Say for each of the three: a share of which items, that are found in which list?",
        "Model: of the wanted items, those in the exact list. Index: of the exact list, what was found. End to end: of "
        "the wanted items, those that were found. Each is a share a person, then the mean.",
        "Begin with `these[:, :, None] == those[:, None, :]`: where it is true for one item at least of the other row, "
        "the item was found. All three recalls come from that line, with other arrays.",
    ),
)


# 11.3: one more dimension ---------------------------------------------------------------------------------------------


def _longer_by_loops(vectors: Any) -> list[list[float]]:
    rows = vectors.tolist()
    squares = [math.fsum(one * one for one in row) for row in rows]
    return [[*row, math.sqrt(max(squares) - square)] for row, square in zip(rows, squares, strict=True)]


def _squares(vectors: Any) -> NDArray[np.float64]:
    return np.square(vectors).sum(1, keepdims=True)


def _missing(vectors: Any) -> NDArray[np.float64]:
    squares = _squares(vectors)
    return np.sqrt(squares.max() - squares)


ONE_LONGER = Exercise(
    name="11.3",
    title="One more dimension",
    verb="prepare",
    minutes=6,
    difficulty=2,
    core=False,
    cases=(
        Case(name="lengths 5 and 3", arguments=dict(vectors=np.array([[3.0, 4.0], [0.0, 3.0]]))),
        Case(name="lengths 2, 2 and 0", arguments=dict(vectors=np.array([[0.0, 2.0], [2.0, 0.0], [0.0, 0.0]]))),
        Case(name=f"{ITEMS} vectors of {DIM} numbers", arguments=dict(vectors=_normal(ITEMS, DIM, seed=6))),
    ),
    oracle=_longer_by_loops,
    solution=lambda vectors: np.hstack([vectors, _missing(vectors)]),
    misconceptions=(
        Misconception(
            name="root forgotten",
            function=lambda vectors: np.hstack([vectors, _missing(vectors) ** 2]),
            sentence="The root is missing: the square of the new number, and not the number, has to fill the squared "
            "length up to that of the longest.",
        ),
        Misconception(
            name="difference of the lengths",
            function=lambda vectors: np.hstack(
                [vectors, np.sqrt(_squares(vectors)).max() - np.sqrt(_squares(vectors))]
            ),
            sentence="This is the difference of the two lengths. In a right-angled triangle squares are subtracted, "
            "and the root comes last.",
        ),
        Misconception(
            name="length 1",
            function=lambda vectors: np.hstack(
                [vectors / np.maximum(np.sqrt(_squares(vectors)), 1e-12), 0 * vectors[:, :1]]
            ),
            sentence="Every vector was scaled to length 1. That forgets how long it was, and the order becomes that of "
            "the cosine.",
        ),
        Misconception(
            name="the new number first",
            function=lambda vectors: np.hstack([_missing(vectors), vectors]),
            sentence="The new number stands in front. The query gets its 0 at the end, so that is where this one goes.",
        ),
        Misconception(
            name="the same length for all",
            function=lambda vectors: np.hstack([vectors, 0 * vectors[:, :1] + np.sqrt(_squares(vectors).max())]),
            sentence="Every vector got the largest length as its new number. What it needs is what its own length "
            "lacks.",
        ),
    ),
    hints=(
        "Draw a right-angled triangle: the vector is one short side, the new number the other one, and all items shall "
        "have the same long side.",
        "By Pythagoras the new number is the root of the largest squared length minus the item's own squared length.",
        "Begin with `np.square(vectors).sum(axis=1, keepdims=True)`, and take its largest value minus each of them.",
    ),
)


# 11.4: scores by codes ------------------------------------------------------------------------------------------------


def _by_codes_by_loops(query: Any, centroids: Any, codes: Any) -> list[float]:
    parts, _, width = centroids.shape
    pieces = [query[part * width : (part + 1) * width].tolist() for part in range(parts)]
    rebuilt = [[centroids[part, code].tolist() for part, code in enumerate(row)] for row in codes.tolist()]
    return [
        math.fsum(a * b for piece, mine in zip(pieces, row, strict=True) for a, b in zip(piece, mine, strict=True))
        for row in rebuilt
    ]


def _table(query: Any, centroids: Any) -> NDArray[np.float64]:
    return np.einsum("pd,pcd->pc", query.reshape(len(centroids), -1), centroids)


def _summed(table: Any, codes: Any) -> NDArray[np.float64]:
    return table[np.arange(len(table)), codes].sum(1)


def _codes_case(name: str, items: int, parts: int, number: int, width: int, seed: int) -> Case:
    vectors = dict(query=_normal(parts * width, seed=seed), centroids=_normal(parts, number, width, seed=seed + 1))
    codes = np.random.default_rng(seed + 2).integers(number, size=(items, parts))
    return Case(name=name, arguments=dict(**vectors, codes=codes))


BY_CODES = Exercise(
    name="11.4",
    title="Scores from a table",
    verb="score",
    minutes=10,
    difficulty=3,
    core=False,
    cases=(
        Case(
            name="one item, two parts, two centroids for each",
            arguments=dict(
                query=np.array([1.0, 2.0, 3.0, 4.0]),
                centroids=np.array([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 1.0], [-1.0, 1.0]]]),
                codes=np.array([[1, 0]]),
            ),
        ),
        _codes_case("three items, two parts", items=3, parts=2, number=4, width=3, seed=7),
        _codes_case(f"{ITEMS} items, four parts", items=ITEMS, parts=4, number=16, width=2, seed=10),
    ),
    oracle=_by_codes_by_loops,
    solution=lambda query, centroids, codes: _summed(_table(query, centroids), codes),
    misconceptions=(
        Misconception(
            name="every second number",
            function=lambda query, centroids, codes: _summed(
                np.einsum("pd,pcd->pc", query.reshape(-1, len(centroids)).T, centroids), codes
            ),
            sentence="The query was cut the other way: a part is a run of neighbouring numbers, the first part the "
            "first of them.",
        ),
        Misconception(
            name="one table for all parts",
            function=lambda query, centroids, codes: _table(query, centroids)[0][codes].sum(1),
            sentence="The table of the first part was used for all parts. Every part has centroids and a table of its "
            "own.",
        ),
        Misconception(
            name="a mean",
            function=lambda query, centroids, codes: _summed(_table(query, centroids), codes) / len(centroids),
            sentence="This is the mean over the parts. The inner product of the whole vectors is the sum of those of "
            "the parts.",
        ),
        Misconception(
            name="distances",
            function=lambda query, centroids, codes: _summed(
                np.square(query.reshape(len(centroids), 1, -1) - centroids).sum(2), codes
            ),
            sentence="The table holds squared distances. The score here is the inner product.",
        ),
        Misconception(
            name="the best centroid",
            function=lambda query, centroids, codes: _summed(
                _table(query, centroids), 0 * codes + np.argmax(_table(query, centroids), axis=1)
            ),
            sentence="Every item got the best centroid of each part. An item has those that its code names.",
        ),
    ),
    hints=(
        "How many different inner products can a part of the query have with the parts of items? As many as the part "
        "has centroids.",
        "Make a table with a row a part and a column a centroid. The score of an item is the sum over the parts of the "
        "cell that its code names.",
        "Begin with `query.reshape(len(centroids), -1)`, a row a part. A loop over the parts may do the rest.",
    ),
)


EXERCISES = (SOME_LISTS, THREE_RECALLS, ONE_LONGER, BY_CODES)
