"""scripts/new_chapter.py: what it makes passes every test of notebooks, and what it refuses leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from tests.notebooks import COURSE, MAKEFILE, ROOT, execution, grammar
from tests.test_goals import RULES as RULES_OF_GOALS

sys.path.insert(0, str(ROOT / "scripts"))  # scripts import each other by their bare names

from notebook_table import check

from tests.test_structure import load_script

new_chapter, student_copies = load_script("new_chapter"), load_script("student_copies")

COPIED = ("scripts", "tests", "notebooks", "pyproject.toml", "Makefile", ".gitignore")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "runs", ".progress.json", "[01][1-9]_*", "10_*")
"""Of notebooks only the first is copied."""

TESTS = ("tests/notebooks", "tests/test_goals.py", "tests/test_colab.py", "tests/test_structure.py")
OF_CHAPTERS = "04_features or folder_holds or course_table or no_notebook_imports"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository in which only the first chapter is written."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name, **({"ignore": LEFT_OUT} if copy is shutil.copytree else {}))
    listed = tmp_path / "tests" / "notebooks" / "__init__.py"
    listed.write_text(new_chapter.listing(listed.read_text(), ["00_start"]))
    return tmp_path


@pytest.fixture
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy, in which the script of this process works."""
    monkeypatch.setattr(new_chapter, "FOLDER", repository / "notebooks")
    monkeypatch.setattr(new_chapter, "LIST", repository / "tests" / "notebooks" / "__init__.py")
    return repository


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that could be changed."""
    parts = ("notebooks", "tests/notebooks")
    found = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in found if path.suffix != ".pyc"}


# What is made --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_chapter_passes_every_test_of_notebooks(repository):
    def done(*command: str, **environment: str) -> str:
        told = subprocess.run(
            [sys.executable, *command], cwd=repository, env=os.environ | environment, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    assert "python -m tests.exercise_table" in done("scripts/new_chapter.py", "04", "features")

    (flags,) = re.findall(r"pytest (--nbval (?:.*\\\n)?.*) -n 2 --dist loadscope notebooks/", MAKEFILE)
    asked = [*shlex.split(flags.replace("\\\n", " ")), "-p", "no:cacheprovider", "notebooks/04_features.ipynb", *TESTS]
    closed = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(repository / "tests" / "notebooks" / "closed_network")}
    tests = done("-m", "pytest", *asked, "-v", "-k", OF_CHAPTERS, **closed)
    cells = [
        cell for cell in jupytext.read(repository / "notebooks" / "04_features.py").cells if cell.cell_type == "code"
    ]
    assert len(re.findall(r"ipynb::Cell \d+ PASSED", tests)) == len(cells)
    assert len(re.findall(r"\[04_features-.* PASSED", tests)) == len(
        [*grammar.RULES, *execution.RULES, *RULES_OF_GOALS]
    )

    assert check(repository / "notebooks") == []
    assert student_copies.main(["--check", "--folder", str(repository / "notebooks")]) == 0
    done("-m", "ruff", "check", "notebooks", "tests/notebooks")
    done("-m", "ruff", "format", "--check", "notebooks", "tests/notebooks")


@pytest.mark.parametrize("stem", COURSE[1:])
def test_the_example_keeps_the_grammar_under_every_name(stem):
    course = dict(new_chapter.ROW.findall((ROOT / "notebooks" / "00_start.py").read_text()))
    text = new_chapter.filled(stem, course)
    notebook = jupytext.reads(text, "py:percent")
    assert [rule.__name__ for rule in grammar.RULES if rule(notebook)] == []
    assert [rule.__name__ for rule in RULES_OF_GOALS if rule(notebook, [])] == []
    assert [*COURSE, "last chapter"][COURSE.index(stem) + 1] in notebook.cells[-1].source
    assert course[stem] in notebook.cells[0].source and COURSE[COURSE.index(stem) - 1] in notebook.cells[0].source
    assert "$" not in text and max(map(len, text.splitlines())) <= 120


def test_the_course_table_is_read_whole():
    found = new_chapter.ROW.findall((ROOT / "notebooks" / "00_start.py").read_text())
    assert [stem for stem, _ in found] == COURSE
    assert dict(found)["01_data"] == "clicks = preference x exposure; popularity is not taste"  # its star is no lesson


@pytest.mark.parametrize("n", [2, 9, 17])
def test_the_list_is_laid_out_as_ruff_does(n):
    """Nine names are the first that need more than a line."""
    text = new_chapter.listing('A = 1\n\nWRITTEN = [\n    "b",\n]\n"""What it is."""\n', COURSE[:n])
    command = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml"), "-"]
    assert subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout == text
    module: dict[str, object] = {}
    exec(text, module)
    assert (module["A"], module["WRITTEN"]) == (1, COURSE[:n])
    assert text.endswith('"""What it is."""\n')


def test_a_chapter_is_listed_at_its_place(here):
    new_chapter.LIST.write_text(new_chapter.listing(new_chapter.LIST.read_text(), ["00_start", "06_losses"]))
    source = here / "01_data.py"
    source.write_text((ROOT / "notebooks" / "00_start.py").read_text())
    source.with_suffix(".ipynb").touch()
    made = new_chapter.files(source, new_chapter.Cost(3, 300), COURSE)
    assert 'WRITTEN = ["00_start", "01_data", "06_losses"]' in made[new_chapter.LIST]
    assert re.findall(r"\[(\d\d_\w+)\]", made[here / "notebooks" / "README.md"]) == ["00_start", "01_data"]


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "word", "told"),
    [
        ("01", "dta", "no chapter '01_dta' in the course\nneeded: number and stem as in a row of the course table in "),
        ("01", "dta", "to do: did you mean 01_data?"),
        ("02", "data", "no chapter '02_data'"),
        ("1", "data", "no chapter '1_data'"),
        ("17", "more", "no chapter '17_more'"),
        ("01", "data.py", "no chapter '01_data.py'"),
        ("..", "../01_data", "no chapter '.._../01_data'"),
        ("", "", "no chapter '_'"),
        ("00", "start", "there is already notebooks/00_start.py and notebooks/00_start.ipynb and its name in WRITTEN"),
        ("00", "start", "to do: edit it, then python scripts/notebooks.py 00_start"),
    ],
)
def test_what_cannot_be_begun_is_told_and_nothing_is_written(here, capsys, number, word, told):
    before = contents(here)
    assert new_chapter.main([number, word]) == 2
    assert told in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("half", ["01_data.py", "01_data.ipynb"])
def test_half_a_chapter_is_not_overwritten(here, capsys, half):
    (here / "notebooks" / half).write_text("mine")
    before = contents(here)
    assert new_chapter.main(["01", "data"]) == 2
    assert f"there is already notebooks/{half}\n" in capsys.readouterr().err
    assert contents(here) == before


def test_a_cell_that_fails_leaves_nothing(here, capsys, monkeypatch, tmp_path):
    failing = tmp_path / "failing.py"
    head = new_chapter.SOURCE.read_text().partition("# %% tags")[0]
    failing.write_text(head + "# %%\nraise KeyError('number $number')\n")
    monkeypatch.setattr(new_chapter, "SOURCE", failing)
    before = contents(here)
    assert new_chapter.main(["01", "data"]) == 1
    assert "01_data, cell 2 of 2: KeyError: 'number 01'" in capsys.readouterr().err
    assert contents(here) == before


@pytest.mark.parametrize("written", range(4))
def test_a_file_that_cannot_be_written_brings_back_the_others(here, monkeypatch, written):
    before, paths = contents(here), []

    def full(path: Path, text: str) -> None:
        paths.append(path)
        if len(paths) == written + 1:
            raise OSError(28, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr(new_chapter, "write_text", full)
    there = [here / "notebooks" / "README.md", new_chapter.LIST]
    texts = {
        path: "new" for path in [here / "notebooks" / "01_data.py", there[0], here / "notebooks" / "b.py", there[1]]
    }
    with pytest.raises(OSError, match="No space left"):
        new_chapter.write_all(texts)
    assert contents(here) == before
