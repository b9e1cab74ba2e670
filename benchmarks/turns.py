"""Contestants that take turns, round after round, one after the other.

Speed is CPU time on one thread; a ratio is the median over rounds of the ratios of one round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

ROUNDS = 5


def cpu_seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def in_turns(
    contestants: dict[str, Callable[[], None]],
    rounds: int = ROUNDS,
    seconds: Callable[[Callable[[], None]], float] = cpu_seconds,
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after one round that is not counted."""
    return said_in_turns({name: partial(seconds, work) for name, work in contestants.items()}, rounds)


def said_in_turns(contestants: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """The same of contestants that say themselves how many seconds they took."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, turn in contestants.items():
            spent = turn()
            if number:
                taken[name].append(spent)
    return taken


def ratio(floor: list[float], ours: list[float]) -> float:
    """How many times the floor's speed we reach."""
    return statistics.median(a / b for a, b in zip(floor, ours, strict=True))
