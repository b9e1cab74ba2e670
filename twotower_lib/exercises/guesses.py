"""A guess before a number is shown: `predict` asks and stores, `compare` shows both side by side.

    predict("How many of the 20 items are known to most people?", guess=None, unit="items", key="00.known")
    compare("00.known", measured)

Where no guess was made (a page without a kernel, a notebook that is run from top to bottom) the measured value stays
folded, so that a reader can still guess first.
"""

from __future__ import annotations

from dataclasses import replace

from twotower_lib.errors import SettingError, nearest
from twotower_lib.exercises import progress_file
from twotower_lib.exercises.outcomes import Card
from twotower_lib.exercises.progress_file import Guess

Value = float | int | str

CLOSE = 1.1
"""A guess within this factor of the measured value is called close."""


def predict(question: str, guess: Value | None = None, *, unit: str = "", key: str) -> Card:
    """Ask for a guess and store it.

    Args:
        question: what is to be guessed.
        guess: the reader's number or word; None where there is none yet.
        unit: of the number.
        key: chapter and name, such as `"06.bias"`; `compare` takes the same.
    """
    asked = Guess(question=question, unit=unit, guess=guess)
    remark = progress_file.change(lambda stored: replace(stored, guesses=stored.guesses | {key: asked}))
    title = f"Guess first: {question}"
    if guess is None:
        text = "No guess yet. Write your answer in the cell in place of `None` and run it, or write it on paper."
        return Card(title, _joined(text, remark), folded=True)
    return Card(title, _joined(f"Your guess: {_number(guess, unit)}.", remark), folded=False)


def compare(key: str, measured: Value) -> Card:
    """The measured value, beside the guess if there is one.

    Raises:
        SettingError: `predict` was never called with this key.
    """
    guesses = progress_file.read()[0].guesses
    if key not in guesses:
        raise SettingError(
            f"nothing was asked under {key!r}", "a key that `predict` was called with", nearest(key, guesses)
        )
    asked = guesses[key]
    value = f"Measured: {_number(measured, asked.unit)}."
    if asked.guess is None:
        return Card(f"Measured, after your guess: {asked.question}", value, folded=True)
    text = f"Your guess: {_number(asked.guess, asked.unit)}. {value} {_sentence(asked.guess, measured)}"
    return Card(asked.question, text, folded=False)


def _sentence(guess: Value, measured: Value) -> str:
    if isinstance(guess, str) or isinstance(measured, str):
        same = str(guess).strip().casefold() == str(measured).strip().casefold()
        return "As you said." if same else "Not what you said: what did you not think of?"
    low, high = sorted((guess, measured))
    if low <= 0:
        return "Exactly." if low == high else f"Too {'low' if guess < measured else 'high'} by {_number(high - low)}."
    if high / low <= CLOSE:
        return "Close."
    return f"Too {'low' if guess < measured else 'high'} by a factor of {_number(high / low)}."


def _number(value: Value, unit: str = "") -> str:
    """Three digits that count, and the unit."""
    text = value if isinstance(value, str) else f"{float(f'{value:.3g}'):,g}"
    return f"{text} {unit}".strip()


def _joined(text: str, remark: str) -> str:
    return f"{text} {remark}".strip()
