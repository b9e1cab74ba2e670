"""How much there is to read: lines of code a module, lengths of functions, and the limits on both (`make lint`).

A line of code is a line with something to execute: no comment, no docstring, no blank. Exits 1 over a limit.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

LIBRARY = Path(__file__).resolve().parent.parent / "twotower_lib"

LIBRARY_LIMIT = 5_500
"""Lines of the library without the exercises."""

NOTEBOOK_LIMIT = 3_400
"""Lines of the modules that notebooks import, which a student reads; `recipe` and `bundle` since `00_start`."""

HALF_OF_FUNCTIONS, NINE_IN_TEN = 10, 30
"""Lines under which that many functions stay."""

FILE_LIMIT = 400
"""A longer file must be one idea and stand in `LONG_FILES`."""

LONG_FILES: dict[str, str] = {}
"""Path within the library -> the one idea that keeps it whole."""

BEHIND_THE_NOTEBOOKS = {"errors", "storage", "settings", "sources", "formats", "own_files", "optimisers", "topk", "ann"}
BEHIND_THE_NOTEBOOKS |= {"monitoring", "serving", "exercises", "sweep", "cli"}
"""Modules that no notebook imports."""

NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class File:
    """One file of the library."""

    path: Path
    lines: frozenset[int]  # the numbers of the lines of code
    functions: tuple[int, ...]  # lines of code of each function

    @property
    def module(self) -> str:
        """The first word of the path: `losses` for losses.py, `exercises` for everything in that folder."""
        return self.path.parts[0].removesuffix(".py")


@dataclass(frozen=True)
class Limit:
    """Something counted, and the number that it must stay under."""

    what: str
    found: float
    under: int


def main() -> None:
    """Print the table; end with the list of what is over its limit."""
    files = read_library(LIBRARY)
    print("\n".join(table(files)))
    if broken := over_limits(files):
        sys.exit("\n".join(["", "Over the limit:", *broken]))


def read_library(folder: Path) -> list[File]:
    """All Python files under a folder; finding none is an error."""
    files = [read_file(path, folder) for path in sorted(folder.rglob("*.py"))]
    assert files, f"no Python file under {folder}"
    return files


def read_file(path: Path, folder: Path) -> File:
    """Count one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = frozenset(lines_with_tokens(text) - lines_of_docstrings(tree))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = tuple(len(lines.intersection(range(node.lineno, node.end_lineno + 1))) for node in functions)
    return File(path.relative_to(folder), lines, lengths)


def lines_with_tokens(text: str) -> set[int]:
    """The lines on which something other than a comment stands."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = (range(token.start[0], token.end[0] + 1) for token in tokens if token.type not in NOT_CODE)
    return {line for span in spans for line in span}


def lines_of_docstrings(tree: ast.Module) -> set[int]:
    """The lines of every string that is a statement of its own: docstrings, and those under a constant."""
    return {line for node in ast.walk(tree) if is_text(node) for line in range(node.lineno, node.end_lineno + 1)}


def is_text(node: ast.AST) -> bool:
    """A string that nothing is done with."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def table(files: list[File]) -> Iterator[str]:
    """The table as lines of text; * marks the modules that notebooks import."""
    yield f"{'module':<28}{'lines of code':>14}{'functions':>11}"
    for file in sorted(files, key=lambda file: -len(file.lines)):
        mark = " *" if file in for_notebooks(files) else ""
        yield f"{str(file.path) + mark:<28}{len(file.lines):>14,}{len(file.functions):>11}"
    for limit in limits(files):
        yield f"{limit.what:<28}{limit.found:>14,.0f}  (must be under {limit.under:,})"


def over_limits(files: list[File]) -> list[str]:
    """One line for each limit that is broken."""
    long = {str(file.path): len(file.lines) for file in house(files) if len(file.lines) > FILE_LIMIT}
    broken = [f"{limit.what}: {limit.found:,.0f}" for limit in limits(files) if limit.found >= limit.under]
    broken += [
        f"{path}: {long[path]} lines; split it, or give its one idea in LONG_FILES" for path in long.keys() - LONG_FILES
    ]
    return broken + [f"{path}: in LONG_FILES, but not long" for path in LONG_FILES.keys() - long]


def limits(files: list[File]) -> list[Limit]:
    """Everything that is limited, and how much of it there is."""
    lengths = [length for file in house(files) for length in file.functions]
    tenths = quantiles(lengths, n=10, method="inclusive")
    return [
        Limit("without exercises", total(house(files)), LIBRARY_LIMIT),
        Limit("imported by notebooks *", total(for_notebooks(files)), NOTEBOOK_LIMIT),
        Limit("half of the functions", tenths[4], HALF_OF_FUNCTIONS),
        Limit("nine functions in ten", tenths[8], NINE_IN_TEN),
    ]


def house(files: list[File]) -> list[File]:
    """The library without the exercises."""
    return [file for file in files if file.module != "exercises"]


def for_notebooks(files: list[File]) -> list[File]:
    """The modules that notebooks import."""
    return [file for file in files if file.module not in BEHIND_THE_NOTEBOOKS]


def total(files: list[File]) -> int:
    """Lines of code together."""
    return sum(len(file.lines) for file in files)


if __name__ == "__main__":
    main()
