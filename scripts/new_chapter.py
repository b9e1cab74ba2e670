"""Begin a chapter: a notebook with every part that a chapter needs, which has run and passes every test.

python scripts/new_chapter.py NN stem    such as 01 data

Number and stem are those of the course table in notebooks/00_start.py. The text comes from `new_chapter_source.py`, a
small example of each part on invented data. It is run first and written afterwards: notebooks/NN_stem.py, the executed
.ipynb beside it, its row in notebooks/README.md, and its name in `WRITTEN` of tests/notebooks/__init__.py.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from notebook_table import NAME, Cost, read_table, settled, sources, table

from notebooks import CellFailed, run
from twotower_lib.errors import OutputExistsError, SettingError, TwoTowerError, nearest
from twotower_lib.storage import write_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
SOURCE = Path(__file__).with_name("new_chapter_source.py")
COLAB_CELL = Path(__file__).with_name("colab_cell.py")
LIST = ROOT / "tests" / "notebooks" / "__init__.py"

ROW = re.compile(r"^# \| (\d\d_\w+)(?: \*)? \| (.+) \|$", re.M)
"""A chapter and its lesson in the course table."""

LINE = 120

NEXT = """\
notebooks/{stem}.py has run, and its name stands in WRITTEN and in notebooks/README.md.

Next
  1. Replace the example part by part: `grep -n "To write" notebooks/{stem}.py` shows what is left of it.
  2. python scripts/notebooks.py {stem}        runs it and stores its outputs
  3. Exercises: twotower_lib/exercises/{word}.py, and one line in CHAPTERS: "{number}": "{word}".
     Then python -m tests.exercise_table, and python scripts/student_copies.py for the student copies.
  4. Its line in the course table of README.md, and in CHANGELOG.md.
CONTRIBUTING.md has the checklist: "How to write a chapter in an hour"."""


def main(arguments: list[str] | None = None) -> int:
    """Make the chapter and say what comes next; 2 if it cannot be asked for, 1 if the example does not run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", metavar="NN", help="two digits, such as 01")
    parser.add_argument("word", metavar="stem", help="the word after it, such as data")
    asked = parser.parse_args(arguments)
    stem = f"{asked.number}_{asked.word}"
    try:
        begin(stem)
    except (TwoTowerError, CellFailed) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, TwoTowerError) else 1
    print(NEXT.format(stem=stem, number=asked.number, word=asked.word))
    return 0


def begin(stem: str) -> None:
    """Run the example of a chapter, then write all of its files.

    Raises:
        SettingError: it is not in the course table.
        OutputExistsError: some of it exists already.
        CellFailed: a cell of the example failed.
    """
    course = dict(ROW.findall((FOLDER / "00_start.py").read_text(encoding="utf-8")))
    if stem not in course:
        row = "number and stem as in a row of the course table in notebooks/00_start.py"
        raise SettingError(f"no chapter {stem!r} in the course", row, nearest(stem, course))
    refuse_existing(stem)
    with TemporaryDirectory() as place:
        source = Path(place) / f"{stem}.py"
        write_text(source, filled(stem, course))
        texts = files(source, run(source), list(course))
    write_all(texts)


def refuse_existing(stem: str) -> None:
    """Refuse a chapter of which anything is there."""
    there = [path for path in (FOLDER / f"{stem}.py", FOLDER / f"{stem}.ipynb") if path.exists()]
    names = [f"notebooks/{path.name}" for path in there] + ["its name in WRITTEN"] * (stem in written())
    if names:
        came = f"of the chapter {stem} there is already {' and '.join(names)}"
        raise OutputExistsError(came, "one that is not begun", f"edit it, then python scripts/notebooks.py {stem}")


def filled(stem: str, course: Mapping[str, str]) -> str:
    """The source of the example under the name of a chapter."""
    names = list(course)
    place = names.index(stem)
    after = names[place + 1 : place + 2]
    text = SOURCE.read_text(encoding="utf-8").replace("# $colab_cell", "$colab_cell")
    return Template(text).substitute(
        title=stem[3:].replace("_", " ").capitalize(),
        number=stem[:2],
        lesson=course[stem],
        before=names[place - 1],
        after=f"Next comes `{after[0]}`." if after else "This was the last chapter.",
        colab_cell=COLAB_CELL.read_text(encoding="utf-8").rstrip("\n"),
    )


def files(source: Path, cost: Cost, course: list[str]) -> dict[Path, str]:
    """What is to be written for a chapter that has run elsewhere: path -> text."""
    found = sorted([*sources(FOLDER), source], key=lambda path: path.name)
    costs = settled({source.stem: cost}, read_table(FOLDER))
    executed = source.with_suffix(".ipynb")
    return {
        FOLDER / source.name: source.read_text(encoding="utf-8"),
        FOLDER / executed.name: executed.read_text(encoding="utf-8"),
        FOLDER / NAME: table(found, costs),
        LIST: listing(LIST.read_text(encoding="utf-8"), [one for one in course if one in {*written(), source.stem}]),
    }


def write_all(texts: Mapping[Path, str]) -> None:
    """Write all files; where one cannot be written, bring back what was there."""
    before = {path: path.read_text(encoding="utf-8") if path.exists() else None for path in texts}
    try:
        for path, text in texts.items():
            write_text(path, text)
    except BaseException:
        for path, old in before.items():
            path.unlink(missing_ok=True) if old is None else write_text(path, old)
        raise


# The list of the chapters that are written ---------------------------------------------------------------------------


def written() -> list[str]:
    """The chapters in `WRITTEN`."""
    stems: list[str] = ast.literal_eval(assignment(LIST.read_text(encoding="utf-8")).value)
    return stems


def listing(text: str, stems: list[str]) -> str:
    """The text of the module with these chapters in `WRITTEN`, as ruff lays them out."""
    old, lines = assignment(text), text.splitlines(keepends=True)
    quoted = [f'"{stem}"' for stem in stems]
    new = f"WRITTEN = [{', '.join(quoted)}]\n"
    if len(new) > LINE + 1:
        new = "WRITTEN = [\n" + "".join(f"    {one},\n" for one in quoted) + "]\n"
    return "".join([*lines[: old.lineno - 1], new, *lines[old.end_lineno :]])


def assignment(text: str) -> ast.Assign:
    """The statement `WRITTEN = [...]`."""
    (found,) = [
        one for one in ast.parse(text).body if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "WRITTEN"
    ]
    return found


if __name__ == "__main__":
    sys.exit(main())
