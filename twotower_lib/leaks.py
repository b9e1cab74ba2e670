"""The leak meter: how much of what a model knew, and of what it showed, comes from after the question.

    of_the_future    the share of the known events that happened after each question: the user's own, and the others'
    first_seen       when each item had its first event
    not_yet_seen     the share of the items shown that had no event yet when the question was asked

A protocol that claims to have no leak shows 0 in all of them. The first event of an item is a stand-in for its birth:
an item may have existed, unmet, before.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from twotower_lib.data import Interactions, Rows
from twotower_lib.errors import SplitError
from twotower_lib.metrics import Values
from twotower_lib.protocols import Questions
from twotower_lib.ranking import Queries, Ragged

NEVER = np.iinfo(np.int64).max


def of_the_future(asked: Questions) -> pd.DataFrame:
    """For each query the share of the known events that happened later than its time.

    Returns:
        a row a query; `own` is the share of the events of that user (missing where nothing is known of them), `others`
        that of all other users' events. Events of the very second of the question are not counted as later.

    Raises:
        SplitError: the events have no times.
    """
    times, known = _times_of(asked.queries), _times_of(asked.known)
    theirs = Ragged.grouped(asked.known.user, known, asked.known.n_users).take(asked.queries.user)
    own_later = np.bincount(theirs.owners[theirs.values > times[theirs.owners]], minlength=len(asked))
    own = theirs.lengths
    later = len(known) - np.searchsorted(np.sort(known), times, side="right")
    with np.errstate(invalid="ignore"):
        shares = {"own": own_later / own, "others": (later - own_later) / (len(known) - own)}
    return pd.DataFrame({"user": asked.queries.user, **shares})


def first_seen(events: Interactions) -> Rows:
    """For each item the time of its first event, and `NEVER` where it has none.

    Raises:
        SplitError: the events have no times.
    """
    first = np.full(events.n_items, NEVER)
    np.minimum.at(first, events.item, _times_of(events))
    return first


def not_yet_seen(shown: Rows, asked: Questions, first: Rows) -> Values:
    """For each query the share of its recommended items whose first event is later than its time; 0 for an empty list.

    Args:
        shown: recommended item rows, of shape (queries, k); -1 where the list has ended.
        asked: the questions that they answer.
        first: for each item when it was first seen, see `first_seen`; or when it was released.

    Raises:
        SplitError: the questions have no times.
    """
    is_shown = shown >= 0
    too_early = (first[shown] > _times_of(asked.queries)[:, None]) & is_shown
    return too_early.sum(1) / np.maximum(is_shown.sum(1), 1)


def _times_of(asked_or_met: Queries | Interactions) -> Rows:
    if asked_or_met.time is None:
        what = "questions" if isinstance(asked_or_met, Queries) else "events"
        raise SplitError(f"{what} without times", "events with times, so that one can say what came later")
    return asked_or_met.time
