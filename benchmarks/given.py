"""Is a published test part a random share of what its users did? And the order of events, where files still have it.

Settings are chosen on a validation part that is cut from train. It should be cut as the test part was, or what is best
there is not what is best on test. That papers call a split random proves nothing; two measures tell:

-   `drift`: if of each user's n events m were drawn at random for the test, an item's number of test events is a sum of
    independent draws, one a user who met it, each with the chance m / n. (count - expected)^2 / variance then has a
    mean of 1 over the items. Where items come and go in time, and the test part is the users' end, it is larger.
-   `test_share_by_place`: where the lines of a file list a user's events in order, items that stand late in the train
    lines have many of their events in the test part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from twotower_lib import formats
from twotower_lib.data import Dataset, DataSettings, Interactions, build
from twotower_lib.recipe import Prepared, Recipe, prepare
from twotower_lib.seeding import child
from twotower_lib.sources import fetch
from twotower_lib.split import SplitSettings, split

IN_ORDER = ("yelp2018",)
"""Sets whose files list the events of a user in order; the lines of Gowalla that we read are sorted by item."""
OFTEN = 20
"""Train events from which on the mean place of an item tells something."""


def divided(name: str) -> Prepared:
    """A published set, divided: validation is cut at the users' end where their order is known, at random elsewhere."""
    if name not in IN_ORDER:
        return prepare(Recipe(data=DataSettings(source=name)))
    dataset = ordered(name)
    return Prepared(dataset, split(dataset, SplitSettings()))


def ordered(name: str) -> Dataset:
    """A set with the place of each event in the files as its time: of one user's events the order of the line."""
    tables = formats.read(fetch(name))
    assert tables.test is not None
    n = len(tables.events.user)
    train = replace(tables.events, time=np.arange(n))
    test = replace(tables.test, time=n + np.arange(len(tables.test.user)))
    return build(name, replace(tables, events=train, test=test))


def nature(name: str) -> dict[str, Any]:
    """How the published test part of a set was drawn, as far as it can be measured; beside it one that is random."""
    dataset = ordered(name)
    train, test = dataset.interactions, dataset.test
    assert test is not None
    user, item = (np.concatenate([getattr(one, key) for one in (train, test)]) for key in ("user", "item"))
    is_test = np.arange(len(user)) >= len(train)
    found: dict[str, Any] = {
        "drift": drift(user, item, is_test),
        "drift of a random test part": drift(user, item, drawn(user, is_test, child(0, "drawn"))),
    }
    if name in IN_ORDER:
        found["test share by place"] = test_share_by_place(train, test)
    return found


def drift(user: np.ndarray, item: np.ndarray, is_test: np.ndarray) -> float:
    """Mean over the items of (count - expected)^2 / variance of their test events; 1 if these were drawn at random."""
    share = np.bincount(user, is_test) / np.maximum(np.bincount(user), 1)
    mean, variance = (np.bincount(item, one[user]) for one in (share, share * (1 - share)))
    met = variance > 0
    return float(np.mean((np.bincount(item, is_test) - mean)[met] ** 2 / variance[met]))


def drawn(user: np.ndarray, is_test: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many test events of each user, drawn at random."""
    shuffled, sorted_by_part = np.lexsort((generator.random(len(user)), user)), np.lexsort((is_test, user))
    made = np.empty_like(is_test)
    made[shuffled] = is_test[sorted_by_part]
    return made


def test_share_by_place(train: Interactions, test: Interactions, parts: int = 5) -> list[dict[str, float]]:
    """Items by their mean place in the train lines, 0 at the beginning and 1 at the end: the test part's share."""
    assert train.time is not None
    order = np.lexsort((train.time, train.user))
    length = np.bincount(train.user, minlength=train.n_users)
    first = np.cumsum(length) - length
    place = np.empty(len(train))
    place[order] = (np.arange(len(train)) - first[train.user[order]] + 0.5) / length[train.user[order]]
    count, asked = train.item_counts, test.item_counts
    often = np.flatnonzero(count >= OFTEN)
    mean = np.bincount(train.item, place, minlength=train.n_items)[often] / count[often]
    return [
        {
            "place": round(float(mean[some].mean()), 3),
            "share": round(float(asked[often[some]].sum() / (asked + count)[often[some]].sum()), 3),
        }
        for some in np.array_split(np.argsort(mean), parts)
    ]
