"""Who is asked, knowing what: point in time by hand and against a loop over events, and what a report says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twotower_lib.baselines import BaselineSettings, fit_baseline
from twotower_lib.data import Interactions
from twotower_lib.errors import SettingError, SplitError
from twotower_lib.evaluation import difference, evaluate, measure
from twotower_lib.protocols import Questions, point_in_time, questions
from twotower_lib.split import PARTS, Part, Split

CODES = {"-": PARTS["train"], "v": PARTS["valid"], "t": PARTS["test"]}
"""How a part is written in the cases below."""


def split_of(events: list[tuple[int, int, int, str]], n_users: int, n_items: int, protocol: str = "time") -> Split:
    """Events as (user, time, item, part), in any order."""
    ordered = sorted(events)
    user, time, item = (np.array([one[place] for one in ordered], dtype=np.int64) for place in range(3))
    part = np.array([CODES[one[3]] for one in ordered], dtype=np.int8)
    return Split(Interactions(user, item, n_users, n_items, time), part, protocol)


def told(asked: Questions) -> list[tuple[int, int, list[int], list[int]]]:
    """Of each query the user, the time, the history and what is held out."""
    queries = asked.queries
    assert queries.time is not None
    both = zip(queries.user, queries.time, queries.history, asked.held_out, strict=True)
    return [(int(user), int(time), history.tolist(), held.tolist()) for user, time, history, held in both]


# By hand -------------------------------------------------------------------------------------------------------------

BY_HAND = split_of(
    [
        *[(0, 10, 3, "-"), (0, 20, 1, "-"), (0, 50, 2, "t"), (0, 50, 5, "t"), (0, 60, 4, "t")],  # two in one second
        *[(1, 30, 0, "-"), (1, 40, 1, "v")],  # nothing held out for the test
        *[(2, 55, 2, "t"), (2, 56, 0, "t")],  # cold at first, then not
        *[(3, 5, 4, "v"), (3, 9, 0, "t"), (3, 9, 1, "-"), (3, 70, 2, "t")],  # train shares a second with the test
    ],
    n_users=4,
    n_items=6,
)


def test_each_moment_is_asked_with_what_came_before():
    asked = point_in_time(BY_HAND, "test")
    assert told(asked) == [
        (0, 50, [3, 1], [2, 5]),
        (0, 60, [3, 1, 2, 5], [4]),
        (2, 55, [], [2]),
        (2, 56, [2], [0]),
        (3, 9, [4], [0]),
        (3, 70, [4, 0, 1], [2]),
    ]
    assert asked.cold.tolist() == [False, False, True, False, False, False]
    assert [one.tolist() for one in asked.exclude] == [one.tolist() for one in asked.queries.history]
    assert (asked.n_users, asked.left_out, asked.way) == (3, 1, "point in time")
    assert asked.known.item.tolist() == BY_HAND.known("test").item.tolist()  # the model is frozen at the cut


def test_validation_does_not_read_the_test_part():
    assert told(point_in_time(BY_HAND, "valid")) == [(1, 40, [0], [1]), (3, 5, [], [4])]
    early_test = split_of([(0, 1, 0, "t"), (0, 2, 1, "-"), (0, 3, 2, "v")], n_users=1, n_items=3, protocol="random")
    assert told(point_in_time(early_test, "valid")) == [(0, 3, [1], [2])]


def test_a_user_is_asked_once_at_the_first_held_out_moment():
    assert told(questions(BY_HAND, "test")) == [
        (0, 50, [3, 1], [2, 5, 4]),
        (2, 55, [], [2, 0]),
        (3, 9, [4, 1], [0, 2]),
    ]


def test_two_users_of_one_second_are_two_questions():
    events = [(0, 5, 1, "-"), (0, 9, 0, "t"), (1, 9, 2, "t"), (1, 9, 3, "t"), (2, 9, 4, "-"), (2, 10, 1, "t")]
    asked = point_in_time(split_of(events, n_users=3, n_items=5), "test")
    assert told(asked) == [(0, 9, [1], [0]), (1, 9, [], [2, 3]), (2, 10, [4], [1])]


# The naive loop ------------------------------------------------------------------------------------------------------


def naive(split: Split, part: Part) -> list[tuple[int, int, set[int], set[int]]]:
    """For each moment two walks over all events."""
    events = [
        (int(user), int(time), int(item), int(of))
        for user, time, item, of in zip(
            split.events.user, split.events.time, split.events.item, split.part, strict=True
        )
    ]
    moments = sorted({(user, time) for user, time, _, of in events if of == PARTS[part]})
    made = []
    for user, time in moments:
        mine = [one for one in events if one[0] == user]
        before = {item for _, when, item, of in mine if when < time and of <= PARTS[part]}
        held_out = {item for _, when, item, of in mine if when == time and of == PARTS[part]}
        made.append((user, time, before, held_out))
    return made


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("part", ["valid", "test"])
def test_it_is_the_loop_over_events(seed: int, part: Part):
    generator = np.random.default_rng(seed)
    pairs = generator.permutation(6 * 12)[:40]  # 40 different pairs of 6 users and 12 items, in 8 seconds
    events = [
        (int(pair) // 12, int(generator.integers(-4, 4)), int(pair) % 12, str(generator.choice(["-", "v", "t"])))
        for pair in pairs
    ]
    split = split_of(events, n_users=7, n_items=12, protocol="random")
    asked = told(point_in_time(split, part))
    assert [(user, time, set(before), set(held)) for user, time, before, held in asked] == naive(split, part)
    assert sum(len(held) for *_, held in asked) == len(split.of(part))


# What is said of it --------------------------------------------------------------------------------------------------


def test_without_times_nothing_can_be_asked_point_in_time():
    events = replace(BY_HAND.events, time=None)
    with pytest.raises(SplitError, match="point in time, but the events have no times\nneeded: a column of times"):
        point_in_time(replace(BY_HAND, events=events), "test")
    assert questions(replace(BY_HAND, events=events), "test").queries.time is None


@pytest.mark.parametrize(
    ("protocol", "leak"),
    [
        ("time", "none; the model is frozen at the cut"),
        ("last", "a last-fraction split knows the future of other users"),
        ("random", "a random split knows the future of the user"),
    ],
)
def test_a_report_names_protocol_way_and_leak(protocol: str, leak: str):
    asked = point_in_time(replace(BY_HAND, protocol=protocol), "test")
    model = fit_baseline("popularity", asked.known, BaselineSettings())
    references = {name: measure(model, asked, [2]) for name in ("chance", "popularity")}
    report = evaluate(model, asked, references, [2])
    whole = report.as_dict()
    assert (whole["asked"], whole["leak"], whole["users"], whole["questions"]) == ("point in time", leak, 3, 6)
    assert f"3 users of the test part, split {protocol}, point in time ({leak});" in str(report)
    assert "1 users left out: no held-out item; 1 of 6 moments find a cold user." in str(report)


def test_answers_to_the_two_ways_of_asking_do_not_compare():
    one_user = split_of([(0, 1, 0, "-"), (0, 2, 1, "t")], n_users=1, n_items=3)
    model = fit_baseline("popularity", one_user.train, BaselineSettings())
    once, moments = (measure(model, ask(one_user, "test"), [1]) for ask in (questions, point_in_time))
    with pytest.raises(SettingError, match="answers to the same questions"):
        difference(once, moments)
