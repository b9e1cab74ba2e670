"""What a reader has done, in one small file beside the notebook: it never leaves the machine, and can be deleted.

`.progress.json` holds, for each exercise, how many attempts were checked, how many hints were shown, and when it was
solved; and the guesses that `predict` asked for. A file that is damaged is begun anew, and in a folder that cannot be
written to, the kernel remembers until it ends. Both are told in a remark; neither is an error. Notebooks of one folder
may run at once: each waits for the other to have changed the file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

from twotower_lib.storage import write_text

FILE = Path(".progress.json")
"""In the folder in which the notebook runs, which is the one where it lies."""

DAMAGED = f"{FILE} was damaged and is begun anew."
NOT_SAVED = "This folder cannot be written to, so your progress is kept only until the notebook is closed."


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was done on one exercise; dates as year-month-day, empty where it has not happened."""

    attempts: int = 0
    hints: int = 0
    solved: str = ""
    last: str = ""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a reader expected before the measured value was shown."""

    question: str
    unit: str = ""
    guess: float | int | str | None = None


@dataclass(frozen=True)
class Progress:
    """All that is stored."""

    exercises: dict[str, Entry] = field(default_factory=dict)
    guesses: dict[str, Guess] = field(default_factory=dict)


hints_shown: Counter[str] = Counter()
"""By exercise the last one in this kernel: a notebook that is run from the start shows the same hints again."""

_unsaved: list[Progress] = []
"""What could not be written: one, or none."""


def read() -> tuple[Progress, str]:
    """What is stored, and a remark where something is wrong with it."""
    if _unsaved:
        return _unsaved[0], NOT_SAVED
    try:
        return _parsed(FILE.read_text(encoding="utf-8")), ""
    except FileNotFoundError:
        return Progress(), ""
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return Progress(), DAMAGED


def change(by: Callable[[Progress], Progress]) -> str:
    """Change what is stored; return a remark where something was wrong."""
    with _alone():
        before, remark = read()
        after = by(before)
        try:
            write_text(FILE, json.dumps(asdict(after), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        except OSError:
            _unsaved[:] = [after]
            return NOT_SAVED
    _unsaved.clear()
    return remark if remark == DAMAGED else ""


@contextmanager
def _alone() -> Iterator[None]:
    """Hold a lock on the folder, where the system has such locks."""
    folder = os.open(FILE.parent, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def record(name: str, *, attempts: int = 0, hints: int = 0, solved: bool = False) -> str:
    """Note attempts at an exercise, that so many of its hints have been shown, that it is solved.

    The first day on which it was solved stays.
    """
    today = date.today().isoformat()

    def by(progress: Progress) -> Progress:
        old = progress.exercises.get(name, Entry())
        entry = Entry(
            attempts=old.attempts + attempts,
            hints=max(old.hints, hints),
            solved=old.solved or (today if solved else ""),
            last=today,
        )
        return replace(progress, exercises=progress.exercises | {name: entry})

    return change(by)


def forget() -> str:
    """Delete the file and what the kernel remembers; say what was done."""
    _unsaved.clear()
    hints_shown.clear()
    try:
        FILE.unlink()
    except FileNotFoundError:
        return f"There is no {FILE} here: nothing was stored."
    except OSError as error:
        return f"{FILE} could not be deleted: {error.strerror}."
    return f"{FILE} is deleted."


def _parsed(text: str) -> Progress:
    """Raises one of many errors where the text is not what `change` writes."""
    stored = json.loads(text)
    exercises = {name: Entry(**one) for name, one in stored["exercises"].items()}
    guesses = {key: Guess(**one) for key, one in stored["guesses"].items()}
    for one in exercises.values():
        if [type(value) for value in (one.attempts, one.hints, one.solved, one.last)] != [int, int, str, str]:
            raise TypeError(one)
    for guess in guesses.values():
        if not isinstance(guess.question + guess.unit, str) or not isinstance(guess.guess, float | int | str | None):
            raise TypeError(guess)
    return Progress(exercises, guesses)
