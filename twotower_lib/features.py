"""What each tower reads: rows -> codes, fitted on the train part.

A *code* is a row of an embedding table; code 0 stands for everything that train does not know. Three features exist:

    id           one code a user or an item
    history      the codes of the items that a user met (user side)
    categories   the codes of an item's categories, or of a user's attributes

Each turns into `Codes`, lists of codes that a tower looks up and averages. A feature of numbers, text or ready-made
vectors joins by giving another record that a tower knows how to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twotower_lib.data import Catalogue, Interactions, People, Rows
from twotower_lib.errors import SettingError, need
from twotower_lib.ranking import Queries, Ragged, offsets_of

USER_FEATURES = ("id", "history", "categories")
ITEM_FEATURES = ("id", "categories")
UNKNOWN = 0


@dataclass(frozen=True, kw_only=True)
class HistorySettings:
    """How the history of a user is read."""

    mode: str = "auto"
    """set: any other train items of the user; before: only what came before the target; auto: before for the splits
    in time (last, time), set for the others."""
    length: int = 50
    """Items sampled for a training example; with `before` the most recent ones, and as many when a question is
    answered. With `set` a question is answered from all."""
    dropout: float = 0.2
    """Chance that a sampled item is left out of a training example."""

    def __post_init__(self) -> None:
        need(self.mode in ("auto", "set", "before"), "history.mode", self.mode, "auto, set or before")
        need(self.length >= 1, "history.length", self.length, "1 or more")
        need(0 <= self.dropout < 1, "history.dropout", self.dropout, "a chance from 0 to below 1")

    def mode_for(self, protocol: str) -> str:
        """The mode with `auto` resolved for a split protocol."""
        if self.mode != "auto":
            return self.mode
        return "before" if protocol in ("last", "time") else "set"


@dataclass(frozen=True)
class Codes:
    """One code an entry, 0 where it is unknown; or, with the offsets where each list starts, lists of known codes.

    Lists have no padding: what is not there takes part in no sum.
    """

    values: Tensor
    offsets: Tensor | None = None
    ages: Tensor | None = None
    """In a history that is read in order: for each value how many of the person's events lie between it and now."""

    def to(self, device: str) -> Codes:
        """The same on another device."""
        return Codes(*(None if one is None else one.to(device) for one in (self.values, self.offsets, self.ages)))  # type: ignore[arg-type]

    def rows(self, start: int, stop: int) -> Codes:
        """The same of the rows from `start` to before `stop`."""
        if self.offsets is None:
            return Codes(self.values[start:stop])
        first = int(self.offsets[start])
        last = int(self.offsets[stop]) if stop < len(self.offsets) else len(self.values)
        ages = None if self.ages is None else self.ages[first:last]
        return Codes(self.values[first:last], self.offsets[start:stop] - first, ages)

    @property
    def owners(self) -> Tensor:
        """For each value the number of the list that holds it."""
        assert self.offsets is not None
        ends = torch.cat([self.offsets[1:], self.offsets.new_tensor([len(self.values)])])
        return torch.arange(len(self.offsets), device=ends.device).repeat_interleave(ends - self.offsets)


@dataclass(frozen=True)
class Features:
    """Everything that was fitted: which code a row has, and how many codes there are."""

    user_codes: Rows
    item_codes: Rows
    item_categories: Ragged
    user_categories: Ragged
    n_user_categories: int
    n_item_categories: int
    history_mode: str
    history_length: int

    @property
    def n_items(self) -> int:
        """Items of the catalogue, cold ones included."""
        return len(self.item_codes)

    def user_table_sizes(self) -> dict[str, int]:
        """Rows of the embedding table of each user feature."""
        sizes = (self.user_codes.max(initial=0), self.item_codes.max(initial=0), self.n_user_categories)
        return {name: int(size) + 1 for name, size in zip(USER_FEATURES, sizes, strict=True)}

    def item_table_sizes(self) -> dict[str, int]:
        """Rows of the embedding table of each item feature."""
        sizes = (self.item_codes.max(initial=0), self.n_item_categories)
        return {name: int(size) + 1 for name, size in zip(ITEM_FEATURES, sizes, strict=True)}

    def of_users(self, queries: Queries, names: Sequence[str]) -> dict[str, Codes]:
        """The codes of these user features for each query; an unknown person has code 0 and no categories."""
        return {
            name: self.history(queries.history) if name == "history" else self.of_user_rows(queries.user, name)
            for name in names
        }

    def of_user_rows(self, users: Rows, name: str) -> Codes:
        """The codes of a feature that depends on the user row alone."""
        if name == "id":
            return Codes(torch.from_numpy(np.where(users >= 0, self.user_codes[users], UNKNOWN)))
        # Row -1, a person without a row, finds the empty list that stands at the end.
        return _flat(self.user_categories.take(users % len(self.user_categories)))

    def history(self, history: Ragged) -> Codes:
        """The codes of what is read of each history."""
        read = self.recent(history)
        ages = read.from_end - 1 if self.history_mode == "before" else None
        return self.of_lists(read.owners, read.values, len(read), ages)

    def recent(self, history: Ragged) -> Ragged:
        """The items that are read of each history: all, or with `before` the most recent ones."""
        return history.last(self.history_length) if self.history_mode == "before" else history

    def of_lists(self, owners: Rows, items: Rows, n_lists: int, ages: Rows | None = None) -> Codes:
        """The codes of lists of item rows, given as pairs in the order of the lists; unknown items are left out.

        Their places are not taken by others: the rest of a list keeps its ages.
        """
        codes = self.item_codes[items]
        known = codes != UNKNOWN
        lists = Ragged(codes[known], offsets_of(np.bincount(owners[known], minlength=n_lists)))
        return _flat(lists, None if ages is None else ages[known])

    def of_items(self, items: Rows, names: Sequence[str]) -> dict[str, Codes]:
        """The codes of these item features for each item row."""
        return {
            name: Codes(torch.from_numpy(self.item_codes[items]))
            if name == "id"
            else _flat(self.item_categories.take(items))
            for name in names
        }


def fit_features(
    train: Interactions, catalogue: Catalogue, people: People, history: HistorySettings, protocol: str
) -> Features:
    """Fit on the train part: only what occurs in it gets a code of its own.

    Items and users without a train event have code 0; a category has a code when an item of train has it.

    Raises:
        SettingError: the history is to be read `before` the target, but the events have no times.
    """
    mode = history.mode_for(protocol)
    if mode == "before" and train.time is None:
        raise SettingError("history.mode = before, but the events have no times", "times, or history.mode = set")
    warm_items = train.item_counts > 0
    warm_users = np.bincount(train.user, minlength=train.n_users) > 0
    item_categories, n_item_categories = _coded(catalogue.categories, warm_items)
    described = [[f"{k}={v[u]}" for k, v in people.attributes.items() if v[u]] for u in range(train.n_users)]
    user_categories, n_user_categories = _coded([*described, []], np.append(warm_users, False))
    return Features(
        user_codes=np.where(warm_users, np.cumsum(warm_users), UNKNOWN),
        item_codes=np.where(warm_items, np.cumsum(warm_items), UNKNOWN),
        item_categories=item_categories,
        user_categories=user_categories,
        n_user_categories=n_user_categories,
        n_item_categories=n_item_categories,
        history_mode=mode,
        history_length=history.length,
    )


def _coded(lists: Sequence[Sequence[str]], warm: np.ndarray) -> tuple[Ragged, int]:
    """Lists of names as lists of codes; names that no warm row has are left out."""
    known = sorted({name for names, is_warm in zip(lists, warm, strict=True) if is_warm for name in names})
    code = {name: i + 1 for i, name in enumerate(known)}
    return Ragged.of([[code[name] for name in names if name in code] for names in lists]), len(known)


def _flat(lists: Ragged, ages: Rows | None = None) -> Codes:
    offsets = torch.from_numpy(lists.offsets[:-1].copy())
    return Codes(torch.from_numpy(lists.values), offsets, None if ages is None else torch.from_numpy(ages))
