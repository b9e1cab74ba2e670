"""One call of a reader's function, and what is wrong with what it gave back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower_lib.exercises.outcomes import Fault, Kind
from twotower_lib.exercises.raised import in_short, is_stub, own_line, trace
from twotower_lib.exercises.values import alike, as_array, equal, form, place, same_form, shown


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the reader's function: its arguments by name, in the order of the signature.

    The tolerance is absolute and relative; the oracle counts in float64, the reader probably in float32.
    """

    name: str
    arguments: Mapping[str, Any]
    tolerance: float = 1e-4

    @property
    def given(self) -> str:
        """The arguments as a reader is shown them."""
        return "; ".join(f"{name} = {shown(value)}" for name, value in self.arguments.items())


@dataclass(frozen=True)
class Answer:
    """What a function did with a case: gave a value or raised an error, and which arguments it changed."""

    value: Any = None
    error: Exception | None = None
    changed: tuple[str, ...] = ()


def ask(function: Callable[..., Any], case: Case) -> Answer:
    """Call a function with a copy of the arguments of a case."""
    given = deepcopy(dict(case.arguments))
    try:
        value = function(*given.values())
    except Exception as error:
        return Answer(error=error)
    changed = tuple(name for name, before in case.arguments.items() if not equal(before, given[name], 0.0))
    return Answer(value, changed=changed)


def judge(function: Callable[..., Any], case: Case, expected: NDArray, answer: Answer) -> Fault | None:
    """Why an answer is not right, or None where it is."""
    if answer.error is not None:
        return _raised(function, answer.error)
    if answer.value is ...:
        return Fault(Kind.NOT_ATTEMPTED, "The function still returns `...`. Write your own lines there.")
    if answer.value is None:
        return Fault(Kind.NOTHING, "The function returned None: is `return` missing?")
    yours = as_array(answer.value)
    if yours is None or not same_form(yours, expected):
        facts = (("expected", form(expected)), ("yours", form(answer.value)))
        return Fault(Kind.FORM, "The answer is of another type or shape than needed.", facts)
    right = alike(yours, expected, case.tolerance)
    if not right.all():
        return _another_value(yours, expected, right)
    if answer.changed:
        names = ", ".join(f"`{name}`" for name in answer.changed)
        sentence = f"The values are right, but the function changed its input {names}, and whoever called it goes on "
        return Fault(
            Kind.CHANGED, sentence + "with other numbers. Make a new tensor (no `-=`, no method ending in `_`)."
        )
    return None


def _raised(function: Callable[..., Any], error: Exception) -> Fault:
    if is_stub(function, error):
        return Fault(
            Kind.NOT_ATTEMPTED,
            "The function still raises NotImplementedError. Write your own lines there, and run both cells again.",
        )
    facts = (("error", in_short(error)), ("in", own_line(function, error)))
    return Fault(Kind.RAISED, "The function raised an error.", facts, trace(error))


def _another_value(yours: NDArray, expected: NDArray, right: NDArray) -> Fault:
    """Small answers are shown whole, of large ones the first place that differs."""
    index = tuple(int(one) for one in np.argwhere(~right)[0])
    where = f" at {place(index)}" if index else ""
    if shown(expected) == form(expected):
        pair = (expected[index], yours[index])
    else:
        pair, where = (expected, yours), ""
    digits = 4 if shown(pair[0]) != shown(pair[1]) else 9
    facts = (("expected", shown(pair[0], digits) + where), ("yours", shown(pair[1], digits)))
    if yours.dtype != bool and (bad := np.asarray(~np.isfinite(yours) & ~right)).any():
        return Fault(Kind.NOT_FINITE, _not_finite(yours, bad), facts)
    first = f"The first difference is at {place(index)} (counted from 0)." if index else ""
    return Fault(Kind.VALUE, first, facts)


def _not_finite(yours: NDArray, bad: NDArray) -> str:
    index = tuple(int(one) for one in np.argwhere(bad)[0])
    where = f" at {place(index)}" if index else ""
    return f"The answer is {yours[index]}{where}: look for a log of 0, a division by 0, or an exp of a large number."
