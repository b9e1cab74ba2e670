"""What a check says, as text and as HTML of the same words: marks with a word beside them, never a colour alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from html import escape

OK, LOOK, WAIT = "✓ ok", "✗ look", "· wait"
"""The marks of a case: right, the one to look at, and those after it."""

COLOURS = {True: "#009E73", False: "#D55E00"}
"""Of the line beside an outcome: solved, or not."""


class Kind(StrEnum):
    """How a check can end."""

    SOLVED = "solved"
    NOT_ATTEMPTED = "not attempted yet"
    NO_FUNCTION = "not a function"
    RAISED = "raised an error"
    NOTHING = "returned None"
    FORM = "another type or shape"
    NOT_FINITE = "not finite"
    VALUE = "another value"
    CHANGED = "changed its input"


@dataclass(frozen=True)
class Fault:
    """Why an answer is not right: one sentence, and pairs of a word and a value beside it."""

    kind: Kind
    sentence: str
    facts: tuple[tuple[str, str], ...] = ()
    trace: str = ""


@dataclass(frozen=True)
class Line:
    """One case: its mark, its name, what is to be known about it, and one sentence."""

    mark: str
    case: str
    facts: tuple[tuple[str, str], ...] = ()
    """Pairs of a word and a value, such as expected and 0.25."""
    sentence: str = ""


@dataclass(frozen=True, repr=False)
class Outcome:
    """The outcome of a check; a notebook shows it as HTML, a terminal as text.

    Attributes:
        kind: how the check ended.
        head: the exercise and how it stands, in one line.
        lines: one a case.
        notes: what to do next, and remarks that are no failures.
        trace: of an error, folded in HTML and last in the text; never first.
        misconception: the name of the one that was recognised.
    """

    kind: Kind
    head: str
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    trace: str = ""
    misconception: str = ""

    @property
    def solved(self) -> bool:
        """Whether all cases are right."""
        return self.kind is Kind.SOLVED

    def with_note(self, note: str) -> Outcome:
        """The same with one note more, where there is one."""
        return replace(self, notes=(*self.notes, note)) if note else self

    def __repr__(self) -> str:
        lines = [self.head]
        for line in self.lines:
            lines.append(f"  {line.mark:<6}  {line.case}")
            lines += [f"{'':10}{word:<8}  {value}" for word, value in line.facts]
            lines += [f"{'':10}{line.sentence}"] if line.sentence else []
        lines += self.notes
        return "\n".join([*lines, *(["Full trace", self.trace] if self.trace else [])])

    def _repr_html_(self) -> str:
        cases = "".join(map(_item, self.lines))
        trace = f"<details><summary>Full trace</summary><pre>{escape(self.trace)}</pre></details>" if self.trace else ""
        return (
            f'<div class="tt-check" style="border-left: 4px solid {COLOURS[self.solved]}; padding-left: 1em">'
            f"<p><b>{marked_up(self.head)}</b></p>"
            + (f'<ul style="list-style: none; padding-left: 0; margin: 0 0 0.6em">{cases}</ul>' if cases else "")
            + "".join(f"<p>{marked_up(note)}</p>" for note in self.notes)
            + f"{trace}</div>"
        )


@dataclass(frozen=True, repr=False)
class Card:
    """A title and a text under it: a hint, a guess, a measured value. Folded, it does not give itself away."""

    title: str
    text: str
    folded: bool

    def __repr__(self) -> str:
        return f"{self.title}\n{self.text}"

    def _repr_html_(self) -> str:
        title, text = marked_up(self.title), marked_up(self.text)
        if self.folded:
            return f'<details class="tt-card"><summary>{title}</summary><p>{text}</p></details>'
        return f'<div class="tt-card"><p><b>{title}</b></p><p>{text}</p></div>'


def _item(line: Line) -> str:
    rows = "".join(
        f'<tr style="background: none"><th scope="row" style="text-align: left; vertical-align: top">{word}</th>'
        f'<td style="text-align: left"><code>{escape(value)}</code></td></tr>'
        for word, value in line.facts
    )
    mark = f'<span style="display: inline-block; min-width: 4em"><b>{line.mark}</b></span>'
    return (
        f'<li style="margin: 0.2em 0">{mark} {marked_up(line.case)}'
        + (f'<table style="margin: 0.3em 0 0.3em 4em">{rows}</table>' if rows else "")
        + (f'<p style="margin: 0.3em 0 0.3em 4em">{marked_up(line.sentence)}</p>' if line.sentence else "")
        + "</li>"
    )


def marked_up(text: str) -> str:
    """Plain text as HTML; what stands between backticks is code.

    >>> marked_up("is `a < b`?")
    'is <code>a &lt; b</code>?'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
