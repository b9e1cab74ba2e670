"""Mutants: changes of one formula or one contract, each of which a test must notice.

Every module here holds a list `MUTANTS` of dicts:

    name    what is wrong, in the words of the course
    file    path from the root of the repository
    old     text that stands in the file exactly once
    new     what stands there instead
    test    the test that must turn red: `tests/test_losses.py::test_worked_by_hand`; with parameters in brackets, or
            without them, then one of the cases must turn red

`tests/test_mutants.py` makes each change in a copy of the repository and runs the test there: `pytest -m mutants`.
"""

from pathlib import PurePosixPath


def mutant(name: str, file: str, old: str, new: str, test: str) -> dict[str, str]:
    """A mutant of a module whose test has the same stem: `losses.py` and `test_losses.py`."""
    return {
        "name": name,
        "file": file,
        "old": old,
        "new": new,
        "test": f"tests/test_{PurePosixPath(file).stem}.py::{test}",
    }
