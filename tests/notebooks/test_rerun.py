"""scripts/notebooks.py: a second run changes nothing, a change is taken, a failure touches nothing, budgets hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from notebook_table import Cost, moved, read_table, row, settled, sources, table

import notebooks as command
from notebooks import main, peak_of_children, seconds
from tests.notebooks import made

CODE = """\
# %%
from pathlib import Path

import ipywidgets
import numpy as np
from IPython.display import HTML

given = Path("given.txt").read_text()
print(given)

# %%
HTML(f"<!-- measured here: begin -->{Path('measured.txt').read_text()}<!-- measured here: end -->")

# %%
print("one")
display(ipywidgets.VBox([ipywidgets.IntSlider()]))
print("two")

# %%
memory = np.ones(300_000_000 // 8)
print(sorted({"a", "b", "c"}), __import__("os").environ["OMP_NUM_THREADS"], hash("a"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.txt").write_text("a\n")
    (tmp_path / "measured.txt").write_text(".366")
    write(tmp_path, CODE)
    return tmp_path


def write(folder: Path, code: str) -> None:
    """A notebook with a first cell."""
    first = made.SOURCE.partition("# %% [markdown]\n# ## A sum")[0]
    (folder / "00_made.py").write_text(first + code)


def rerun(folder: Path, *more: str) -> int:
    return main(["--folder", str(folder), *more])


def content(folder: Path) -> dict[str, bytes]:
    """What the script writes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in {".ipynb", ".md"}}


def codes(folder: Path) -> list[nbformat.NotebookNode]:
    """The code cells that are stored."""
    notebook = nbformat.read(folder / "00_made.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_running_twice_changes_no_byte(folder):
    assert rerun(folder) == 0
    before = content(folder)
    assert list(before) == ["00_made.ipynb", "README.md"]
    assert rerun(folder) == 0
    assert content(folder) == before
    assert [path.name for path in folder.glob("*.tmp")] == []

    (cost,) = read_table(folder).values()
    assert 300 < cost.megabytes < 700
    assert cost.seconds < 60
    assert b"| [00_made](00_made.ipynb): A small notebook | 5 |" in before["README.md"]
    assert [list(output.get("data", {"text": ""})) for output in codes(folder)[2].outputs] == [["text"], ["text/plain"]]


def test_what_changed_is_taken_and_what_is_as_good_is_kept(folder):
    rerun(folder)
    ids = [cell.id for cell in codes(folder)]

    (folder / "measured.txt").write_text(".365")
    before = content(folder)
    rerun(folder)
    assert content(folder) == before

    (folder / "given.txt").write_text("b\n")
    rerun(folder)
    assert codes(folder)[0].outputs[0].text == "b\n\n"
    assert "begin -->.365<" in codes(folder)[1].outputs[0].data["text/html"]

    (folder / "measured.txt").write_text(".364")
    write(folder, CODE.replace('print("two")', 'print("t" + "wo")'))  # other code, the same output
    rerun(folder)
    assert "begin -->.364<" in codes(folder)[1].outputs[0].data["text/html"]
    assert [cell.id for cell in codes(folder)] == ids


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1 / 0", "00_made, cell 6 of 6: ZeroDivisionError: division by zero\n    1 / 0\n"),
        ("__import__('time').sleep(60)", "00_made, cell 6 of 6: took over 3 s\n    __import__"),
        ("__import__('os')._exit(3)", "00_made, cell 6 of 6: the kernel died\n    __import__"),
    ],
)
def test_a_failing_cell_leaves_what_is_stored(folder, cell, said, capsys, monkeypatch):
    rerun(folder)
    before = content(folder)
    monkeypatch.setattr(command, "CELL_SECONDS", 3)
    write(folder, CODE + f"# %%\n{cell}\n")
    assert rerun(folder) == 1
    assert content(folder) == before
    assert capsys.readouterr().err.startswith(said)


def test_one_notebook_can_be_run_alone(folder, capsys):
    (folder / "01_other.py").write_text((folder / "00_made.py").read_text() + "# %%\n1 / 0\n")
    assert rerun(folder, "00_made") == 1
    assert "README.md is not what the notebooks say" in capsys.readouterr().err  # the other one has not run
    assert list(content(folder)) == ["00_made.ipynb", "README.md"]
    with pytest.raises(SystemExit):
        rerun(folder, "02_none")
    assert "no such notebook: 02_none" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_no_notebook_is_no_fault(tmp_path, arguments):
    assert rerun(tmp_path, *arguments) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("elapsed", "expected"), [(9.0, 7.0), (6.0, 6.0)], ids=["a busy machine", "two cores"])
def test_seconds_are_those_of_the_processes_that_ended(elapsed, expected):
    before = os.times_result((50, 50, 2, 1, 100))
    after = os.times_result((99, 99, 2 + 5, 1 + 2, 100 + elapsed))
    assert seconds(before, after) == expected


@pytest.mark.skipif(not command.PROC.is_dir(), reason="only Linux tells the most that another process has had")
def test_memory_that_is_held_for_a_moment_is_counted():
    moment = "import time; [bytearray(b'x') * 200_000_000][:0]; time.sleep(0.3)"
    with peak_of_children() as sums:
        subprocess.run([sys.executable, "-c", moment], check=True)
    assert max(sums) > 200e6


# The table -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tabled(folder: Path) -> Path:
    """Eleven notebooks and their table; none has run."""
    for number in range(1, 11):
        (folder / f"{number:02}_made.py").write_text((folder / "00_made.py").read_text())
    found = sources(folder)
    (folder / "README.md").write_text(table(found, {one.stem: Cost(60, 500) for one in found}))
    return folder


def test_a_table_is_checked_without_running(tabled):
    assert rerun(tabled, "--check") == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| 60 | 500 |", "| 121 | 500 |", "00_made: 121 s, over 120\n"),
        ("| 60 | 500 |", "| 60 | 1001 |", "00_made: 1,001 MB, over 1,000\n"),
        ("| 5 | 60 | 500 |", "| 6 | 60 | 500 |", "README.md is not what the notebooks say"),
        ("A small notebook", "A large notebook", "README.md is not what the notebooks say"),
        (
            "| [10_made](10_made.ipynb): A small notebook | 5 | 60 | 500 |\n",
            "",
            "README.md is not what the notebooks say",
        ),
    ],
)
def test_a_broken_budget_or_row_is_a_fault(tabled, old, new, said, capsys):
    text = (tabled / "README.md").read_text()
    assert old in text
    (tabled / "README.md").write_text(text.replace(old, new, 1))
    assert rerun(tabled, "--check") == 1
    assert said in capsys.readouterr().err


def test_all_together_have_a_budget(tabled, capsys):
    text = (tabled / "README.md").read_text()
    (tabled / "README.md").write_text(text.replace("| 60 | 500 |", "| 82 | 500 |"))
    assert rerun(tabled, "--check") == 1
    assert capsys.readouterr().err == "all notebooks: 902 s, over 900\n"


def test_a_star_marks_the_short_path(tmp_path):
    write(tmp_path, "")
    source = (tmp_path / "00_made.py").rename(tmp_path / "00_start.py")
    assert row(source, Cost(1, 2)) == "| [00_start](00_start.ipynb) *: A small notebook | 5 | 1 | 2 |\n"


def test_a_budget_is_held_against_what_was_measured_now(folder, monkeypatch, capsys):
    (folder / "README.md").write_text(table(sources(folder), {"00_made": Cost(118, 990)}))
    monkeypatch.setattr(command, "run", lambda source: Cost(121, 990))
    assert rerun(folder) == 1
    assert capsys.readouterr().err == "00_made: 121 s, over 120\n"
    assert read_table(folder) == {"00_made": Cost(118, 990)}


def test_digits_stay_until_they_have_moved():
    stored = {"a": Cost(20, 400), "b": Cost(1, 1)}
    assert settled({"a": Cost(24, 490)}, stored) == stored  # a fifth, and less than a quarter
    assert settled({"a": Cost(26, 610)}, stored) == {"a": Cost(26, 610), "b": Cost(1, 1)}
    assert settled({"a": Cost(20, 590)}, stored) == stored  # nearly half, but a process more for a moment
    assert settled({"c": Cost(5, 5)}, stored) == stored | {"c": Cost(5, 5)}
    assert not moved(5, 2, apart=3)  # more than a quarter, but three seconds are nothing
