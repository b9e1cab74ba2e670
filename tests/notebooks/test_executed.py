"""Every notebook is stored as it ran, whole, and with nothing of the machine in it."""

from __future__ import annotations

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from tests.notebooks import WRITTEN, execution, made, stored


def with_output(kind: str, **content: object) -> NotebookNode:
    """The small notebook with one more output in its first code cell."""
    notebook = made.executed()
    execution.codes(notebook)[0].outputs.append(new_output(kind, **content))
    return notebook


def with_count(count: int | None) -> NotebookNode:
    """The small notebook with another number at its first code cell."""
    notebook = made.executed()
    execution.codes(notebook)[0].execution_count = count
    return notebook


def with_metadata(whole: dict | None = None, cell: dict | None = None) -> NotebookNode:
    """The small notebook with more metadata."""
    notebook = made.executed()
    notebook.metadata.update(whole or {})
    notebook.cells[2].metadata.update(cell or {})
    return notebook


ERROR = {"ename": "KeyError", "evalue": "'a'", "traceback": ["KeyError: 'a'"]}
VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "0" * 32}, "text/plain": "a widget"}

BROKEN = [
    (execution.run_from_first_to_last, with_count(None)),
    (execution.run_from_first_to_last, with_count(3)),
    (execution.no_errors, with_output("error", **ERROR)),
    (execution.no_warnings, with_output("stream", name="stderr", text="UserWarning: slow")),
    (execution.metadata_of_the_kernel_only, with_metadata(whole={"widgets": {}})),
    (execution.metadata_of_the_kernel_only, with_metadata(whole={"language_info": {"version": "3.11.7"}})),
    (execution.metadata_of_the_kernel_only, with_metadata(cell={"execution": {"iopub.status.busy": "2026"}})),
    (execution.no_widgets, with_output("display_data", data=VIEW)),
    (execution.no_machine, with_output("stream", name="stdout", text="saved to /home/ada/runs")),
    (execution.no_machine, with_output("display_data", data={"text/html": "<p>C:\\Users\\ada</p>"})),
    (execution.everything_compared, with_metadata(cell={"tags": ["nbval-ignore-output"]})),
]


@pytest.mark.parametrize("rule", execution.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("stem", WRITTEN)
def test_the_notebook_keeps_the_rule(stem, rule):
    assert rule(stored(stem)) == []


@pytest.mark.parametrize("rule", execution.RULES, ids=lambda rule: rule.__name__)
def test_the_small_notebook_keeps_the_rule(rule):
    assert rule(made.executed()) == []


@pytest.mark.parametrize(("rule", "notebook"), BROKEN, ids=[rule.__name__ for rule, _ in BROKEN])
def test_a_broken_one_is_found_by_its_rule_alone(rule, notebook):
    assert [one.__name__ for one in execution.RULES if one(notebook)] == [rule.__name__]


def test_every_rule_has_been_broken():
    assert {rule for rule, _ in BROKEN} == set(execution.RULES)


def test_an_error_that_the_cell_announces_is_no_fault():
    notebook = with_output("error", **ERROR)
    execution.codes(notebook)[0].metadata["tags"] = ["raises-exception"]
    assert execution.no_errors(notebook) == []


def test_a_path_in_the_bytes_of_a_picture_is_no_fault():
    assert execution.no_machine(made.executed(html='<img alt="a" src="data:image/png;base64,A+/home/ada">')) == []
