"""A split -> `Questions`: who is asked, knowing what, and what only the judge knows.

A protocol of `split.py` divides events; one of these turns the parts into queries:

    questions       each user with a held-out item is asked once, knowing what the split left of them
    point_in_time   each moment at which a user has held-out items is asked, knowing what that user did before it

What was known of a user is their history and is excluded; how many users were left out, having nothing held out, is
kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from twotower_lib.data import Interactions, Rows
from twotower_lib.errors import SplitError
from twotower_lib.ranking import Queries, Ragged, offsets_of
from twotower_lib.split import LEAKS, PARTS, Part, Split, items_of_users

ONCE, MOMENTS = "each user once", "point in time"


@dataclass(frozen=True)
class Questions:
    """The queries of one part of a split, and what only the judge knows: the held-out items of each."""

    queries: Queries
    held_out: Ragged
    exclude: Ragged
    known: Interactions
    protocol: str
    part: Part
    sha256: str
    left_out: int
    """Users without a held-out item: nothing can be asked of them."""
    way: str = ONCE
    """How they are asked."""

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def n_users(self) -> int:
        """How many users are asked, some perhaps more than once."""
        return len(np.unique(self.queries.user))

    @property
    def cold(self) -> Bool[np.ndarray, " queries"]:
        """Queries of users of whom nothing is known."""
        return self.queries.history.lengths == 0

    @property
    def leak(self) -> str:
        """What the model and its queries know that they could not know in service."""
        unmoved = self.protocol == "time" and self.way == MOMENTS
        return "none; the model is frozen at the cut" if unmoved else LEAKS[self.protocol]


def questions(split: Split, part: Part, sha256: str = "") -> Questions:
    """Ask each user with a held-out item in `part`, once; what is known of them is their history and is excluded.

    With a split by users that is the fold-in, and no model that is fitted on `known` has met the user. The time of a
    query is that of the user's first held-out event, where the data has times.
    """
    asked = split.of(part)
    held_out = items_of_users(asked)
    users = np.flatnonzero(held_out.lengths > 0)
    seen = split.seen(part).take(users)
    return Questions(
        queries=Queries(users, seen, None if asked.time is None else asked.time[np.unique(asked.user, True)[1]]),
        held_out=held_out.take(users),
        exclude=seen,
        known=split.known(part),
        protocol=split.protocol,
        part=part,
        sha256=sha256,
        left_out=split.events.n_users - len(users),
    )


def point_in_time(split: Split, part: Part, sha256: str = "") -> Questions:
    """Ask each user at every moment of `part`, knowing what that user did strictly before it, and excluding that.

    A moment is a second at which a user has held-out events; their items are held out together, so what shares a
    second is never known to itself. The history grows: earlier held-out events of `part` belong to it as those of the
    parts before it do, and later parts never. The model stays what it was, fitted on `split.known(part)`. Means over
    these queries are means over moments: whoever did more counts more. Histories take memory of the order of events
    times their length.

    Raises:
        SplitError: the events have no times.
    """
    told = split.events.take(split.part <= PARTS[part])  # in the order (user, time, item)
    if told.time is None:
        raise SplitError("point in time, but the events have no times", "a column of times", "ask each user once")
    is_held_out = split.part[split.part <= PARTS[part]] == PARTS[part]
    starts_user = np.diff(told.user, prepend=-1) != 0
    starts_moment = starts_user | (np.diff(told.time, prepend=-1) != 0)
    moment = np.cumsum(starts_moment) - 1
    asked, number = np.unique(moment[is_held_out], return_inverse=True)
    now = np.flatnonzero(starts_moment)[asked]
    first = np.flatnonzero(starts_user)[(np.cumsum(starts_user) - 1)[now]]
    before = _stretches(told.item, first, now)
    return Questions(
        queries=Queries(told.user[now], before, told.time[now]),
        held_out=Ragged.grouped(number, told.item[is_held_out], len(asked)),
        exclude=before,
        known=split.known(part),
        protocol=split.protocol,
        part=part,
        sha256=sha256,
        left_out=split.events.n_users - len(np.unique(told.user[now])),
        way=MOMENTS,
    )


def _stretches(values: Rows, first: Rows, stop: Rows) -> Ragged:
    """For each pair of places the values from the first to before the second."""
    offsets = offsets_of(stop - first)
    return Ragged(values[np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], stop - first)], offsets)
