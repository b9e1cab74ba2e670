"""Exercises that check themselves and say what is wrong.

An `Exercise` is a record: what a teacher knows of a task, and nothing of how it is shown. Its `check` calls the
reader's function on cases from small to large, compares with an oracle that is written without the library, and says
in words what came and what was expected. Where the answers are exactly those of a known misconception, it names that.
It never shows code of a solution.

To write an exercise, read `losses.py` beside this file. A record that contradicts itself is refused when it is made:
an oracle that disagrees with the solution, or a misconception that no case can tell from the right answer or from
another misconception. Nothing stops a function that never ends; the reader interrupts the kernel.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any

from numpy.typing import NDArray

from twotower_lib.errors import SettingError
from twotower_lib.exercises import progress_file
from twotower_lib.exercises.judging import Answer, Case, ask, judge
from twotower_lib.exercises.outcomes import LOOK, OK, WAIT, Card, Fault, Kind, Line, Outcome
from twotower_lib.exercises.values import as_array, equal, form, size

HINTS = 3
"""Of every exercise: what to read again, the idea, the first line of code."""

SLOWER, SLOW_SECONDS = 50, 0.005
"""A right function is called slow if it takes longer than both: so many times the reference, and so many seconds."""

TRIES = 3
"""Runs of which each must be slow, so that a machine busy with something else is not blamed on the reader."""


# The record ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Misconception:
    """A mistake that people make: a wrong function of one to three lines, and the sentence for who made it."""

    name: str
    function: Callable[..., Any]
    sentence: str


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Exercise:
    """A task, and all that a check needs to know.

    Args:
        name: chapter and number, such as `"06.2"`.
        title: a few words, the same as in the heading of the notebook.
        verb: what the reader can do afterwards; the first cell of the notebook says it with the same word.
        minutes: for a reader.
        difficulty: 1 to 3.
        core: whether it belongs to the core of the chapter; otherwise it is stretch.
        cases: from small to large; speed is measured on the last one.
        oracle: the right answer, written without the library: loops, or numbers by hand.
        solution: the right answer as a reader would write it, and the reference of speed; never shown.
        misconceptions: at least one.
        hints: three; none uses a name that the task does not.

    Raises:
        SettingError: the record contradicts itself; the text says where.
    """

    name: str
    title: str
    verb: str
    minutes: int
    difficulty: int
    core: bool
    cases: tuple[Case, ...]
    oracle: Callable[..., Any]
    solution: Callable[..., Any]
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, ...]

    def __post_init__(self) -> None:
        for came, needed in chain(_faults_of_the_fields(self), _faults_of_the_answers(self)):
            raise SettingError(f"exercise {self.name}: {came}", needed)

    def __repr__(self) -> str:
        return f"{self.heading} ({self.effort})"

    @property
    def heading(self) -> str:
        """As it stands in the notebook."""
        return f"Exercise {self.name}: {self.title}"

    @property
    def effort(self) -> str:
        """Minutes, difficulty and place, in the words of the notebook."""
        return f"{self.minutes} minutes, difficulty {self.difficulty} of 3, {'core' if self.core else 'stretch'}"

    @cached_property
    def expected(self) -> list[NDArray]:
        """The right answer of each case."""
        return _arrays(self, "the oracle", self.oracle)

    @cached_property
    def mistaken(self) -> list[list[NDArray]]:
        """For each misconception its answer to each case."""
        return [_arrays(self, f"misconception {one.name!r}", one.function) for one in self.misconceptions]

    def check(self, function: object) -> Outcome:
        """Call a reader's function on the cases, say in words what was found, and note it in the progress file."""
        if not callable(function):
            came = f"`check` was given {form(function)}. It needs the function itself: its name, without brackets."
            return Outcome(Kind.NO_FUNCTION, f"{self.heading}: nothing to check", notes=(came,))
        answers, fault = _first_fault(self, function)
        if fault and fault.kind is Kind.NOT_ATTEMPTED:
            return Outcome(fault.kind, f"{self.heading}: not attempted yet", notes=(fault.sentence,))
        remark = progress_file.record(self.name, attempts=1, solved=fault is None)
        outcome = _not_yet(self, function, answers, fault) if fault else _solved(self, function)
        return outcome.with_note(remark)

    def hint(self, number: int | None = None) -> Card:
        """The next hint, or the one of this number; each is counted.

        Raises:
            SettingError: there is no such hint.
        """
        number = min(progress_file.hints_shown[self.name] + 1, HINTS) if number is None else number
        if not 1 <= number <= HINTS:
            raise SettingError(f"hint {number}", f"a number from 1 to {HINTS}")
        progress_file.hints_shown[self.name] = number
        remark = progress_file.record(self.name, hints=number)
        title = f"Hint {number} of {HINTS} for exercise {self.name}"
        return Card(title, f"{self.hints[number - 1]} {remark}".strip(), folded=True)


# Is the record sound? ------------------------------------------------------------------------------------------------


def _faults_of_the_fields(exercise: Exercise) -> Iterator[tuple[str, str]]:
    """Pairs of what came and what was needed."""
    names = [one.name for one in exercise.misconceptions]
    cases = [one.name for one in exercise.cases]
    if not re.fullmatch(r"\d\d\.[1-9]", exercise.name):
        yield "a name of another form", "chapter and number, such as 06.2"
    if exercise.difficulty not in (1, 2, 3) or exercise.minutes < 1:
        yield exercise.effort, "at least one minute, and a difficulty of 1, 2 or 3"
    if len(exercise.hints) != HINTS:
        yield f"{len(exercise.hints)} hints", f"{HINTS}: what to read again, the idea, the first line of code"
    if not names or not cases:
        yield f"{len(cases)} cases and {len(names)} misconceptions", "at least one of each"
    if len(set(names)) < len(names) or len(set(cases)) < len(cases):
        yield "two cases or two misconceptions of one name", "different names"
    sizes = [sum(map(size, case.arguments.values())) for case in exercise.cases]
    if sizes != sorted(sizes):
        yield f"cases with {sizes} input values", "cases from small to large"


def _faults_of_the_answers(exercise: Exercise) -> Iterator[tuple[str, str]]:
    """Every case is answered by all functions, and tells right from wrong and the misconceptions apart."""
    right = ("the oracle", exercise.expected)
    named = [(one.name, values) for one, values in zip(exercise.misconceptions, exercise.mistaken, strict=True)]
    if not _same_answers(exercise, exercise.expected, _arrays(exercise, "the solution", exercise.solution)):
        yield "the solution and the oracle disagree", "the same answer to every case"
    for (one, first), (other, second) in combinations([right, *named], 2):
        if _same_answers(exercise, first, second):
            yield f"{one} and {other} give the same answer to every case", "a case that tells them apart"


def _arrays(exercise: Exercise, who: str, function: Callable[..., Any]) -> list[NDArray]:
    """The answers of a function that the exercise itself brings."""
    arrays = []
    for case in exercise.cases:
        answer = ask(function, case)
        array = as_array(answer.value)
        if answer.error or answer.changed or array is None:
            came = f"{who} on case {case.name!r}: {answer.error or answer.changed or form(answer.value)}"
            raise SettingError(f"exercise {exercise.name}: {came}", "numbers or truth values, and the input unchanged")
        arrays.append(array)
    return arrays


def _same_answers(exercise: Exercise, one: list[NDArray], other: list[NDArray]) -> bool:
    return all(equal(a, b, case.tolerance) for case, a, b in zip(exercise.cases, one, other, strict=True))


# The outcome ---------------------------------------------------------------------------------------------------------


def _first_fault(exercise: Exercise, function: Callable[..., Any]) -> tuple[list[Answer], Fault | None]:
    """The answers up to the first one that is not right."""
    answers: list[Answer] = []
    for case, expected in zip(exercise.cases, exercise.expected, strict=True):
        answers.append(ask(function, case))
        if fault := judge(function, case, expected, answers[-1]):
            return answers, fault
    return answers, None


def _recognised(exercise: Exercise, function: Callable[..., Any], answers: list[Answer]) -> Misconception | None:
    """The misconception that gives exactly these answers, and the same as the function to the remaining cases too."""
    rest = [ask(function, case) for case in exercise.cases[len(answers) :]]
    values = [array for answer in (*answers, *rest) if (array := as_array(answer.value)) is not None]
    for one, mistaken in zip(exercise.misconceptions, exercise.mistaken, strict=True):
        if len(values) == len(mistaken) and _same_answers(exercise, values, mistaken):
            return one
    return None


def _not_yet(exercise: Exercise, function: Callable[..., Any], answers: list[Answer], fault: Fault) -> Outcome:
    right, cases = len(answers) - 1, exercise.cases
    known = _recognised(exercise, function, answers) if fault.kind in (Kind.VALUE, Kind.FORM, Kind.NOT_FINITE) else None
    lines = [Line(OK, case.name) for case in cases[:right]]
    facts = (("given", cases[right].given), *fault.facts)
    lines.append(Line(LOOK, cases[right].name, facts, known.sentence if known else fault.sentence))
    lines += [Line(WAIT, f"{case.name}: not judged yet") for case in cases[right + 1 :]]
    following = min(progress_file.hints_shown[exercise.name] + 1, HINTS)
    call = f'`exercise("{exercise.name}").hint()`'
    todo = f"Next: change that step and run both cells again. Hint {following} of {HINTS}: {call}."
    return Outcome(
        fault.kind,
        f"{exercise.heading}: not yet, {right} of {len(cases)} cases right",
        tuple(lines),
        (todo,),
        fault.trace,
        known.name if known else "",
    )


def _solved(exercise: Exercise, function: Callable[..., Any]) -> Outcome:
    lines = tuple(Line(OK, case.name) for case in exercise.cases)
    head = f"{exercise.heading}: solved, all {len(lines)} cases right"
    slow = (
        f"Remark: right, but more than {SLOWER} times slower than it could be on the case `{exercise.cases[-1].name}`. "
        "Is there a loop over single values? One operation on whole tensors does it at once."
    )
    return Outcome(Kind.SOLVED, head, lines, (slow,) if _is_slow(exercise, function) else ())


def _is_slow(exercise: Exercise, function: Callable[..., Any]) -> bool:
    case = exercise.cases[-1]
    limit = max(SLOWER * min(_seconds(exercise.solution, case) for _ in range(TRIES)), SLOW_SECONDS)
    return all(_seconds(function, case) > limit for _ in range(TRIES))


def _seconds(function: Callable[..., Any], case: Case) -> float:
    """Processor time of this thread, which other work on the machine does not lengthen much."""
    given = deepcopy(dict(case.arguments))
    start = time.thread_time()
    function(*given.values())
    return time.thread_time() - start
