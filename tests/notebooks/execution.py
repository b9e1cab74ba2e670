"""What an executed notebook must hold and must not hold, as rules: each gives a list of faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from nbformat import NotebookNode

UNCOMPARED = {"nbval-ignore-output", "nbval-skip", "skip-execution"}
"""Tags that take a cell out of the comparison; none is allowed so far."""

WIDGET = "application/vnd.jupyter.widget"
MACHINE_PATH = re.compile(
    r"(?<![\w/.:])(?:/(?:home|Users|root|tmp|var|private|opt|usr|mnt|work|content)/|[A-Z]:\\|~/)\w"
)
PIXELS = re.compile(r"data:image/\w+;base64,[^\"]*")

Rule = Callable[[NotebookNode], list[str]]


def codes(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """All outputs."""
    return [output for cell in codes(notebook) for output in cell.outputs]


def texts(notebook: NotebookNode) -> Iterator[str]:
    """All text of the outputs, without the bytes of pictures."""
    for output in outputs(notebook):
        values = [output.get("text", ""), *output.get("data", {}).values(), *output.get("traceback", [])]
        yield from (PIXELS.sub("", value) for value in values if isinstance(value, str))


def run_from_first_to_last(notebook: NotebookNode) -> list[str]:
    """nbval never compares a cell that was not run."""
    counts = [cell.execution_count for cell in codes(notebook)]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"run in the order {counts}"]


def no_errors(notebook: NotebookNode) -> list[str]:
    """Except where the cell's tag says that it raises one."""
    failing = [cell for cell in codes(notebook) if any(one.output_type == "error" for one in cell.outputs)]
    return [cell.source[:40] for cell in failing if "raises-exception" not in cell.metadata.get("tags", [])]


def no_warnings(notebook: NotebookNode) -> list[str]:
    """Nothing on the error stream."""
    return [output.text[:80] for output in outputs(notebook) if output.get("name") == "stderr"]


def metadata_of_the_kernel_only(notebook: NotebookNode) -> list[str]:
    """No times, no versions, no state: the kernel of the notebook and the tags of cells."""
    faults = [f"notebook: {key}" for key in notebook.metadata.keys() - {"kernelspec"}]
    return faults + [f"cell: {key}" for cell in notebook.cells for key in cell.metadata.keys() - {"tags"}]


def no_widgets(notebook: NotebookNode) -> list[str]:
    """No view of a widget: without a kernel it is an error message."""
    return [key for output in outputs(notebook) for key in output.get("data", {}) if key.startswith(WIDGET)]


def no_machine(notebook: NotebookNode) -> list[str]:
    """No path of the machine on which it ran, and so no name of a user."""
    return [
        text[max(0, at.start() - 20) : at.end() + 20] for text in texts(notebook) for at in MACHINE_PATH.finditer(text)
    ]


def everything_compared(notebook: NotebookNode) -> list[str]:
    """No cell is taken out of the comparison."""
    return [tag for cell in notebook.cells for tag in cell.metadata.get("tags", []) if tag in UNCOMPARED]


RULES: list[Rule] = [
    run_from_first_to_last,
    no_errors,
    no_warnings,
    metadata_of_the_kernel_only,
    no_widgets,
    no_machine,
    everything_compared,
]
