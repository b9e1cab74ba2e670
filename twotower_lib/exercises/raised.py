"""An error in a reader's function, told from the reader's side: the own line first, the trace without machine paths."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from traceback import FrameSummary
from typing import Any

FRAMES = 20
"""Of a longer trace, the last ones."""


def in_short(error: Exception) -> str:
    """The kind of error, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def own_line(function: Callable[..., Any], error: Exception) -> str:
    """The deepest line of the reader's own code, such as "line 3 of your cell: x = y"."""
    frames = _own(function, error)
    if not frames:
        return "the call, before the first line of the function"
    return f"line {frames[-1].lineno} of {_place(frames[-1].filename)}: {frames[-1].line}"


def is_stub(function: Callable[..., Any], error: Exception) -> bool:
    """Whether the reader's own code raises NotImplementedError; torch raises it too, for other reasons."""
    if not isinstance(error, NotImplementedError):
        return False
    own, last = _own(function, error)[-1:], _frames(error)[-1:]
    return own == last and all(not one.line or one.line.startswith("raise") for one in last)


def trace(error: Exception) -> str:
    """The trace from the reader's function on."""
    frames = [FrameSummary(_place(one.filename), one.lineno, one.name, line=one.line) for one in _frames(error)]
    lines = traceback.format_list(frames[-FRAMES:]) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()


def _frames(error: Exception) -> list[FrameSummary]:
    return traceback.extract_tb(error.__traceback__)[1:]  # the first is the line of the check that made the call


def _own(function: Callable[..., Any], error: Exception) -> list[FrameSummary]:
    """The frames in the file, or the cell, in which the function is defined."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    frames = _frames(error)
    return [one for one in frames if one.filename == (code.co_filename if code else frames[0].filename)]


def _place(filename: str) -> str:
    """A cell by that word, a file by its folder and name: no path of this machine."""
    if "ipykernel" in filename or filename.startswith("<"):
        return "your cell"
    return "/".join(Path(filename).parts[-2:])
