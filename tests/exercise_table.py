"""Every exercise x {stub, solution, each misconception} -> the sentence it got, as a table.

python -m tests.exercise_table
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twotower_lib.exercises import CHAPTERS, of_chapter
from twotower_lib.exercises.engine import Exercise
from twotower_lib.exercises.outcomes import LOOK, Outcome

STUB, DOTS, SOLUTION = "stub", "stub with ...", "solution"


@dataclass(frozen=True)
class Row:
    """Who answered which exercise, and what the check said."""

    exercise: Exercise
    who: str
    outcome: Outcome

    @property
    def sentence(self) -> str:
        """Under the first case that is not right; where there is none, the head, and what follows it."""
        looked = [line.sentence for line in self.outcome.lines if line.mark == LOOK]
        head = self.outcome.head.removeprefix(f"{self.exercise.heading}: ")
        return looked[0] if looked else " | ".join([head, *self.outcome.notes])


def stub(*arguments: Any) -> Any:
    """What a student copy holds."""
    raise NotImplementedError("your code here")


def dots(*arguments: Any) -> Any:
    """What some people leave."""
    return ...


def answers(exercise: Exercise) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Everybody who answers an exercise here, and how."""
    yield from ((STUB, stub), (DOTS, dots), (SOLUTION, exercise.solution))
    yield from ((one.name, one.function) for one in exercise.misconceptions)


def rows() -> list[Row]:
    """The table; checking writes a progress file into the current folder."""
    exercises = [one for number in CHAPTERS for one in of_chapter(number)]
    return [Row(one, who, one.check(function)) for one in exercises for who, function in answers(one)]


def text(table: list[Row]) -> str:
    """A row a line."""
    lines = [f"{row.exercise.name}  {row.who:<30}  {row.outcome.kind:<22}  {row.sentence}" for row in table]
    return "\n".join([f"{'':<4}  {'answer':<30}  {'outcome':<22}  sentence", *lines])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(text(rows()))
        os.chdir("/")
