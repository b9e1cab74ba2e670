"""From a file to rows: path -> `Interactions` + `Catalogue`.

A *row* is a place in the catalogue, cold items included, or in the list of users. Everything after this module counts
in rows; names of users and items come back only when an answer is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from twotower_lib.errors import UnknownIdError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Ids:
    """Names <-> rows. Names are text, always: `007` is not `7`, and `NA` is a name."""

    kind: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> str:
        return self.names[row]

    def row(self, name: str) -> int:
        """The row of a name, or an `UnknownIdError`."""
        raise NotImplementedError

    def rows(self, names: Iterable[str]) -> Rows:
        """The rows of these names, or an `UnknownIdError` for the first one that is unknown."""
        raise NotImplementedError


@dataclass(frozen=True)
class Interactions:
    """What users did, one entry an event, in the order (user, time, item).

    A pair of user and item occurs once.
    """

    user: Rows
    item: Rows
    n_users: int
    n_items: int
    time: Rows | None = None          # Unix seconds
    rating: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Catalogue:
    """The items; entry i of every column belongs to item row i."""

    items: Ids
    titles: tuple[str, ...]            # the id where no title is known
    years: tuple[str, ...]             # "" where unknown
    categories: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class People:
    """The users; entry u of every attribute belongs to user row u ("" where unknown)."""

    users: Ids
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Everything that a source holds; `test` is given where the source publishes one."""

    name: str
    interactions: Interactions
    catalogue: Catalogue
    people: People
    sha256: str
    test: Interactions | None = None
    notes: tuple[str, ...] = ()
