"""A stored output that is wrong turns nbval red: each one in memory, and one notebook through pytest itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from notebook_outputs import NOT_COMPARED, Comparison

from notebooks import ENVIRONMENT, run
from tests.notebooks import MAKEFILE, ROOT, WRITTEN, execution, made, stored

COMPARED = {"text/plain", "text/html"}
"""Every kind of output that the notebooks hold."""

HIDDEN = re.compile(r"base64,[^\"]*|<!-- measured here: begin -->.*?<!-- measured here: end -->", re.S)
"""What the sanitise file may hide, written a second time."""


def corrupted(text: str) -> str:
    """The text with its last visible letter or digit changed; the same text where all of it may be hidden."""
    hidden = {place for match in HIDDEN.finditer(text) for place in range(*match.span())}
    places = [place for place, sign in enumerate(text) if sign.isalnum() and place not in hidden]
    return text[: places[-1]] + ("1" if text[places[-1]] != "1" else "2") + text[places[-1] + 1 :] if places else text


def corruptions(outputs: list[NotebookNode]) -> Iterator[tuple[str, list[NotebookNode]]]:
    """Each output of a cell taken away, and each of its texts changed in one sign."""
    for number, output in enumerate(outputs):
        yield f"output {number} missing", outputs[:number] + outputs[number + 1 :]
        for home, key in [(output, "text"), (output, "evalue"), *((output.get("data"), kind) for kind in COMPARED)]:
            if home and key in home and corrupted(home[key]) != home[key]:
                changed = deepcopy(outputs)
                part = changed[number] if home is output else changed[number].data
                part[key] = corrupted(home[key])
                yield f"{key} of output {number} changed", changed


def undetected(notebook: NotebookNode) -> tuple[list[str], int]:
    """The corruptions that nbval calls equal, and how many were tried."""
    comparison, missed, tried = Comparison(), [], 0
    for cell in execution.codes(notebook):
        assert comparison.equal(cell.outputs, cell.outputs)
        for what, changed in corruptions(cell.outputs):
            tried += 1
            missed += [f"{cell.id}: {what}"] if comparison.equal(cell.outputs, changed) else []
    return missed, tried


@pytest.mark.parametrize("stem", WRITTEN)
def test_every_stored_output_is_compared(stem):
    notebook = stored(stem)
    missed, tried = undetected(notebook)
    assert missed == []
    assert tried >= 2 * len(execution.outputs(notebook)) > 10


@pytest.mark.parametrize("stem", WRITTEN)
def test_no_output_is_of_a_kind_that_is_not_compared(stem):
    kinds = {kind for output in execution.outputs(stored(stem)) for kind in output.get("data", {})}
    assert kinds <= COMPARED


def test_the_kinds_that_are_not_compared_are_pixels_and_views_of_widgets():
    kinds = [kind for kind in NOT_COMPARED if "/" in kind]
    assert sorted(kinds) == ["application/vnd.jupyter.widget-view+json", "image/jpeg", "image/png"]


@pytest.mark.parametrize("stem", WRITTEN)
def test_the_text_beside_a_measured_output_is_the_only_thing_that_may_be_hidden(stem):
    """An output of which nothing can be corrupted must say in its text that it was measured here."""
    for output in execution.outputs(stored(stem)):
        data = output.get("data", {})
        if "text/html" in data and corrupted(data["text/html"]) == data["text/html"]:
            assert data["text/plain"].startswith("Measured on this machine")


def test_a_pattern_that_hides_too_much_is_found():
    comparison = Comparison({r"\d": "N"})
    output = made.executed().cells[2].outputs
    changed = deepcopy(output)
    changed[0].text = corrupted(changed[0].text)
    assert changed[0].text == "The sum is 1\n"
    assert comparison.equal(output, changed)
    assert not Comparison().equal(output, changed)


# Through pytest ------------------------------------------------------------------------------------------------------

SHOWS = """\
from IPython.display import HTML, display
display(HTML('<!-- measured here: begin -->.366<!-- measured here: end -->'))
HTML('{figure}')
"""

GREEN = {"unchanged": ("", ""), "pixels": ("AAAA", "BBBB"), "measured": (".366", ".367"), "never run": ("", "")}
RED = {"a number": ("is 4", "is 5"), "an alt text": ("A line", "A curve"), "a lost output": ("The sum is 4\n", "")}


def nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make check-notebooks` over another folder; where `CI` is set, pytest would tell each fault a second time."""
    (flags,) = re.findall(r"pytest (--nbval (?:.*\\\n)?.*) notebooks/", MAKEFILE)
    config = ["-rA", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *shlex.split(flags.replace("\\\n", " ")), *config, str(folder)]
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")} | ENVIRONMENT
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def with_changed_outputs(notebook: NotebookNode, old: str, new: str) -> NotebookNode:
    """A copy in which a text is replaced in the outputs, and nowhere else."""
    changed = deepcopy(notebook)
    for output in execution.outputs(changed):
        output.update({"text": output.text.replace(old, new)} if "text" in output else {})
        output.get("data", {}).update({kind: text.replace(old, new) for kind, text in output.get("data", {}).items()})
    assert (changed != notebook) is (old != new)
    return changed


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """A notebook that has run: a number; something measured, and a picture."""
    source = tmp_path_factory.mktemp("notebooks") / "00_made.py"
    code = made.SOURCE.replace('["picture"]\ntotal\n', '["picture"]\n' + SHOWS.format(figure=made.FIGURE))
    source.write_text(code)
    run(source)
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_pytest_stays_green_where_only_what_is_hidden_differs(ran, tmp_path):
    notebooks = {name: with_changed_outputs(ran, *change) for name, change in GREEN.items()}
    for cell in execution.codes(notebooks["never run"]):
        cell.outputs, cell.execution_count = [], None
    for name, notebook in notebooks.items():
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    done = nbval(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout  # the cells that were never run too: nbval does not see that, our own rule does
    assert execution.run_from_first_to_last(notebooks["never run"]) == ["run in the order [None, None]"]


def test_pytest_turns_red_for_each_corrupted_output(ran, tmp_path):
    for name, change in RED.items():
        nbformat.write(with_changed_outputs(ran, *change), tmp_path / f"{name}.ipynb")
    done = nbval(tmp_path)
    assert done.returncode == 1, done.stdout
    assert done.stdout.count("Cell outputs differ") == len(RED)
    failed = re.findall(r"^FAILED .*/(.+)\.ipynb::Cell (\d)", done.stdout, re.M)
    assert sorted(failed) == [("a lost output", "0"), ("a number", "0"), ("an alt text", "1")]
