"""The exercises of chapter 01: the head's share, expected clicks, clicks that are reweighted, and faults in a file.

Each task stands in the notebook; here is what its check knows. The oracles are answers by hand and loops over Python
numbers. Misconceptions are what people write, with `p` for preferences and `e` for chances of being shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

Row = tuple[str, str, str]

# 01.1: the head ------------------------------------------------------------------------------------------------------


def _share_by_loops(counts: Any, first: int) -> float:
    left, head = counts.tolist(), 0
    for _ in range(first):
        head += max(left)
        left.remove(max(left))
    return head / (head + sum(left))


HEAD = Exercise(
    name="01.1",
    title="The head's share",
    verb="measure",
    minutes=5,
    difficulty=1,
    core=True,
    cases=(
        Case(name="three items", arguments=dict(counts=np.array([5, 3, 2]), first=1)),
        Case(
            name="the most popular not first, one without events",
            arguments=dict(counts=np.array([1, 6, 0, 3]), first=2),
        ),
        Case(name="all equal", arguments=dict(counts=np.array([4, 4, 4, 4, 4]), first=2)),
        Case(
            name="300 items, the first 30",
            arguments=dict(counts=np.random.default_rng(0).permutation(3000 // np.arange(1, 301)), first=30),
        ),
    ),
    oracle=_share_by_loops,
    solution=lambda counts, first: np.sort(counts)[::-1][:first].sum() / counts.sum(),
    misconceptions=(
        Misconception(
            name="the first in the file",
            function=lambda counts, first: counts[:first].sum() / counts.sum(),
            sentence="These are the first items as they stand. Put them in order first, the most popular one in front.",
        ),
        Misconception(
            name="the least popular",
            function=lambda counts, first: np.sort(counts)[:first].sum() / counts.sum(),
            sentence="This is the share of the least popular items: sorting puts the smallest first.",
        ),
        Misconception(
            name="a number of events",
            function=lambda counts, first: np.sort(counts)[::-1][:first].sum(),
            sentence="This is a number of events. A share is that number divided by all events.",
        ),
        Misconception(
            name="a share of items",
            function=lambda counts, first: first / len(counts),
            sentence="This is a share of the items. Asked is the share of the events that falls on them.",
        ),
        Misconception(
            name="a mean",
            function=lambda counts, first: np.sort(counts)[::-1][:first].mean() / counts.sum(),
            sentence="The events of the head were averaged. Add them up.",
        ),
    ),
    hints=(
        "Read again what is divided by what, and which items are meant.",
        "Three steps: order, take the first of them, divide what they have together by what all have.",
        "Begin with the counts in order: `counts[counts.argsort()]` has the smallest first.",
    ),
)


# 01.2: expected clicks -----------------------------------------------------------------------------------------------


def _table(rows: int, columns: int, seed: int) -> Any:
    """Chances between 0.05 and 0.95."""
    return np.random.default_rng(seed).uniform(0.05, 0.95, (rows, columns))


def _clicks_by_loops(preference: Any, shown: Any) -> list[float]:
    users, items = preference.shape
    return [math.fsum(float(preference[u, i]) * float(shown[u, i]) for u in range(users)) for i in range(items)]


EXPECTED = Exercise(
    name="01.2",
    title="Expected clicks",
    verb="compute",
    minutes=5,
    difficulty=1,
    core=True,
    cases=(
        Case(
            name="one user, two items",
            arguments=dict(preference=np.array([[0.5, 0.2]]), shown=np.array([[0.1, 1.0]])),
        ),
        Case(
            name="two users of opposite taste, each shown what they like",
            arguments=dict(preference=np.array([[0.8, 0.2], [0.2, 0.8]]), shown=np.array([[1.0, 0.0], [0.0, 1.0]])),
        ),
        Case(
            name="three users, two items",
            arguments=dict(
                preference=np.array([[0.5, 0.1], [0.4, 0.3], [0.0, 0.6]]),
                shown=np.array([[0.2, 0.9], [1.0, 0.5], [1.0, 0.1]]),
            ),
        ),
        Case(name="60 users, 40 items", arguments=dict(preference=_table(60, 40, 0), shown=_table(60, 40, 1))),
    ),
    oracle=_clicks_by_loops,
    solution=lambda preference, shown: (preference * shown).sum(axis=0),
    misconceptions=(
        Misconception(
            name="averages multiplied",
            function=lambda p, e: len(p) * p.mean(axis=0) * e.mean(axis=0),
            sentence="Mean preference times mean chance forgets who was shown what. A good recommender shows an item "
            "to those who like it, so the product is taken person by person, before the sum.",
        ),
        Misconception(
            name="preference alone",
            function=lambda p, e: p.sum(axis=0),
            sentence="This is what would be clicked if everything were shown to everybody.",
        ),
        Misconception(
            name="exposure alone",
            function=lambda p, e: e.sum(axis=0),
            sentence="This is how often each item is shown. Not everything that is shown is clicked.",
        ),
        Misconception(
            name="a mean over users",
            function=lambda p, e: (p * e).mean(axis=0),
            sentence="This is a chance of a click, averaged over users. Asked is the number of clicks: a sum.",
        ),
        Misconception(
            name="a number for each user",
            function=lambda p, e: (p * e).sum(axis=1),
            sentence="This is one number a user. Asked is one an item: a column of the table.",
        ),
        Misconception(
            name="added",
            function=lambda p, e: (p + e).sum(axis=0),
            sentence="The two chances were added. To be clicked an item must be shown and liked: both, so multiply.",
        ),
    ),
    hints=(
        "Read again what a row is and what a column is, and how many numbers the answer has.",
        "What must happen for one click of one user on one item? Then add up over the users.",
        "Begin with `preference * shown`: entry (u, i) is the chance that user u clicks item i.",
    ),
)


# 01.3: inverse propensity --------------------------------------------------------------------------------------------


def _reweighted_by_loops(clicks: Any, shown: Any) -> list[float]:
    users, items = clicks.shape
    return [math.fsum(1 / float(shown[u, i]) for u in range(users) if clicks[u, i] == 1) / users for i in range(items)]


INVERSE = Exercise(
    name="01.3",
    title="Clicks, reweighted",
    verb="reweight",
    minutes=8,
    difficulty=2,
    core=False,
    cases=(
        Case(name="one user, two items", arguments=dict(clicks=np.array([[1, 0]]), shown=np.array([[0.5, 0.5]]))),
        Case(
            name="two users, two items",
            arguments=dict(clicks=np.array([[1, 0], [1, 1]]), shown=np.array([[0.5, 0.9], [0.8, 0.1]])),
        ),
        Case(
            name="four users, one item, one click",
            arguments=dict(clicks=np.array([[0], [0], [1], [0]]), shown=np.array([[0.9], [0.9], [0.5], [0.2]])),
        ),
        Case(
            name="80 users, 30 items",
            arguments=dict(clicks=(_table(80, 30, 2) < 0.3).astype(int), shown=_table(80, 30, 3)),
        ),
    ),
    oracle=_reweighted_by_loops,
    solution=lambda clicks, shown: (clicks / shown).mean(axis=0),
    misconceptions=(
        Misconception(
            name="not weighted",
            function=lambda c, e: c.mean(axis=0),
            sentence="This is the plain share of users who clicked. What is rarely shown looks rarely liked.",
        ),
        Misconception(
            name="multiplied",
            function=lambda c, e: (c * e).mean(axis=0),
            sentence="The clicks were multiplied by the chance of being shown. A click on what is rarely shown stands "
            "for many that could not happen, so it weighs more: divide.",
        ),
        Misconception(
            name="averaged over the clicks",
            function=lambda c, e: (c / e).sum(axis=0) / np.maximum(c.sum(axis=0), 1),
            sentence="This is the mean weight of a click. Users who did not click belong to the average, too: divide "
            "by the number of all users.",
        ),
        Misconception(
            name="totals divided",
            function=lambda c, e: c.sum(axis=0) / e.sum(axis=0),
            sentence="Clicks were added up first, and then divided by the sum of the chances. That is right only where "
            "those who are shown an item like it as much as the others do. Weigh each click by its own chance.",
        ),
        Misconception(
            name="cut at 1",
            function=lambda c, e: np.minimum((c / e).mean(axis=0), 1),
            sentence="Estimates above 1 were cut to 1. No preference is above 1, but a single estimate may be, and the "
            "average over many logs is right only if it may.",
        ),
        Misconception(
            name="a sum",
            function=lambda c, e: (c / e).sum(axis=0),
            sentence="This is a sum over users: how many would click. A preference is a share of them: divide by the "
            "number of users.",
        ),
    ),
    hints=(
        "Read again what each click weighs, and over whom the average is taken.",
        "If a user is shown an item with chance 1/10, one click stands for ten. Users without a click count as 0.",
        "Begin with `clicks / shown`: each click with its weight, and 0 where there was none.",
    ),
)


# 01.4: faults in a file ----------------------------------------------------------------------------------------------

BY_HAND: tuple[tuple[str, list[Row], list[int]], ...] = (
    (
        "three users: 007, NA and 7",
        [("007", "b1", "10"), ("NA", "b1", "20"), ("7", "b1", "30")],
        [],
    ),
    (
        "line 3 has no user, line 4 has blanks for an item",
        [("ada", "b1", "10"), ("", "b2", "20"), ("bob", "  ", "30")],
        [3, 4],
    ),
    (
        "the times soon, inf and 10",
        [("ada", "b1", "soon"), ("ada", "b2", "inf"), ("ada", "b3", "10")],
        [2, 3],
    ),
    (
        "ada and b1 at 10, 10 and 50",
        [("ada", "b1", "10"), ("bob", "b1", "10"), ("ada", "b1", "10"), ("ada", "b1", "50")],
        [4],
    ),
    (
        "eight rows, four of them faulty",
        [
            *(("ada", "b1", "10"), ("ada", "b2", ""), ("NA", "b2", "20"), ("bob", "b1", "1e3")),
            *((" ", "b1", "10"), ("bob", "b1", "1e3"), ("bob", "b1", "7"), ("cy", "", "soon")),
        ],
        [3, 6, 7, 9],
    ),
)
"""Name, rows, and the numbers of the faulty lines; the first row is on line 2."""


def _by_hand(rows: list[Row]) -> list[int]:
    return next(lines for _, given, lines in BY_HAND if given == rows)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_any_number(text: str) -> bool:
    """What `float` takes, inf and nan too."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_bad(row: Row, is_number: Callable[[str], bool] = _is_number) -> bool:
    return not row[0].strip() or not row[1].strip() or not is_number(row[2])


def _lines(wrong: Callable[[list[Row], int], bool], rows: list[Row], first: int = 2) -> list[int]:
    """The lines at whose place `wrong(rows, place)` holds."""
    return [place + first for place in range(len(rows)) if wrong(rows, place)]


def _wrong(rows: list[Row], at: int) -> bool:
    return _is_bad(rows[at]) or rows[at] in rows[:at]


FAULTS = Exercise(
    name="01.4",
    title="What is wrong with this file?",
    verb="find",
    minutes=8,
    difficulty=2,
    core=False,
    cases=tuple(Case(name=name, arguments=dict(rows=rows)) for name, rows, _ in BY_HAND),
    oracle=_by_hand,
    solution=lambda rows: _lines(_wrong, rows),
    misconceptions=(
        Misconception(
            name="places counted from 0",
            function=lambda rows: _lines(_wrong, rows, first=0),
            sentence="These are places in the list, counted from 0. In the file the header is line 1, so the first "
            "row stands on line 2.",
        ),
        Misconception(
            name="header forgotten",
            function=lambda rows: _lines(_wrong, rows, first=1),
            sentence="The header was forgotten: it is line 1, so the first row stands on line 2.",
        ),
        Misconception(
            name="blanks taken for an id",
            function=lambda rows: _lines(
                lambda r, at: "" in r[at][:2] or not _is_number(r[at][2]) or r[at] in r[:at], rows
            ),
            sentence="An id of blanks was taken for an id. Nobody can see it, so it counts as empty.",
        ),
        Misconception(
            name="NA taken for missing",
            function=lambda rows: _lines(lambda r, at: _wrong(r, at) or "NA" in r[at], rows),
            sentence="NA was taken for a missing value. An id is text: NA is a name like any other.",
        ),
        Misconception(
            name="inf taken for a time",
            function=lambda rows: _lines(lambda r, at: _is_bad(r[at], _is_any_number) or r[at] in r[:at], rows),
            sentence="inf was taken for a time: Python's float accepts it, but it is no moment. A time is finite.",
        ),
        Misconception(
            name="the same pair at another time",
            function=lambda rows: _lines(
                lambda r, at: _is_bad(r[at]) or r[at][:2] in [one[:2] for one in r[:at]], rows
            ),
            sentence="A pair of user and item that comes again at another time was called a repetition. That is a "
            "second event, and no fault; a fault is a whole row that comes again.",
        ),
        Misconception(
            name="the first of two blamed, too",
            function=lambda rows: _lines(lambda r, at: _is_bad(r[at]) or r.count(r[at]) > 1, rows),
            sentence="Both copies of a row are reported. The first one is fine; only what repeats an earlier row is "
            "a fault.",
        ),
    ),
    hints=(
        "Read the three rules again, and on which line the first row stands.",
        "Go through the rows one by one, with the number of the line beside them, and remember the rows that you have "
        "met.",
        "Begin with an empty list, and a loop that counts lines from 2; in it the row becomes `user, item, time`.",
    ),
)


EXERCISES = (HEAD, EXPECTED, INVERSE, FAULTS)
