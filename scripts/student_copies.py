"""Student copies: notebooks/NN_stem.py -> notebooks/exercises/NN_stem.ipynb, without solutions and without outputs.

python scripts/student_copies.py [--check]    write them, or exit with 1 if one would change

In the source, a cell with the tag `exercise` holds a solved function, and the lines between `### BEGIN SOLUTION` and
`### END SOLUTION` are cut from it:

    # %% tags=["exercise"]
    def logits(users, items, temperature):
        "The logits of all users and items, a row a user."
        ### BEGIN SOLUTION
        return users @ items.T / temperature
        ### END SOLUTION

A cell with the tag `solution` is dropped whole. Both words are those of nbgrader, whose tools read the same source. A
chapter without exercises has no copy.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from hashlib import sha256
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from twotower_lib.storage import write_text

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
EXERCISE, SOLUTION = "exercise", "solution"

STUB = ("# your code here", 'raise NotImplementedError("your code here")')

NOTE = """\
**This is your copy.** Where a cell says `# your code here`, write your own lines in place of it and of the line below,
run the cell, and then the one that checks it. Later cells do not need your answer: *Run All* works from the start. The
chapter with its outputs and the solutions is [{stem}](../{stem}.ipynb)."""


class SourceFault(Exception):
    """The source of a notebook cannot be turned into a copy; the text says where and why."""


def main(arguments: list[str] | None = None) -> int:
    """Write the copies, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a copy would change")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    try:
        wanted = copies(asked.folder)
    except SourceFault as fault:
        print(fault, file=sys.stderr)
        return 1
    stale = differing(asked.folder / "exercises", wanted)
    if asked.check:
        faults = [
            f"notebooks/exercises/{name} is not what its source says; run python scripts/student_copies.py"
            for name in stale
        ]
        print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
        return int(bool(faults))
    for name in stale:
        write(asked.folder / "exercises" / name, wanted.get(name))
    return 0


def copies(folder: Path) -> dict[str, str]:
    """File name -> text of every student copy."""
    sources = {path.stem: jupytext.read(path) for path in sorted(folder.glob("[0-9][0-9]_*.py"))}
    with_exercises = {stem for stem, notebook in sources.items() if any(map(is_exercise, notebook.cells))}
    return {f"{stem}.ipynb": text(sources[stem], stem, with_exercises) for stem in sorted(with_exercises)}


def differing(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Names of the files that are missing, too many, or of another text."""
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.ipynb")}
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def write(path: Path, content: str | None) -> None:
    """Write a copy, or remove one that has no source any more."""
    if content is None:
        path.unlink()
    else:
        write_text(path, content)


# One copy ------------------------------------------------------------------------------------------------------------


def text(notebook: NotebookNode, stem: str, with_exercises: set[str]) -> str:
    """The copy of one notebook as the text of its file."""
    copy = student_copy(notebook, stem, with_exercises)
    nbformat.validate(copy)
    return nbformat.writes(copy) + "\n"


def student_copy(notebook: NotebookNode, stem: str, with_exercises: set[str]) -> NotebookNode:
    """The cells of a source that a student gets, with ids that depend on nothing but their text."""
    first, *rest = [cell for cell in notebook.cells if SOLUTION not in tags(cell)]
    kept = [first, new_markdown_cell(NOTE.format(stem=stem)), *rest]
    seen: dict[str, int] = {}
    for cell in kept:
        if cell.cell_type == "code":
            cell.source = without_solution(cell, stem)
        elif cell is not kept[1]:
            cell.source = relinked(cell.source, with_exercises)
        number = seen[cell.source] = seen.get(cell.source, -1) + 1
        cell.id = sha256(f"{number} {cell.source}".encode()).hexdigest()[:8]
        cell.metadata = NotebookNode({"tags": tags(cell)} if tags(cell) else {})
    metadata = NotebookNode(kernelspec=notebook.metadata.kernelspec)
    return NotebookNode(cells=kept, metadata=metadata, nbformat=4, nbformat_minor=5)


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def is_exercise(cell: NotebookNode) -> bool:
    """Whether a cell has something to cut; the tag alone or a mark alone is found later."""
    return EXERCISE in tags(cell) or BEGIN in cell.source


def without_solution(cell: NotebookNode, stem: str) -> str:
    """The code of a cell with a stub in place of each solution."""
    lines: list[str] = []
    inside = False
    for line in cell.source.splitlines():
        if line.strip() in (BEGIN, END):
            refuse(inside == (line.strip() == BEGIN), stem, cell, f"`{line.strip()}` without its other half before it")
            inside = not inside
            indent = line[: -len(line.lstrip())] if line[0] == " " else ""
            refuse(not indent, stem, cell, "a solution outside of a function, which would stop Run All")
            lines += [indent + one for one in STUB if inside]
        elif not inside:
            lines.append(line)
    refuse(inside, stem, cell, f"`{BEGIN}` without `{END}`")
    has_cut = STUB[0] in map(str.strip, lines)
    refuse(
        has_cut != (EXERCISE in tags(cell)),
        stem,
        cell,
        f"the tag `{EXERCISE}` without a solution to cut, or a cut without it",
    )
    source = "\n".join(lines)
    refuse(has_cut and not is_python(source), stem, cell, "what is left is no Python")
    return source


def refuse(fault: bool, stem: str, cell: NotebookNode, reason: str) -> None:
    """Stop where a source breaks a rule."""
    if fault:
        raise SourceFault(f"notebooks/{stem}.py, cell {cell.source.splitlines()[0]!r}: {reason}")


def is_python(source: str) -> bool:
    """Whether a text can be parsed."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def relinked(source: str, with_exercises: set[str]) -> str:
    """Prose whose relative links work one folder deeper; a chapter that has a copy is linked as that copy."""

    def target(match: re.Match[str]) -> str:
        stem = match[1].partition(".ipynb")[0]
        return match[0] if stem in with_exercises else f"](../{match[1]})"

    return re.sub(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)", target, source)


if __name__ == "__main__":
    sys.exit(main())
