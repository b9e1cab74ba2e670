"""The contracts of ranking, and the exact top k.

Everything that recommends, from popularity to a two-tower over an index, answers one question:
`recommend(queries, k, exclude) -> Recommendations`. This module defines the nouns of that sentence and the rule of
order that all of them keep:

1. higher scores come first;
2. of two equal scores the smaller item row comes first;
3. an excluded item never appears;
4. where fewer than k items are left, the list is filled up with row -1 and score -inf.

Rows are places in the catalogue (`data.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from twotower_lib.errors import ShapeError

Rows = NDArray[np.int64]

NOTHING = -1
"""The item row that stands where no item is left."""

CHUNK = 64
"""Items whose maximum is taken together before the top k of the maxima is looked at."""

BLOCK_CELLS = 1_000_000
"""Scores held at once: 4 MB of float32, small enough to stay in a processor's cache."""


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, one after the other.

    List i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: Rows
    offsets: Rows

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ShapeError(
                f"offsets {self.offsets[:3]}... over {len(self.values)} values",
                "offsets that start at 0 and end at the number of values",
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Rows:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> Rows:
        """How long each list is."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Rows:
        """For each value the number of the list that holds it."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, lists: Rows) -> Ragged:
        """The lists with these numbers, in this order.

        >>> Ragged.of([[7], [], [8, 9]]).take(np.array([2, 0])).values
        array([8, 9, 7])
        """
        lengths = self.lengths[lists]
        offsets = offsets_of(lengths)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[lists], lengths)
        return Ragged(self.values[places], offsets)

    def slice(self, start: int, stop: int) -> Ragged:
        """Lists `start` to `stop`, without copying values."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    @classmethod
    def of(cls, lists: Iterable[Iterable[int]]) -> Ragged:
        """From Python lists.

        >>> Ragged.of([[7], [], [8, 9]])[2]
        array([8, 9])
        """
        arrays = [np.asarray(list(one), dtype=np.int64) for one in lists]
        values = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
        return cls(values, offsets_of(np.array([len(a) for a in arrays], dtype=np.int64)))

    @classmethod
    def grouped(cls, owners: Rows, values: Rows, n_lists: int) -> Ragged:
        """Group values by their owner; inside a list the given order is kept.

        >>> Ragged.grouped(np.array([1, 0, 1]), np.array([5, 6, 7]), 3)[1]
        array([5, 7])
        """
        order = np.argsort(owners, kind="stable")
        return cls(values[order], offsets_of(np.bincount(owners, minlength=n_lists)))

    @classmethod
    def empty(cls, n_lists: int) -> Ragged:
        """So many empty lists."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(n_lists + 1, dtype=np.int64))


def offsets_of(lengths: Rows) -> Rows:
    """Where each list of these lengths starts, and at the end where the last one stops."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True)
class Queries:
    """Who asks: a user row (or -1 for a person without one), what they did before, and when.

    A person without an id but with a history is an ordinary query, so held-out users and histories typed by hand
    need nothing special.
    """

    user: Rows
    history: Ragged
    time: Rows | None = None

    def __post_init__(self) -> None:
        if len(self.user) != len(self.history) or (self.time is not None and len(self.time) != len(self.user)):
            raise ShapeError(
                f"{len(self.user)} users, {len(self.history)} histories, times {'-' if self.time is None else len(self.time)}",
                "one of each for every query",
            )

    def __len__(self) -> int:
        return len(self.user)

    def slice(self, start: int, stop: int) -> Queries:
        """Queries `start` to `stop`."""
        time = None if self.time is None else self.time[start:stop]
        return Queries(self.user[start:stop], self.history.slice(start, stop), time)

    @classmethod
    def of_history(cls, history: Iterable[int]) -> Queries:
        """One person without an id, known only by these item rows."""
        return cls(np.array([NOTHING]), Ragged.of([history]))


@dataclass(frozen=True)
class Recommendations:
    """The answer: for each query k item rows, best first, with their scores; -1 and -inf where none is left."""

    items: Rows
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.items)


@runtime_checkable
class Recommender(Protocol):
    """Anything that ranks the catalogue for a query."""

    @property
    def n_items(self) -> int:
        """Size of the catalogue that is ranked."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether the list is truly the best k by this recommender's own score."""
        ...

    def recommend(self, queries: Queries, k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k best items for each query, without those in its list of `exclude`."""
        ...


@runtime_checkable
class Index(Protocol):
    """Item vectors that can be searched by inner product."""

    metric: str
    is_exact: bool

    @property
    def n_items(self) -> int:
        """How many vectors are stored; row i is item i."""
        ...

    def search(self, vectors: NDArray[np.float32], k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k items of largest inner product with each vector, without those in its list of `exclude`."""
        ...


def blocks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) pairs that cover `range(n)`."""
    for start in range(0, n, size):
        yield start, min(start + size, n)


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
    """
    if k < 1:
        raise ShapeError(f"k = {k}", "k of 1 or more")
    rows_a_block = max(1, min(n_queries, BLOCK_CELLS // max(n_items, 1)))
    # Padding to whole chunks lets the maxima be taken on a view; the padding itself stays at -inf.
    width = -(-n_items // CHUNK) * CHUNK
    buffer = torch.full((rows_a_block, width), -torch.inf)
    items = np.full((n_queries, k), NOTHING, dtype=np.int64)
    scores = np.full((n_queries, k), -np.inf, dtype=np.float32)
    for start, stop in blocks(n_queries, rows_a_block):
        block = buffer[: stop - start]
        score_block(start, stop, block[:, :n_items])
        if exclude is not None:
            seen = exclude.slice(start, stop)
            block[torch.from_numpy(seen.owners), torch.from_numpy(seen.values)] = -torch.inf
        top_scores, top_items = top_k(block, min(k, n_items))
        found = top_scores > -torch.inf
        items[start:stop, : top_items.shape[1]] = torch.where(found, top_items, NOTHING).numpy()
        scores[start:stop, : top_items.shape[1]] = top_scores.numpy()
    return Recommendations(items, scores)


def top_k(
    scores: Float[Tensor, "queries items"], k: int
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """The k largest scores of each row, best first, ties by column.

    Where the number of columns is a multiple of `CHUNK`, the maxima of chunks are taken first and only the k best
    chunks are looked into: an item among the best k lies in one of the k chunks with the largest maxima. Rows in
    which the k-th score is tied with something outside are done again by the plain definition.

    >>> top_k(torch.tensor([[1.0, 3.0, 3.0]]), 2)
    (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    n_items = scores.shape[1]
    n_chunks = n_items // CHUNK
    if n_items % CHUNK or n_chunks <= 2 * k:
        return _top_k_plain(scores, k)
    # Chunk c holds the columns c, c + n_chunks, c + 2 n_chunks ...: maxima of whole rows, which is fast.
    chunked = scores.view(len(scores), CHUNK, n_chunks)
    maxima = chunked.amax(dim=1)
    best, chunks = maxima.topk(k + 1)
    columns = (chunks[:, :k, None] + torch.arange(CHUNK) * n_chunks).flatten(1)
    values, places = scores.gather(1, columns).topk(k + 1)
    top_items = columns.gather(1, places[:, :k])
    top_scores, top_items = _ordered(values[:, :k], top_items)
    last = top_scores[:, -1]
    tied = (best[:, k] >= last) | (values[:, k] >= last)
    if tied.any():
        again = tied.nonzero().squeeze(1)
        top_scores[again], top_items[again] = _top_k_plain(scores[again], k)
    return top_scores, top_items


def _top_k_plain(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The definition: all above the k-th score, then the first of those equal to it."""
    last = scores.topk(k).values[:, -1:]
    above = scores > last
    equal = scores == last
    room = k - above.sum(1, keepdim=True)
    kept = above | (equal & (equal.cumsum(1) <= room))
    items = kept.nonzero()[:, 1].view(len(scores), k)
    return _ordered(scores.gather(1, items), items)


def _ordered(scores: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by (score down, item up)."""
    items, by_item = items.sort(dim=1)
    scores, by_score = scores.gather(1, by_item).sort(dim=1, descending=True, stable=True)
    return scores, items.gather(1, by_score)
