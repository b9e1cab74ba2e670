"""The exercises of chapter 02: the last fraction, the history before a question, a leak, and films not yet seen.

Each task stands in the notebook; here is what its check knows. The oracles are loops over Python numbers and use
nothing of the library. Misconceptions are what people write.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case

EVENTS, QUESTIONS, ITEMS, K = 150, 30, 40, 5
"""Of the largest cases."""


def _drawn(size: int | tuple[int, ...], below: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(below, size=size)


# 02.1: the last fraction ---------------------------------------------------------------------------------------------


def _last_by_loops(users: Any, times: Any, share: float) -> list[bool]:
    held_out = [False] * len(users)
    for user in set(users.tolist()):
        mine = sorted((time, place) for place, (one, time) in enumerate(zip(users, times, strict=True)) if one == user)
        for _, place in mine[len(mine) - int(len(mine) * share) :]:
            held_out[place] = True
    return held_out


def _from_the_end(users: Any, times: Any) -> NDArray[np.int64]:
    """For each event how many of the same user come later."""
    return ((users[:, None] == users) & (times[:, None] < times)).sum(1)


def _events_of(users: Any) -> NDArray[np.int64]:
    """For each event how many events its user has."""
    return (users[:, None] == users).sum(1)


def _last(users: Any, times: Any, share: float) -> NDArray[np.bool_]:
    return np.asarray(_from_the_end(users, times) < np.floor(_events_of(users) * share))


LAST = Exercise(
    name="02.1",
    title="The last fraction",
    verb="divide",
    minutes=10,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="one person, four events, a half",
            arguments=dict(users=np.array([0, 0, 0, 0]), times=np.array([1, 2, 3, 4]), share=0.5),
        ),
        Case(
            name="the same, in another order, and five events",
            arguments=dict(users=np.array([0, 0, 0, 0, 0]), times=np.array([40, 10, 50, 20, 30]), share=0.5),
        ),
        Case(
            name="two people who meet in time",
            arguments=dict(
                users=np.array([7, 2, 7, 2, 7, 2, 2]), times=np.array([30, 10, 70, 20, 50, 60, 15]), share=0.4
            ),
        ),
        Case(
            name=f"{EVENTS} events of 12 people",
            arguments=dict(users=_drawn(EVENTS, 12, 0), times=np.random.default_rng(1).permutation(EVENTS), share=0.25),
        ),
    ),
    oracle=_last_by_loops,
    solution=_last,
    misconceptions=(
        Misconception(
            name="one cut for all",
            function=lambda users, times, share: times.argsort().argsort() >= len(times) - int(len(times) * share),
            sentence="This cuts the time line once for everybody. That is a global split. Here each person has a cut "
            "of their own.",
        ),
        Misconception(
            name="rounded up",
            function=lambda users, times, share: _from_the_end(users, times) < np.ceil(_events_of(users) * share),
            sentence="The number of held-out events was rounded up. Rounded down, a person with few events keeps them.",
        ),
        Misconception(
            name="the first instead of the last",
            function=lambda users, times, share: _last(users, -times, share),
            sentence="The earliest events are held out: the model would learn from the future and be asked about the "
            "past.",
        ),
        Misconception(
            name="the last in the table",
            function=lambda users, times, share: _last(users, np.arange(len(times)), share),
            sentence="The last rows of the table are held out. The table is in no order; the latest ones are those of "
            "the largest time.",
        ),
        Misconception(
            name="the last one only",
            function=lambda users, times, share: _from_the_end(users, times) < 1,
            sentence="One event a person is held out, whatever the share is. That is leave-one-out, another protocol.",
        ),
    ),
    hints=(
        "Read again whose events are compared with whose, and in which direction the number is rounded.",
        "Two numbers for each event are enough: how many events of the same person come later, and how many of that "
        "person are held out.",
        "Begin with `same = users[:, None] == users`: row i says which events belong to the person of event i.",
    ),
)


# 02.2: the history before a question ---------------------------------------------------------------------------------


def _history_by_loops(users: Any, times: Any, user: int, now: int) -> list[bool]:
    return [one == user and time < now for one, time in zip(users.tolist(), times.tolist(), strict=True)]


HISTORY = Exercise(
    name="02.2",
    title="Before the question",
    verb="select",
    minutes=5,
    difficulty=1,
    core=True,
    cases=(
        Case(
            name="one person",
            arguments=dict(users=np.array([0, 0, 0]), times=np.array([10, 20, 30]), user=0, now=30),
        ),
        Case(
            name="two people",
            arguments=dict(users=np.array([0, 1, 0, 1, 0]), times=np.array([10, 15, 20, 25, 30]), user=0, now=20),
        ),
        Case(
            name="three events in one second",
            arguments=dict(
                users=np.array([3, 3, 3, 3, 4, 3]), times=np.array([10, 20, 20, 20, 10, 30]), user=3, now=20
            ),
        ),
        Case(
            name=f"{EVENTS} events",
            arguments=dict(users=_drawn(EVENTS, 6, 2), times=_drawn(EVENTS, 40, 3), user=2, now=25),
        ),
    ),
    oracle=_history_by_loops,
    solution=lambda users, times, user, now: (users == user) & (times < now),
    misconceptions=(
        Misconception(
            name="the same second",
            function=lambda users, times, user, now: (users == user) & (times <= now),
            sentence="Events of the very second of the question are counted as known, and the event that is asked for "
            "is one of them: the model reads the answer.",
        ),
        Misconception(
            name="everybody",
            function=lambda users, times, user, now: times < now,
            sentence="These are the earlier events of everybody. The history is what this one person did.",
        ),
        Misconception(
            name="all others of the person",
            function=lambda users, times, user, now: (users == user) & (times != now),
            sentence="What the person did later is in it, too. So it is in a random split, and that is its leak.",
        ),
        Misconception(
            name="the future",
            function=lambda users, times, user, now: (users == user) & (times > now),
            sentence="This is what the person did after the question.",
        ),
    ),
    hints=(
        "Read again what is known of an event that falls into the same second as the question.",
        "Two conditions hold at once for an event of the history, one on the person and one on the time.",
        "Begin with `users == user`, and combine it by `&` with a condition on `times`.",
    ),
)


# 02.3: find the leak -------------------------------------------------------------------------------------------------


def _before_by_loops(items: Any, times: Any) -> list[int]:
    events = list(zip(items.tolist(), times.tolist(), strict=True))
    return [sum(other == item and when < time for other, when in events) for item, time in events]


LEAK = Exercise(
    name="02.3",
    title="Find the leak",
    verb="find",
    minutes=8,
    difficulty=2,
    core=True,
    cases=(
        Case(
            name="three events of one film",
            arguments=dict(items=np.array([0, 0, 0]), times=np.array([10, 20, 30])),
        ),
        Case(
            name="two films, in no order",
            arguments=dict(items=np.array([0, 1, 0, 0, 1]), times=np.array([30, 20, 10, 40, 50])),
        ),
        Case(
            name="three events in one second",
            arguments=dict(items=np.array([2, 2, 2, 0, 2, 0]), times=np.array([20, 20, 10, 20, 20, 30])),
        ),
        Case(
            name=f"{EVENTS} events",
            arguments=dict(items=_drawn(EVENTS, 9, 4), times=_drawn(EVENTS, 60, 5)),
        ),
    ),
    oracle=_before_by_loops,
    solution=lambda items, times: ((items[:, None] == items) & (times < times[:, None])).sum(1),
    misconceptions=(
        Misconception(
            name="as it was written",
            function=lambda items, times: np.bincount(items)[items],
            sentence="This is still the function as it was written: an event of the first day is described by what "
            "happened on the last one.",
        ),
        Misconception(
            name="with the event itself",
            function=lambda items, times: ((items[:, None] == items) & (times <= times[:, None])).sum(1),
            sentence="The event itself is counted, and what shares its second. Then the feature of a film that was "
            "chosen is at least 1, and of one that was not chosen perhaps 0: it tells the answer.",
        ),
        Misconception(
            name="only itself taken out",
            function=lambda items, times: np.bincount(items)[items] - 1,
            sentence="The event itself is taken out, but everything later is still in.",
        ),
        Misconception(
            name="all films",
            function=lambda items, times: (times < times[:, None]).sum(1),
            sentence="These are the earlier events of all films. Only those of the same film count.",
        ),
        Misconception(
            name="earlier in the table",
            function=lambda items, times: (np.tril(items[:, None] == items, -1)).sum(1),
            sentence="These are events that stand higher up in the table. The table is in no order: compare the times.",
        ),
    ),
    hints=(
        "For the first event in time: what could a service have known about its film at that moment?",
        "An event counts if it is of the same film and its time is smaller. That is one question for each pair of "
        "events, a square of truth values, and then a sum over each row.",
        "Begin with `items[:, None] == items`, a row an event, and combine it by `&` with a comparison of `times`.",
    ),
)


# 02.4: not yet seen --------------------------------------------------------------------------------------------------


def _too_early_by_loops(shown: Any, first: Any, now: Any) -> list[float]:
    born = first.tolist()
    rows = zip(shown.tolist(), now.tolist(), strict=True)
    return [sum(born[item] > time for item in row) / len(row) for row, time in rows]


TOO_EARLY = Exercise(
    name="02.4",
    title="Films that nobody had seen",
    verb="count",
    minutes=8,
    difficulty=2,
    core=False,
    cases=(
        Case(
            name="one question, two films",
            arguments=dict(shown=np.array([[0, 1]]), first=np.array([10, 30]), now=np.array([20])),
        ),
        Case(
            name="two questions, and a film that begins at that second",
            arguments=dict(shown=np.array([[0, 1], [1, 2]]), first=np.array([10, 30, 40]), now=np.array([20, 30])),
        ),
        Case(
            name="three questions, three films each",
            arguments=dict(
                shown=np.array([[3, 1, 0], [1, 2, 3], [2, 0, 3]]),
                first=np.array([10, 30, 40, 25]),
                now=np.array([20, 30, 5]),
            ),
        ),
        Case(
            name=f"{QUESTIONS} questions, {K} films each",
            arguments=dict(
                shown=_drawn((QUESTIONS, K), ITEMS, 6), first=_drawn(ITEMS, 100, 7), now=_drawn(QUESTIONS, 100, 8)
            ),
        ),
    ),
    oracle=_too_early_by_loops,
    solution=lambda shown, first, now: (first[shown] > now[:, None]).mean(1),
    misconceptions=(
        Misconception(
            name="the other way round",
            function=lambda shown, first, now: (first[shown] < now[:, None]).mean(1),
            sentence="These are the films that had been seen already. Too early are those whose first event is later "
            "than the question.",
        ),
        Misconception(
            name="counts",
            function=lambda shown, first, now: (first[shown] > now[:, None]).sum(1),
            sentence="These are counts. The share is wanted: divide by how many films are shown.",
        ),
        Misconception(
            name="the same second",
            function=lambda shown, first, now: (first[shown] >= now[:, None]).mean(1),
            sentence="A film whose first event falls into the very second of the question is not counted as too early.",
        ),
        Misconception(
            name="one number",
            function=lambda shown, first, now: (first[shown] > now[:, None]).mean(),
            sentence="This is one share over all questions. One for each question is wanted.",
        ),
        Misconception(
            name="rows instead of times",
            function=lambda shown, first, now: (shown > now[:, None]).mean(1),
            sentence="The rows of the films are compared with times. Look up in `first` when each film begins.",
        ),
    ),
    hints=(
        "Read the shapes again: what does a number in `shown` stand for, and what does one in `first`?",
        "Look up the first time of every film that is shown; compare each row with the time of its own question; "
        "take the mean over each row.",
        "Begin with `first[shown]`: it has the shape of `shown` and holds times.",
    ),
)


EXERCISES = (LAST, HISTORY, LEAK, TOO_EARLY)
