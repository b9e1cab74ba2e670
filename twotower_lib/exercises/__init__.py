"""Exercises in notebooks: a task, a check that says what is wrong, three hints; and a guess before a number.

    exercise("06.1").check(logits)      what is right, and the first thing that is not
    exercise("06.1").hint()             the next of three hints
    predict("How many?", guess=None, key="06.how-many")     ask before a number is shown
    compare("06.how-many", measured)                        the number beside the guess
    progress()                          what is done so far, from the file beside the notebook
    forget()                            delete that file

`engine.py` checks; each chapter has one file with its `EXERCISES`, named like the chapter and listed in `CHAPTERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import import_module

from twotower_lib.errors import SettingError, nearest
from twotower_lib.exercises import progress_file
from twotower_lib.exercises.engine import Exercise
from twotower_lib.exercises.guesses import compare, predict
from twotower_lib.exercises.progress_file import Entry

__all__ = ["compare", "exercise", "forget", "of_chapter", "predict", "progress"]

CHAPTERS = {
    "01": "data",
    "02": "split",
    "03": "evaluation",
    "05": "towers",
    "06": "losses",
    "08": "training",
    "11": "index",
}
"""Number -> the file of its exercises."""


def of_chapter(number: str) -> tuple[Exercise, ...]:
    """All exercises of a chapter, such as `"06"`.

    Raises:
        SettingError: the chapter has none.
    """
    if number not in CHAPTERS:
        raise SettingError(f"no exercises in chapter {number!r}", "a chapter with exercises", nearest(number, CHAPTERS))
    found: tuple[Exercise, ...] = import_module(f"{__name__}.{CHAPTERS[number]}").EXERCISES
    return found


def exercise(name: str) -> Exercise:
    """The exercise of this name, such as `"06.1"`.

    Raises:
        SettingError: there is none.
    """
    by_name = {one.name: one for one in of_chapter(name.partition(".")[0])}
    if name not in by_name:
        raise SettingError(f"no exercise {name!r}", "the name of an exercise", nearest(name, by_name))
    return by_name[name]


HEADS = ("exercise", "state", "attempts", "hints", "solved on")


@dataclass(frozen=True, repr=False)
class Table:
    """What is done so far, a row an exercise."""

    rows: tuple[tuple[str, ...], ...]
    remark: str = ""

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(HEADS, *self.rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (HEADS, *self.rows)]
        return "\n".join([*lines, *([self.remark] if self.remark else [])])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align: left">{one}</th>' for one in HEADS)
        cells = ("".join(f'<td style="text-align: left">{escape(one)}</td>' for one in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        remark = f"<p>{escape(self.remark)}</p>" if self.remark else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{remark}"


def progress() -> Table:
    """What is done so far: all exercises of the course, from the progress file beside the notebook."""
    stored, remark = progress_file.read()
    return Table(tuple(_row(one, stored.exercises) for number in CHAPTERS for one in of_chapter(number)), remark)


def forget() -> str:
    """Delete the progress file; say what was done."""
    return progress_file.forget()


def _row(one: Exercise, stored: dict[str, Entry]) -> tuple[str, ...]:
    entry = stored.get(one.name, Entry())
    state = "solved" if entry.solved else "tried" if entry.attempts else "open"
    return f"{one.name} {one.title}", state, str(entry.attempts), str(entry.hints), entry.solved
