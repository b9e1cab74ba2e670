"""Student copies: what is cut, what stays, and that they run from the first cell to the last without an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.notebooks import FOLDER, made
from tests.test_structure import load_script

student_copies = load_script("student_copies")

ANSWER = "users @ items.T / temperature"

SOURCE = f"""{made.HEADER}
# %% [markdown]
# # A chapter
#
# See the [README](../README.md), the [start](00_start.ipynb), [itself](06_small.ipynb#a-task), [a paper](https://x.org).

# %%
from twotower_lib.exercises import compare, exercise, predict, progress
from twotower_lib.losses import scale, scores

# %% [markdown]
# ## A task

# %% tags=["exercise"]
def logits(users, items, temperature):
    \"\"\"The logits of all users and items, a row a user.\"\"\"
    ### BEGIN SOLUTION
    return {ANSWER}
    ### END SOLUTION


# %%
exercise("06.1").check(logits)

# %% tags=["solution"]
print("one matrix product, one division")

# %%
exercise("06.1").hint()

# %%
predict("How many?", guess=None, unit="films", key="06.small")

# %%
import torch

rows = scale(scores(torch.eye(2), torch.eye(2)), 0.5)  # the library's own
compare("06.small", float(rows.sum()))

# %%
compare("06.small", 4.0)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of notebooks: one without exercises, and the small one."""
    (tmp_path / "exercises").mkdir()
    (tmp_path / "00_start.py").write_text(made.SOURCE)
    (tmp_path / "06_small.py").write_text(SOURCE)
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    return student_copies.main([*arguments, "--folder", str(folder)])


def copy(folder: Path) -> nbformat.NotebookNode:
    assert run(folder) == 0
    return nbformat.read(folder / "exercises" / "06_small.ipynb", as_version=4)


# What is in a copy ---------------------------------------------------------------------------------------------------


def test_the_solution_is_cut_and_the_rest_of_the_cell_stays(folder):
    (cell,) = (one for one in copy(folder).cells if "exercise" in one.metadata.get("tags", []))
    assert cell.source == "\n".join(
        [
            "def logits(users, items, temperature):",
            '    """The logits of all users and items, a row a user."""',
            "    # your code here",
            '    raise NotImplementedError("your code here")',
        ]
    )


def test_nothing_of_the_solution_is_left(folder):
    copy(folder)
    text = (folder / "exercises" / "06_small.ipynb").read_text(encoding="utf-8")
    for told in (ANSWER, "SOLUTION", "one matrix product"):
        assert told not in text
        assert told in SOURCE


def test_all_other_cells_are_those_of_the_source(folder):
    first, note, *rest = copy(folder).cells
    source = [
        one for one in jupytext.reads(SOURCE, "py:percent").cells if "solution" not in one.metadata.get("tags", [])
    ]
    assert first.source.startswith("# A chapter")
    assert note.source.startswith("**This is your copy.**") and "[06_small](../06_small.ipynb)" in note.source
    assert [cell.cell_type for cell in rest] == [cell.cell_type for cell in source[1:]]
    same = [cell.source == other.source for cell, other in zip(rest, source[1:], strict=True)]
    assert same.count(False) == 1  # the exercise


def test_a_copy_was_not_run_and_has_no_pair(folder):
    notebook = copy(folder)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(codes) == 7
    assert all(cell.outputs == [] and cell.execution_count is None for cell in codes)
    assert notebook.metadata == {"kernelspec": jupytext.reads(SOURCE, "py:percent").metadata.kernelspec}
    assert {key for cell in notebook.cells for key in cell.metadata} == {"tags"}


def test_links_work_one_folder_deeper(folder):
    """To the solved chapters, but to the copy of a chapter that has one."""
    text = copy(folder).cells[0].source
    assert "[README](../../README.md)" in text
    assert "[start](../00_start.ipynb)" in text
    assert "[itself](06_small.ipynb#a-task)" in text
    assert "[a paper](https://x.org)" in text


def test_a_chapter_without_exercises_has_no_copy(folder):
    copy(folder)
    assert [path.name for path in (folder / "exercises").iterdir()] == ["06_small.ipynb"]


def test_ids_depend_on_nothing_but_the_text(folder):
    ids = [cell.id for cell in copy(folder).cells]
    assert len(set(ids)) == len(ids)
    longer = SOURCE.replace("# %% [markdown]\n# ## A task", "# %%\n1 + 1\n\n# %% [markdown]\n# ## A task")
    (folder / "06_small.py").write_text(longer)
    assert set(ids) < {cell.id for cell in copy(folder).cells}


# Regenerating --------------------------------------------------------------------------------------------------------


def test_regenerating_changes_nothing_and_check_says_what_would_change(folder, capsys):
    target = folder / "exercises" / "06_small.ipynb"
    assert run(folder, "--check") == 1  # missing
    assert not target.exists()
    assert run(folder) == 0
    before, touched = target.read_bytes(), target.stat().st_mtime_ns
    assert run(folder) == run(folder, "--check") == 0
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (before, touched)
    capsys.readouterr()
    (folder / "06_small.py").write_text(SOURCE.replace("# ## A task", "# ## The task"))
    assert run(folder, "--check") == 1
    assert capsys.readouterr().err == (
        "notebooks/exercises/06_small.ipynb is not what its source says; run python scripts/student_copies.py\n"
    )
    assert target.read_bytes() == before


def test_a_copy_without_its_source_is_told_and_removed(folder, capsys):
    copy(folder)
    (folder / "06_small.py").unlink()
    assert run(folder, "--check") == 1
    assert "06_small.ipynb" in capsys.readouterr().err
    assert run(folder) == run(folder, "--check") == 0
    assert list((folder / "exercises").iterdir()) == []


def test_the_copies_of_the_course_are_those_that_the_sources_say():
    command = [sys.executable, str(student_copies.__file__), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stderr == "" and done.returncode == 0
    stems = {path.stem for path in FOLDER.glob("[0-9][0-9]_*.py")}
    assert stems
    assert {path.stem for path in (FOLDER / "exercises").glob("*.ipynb")} <= stems


# Sources that are refused --------------------------------------------------------------------------------------------

REFUSED = [
    ("    ### END SOLUTION\n", "", "`### BEGIN SOLUTION` without `### END SOLUTION`"),
    ("    ### BEGIN SOLUTION\n", "", "`### END SOLUTION` without its other half before it"),
    (' tags=["exercise"]', "", "the tag `exercise` without a solution to cut, or a cut without it"),
    ("### BEGIN SOLUTION\n    return", "return", "`### END SOLUTION` without its other half before it"),
    (
        f"### BEGIN SOLUTION\n    return {ANSWER}\n    ### END SOLUTION",
        f"return {ANSWER}",
        "the tag `exercise` without a solution to cut, or a cut without it",
    ),
    ("    ### BEGIN SOLUTION", "### BEGIN SOLUTION", "a solution outside of a function, which would stop Run All"),
    ("def logits(users, items, temperature):", "def logits(users, items, temperature)", "what is left is no Python"),
]


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_a_source_that_breaks_a_rule_is_refused_and_nothing_is_written(folder, capsys, old, new, reason):
    assert SOURCE.count(old) == 1
    (folder / "06_small.py").write_text(SOURCE.replace(old, new))
    assert run(folder) == 1
    error = capsys.readouterr().err
    assert error.startswith("notebooks/06_small.py, cell 'def logits(") and error.endswith(f": {reason}\n")
    assert list((folder / "exercises").iterdir()) == []


# Run All -------------------------------------------------------------------------------------------------------------


def shown(notebook: nbformat.NotebookNode) -> list[str]:
    """The text of each output."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"]["text/plain"] if "data" in output else output["text"] for output in outputs]


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=env, stderr=subprocess.DEVNULL)


def test_run_all_works_on_the_untouched_copy_and_says_what_is_not_attempted(folder):
    texts = shown(executed(copy(folder), folder / "exercises"))
    assert texts[0].startswith("Exercise 06.1: Scores and temperature: not attempted yet\n")
    assert texts[1].startswith("Hint 1 of 3")
    assert texts[2].startswith("Guess first: How many?\nNo guess yet.")
    assert texts[3] == "Measured, after your guess: How many?\nMeasured: 4 films."
    stored = json.loads((folder / "exercises" / ".progress.json").read_text(encoding="utf-8"))
    assert stored["exercises"]["06.1"]["attempts"] == 0  # the hint is counted, no attempt was made


def test_the_solved_source_runs_twice_with_the_same_outputs(folder):
    """Whatever was stored of the first run."""
    runs = [shown(executed(jupytext.reads(SOURCE, "py:percent"), folder)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0][0].startswith("Exercise 06.1: Scores and temperature: solved, all 4 cases right")


def test_an_answer_typed_into_the_copy_is_judged_in_its_cell(folder):
    notebook = copy(folder)
    (cell,) = (one for one in notebook.cells if "exercise" in one.metadata.get("tags", []))
    cell.source = cell.source.replace('raise NotImplementedError("your code here")', "return users @ item.T")
    texts = shown(executed(notebook, folder / "exercises"))
    assert "line 4 of your cell: return users @ item.T" in texts[0]
    assert "NameError: name 'item' is not defined" in texts[0]
    assert str(folder) not in texts[0] and "ipykernel" not in texts[0]
