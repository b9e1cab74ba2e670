"""What can go wrong, and how we say it.

Every error that a person can cause is a `TwoTowerError`. Its text is built here, in one place, from three parts:
what came, what was needed, what to do. The command line prints that text and exits with code 2; a program that
calls the library catches `TwoTowerError`, or `ValueError`, of which it is a child.

    TwoTowerError(ValueError)
    ├── SettingError        a setting is unknown or out of range
    ├── SourceError         a data set could not be fetched
    ├── DataError           a file of a person's own cannot be used as it is
    ├── SplitError          a split is impossible
    │   └── LeakError       a split that shows the model what it is asked for
    ├── UnknownIdError      a user or an item that the data does not hold
    ├── ShapeError          tensors that do not fit each other
    ├── ExactnessError      an approximate index where exact search is needed
    ├── OutputExistsError   a folder that would be overwritten, or cannot be made
    └── ArtifactError       a saved folder is missing, incomplete, damaged, or of another kind
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TwoTowerError(ValueError):
    """A mistake that the caller can mend.

    Args:
        came: what was received, in one clause.
        needed: what would have been right.
        do: the next step, when it is not obvious from `needed`.
    """

    def __init__(self, came: str, needed: str, do: str = "") -> None:
        self.came, self.needed, self.do = came, needed, do
        super().__init__("\n".join(part for part in (came, f"needed: {needed}", f"to do: {do}" if do else "") if part))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Errors cross process borders whole (a pickled exception is rebuilt from its parts)."""
        return type(self), (self.came, self.needed, self.do)


class SettingError(TwoTowerError):
    """A setting is unknown or out of range."""


class SourceError(TwoTowerError):
    """A data set could not be fetched, or what was fetched is not what the registry promises."""


class DataError(TwoTowerError):
    """A file cannot be used as it is; the text lists every fault with examples and line numbers."""


class SplitError(TwoTowerError):
    """A split is impossible with this data."""


class LeakError(SplitError):
    """A split that shows the model what it will be asked for."""


class UnknownIdError(TwoTowerError):
    """A user or an item that the data does not hold."""


class ShapeError(TwoTowerError):
    """Tensors that do not fit each other."""


class ExactnessError(TwoTowerError):
    """An approximate index where exact search is needed."""


class OutputExistsError(TwoTowerError):
    """A folder that would be overwritten, or cannot be made."""


class ArtifactError(TwoTowerError):
    """A saved folder is missing, incomplete, damaged, or of another kind."""


def need(holds: bool, setting: str, came: object, needed: str) -> None:
    """Refuse the value of a setting unless something holds.

    Raises:
        SettingError: it does not.
    """
    if not holds:
        raise SettingError(f"{setting} = {came}", needed)


def need_known(setting: str, came: str, known: Iterable[str]) -> None:
    """Refuse a name that is none of those known.

    Raises:
        SettingError: with the nearest known name.
    """
    if came not in known:
        raise SettingError(f"{setting} = {came}", ", ".join(known), nearest(came, known))


def nearest(word: str, known: Iterable[str]) -> str:
    """The clause that helps after a misspelt name.

    >>> nearest("tempreature", ["dim", "temperature"])
    'did you mean temperature?'
    >>> nearest("zzz", ["dim", "depth"])
    'known: depth, dim'
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    shown = ", ".join(names[:12])
    return f"known: {shown}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")
