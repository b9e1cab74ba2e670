"""The exact top k, a block of scores at a time: what `ranking.py` promises, kept to the last tie.

    scores or vectors -> maxima of chunks -> a floor that k items reach -> the few items above it -> sorted

`rank_scores` ranks scores that the caller makes, `rank_vectors` inner products, in the order of float64. Neither ever
holds more than a block of scores, so the memory does not depend on the number of queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray
from torch import Tensor

from twotower_lib.errors import ShapeError
from twotower_lib.ranking import NOTHING, Ragged, Recommendations, Rows, blocks

CHUNK = 64
"""Items, at most, whose maximum is taken together before the k best of the maxima are looked at."""

BLOCK_CELLS = 1_000_000
"""Scores held at once: 4 MB of float32, small enough to stay in a processor's cache."""

TILE = (256, 4096)
"""Queries and items whose inner products are made together: BLOCK_CELLS in the shape that a matmul likes best."""

MANY_TILES = 16
"""From so many tiles of items on, chunks are sized as if two were met at once, twice as long: only the first tile has a
low floor, and it weighs little among many."""


def rank_scores(
    score_block: Callable[[int, int, Tensor], None],
    n_queries: int,
    n_items: int,
    k: int,
    exclude: Ragged | None = None,
) -> Recommendations:
    """The exact top k where scores are made a block of queries at a time.

    Args:
        score_block: called as `score_block(start, stop, out)`; fills `out`, float32 of shape (stop - start, n_items),
            with the scores of these queries. The same memory is handed out again and again, so that the memory used
            does not depend on the number of queries.
        n_queries: how many queries there are.
        n_items: how many items each of them ranks.
        k: how long the lists are, 1 or more.
        exclude: for each query the item rows that must not appear.

    Raises:
        ShapeError: k is below 1, `exclude` does not fit, or a score is not a number.
    """
    check_request(n_queries, n_items, k, exclude)
    rows_a_block = max(1, min(n_queries, BLOCK_CELLS // max(n_items, 1)))
    # Padding to whole chunks lets the maxima be taken on a view; the padding itself stays at -inf.
    buffer = torch.full((rows_a_block, _padded(n_items)), -torch.inf)
    answer = no_answer(n_queries, k)
    for start, stop in blocks(n_queries, rows_a_block):
        block = buffer[: stop - start]
        score_block(start, stop, block[:, :n_items])
        if exclude is not None:
            _Struck(exclude.slice(start, stop)).strike_out(block, 0)
        scores, items = top_k(block, k)
        answer.items[start:stop], answer.scores[start:stop] = items.numpy(), scores.numpy()
    return answer


def rank_vectors(
    queries: Float32[Tensor, "queries dim"],
    vectors: Float32[Tensor, "items dim"],
    k: int,
    exclude: Ragged | None = None,
    longest: float | None = None,
) -> Recommendations:
    """The exact top k by inner product, in the order of the products in float64.

    Products are made in float32, a tile at a time (`TILE`), so that the memory used depends neither on the number of
    queries nor on the size of the catalogue. Every item whose float32 score lies so close to the k best that rounding
    may have hidden it (`rounding`) is scored again in float64. So the order is that of float64, also where the scores
    of the answer, which are float32, are equal; and it is the same whatever the shape of the blocks: a batch gives what
    its queries give one by one.

    Args:
        queries: one float32 vector a query.
        vectors: one float32 vector an item; row i is item i.
        k: how long the lists are, 1 or more.
        exclude: for each query the item rows that must not appear.
        longest: the largest norm of an item vector, where it is known already (`longest_norm`).

    Raises:
        ShapeError: k is below 1, `exclude` does not fit, or the products do not fit into float32.
    """
    check_request(len(queries), len(vectors), k, exclude)
    longest = longest_norm(vectors) if longest is None else longest
    slack = (2 * rounding(queries, longest)).astype(np.float32)
    # One tile for all, so that no two are ever held; a view of its start serves the smaller ones at the edges.
    tile_width = min(TILE[1], _padded(len(vectors)))
    buffer = torch.empty(min(TILE[0], len(queries)) * tile_width)
    searched = 2 * TILE[1] if len(vectors) >= MANY_TILES * TILE[1] else tile_width
    answer = no_answer(len(queries), k)
    for start, stop in blocks(len(queries), TILE[0]):
        block = queries[start:stop]
        struck = None if exclude is None else _Struck(exclude.slice(start, stop))
        shortlist = _Shortlist(len(block), searched, k, slack[start:stop], partial(inner_products, block, vectors))
        for first, last in blocks(len(vectors), TILE[1]):
            width = _padded(last - first)
            tile = buffer[: len(block) * width].view(len(block), width)
            torch.mm(block, vectors[first:last].T, out=tile[:, : last - first])
            tile[:, last - first :] = -torch.inf
            if struck is not None:
                struck.strike_out(tile, first)
            shortlist.add(tile, first)
        _write(answer, start, shortlist.best())
    return answer


def rank_rows(
    queries: Float32[Tensor, "queries dim"],
    vectors: Float32[Tensor, "items dim"],
    rows: Int[np.ndarray, " rows"],
    k: int,
    exclude: Ragged | None = None,
    longest: float | None = None,
) -> Recommendations:
    """`rank_vectors` over some rows of the catalogue only, given upwards; ties by row, as there."""
    check_request(len(queries), len(vectors), k, exclude)
    if not len(rows):
        return no_answer(len(queries), k)
    among = vectors.index_select(0, torch.from_numpy(rows))
    found = rank_vectors(queries, among, k, None if exclude is None else _among(rows, exclude), longest)
    return Recommendations(np.where(found.items == NOTHING, NOTHING, rows[found.items]), found.scores)


def _among(rows: Rows, lists: Ragged) -> Ragged:
    """Lists of rows as lists of places in `rows`, without what is not there."""
    place = np.searchsorted(rows, lists.values).clip(max=len(rows) - 1)
    there = rows[place] == lists.values
    return Ragged.grouped(lists.owners[there], place[there], len(lists))


def top_k(
    scores: Float[Tensor, "queries items"], k: int
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """The k largest scores of each row, best first, ties by column; -inf and column -1 where fewer are above -inf.

    The k-th largest of the maxima of chunks of columns is a floor that k scores reach at least, so only the few cells
    that reach it are sorted.

    Raises:
        ShapeError: a score is not a number.

    >>> top_k(torch.tensor([[1.0, 3.0, 3.0]]), 2)
    (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    missing = _padded(scores.shape[1]) - scores.shape[1]
    if missing:
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    shortlist = _Shortlist(len(scores), scores.shape[1], k)
    shortlist.add(scores, 0)
    answer = no_answer(len(scores), k)
    _write(answer, 0, shortlist.best())
    return torch.from_numpy(answer.scores), torch.from_numpy(answer.items)


def longest_norm(vectors: Float[Tensor, "items dim"]) -> float:
    """The largest Euclidean norm of a vector, in float64."""
    norms = (float(vectors[start:stop].double().norm(dim=1).max()) for start, stop in blocks(len(vectors), TILE[1]))
    return max(norms, default=0.0)


def rounding(queries: Float[Tensor, "queries dim"], longest: float) -> Float[np.ndarray, " queries"]:
    """How far a float32 inner product of each query can lie from the true one, whatever the order of its sum.

    A sum of n products of two float32 numbers is off by at most n u / (1 - n u) times the sum of their absolute
    values, u = 2 ** -24 (Higham 2002, Accuracy and Stability of Numerical Algorithms, eq. 3.5), and that sum is at
    most the product of the norms (Cauchy-Schwarz). Two more u cover the steps from here to a comparison in float32.

    Args:
        queries: the query vectors.
        longest: the largest norm of an item vector.

    Raises:
        ShapeError: the products may not fit into float32.
    """
    bound = queries.double().norm(dim=1).numpy() * longest
    if not (bound < torch.finfo(torch.float32).max).all():
        raise ShapeError(
            f"vectors whose inner products may reach {bound.max():.3g}",
            "inner products that fit into float32",
            "scale the vectors, or look for the step in training where they grew",
        )
    return (queries.shape[1] + 2) * 2.0**-24 * bound


def inner_products(
    queries: Float[Tensor, "queries dim"],
    vectors: Float[Tensor, "items dim"],
    row: Int[np.ndarray, " cells"],
    item: Int[np.ndarray, " cells"],
) -> Float[np.ndarray, " cells"]:
    """In float64, the inner product of the query in each `row` with the `item` beside it."""
    products = np.empty(len(row))
    for start, stop in blocks(len(row), max(1, BLOCK_CELLS // max(queries.shape[1], 1))):
        left = queries.index_select(0, torch.from_numpy(row[start:stop])).double()
        right = vectors.index_select(0, torch.from_numpy(item[start:stop]))
        products[start:stop] = left.mul_(right).sum(1).numpy()
    return products


def best_cells(
    row: Int[np.ndarray, " cells"], item: Int[np.ndarray, " cells"], score: Float[np.ndarray, " cells"], k: int
) -> Int[np.ndarray, " best"]:
    """Which cells are among the k best of their row, in the order (row up, score down, item up)."""
    order = np.lexsort((item, -score, row))
    return order[place_in_row(row[order]) < k]


def place_in_row(row: Rows) -> Rows:
    """For rows in ascending order, how many entries of the same row come before each one."""
    return np.arange(len(row)) - np.searchsorted(row, row)


@dataclass(frozen=True)
class _Cells:
    """Cells of a score matrix."""

    row: Rows
    item: Rows
    score: NDArray[np.floating]


@dataclass(frozen=True)
class _Chunks:
    """Chunks of a score matrix: their row, their first column, their largest score, their scores (chunks, columns)."""

    row: Rows
    first: Rows
    maximum: NDArray[np.float32]
    scores: NDArray[np.float32]


class _Shortlist:
    """The cells of a block of scores that may be among the k best of their row, met a tile of columns at a time.

    A floor that k cells of a row reach at least is the k-th largest of the maxima of chunks of its columns. Chunks
    whose maximum reaches the floor are put aside; of their cells only those that reach the last floor are sorted.

    Args:
        n_rows: queries in the block.
        width: columns, at least, over which the floor is found: those of a tile, or of the first two.
        k: how many cells of each row are wanted.
        slack: for each row, how much below another score a score may lie and still be the better one when looked at
            exactly (twice the rounding); without it, scores are taken as they are.
        exact: (row, item) -> the exact scores, float64.
    """

    def __init__(
        self,
        n_rows: int,
        width: int,
        k: int,
        slack: NDArray[np.float32] | None = None,
        exact: Callable[[Rows, Rows], NDArray[np.float64]] | None = None,
    ) -> None:
        self.k = k
        self.chunk = _chunk_size(width, k)
        self.slack = np.zeros(n_rows, dtype=np.float32) if slack is None else slack
        self.exact = exact
        self.maxima = np.full((n_rows, k), -np.inf, dtype=np.float32)
        self.floor = self.maxima[:, 0]
        self.aside: list[_Chunks] = []
        self.found = _Cells(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def add(self, tile: Tensor, first: int) -> None:
        """Look at the scores of the columns from `first` on; their number is a multiple of `CHUNK`."""
        chunks = tile.unflatten(1, (-1, self.chunk))
        maxima = chunks.amax(2).numpy()
        self._raise_floor(maxima)
        place = np.flatnonzero(maxima >= self.floor[:, None])
        row, column = np.divmod(place, maxima.shape[1])
        scores = chunks.flatten(0, 1).index_select(0, torch.from_numpy(place)).numpy()
        self.aside.append(_Chunks(row, first + column * self.chunk, maxima.ravel()[place], scores))
        if sum(part.scores.size for part in self.aside) > BLOCK_CELLS:
            self._settle()

    def _raise_floor(self, maxima: NDArray[np.float32]) -> None:
        both = np.concatenate([self.maxima, maxima], axis=1)
        both.partition(maxima.shape[1], axis=1)
        self.maxima = both[:, -self.k :]
        if np.isnan(self.maxima).any():
            raise ShapeError("a score that is not a number (NaN)", "numbers", "look for the step where it arose")
        # -inf, the score of what is excluded or not there, never reaches the floor.
        self.floor = np.maximum(self.maxima[:, 0] - self.slack, np.finfo(np.float32).min)

    def best(self) -> _Cells:
        """The k best cells of each row with their exact scores, in the order (row up, score down, item up)."""
        if self.aside:
            self._settle()
        return self.found

    def _settle(self) -> None:
        """Sort what was put aside into the cells found so far, and keep the k best of each row."""
        new = self._cells()
        if self.exact is not None:
            new = _Cells(new.row, new.item, self.exact(new.row, new.item))
        row, item, score = (np.concatenate(two) for two in zip(_columns(self.found), _columns(new), strict=True))
        best = best_cells(row, item, score, self.k)
        self.found, self.aside = _Cells(row[best], item[best], score[best]), []

    def _cells(self) -> _Cells:
        """The cells of the chunks put aside that reach the floor, by row and item."""
        row, first, maximum, scores = (np.concatenate(parts) for parts in zip(*map(_columns, self.aside), strict=True))
        order = np.flatnonzero(maximum >= self.floor[row])
        order = order[row[order].argsort(kind="stable")]
        row, first, scores = row[order], first[order], scores[order]
        chunk, place = np.divmod(np.flatnonzero(scores >= self.floor[row, None]), self.chunk)
        cells = _Cells(row[chunk], first[chunk] + place, scores[chunk, place])
        wanted = self._may_win(cells)
        return _Cells(cells.row[wanted], cells.item[wanted], cells.score[wanted])

    def _may_win(self, cells: _Cells) -> NDArray[np.bool_]:
        """Of the cells of a row that lie on an exact floor only the first k: the others lose every tie."""
        equal = (cells.score == self.floor[cells.row]) & (self.slack[cells.row] == 0)
        in_row = np.bincount(cells.row[equal], minlength=len(self.floor))
        before = in_row.cumsum() - in_row
        return ~equal | (equal.cumsum() - before[cells.row] <= self.k)


def _columns(record: Any) -> tuple[Any, ...]:
    """The fields of a record, not copied."""
    return tuple(getattr(record, field.name) for field in fields(record))


def _chunk_size(n_items: int, k: int) -> int:
    """A power of two, at most `CHUNK`, that leaves at least 2 k chunks where there are so many items."""
    size = CHUNK
    while size > 1 and n_items // size < 2 * k:
        size //= 2
    return size


def _padded(n_items: int) -> int:
    """So many items filled up to whole chunks."""
    return -(-n_items // CHUNK) * CHUNK


class _Struck:
    """The excluded cells of a block of queries, sorted by item."""

    def __init__(self, seen: Ragged) -> None:
        by_item = seen.values.argsort()
        self.row, self.item = seen.owners[by_item], seen.values[by_item]

    def strike_out(self, tile: Tensor, first: int) -> None:
        """Set to -inf what is excluded of the columns from `first` on."""
        start, stop = np.searchsorted(self.item, (first, first + tile.shape[1]))
        row, column = self.row[start:stop], self.item[start:stop] - first
        tile[torch.from_numpy(row), torch.from_numpy(column)] = -torch.inf


def no_answer(n_queries: int, k: int) -> Recommendations:
    """An answer in which nothing was found yet."""
    return Recommendations(
        np.full((n_queries, k), NOTHING, dtype=np.int64), np.full((n_queries, k), -np.inf, dtype=np.float32)
    )


def _write(answer: Recommendations, start: int, best: _Cells) -> None:
    """Write the best cells of a block of queries, the first of which is query `start`, into an answer."""
    place = place_in_row(best.row)
    answer.items[start + best.row, place] = best.item
    answer.scores[start + best.row, place] = best.score


def check_request(n_queries: int, n_items: int, k: int, exclude: Ragged | None) -> None:
    """Refuse a k below 1, an empty catalogue, and lists of exclusions that do not fit the queries or the catalogue."""
    if k < 1:
        raise ShapeError(f"k = {k}", "k of 1 or more")
    if n_items < 1:
        raise ShapeError("a catalogue without items", "1 item or more")
    if exclude is None:
        return
    if len(exclude) != n_queries:
        raise ShapeError(f"{len(exclude)} lists of exclusions for {n_queries} queries", "one for every query")
    check_rows(exclude.values, n_items, "excluded")


def check_rows(rows: Rows, n_items: int, what: str) -> None:
    """Refuse rows that are not in the catalogue."""
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_items:
        raise ShapeError(f"{what} rows from {rows.min()} to {rows.max()}", f"rows from 0 to {n_items - 1}")
