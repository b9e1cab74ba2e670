"""The leak meter, by hand and against loops over events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.test_protocols import split_of
from twotower_lib.errors import SplitError
from twotower_lib.leaks import NEVER, first_seen, not_yet_seen, of_the_future
from twotower_lib.protocols import point_in_time, questions
from twotower_lib.ranking import NOTHING
from twotower_lib.split import PARTS

SPLIT = split_of(
    [
        *[(0, 10, 3, "-"), (0, 20, 1, "-"), (0, 50, 2, "t"), (0, 60, 4, "t"), (0, 90, 0, "-")],
        *[(1, 30, 0, "-"), (1, 50, 1, "-"), (1, 55, 3, "-"), (1, 70, 4, "-")],
        *[(2, 55, 2, "t")],
    ],
    n_users=3,
    n_items=6,
    protocol="random",
)


def test_the_future_by_hand():
    later = of_the_future(point_in_time(SPLIT, "test"))
    # User 0 has known events at 10, 20, 90; user 1 at 30, 50, 55, 70; nothing is known of user 2.
    assert later["user"].tolist() == [0, 0, 2]
    np.testing.assert_allclose(later["own"], [1 / 3, 1 / 3, np.nan])
    # After 50: 55 and 70 of 4; after 60: 70 of 4; after 55: 70 and 90 of 7.
    np.testing.assert_allclose(later["others"], [2 / 4, 1 / 4, 2 / 7])


@pytest.mark.parametrize("seed", range(10))
def test_the_future_is_that_of_a_loop(seed: int):
    generator = np.random.default_rng(seed)
    events = [
        (int(pair) // 12, int(generator.integers(-9, 9)), int(pair) % 12, str(generator.choice(["-", "v", "t"])))
        for pair in generator.permutation(5 * 12)[:40]
    ]
    split = split_of(events, n_users=5, n_items=12, protocol="random")
    asked = questions(split, "test")
    known = [(user, time) for user, time, _, part in events if part != "t"]
    for row, query in of_the_future(asked).iterrows():
        now = asked.queries.time[row]
        for column, theirs in (("own", True), ("others", False)):
            times = [time for user, time in known if (user == query["user"]) == theirs]
            wanted = sum(time > now for time in times) / len(times) if times else np.nan
            np.testing.assert_allclose(query[column], wanted)


def test_when_an_item_was_first_seen():
    assert first_seen(SPLIT.events).tolist() == [30, 20, 50, 10, 60, NEVER]


def test_what_was_shown_too_early():
    asked = point_in_time(SPLIT, "test")  # at 50, 60 and 55
    shown = np.array([[4, 2, 5, 1], [4, 2, 3, NOTHING], [NOTHING] * 4])
    # At 50: item 4 is first seen at 60 and 5 never, 2 in this very second. At 60 nothing is too early.
    assert not_yet_seen(shown, asked, first_seen(SPLIT.events)).tolist() == [2 / 4, 0 / 3, 0]
    assert not_yet_seen(shown[:, 1:3], asked, first_seen(SPLIT.events)).tolist() == [1 / 2, 0, 0]


def test_a_global_split_asked_point_in_time_shows_no_leak():
    events = SPLIT.events
    split = replace(
        SPLIT, part=np.where(events.time >= 55, PARTS["test"], PARTS["train"]).astype(np.int8), protocol="time"
    )
    later = of_the_future(point_in_time(split, "test"))
    assert (later["own"].fillna(0) == 0).all() and (later["others"] == 0).all()


def test_without_times_nothing_came_later():
    timeless = replace(SPLIT, events=replace(SPLIT.events, time=None))
    with pytest.raises(SplitError, match="questions without times\nneeded: events with times"):
        of_the_future(questions(timeless, "test"))
    with pytest.raises(SplitError, match="events without times"):
        first_seen(timeless.events)
