"""From a file to rows: path -> `Interactions` + `Catalogue`.

A *row* is a place in the catalogue, cold items included, or in the list of users. Everything after this module counts
in rows; names of users and items come back only when an answer is shown.

Rows do not depend on the order of a file: ids are sorted by (length, text), interactions by (user, time, item). Users
are those with an interaction and those of the users file; items are those with an interaction and those of the items
file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import compress, islice
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from twotower_lib import formats, own_files
from twotower_lib.errors import DataError, SettingError, SourceError, UnknownIdError, nearest
from twotower_lib.formats import Events, ItemTable, Tables, UserTable
from twotower_lib.own_files import ColumnSettings as ColumnSettings
from twotower_lib.own_files import OwnFiles
from twotower_lib.sources import SOURCES, Fetched, fetch

Rows = NDArray[np.int64]

SPELLING_LIMIT = 20_000
"""Names that are compared with an unknown one to find the nearest; comparing a million takes too long."""


@dataclass(frozen=True)
class Ids:
    """Names <-> rows. Names are text, always: `007` is not `7`, and `NA` is a name."""

    kind: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: SupportsIndex) -> str:
        return self.names[row]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def row(self, name: str) -> int:
        """The row of a name.

        Raises:
            UnknownIdError: the data does not hold this name.

        >>> Ids("user", ("7", "007")).row("007")
        1
        """
        return int(self.rows((name,))[0])

    def rows(self, names: Iterable[str]) -> Rows:
        """The rows of these names.

        Raises:
            UnknownIdError: the data does not hold one of these names; the first such one is named.
        """
        try:
            return np.array([self._rows[name] for name in names], dtype=np.int64)
        except KeyError as unknown:
            raise self._unknown(unknown.args[0]) from None

    def _unknown(self, name: str) -> UnknownIdError:
        close = nearest(name, islice(self.names, SPELLING_LIMIT)) if self.names else ""
        return UnknownIdError(
            f'{self.kind} "{name}" is not among the {len(self)} {self.kind}s of the data',
            f"one of its {self.kind} ids, written as in the data",
            close if close.startswith("did you mean") else "",
        )


@dataclass(frozen=True)
class Interactions:
    """What users did, one entry an event, in the order (user, time, item).

    A pair of user and item occurs once.
    """

    user: Rows
    item: Rows
    n_users: int
    n_items: int
    time: Rows | None = None  # Unix seconds
    rating: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        assert self.user.dtype == self.item.dtype == np.int64
        assert self.user.shape == self.item.shape == (len(self),)
        assert not len(self) or 0 <= self.user.min() <= self.user.max() < self.n_users
        assert not len(self) or 0 <= self.item.min() <= self.item.max() < self.n_items
        assert self.time is None or (self.time.dtype == np.int64 and self.time.shape == self.user.shape)
        assert self.rating is None or (self.rating.dtype == np.float32 and self.rating.shape == self.user.shape)

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: Rows | NDArray[np.bool_]) -> Interactions:
        """The events at these places (numbers or a mask), in the order given."""
        return Interactions(
            self.user[which],
            self.item[which],
            self.n_users,
            self.n_items,
            None if self.time is None else self.time[which],
            None if self.rating is None else self.rating[which],
        )

    @property
    def pairs(self) -> Rows:
        """One number for each pair of user and item: user row * number of items + item row."""
        return self.user * self.n_items + self.item

    @property
    def item_counts(self) -> Rows:
        """How many events each item has; shape (n_items,)."""
        return np.bincount(self.item, minlength=self.n_items).astype(np.int64)


@dataclass(frozen=True)
class Catalogue:
    """The items; entry i of every column belongs to item row i."""

    items: Ids
    titles: tuple[str, ...]  # the id where no title is known
    years: tuple[str, ...]  # "" where unknown
    categories: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        assert len(self.items) == len(self.titles) == len(self.years) == len(self.categories)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class People:
    """The users; entry u of every attribute belongs to user row u ("" where unknown)."""

    users: Ids
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert all(len(column) == len(self.users) for column in self.attributes.values())

    def __len__(self) -> int:
        return len(self.users)


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


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data, and how to read a person's own files.

    Attributes:
        source: a name of the registry (`sources.SOURCES`), or `csv` for own files.
        interactions: file of events, one a line, with a header.
        test: file of held-out events in the same form; with it no split is made.
        items: file that describes items; its id column has the name `columns.item`.
        users: file that describes users; its id column has the name `columns.user`, every other one is an attribute.
        columns: names of the columns.
        separator: what stands between cells; by default a tab for `.tsv` and `.inter`, a comma otherwise.
        min_rating: keep only events with at least this rating.
        category_separator: what stands between the categories of an item.
    """

    source: str = "ml-100k"
    interactions: str | None = None
    test: str | None = None
    items: str | None = None
    users: str | None = None
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    separator: str | None = None
    min_rating: float | None = None
    category_separator: str = "|"

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise SettingError(
                f'data.source = "{self.source}"', f"one of {', '.join(SOURCES)}", nearest(self.source, SOURCES)
            )
        if self.source == "csv":
            self._check_own()
        else:
            self._check_published()
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise SettingError(f"data.min_rating = {self.min_rating}", "a finite number")

    def _check_own(self) -> None:
        if not self.interactions:
            raise SettingError(
                "data.source = csv without data.interactions", "a file of events", "give data.interactions=FILE"
            )
        if self.min_rating is not None and self.columns.rating is None:
            raise SettingError(
                f"data.min_rating = {self.min_rating} without data.columns.rating",
                "the name of the column that holds ratings",
                "give data.columns.rating=NAME",
            )
        if not self.category_separator:
            raise SettingError("data.category_separator is empty", "the text between two categories")
        own_files.separator_of(self.interactions, self.separator)

    def _check_published(self) -> None:
        own = {**dict.fromkeys(("interactions", "test", "items", "users", "separator")), "columns": ColumnSettings()}
        for name, default in own.items():
            if getattr(self, name) != default:
                raise SettingError(
                    f"data.{name} is given, but data.source = {self.source}",
                    f"data.{name} belongs to a person's own files",
                    f"give data=csv, or leave data.{name} out",
                )
        if self.min_rating is not None and not SOURCES[self.source].has_ratings:
            raise SettingError(
                f"data.min_rating = {self.min_rating}", f"no such bound: {self.source} has no ratings", "leave it out"
            )


def load(settings: DataSettings) -> Dataset:
    """Fetch a source where that is needed, read it, and give every user and item its row.

    Raises:
        SourceError: the source could not be fetched, or holds other pairs than the registry says.
        DataError: own files have faults; the text lists all of them.
    """
    if settings.source == "csv":
        return build("csv", own_files.read(_own(settings)), settings.min_rating)
    fetched = fetch(settings.source)
    dataset = build(settings.source, formats.read(fetched), settings.min_rating)
    if settings.min_rating is None:
        _verify(dataset, fetched)
    return dataset


def _own(settings: DataSettings) -> OwnFiles:
    assert settings.interactions is not None
    return OwnFiles(**{one.name: getattr(settings, one.name) for one in fields(OwnFiles)})


def _verify(dataset: Dataset, fetched: Fetched) -> None:
    """The pairs are those of the registry, whichever address they came from."""
    expected = SOURCES[dataset.name].sha256
    if dataset.sha256 != expected:
        names = ", ".join(str(path) for path in fetched.paths)
        raise SourceError(
            f"the pairs in {names} have the sha256 {dataset.sha256}",
            f"the pairs of {dataset.name}, sha256 {expected}",
            f"delete {names} and fetch again",
        )


def build(name: str, tables: Tables, min_rating: float | None = None) -> Dataset:
    """Text -> rows, in an order that does not depend on the files.

    Raises:
        DataError: no event has the rating that is asked for.
    """
    events = _rated_at_least(tables.events, min_rating)
    test = None if tables.test is None else _rated_at_least(tables.test, min_rating)
    parts = [events] if test is None else [events, test]
    users = _ids("user", [*(part.user for part in parts), tables.users.ids if tables.users else ()])
    items = _ids("item", [*(part.item for part in parts), tables.items.ids if tables.items else ()])
    numbered = [_numbered(part, users, items) for part in parts]
    interactions = [one for one, _ in numbered]
    return Dataset(
        name,
        interactions[0],
        _catalogue(items, tables.items),
        _people(users, tables.users),
        pairs_sha256(interactions, users, items),
        test=None if test is None else interactions[1],
        notes=tuple(part + note for part, (_, note) in zip(("", "test: "), numbered, strict=False) if note),
    )


def _rated_at_least(events: Events, min_rating: float | None) -> Events:
    """The events with at least this rating."""
    if min_rating is None:
        return events
    assert events.rating is not None
    kept = events.rating >= min_rating
    if not kept.any():
        raise DataError(
            f"none of {len(events.user)} events has a rating of {min_rating} or more",
            "at least one",
            f"lower data.min_rating; the highest rating is {events.rating.max():g}",
        )
    return Events(
        list(compress(events.user, kept)),
        list(compress(events.item, kept)),
        None if events.time is None else events.time[kept],
        events.rating[kept],
    )


def _ids(kind: str, columns: Iterable[Sequence[str]]) -> Ids:
    """Every name once, short ones first, so that numbers stand in their order."""
    return Ids(kind, tuple(sorted(set().union(*columns), key=lambda name: (len(name), name))))


def _numbered(events: Events, users: Ids, items: Ids) -> tuple[Interactions, str]:
    """Rows for names, sorted, each pair once; and a note about pairs that occurred again."""
    user, item = users.rows(events.user), items.rows(events.item)
    whole = Interactions(user, item, len(users), len(items), events.time, events.rating)
    first = _first_of_each_pair(whole)
    repeated = len(whole) - len(first)
    chosen = whole.take(first)
    when = np.zeros(len(chosen)) if chosen.time is None else chosen.time
    ordered = chosen.take(np.lexsort((chosen.item, when, chosen.user)))
    what = "pair" if repeated == 1 else "pairs"
    return ordered, f"{repeated} repeated {what}: the first event of each was kept" if repeated else ""


def _first_of_each_pair(events: Interactions) -> Rows:
    """Places of the first event of each pair: by time, or where there is none in the order of the file."""
    by_time = np.arange(len(events)) if events.time is None else np.argsort(events.time, kind="stable")
    _, first = np.unique(events.pairs[by_time], return_index=True)
    return by_time[first]


def _catalogue(items: Ids, table: ItemTable | None) -> Catalogue:
    """A line of the items file for each item; an item without one has its id as its title."""
    place = {name: i for i, name in enumerate(table.ids)} if table else {}
    if table is None:
        return Catalogue(items, items.names, ("",) * len(items), ((),) * len(items))
    places = [place.get(name) for name in items.names]
    return Catalogue(
        items,
        tuple((table.titles[i] if i is not None else "") or name for i, name in zip(places, items.names, strict=True)),
        tuple("" if i is None else table.years[i] for i in places),
        tuple(() if i is None else table.categories[i] for i in places),
    )


def _people(users: Ids, table: UserTable | None) -> People:
    """A line of the users file for each user."""
    if table is None:
        return People(users)
    place = {name: u for u, name in enumerate(table.ids)}
    places = [place.get(name) for name in users.names]
    return People(
        users,
        {
            attribute: tuple("" if u is None else column[u] for u in places)
            for attribute, column in table.attributes.items()
        },
    )


def pairs_sha256(parts: Sequence[Interactions], users: Ids, items: Ids) -> str:
    """The hash of the sorted pairs: lines `user<TAB>item` in the order of rows, then `test` and those of the test."""
    digest = hashlib.sha256()
    for number, part in enumerate(parts):
        keys = np.sort(part.pairs)
        user = (keys // part.n_items).tolist()
        item = (keys % part.n_items).tolist()
        lines = [f"{users.names[u]}\t{items.names[i]}\n" for u, i in zip(user, item, strict=True)]
        digest.update(("test\n" if number else "").encode() + "".join(lines).encode())
    return digest.hexdigest()
