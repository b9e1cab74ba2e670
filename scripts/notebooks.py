"""Run the notebooks: notebooks/NN_stem.py -> notebooks/NN_stem.ipynb with its outputs, and the table in their README.

python scripts/notebooks.py [NN_stem ...]    run all, or those named
python scripts/notebooks.py --check          run none: is the table complete, is everything within its budget?

The .py file is the source; the .ipynb keeps the ids of its cells. A file stays as it is, to the byte, where nothing
changed for a reader (`notebook_outputs.py`), and of a notebook in which a cell fails nothing is written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from subprocess import DEVNULL
from threading import Event, Thread

import jupytext
import nbformat
import psutil
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from notebook_outputs import keep_equal, strip
from notebook_table import NAME, Cost, check, over_budget, read_table, settled, sources, table

from twotower_lib.storage import write_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(ROOT / "tests" / "notebooks" / "closed_network"),
}
"""What a kernel sees beside the environment of this process; the Makefile gives nbval the same."""

PROC = Path("/proc")

CELL_SECONDS = 120
"""The most that one cell may take."""


class CellFailed(Exception):
    """A cell of a notebook failed; the text says which one, and why."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for, write the table, print what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stems", nargs="*", metavar="NN_stem", help="the notebooks to run; all without one")
    parser.add_argument("--check", action="store_true", help="run none, only look at the table and the budgets")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.stems) - {source.stem for source in sources(asked.folder)}:
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}")
    faults = check(asked.folder) if asked.check else run_all(asked.folder, asked.stems)
    print(*faults, sep="\n\n", end="\n" if faults else "", file=sys.stderr)
    return int(bool(faults))


def run_all(folder: Path, stems: list[str]) -> list[str]:
    """Run notebooks and write the table; return what failed and what is over its budget."""
    failed, costs, found = [], {}, sources(folder)
    for source in found:
        if stems and source.stem not in stems:
            continue
        try:
            costs[source.stem] = cost = run(source)
            print(f"{source.stem}: {cost.seconds} s, {cost.megabytes} MB")
        except CellFailed as error:
            failed.append(str(error))
    if costs:
        write_if_changed(folder / NAME, table(found, settled(costs, read_table(folder))))
    return list(dict.fromkeys([*failed, *over_budget(costs), *check(folder)]))


# One notebook --------------------------------------------------------------------------------------------------------


def run(source: Path) -> Cost:
    """Execute one notebook and store it where it differs from what is stored."""
    target = source.with_suffix(".ipynb")
    stored, same_code = last_run(source, target)
    notebook = deepcopy(stored)
    cost = execute(notebook, source)
    strip(notebook)
    strip(stored)
    keep_equal(notebook, stored, same_code)
    nbformat.validate(notebook)
    write_if_changed(target, nbformat.writes(notebook) + "\n")
    return cost


def last_run(source: Path, target: Path) -> tuple[NotebookNode, bool]:
    """The cells of the source with ids and outputs of the last run, and whether that run was of the same code."""
    notebook = jupytext.read(source)
    if not target.exists():
        return notebook, False
    stored = nbformat.read(target, as_version=4)
    return combine_inputs_with_outputs(notebook, stored, "py:percent"), code(notebook) == code(stored)


def code(notebook: NotebookNode) -> list[str]:
    """The sources of the code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook: NotebookNode, source: Path) -> Cost:
    """Run all cells in a fresh kernel in the folder of the notebook."""
    place, reached = {"metadata": {"path": str(source.parent)}}, []
    stored = {"store_widget_state": False, "record_timing": False, "coalesce_streams": True}
    client = NotebookClient(notebook, timeout=CELL_SECONDS, resources=place, **stored)
    client.on_cell_start = lambda cell, cell_index: reached.append(cell_index)
    before = os.times()
    try:
        with peak_of_children() as peaks:
            client.execute(env=os.environ | ENVIRONMENT, stderr=DEVNULL)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise CellFailed(failure(source, notebook, reached[-1], error)) from error
    return Cost(round(seconds(before, os.times())), round(max(peaks) / 1e6))


def seconds(before: os.times_result, after: os.times_result) -> float:
    """Processor time of the processes that ended in between, or elapsed time where that is less.

    So a run takes no longer on a machine that is busy with something else, nor where two cores work on it.
    """
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return min(used, after.elapsed - before.elapsed)


def failure(source: Path, notebook: NotebookNode, number: int, error: Exception) -> str:
    """The notebook, the cell, and what it raised."""
    if isinstance(error, CellExecutionError):
        reason = f"{error.ename}: {error.evalue}"
    else:
        reason = f"took over {CELL_SECONDS} s" if isinstance(error, CellTimeoutError) else "the kernel died"
    lines = (f"    {line}" for line in notebook.cells[number].source.splitlines())
    return "\n".join([f"{source.stem}, cell {number + 1} of {len(notebook.cells)}: {reason}", *lines])


@contextmanager
def peak_of_children() -> Iterator[list[int]]:
    """Bytes of memory of all processes below this one, looked at twenty times a second."""
    done, sums = Event(), [0]

    def watch() -> None:
        while not done.wait(0.05):
            sums.append(sum(map(memory_of, psutil.Process().children(recursive=True))))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield sums
    finally:
        done.set()
        watcher.join()


def memory_of(process: psutil.Process) -> int:
    """The most that a process has had in memory so far, where the system says so (Linux); elsewhere what it has now."""
    try:
        if PROC.is_dir():
            highest = re.search(r"VmHWM:\s+(\d+) kB", (PROC / str(process.pid) / "status").read_text())
            return int(highest[1]) * 1024 if highest else 0
        return process.memory_info().rss
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return 0  # it has just ended


def write_if_changed(path: Path, text: str) -> None:
    """Leave a file alone that says the same."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


if __name__ == "__main__":
    sys.exit(main())
