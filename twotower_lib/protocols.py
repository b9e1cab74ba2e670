"""A split -> `Questions`: who is asked, knowing what, and what only the judge knows.

A protocol of `split.py` divides events; one of these turns the parts into queries. Asked are all users with at least
one held-out item, and how many were left out is kept; what was known of a user before is their history and is excluded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from twotower_lib.data import Interactions
from twotower_lib.ranking import Queries, Ragged
from twotower_lib.split import Part, Split, items_of_users


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

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def cold(self) -> Bool[np.ndarray, " queries"]:
        """Queries of users of whom nothing is known."""
        return self.queries.history.lengths == 0


def questions(split: Split, part: Part, sha256: str = "") -> Questions:
    """Ask each user with a held-out item in `part`, once; what is known of them is their history and is excluded."""
    held_out = items_of_users(split.of(part))
    users = np.flatnonzero(held_out.lengths > 0)
    seen = split.seen(part).take(users)
    return Questions(
        queries=Queries(users, seen),
        held_out=held_out.take(users),
        exclude=seen,
        known=split.known(part),
        protocol=split.protocol,
        part=part,
        sha256=sha256,
        left_out=split.events.n_users - len(users),
    )
