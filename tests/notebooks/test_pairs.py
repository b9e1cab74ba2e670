"""Every notebook is a pair, the two say the same, and none is missing from the table."""

from __future__ import annotations

import re

import jupytext
import pytest
from nbformat import NotebookNode
from notebook_table import SHORT_PATH, read_table

from tests.notebooks import COURSE, FOLDER, WRITTEN, made, stored


def cells(notebook: NotebookNode) -> list[tuple[str, str, list[str]]]:
    """What both files of a pair hold."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def test_the_folder_holds_the_chapters_that_are_written_and_no_other():
    assert [stem for stem in COURSE if stem in WRITTEN] == WRITTEN
    for ending in ("py", "ipynb"):
        assert sorted(path.stem for path in FOLDER.glob(f"*.{ending}")) == WRITTEN
    assert list(read_table(FOLDER)) == WRITTEN


@pytest.mark.parametrize("stem", WRITTEN)
def test_both_files_hold_the_same_cells(stem):
    source = cells(jupytext.read(FOLDER / f"{stem}.py"))
    assert len(source) > 10
    assert cells(stored(stem)) == source


def test_another_type_source_or_tag_is_seen():
    whole = cells(made.executed())
    for old, new in (
        ("# %% [markdown]\n# ### A p", "# %%\n# ### A p"),
        ("2 + 2", "2 + 3"),
        ('["picture"]', '["solution"]'),
    ):
        assert cells(made.executed(made.SOURCE.replace(old, new))) != whole


@pytest.mark.parametrize("stem", WRITTEN)
def test_the_header_names_the_kernel_and_nothing_else(stem):
    header = (FOLDER / f"{stem}.py").read_text(encoding="utf-8").partition("\n\n")[0] + "\n"
    assert header == made.HEADER


def test_the_course_table_of_the_first_notebook_lists_every_chapter_and_star():
    rows = re.findall(r"^\| (\d\d_\w+)( \*)? \|", stored("00_start").cells[-2].source, re.M)
    assert [stem for stem, _ in rows] == COURSE
    assert {stem for stem, star in rows if star} == SHORT_PATH
