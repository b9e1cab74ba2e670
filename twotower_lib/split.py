"""What the model may see, and what it is asked: `Interactions` -> `Split(train, valid, test)`.

One function a protocol, and each protocol states its leak in one line:

    random   a random share of all events is held out; the model knows the future of the same user
    last     the last share of each user's events is held out; the model knows what other users did later
    time     everything from one moment on is held out; most test users may be new
    users    a share of the users is held out; the model never meets them, and reads a random part of what they did
    given    train and test are given; as leaky as the protocol of whoever made them

The events of a held-out user are divided once more: the *fold-in* is known when the user is asked, as a history, and is
never trained on; the rest is asked (Liang et al. 2018, section 4: 80 % and 20 %).

Validation is cut from the train part by the same protocol; of given parts as `last` does where no test event of a user
lies before one of train, and at random otherwise. Settings are chosen on it; then `refit()` gives all of train back to
the model, and test is asked once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twotower_lib.data import Dataset, Interactions, Rows
from twotower_lib.errors import LeakError, SplitError, need, need_known
from twotower_lib.ranking import Ragged
from twotower_lib.seeding import child

Part = Literal["train", "valid", "test"]
Mask = NDArray[np.bool_]

PARTS: dict[Part, int] = {"train": 0, "valid": 2, "test": 4}
"""Parts are numbered in the order in which they become known; the fold-in of a part has the number before it."""

LEAKS = {
    "random": "a random split knows the future of the user",
    "last": "a last-fraction split knows the future of other users",
    "time": "none; new users and items are part of the test",
    "users": "a split by users knows the future of others, and reads the future of the user in the fold-in",
    "given": "as leaky as the protocol of whoever made the parts",
}


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How events are divided."""

    protocol: str = "last"
    """random, last, time, users or given; a source with a published test part is always split as given."""
    test: float = 0.2
    """Share of the events that is held out for the test; with the protocol users, share of the users."""
    valid: float = 0.1
    """Share of the train events (or users) that is held out for choosing settings."""
    asked: float = 0.2
    """Share of a held-out user's events that is asked, drawn at random and rounded down; the rest is the fold-in."""
    seed: int = 42
    """Seed of the protocols that draw. It is apart from the seed of the run, so that several runs share one split."""

    def __post_init__(self) -> None:
        need_known("split.protocol", self.protocol, LEAKS)
        need(self.seed >= 0, "split.seed", self.seed, "0 or more")
        for name in ("test", "valid", "asked"):
            share = getattr(self, name)
            need(0 < share < 1, f"split.{name}", share, "a share above 0 and below 1")


@dataclass(frozen=True)
class Split:
    """Events, and for each of them its part."""

    events: Interactions
    part: NDArray[np.int8]
    protocol: str

    @property
    def train(self) -> Interactions:
        """What the model is trained on."""
        return self.of("train")

    @property
    def valid(self) -> Interactions:
        """What settings are chosen on; empty after `refit`."""
        return self.of("valid")

    @property
    def test(self) -> Interactions:
        """What is reported, once."""
        return self.of("test")

    @property
    def leak(self) -> str:
        """What this protocol shows the model that it could not know in service."""
        return LEAKS[self.protocol]

    def of(self, part: Part) -> Interactions:
        """The events of one part."""
        return self.events.take(self.part == PARTS[part])

    def known(self, part: Part) -> Interactions:
        """What a model may be fitted on before `part` is asked: train for valid, train and valid for test."""
        return self.events.take(self.part < PARTS[part] - 1)

    def seen(self, part: Part) -> Ragged:
        """For each user the item rows known when `part` is asked, oldest first: what is `known`, and the fold-in."""
        return items_of_users(self.events.take(self.part < PARTS[part]))

    def cold_users(self, part: Part) -> Mask:
        """For each user whether nothing is known of them when `part` is asked, not even a fold-in."""
        return self.seen(part).lengths == 0

    def cold_items(self, part: Part) -> Mask:
        """For each item whether a model that is fitted before `part` is asked has never met it."""
        return self.known(part).item_counts == 0

    def refit(self) -> Split:
        """The same split with the validation part, its fold-in too, given back to train."""
        part = np.where(self.part <= PARTS["valid"], PARTS["train"], self.part).astype(np.int8)
        return replace(self, part=part)


def items_of_users(events: Interactions) -> Ragged:
    """For each user row the item rows of these events, in the events' order (oldest first where times are known)."""
    return Ragged.grouped(events.user, events.item, events.n_users)


def random_ratio(events: Interactions, share: float, generator: np.random.Generator) -> Mask:
    """Hold out a random share of all events."""
    held_out = np.zeros(len(events), dtype=bool)
    held_out[generator.permutation(len(events))[: round(len(events) * share)]] = True
    return held_out


def last_fraction(events: Interactions, share: float, generator: np.random.Generator) -> Mask:
    """Hold out the last share of each user's events, rounded down, so that every user keeps at least one."""
    times = _need_times(events, "last")
    count = np.bincount(events.user, minlength=events.n_users)
    first = np.cumsum(count) - count
    order = np.lexsort((times, events.user))
    place = np.empty(len(events), dtype=np.int64)
    place[order] = np.arange(len(events)) - first[events.user[order]]
    kept = count - np.floor(count * share).astype(np.int64)
    return place >= kept[events.user]


def global_time(events: Interactions, share: float, generator: np.random.Generator) -> Mask:
    """Hold out everything from one moment on; events of that very second fall together."""
    times = _need_times(events, "time")
    latest = np.sort(times)[len(times) - round(len(times) * share) :]
    return times >= latest.min(initial=np.iinfo(np.int64).max)


def whole_users(events: Interactions, share: float, generator: np.random.Generator) -> Mask:
    """Hold out all events of a random share of the users that have any."""
    users = generator.permutation(np.unique(events.user))
    return np.isin(events.user, users[: round(len(users) * share)])


def fold_in(events: Interactions, asked: float, generator: np.random.Generator) -> Mask:
    """All but a random share of each user's events; that share is rounded down, so that every user keeps at least one.

    A user with too few events for one to be asked is all fold-in.
    """
    shuffled = replace(events, time=generator.permutation(len(events)))
    return ~last_fraction(shuffled, asked, generator)


PROTOCOLS: dict[str, Callable[[Interactions, float, np.random.Generator], Mask]] = {
    "random": random_ratio,
    "last": last_fraction,
    "time": global_time,
    "users": whole_users,
    "given": random_ratio,
}
"""How a part is held out."""


def split(dataset: Dataset, settings: SplitSettings) -> Split:
    """Divide the events of a data set into train, valid and test.

    Where the data set has a published test part, that part is the test and the protocol is `given`.

    Raises:
        SplitError: there are too few events, or the protocol needs times that the data does not have.
        LeakError: the same pair of user and item is in train and in test.
    """
    hold_out = PROTOCOLS[settings.protocol]
    if dataset.test is not None:
        events, is_test = _joined(dataset.interactions, dataset.test)
        settings = replace(settings, protocol="given")
        hold_out = random_ratio if _n_early(events.take(~is_test), events.take(is_test)) else last_fraction
    elif settings.protocol == "given":
        raise SplitError(
            f"split.protocol = given, but {dataset.name} has no test part", "data.test, or another protocol"
        )
    else:
        events = dataset.interactions
        is_test = hold_out(events, settings.test, child(settings.seed, "split", 0))
    part = np.where(is_test, PARTS["test"], PARTS["train"]).astype(np.int8)
    rest = np.flatnonzero(~is_test)
    is_valid = hold_out(events.take(rest), settings.valid, child(settings.seed, "split", 1))
    part[rest[is_valid]] = PARTS["valid"]
    if settings.protocol == "users":
        held_out = np.flatnonzero(part != PARTS["train"])
        part[held_out] -= fold_in(events.take(held_out), settings.asked, child(settings.seed, "split", 2))
    made = Split(events, part, settings.protocol)
    check(made)
    return made


def check(split: Split) -> None:
    """Raise where a part is empty, or where train shows what is asked.

    Raises:
        SplitError: a part is empty.
        LeakError: a pair of train is asked for again, a split in time has a train event after a held-out one, or a
            split by users has a user in two parts.
    """
    for part in PARTS:
        if len(split.of(part)) == 0:
            raise SplitError(
                f"the {part} part of a {split.protocol} split of {len(split.events)} events is empty",
                "at least one event in every part",
                "use more data, or larger shares split.test and split.valid",
            )
    again = len(split.events) - len(np.unique(split.events.pairs))
    if again:
        raise LeakError(f"pairs of user and item that are both in train and in test: {again}", "disjoint parts")
    if split.protocol == "users":
        _check_users(split)
    if split.protocol in ("last", "time"):
        _check_order(split, "train", "valid")
        _check_order(split, "valid", "test")
        _check_order(split, "train", "test")


def _check_users(split: Split) -> None:
    owner_and_part = split.events.user * len(PARTS) + (split.part + 1) // 2  # a fold-in belongs to its part
    torn = len(np.unique(owner_and_part)) - len(np.unique(split.events.user))
    if torn:
        raise LeakError(f"users with events in two parts of a split by users: {torn}", "each user in one part")


def _check_order(split: Split, early: Part, late: Part) -> None:
    late_ones = _n_early(split.of(early), split.of(late), of_all=split.protocol == "time")
    if late_ones:
        raise LeakError(f"{late_ones} of the {late} events lie before {early} events", f"all of {early} before {late}")


def _n_early(before: Interactions, after: Interactions, of_all: bool = False) -> int:
    """How many events of `after` lie before the newest of `before`, of the same user or of all; all, without times.

    The last fraction of a user may share a second with what stays; one moment for all may not.
    """
    if before.time is None or after.time is None:
        return len(after)
    owners, asked = (np.zeros_like(one.user) if of_all else one.user for one in (before, after))
    newest = np.full(before.n_users, np.iinfo(np.int64).min)
    np.maximum.at(newest, owners, before.time)
    limit = newest[asked]
    return int((after.time <= limit if of_all else after.time < limit).sum())


def _need_times(events: Interactions, protocol: str) -> Rows:
    if events.time is None:
        raise SplitError(
            f"split.protocol = {protocol}, but the events have no times",
            "a column of times",
            "name it by data.columns.time=..., or use split.protocol=random",
        )
    return events.time


def _joined(train: Interactions, test: Interactions) -> tuple[Interactions, Mask]:
    """Both parts as one, in the order (user, time, item), and which events are of the test."""
    time = None if train.time is None or test.time is None else np.concatenate([train.time, test.time])
    rating = None if train.rating is None or test.rating is None else np.concatenate([train.rating, test.rating])
    user, item = np.concatenate([train.user, test.user]), np.concatenate([train.item, test.item])
    is_test = np.arange(len(user)) >= len(train)
    order = np.lexsort((item, user) if time is None else (item, time, user))
    both = replace(train, user=user, item=item, time=time, rating=rating)
    return both.take(order), is_test[order]
