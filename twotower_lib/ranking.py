"""The contracts of ranking.

Everything that recommends, from popularity to a two-tower over an index, answers one question:
`recommend(queries, k, exclude) -> Recommendations`. This module defines the nouns of that sentence and the rule of
order that all of them keep:

1. higher scores come first;
2. of two equal scores the smaller item row comes first;
3. an excluded item never appears;
4. where fewer than k items are left, the list is filled up with row -1 and score -inf.

Rows are places in the catalogue (`data.py`). The exact top k that keeps this rule is in `topk.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, SupportsIndex, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from twotower_lib.errors import ShapeError

Rows = NDArray[np.int64]

NOTHING = -1
"""The item row that stands where no item is left."""


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

    @property
    def from_end(self) -> Rows:
        """For each value its place from the end of its list; the last one has place 1."""
        return np.repeat(self.offsets[1:], self.lengths) - np.arange(len(self.values))

    def last(self, length: int) -> Ragged:
        """The last `length` values of each list.

        >>> Ragged.of([[7], [], [8, 9, 9]]).last(2)[2]
        array([9, 9])
        """
        kept = self.from_end <= length
        return Ragged.grouped(self.owners[kept], self.values[kept], len(self))

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
    def of(cls, lists: Iterable[Iterable[SupportsIndex]]) -> Ragged:
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
            times = "no" if self.time is None else len(self.time)
            came = f"{len(self.user)} users, {len(self.history)} histories, {times} times"
            raise ShapeError(came, "one of each for every query")

    def __len__(self) -> int:
        return len(self.user)

    def slice(self, start: int, stop: int) -> Queries:
        """Queries `start` to `stop`."""
        time = None if self.time is None else self.time[start:stop]
        return Queries(self.user[start:stop], self.history.slice(start, stop), time)

    @classmethod
    def of_history(cls, history: Iterable[SupportsIndex]) -> Queries:
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
