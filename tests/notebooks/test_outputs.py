"""Which outputs are stored: what is dropped, what is kept from the last run, and when it no longer is."""

from __future__ import annotations

from base64 import b64encode
from copy import deepcopy

import matplotlib
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import IPyNbFile
from notebook_outputs import NOT_COMPARED, block_means, keep_equal, near_pictures, near_texts, strip

from tests.notebooks import made
from twotower_lib.plots import BEGIN, END, canvas, figure

VIEW = "application/vnd.jupyter.widget-view+json"


def test_what_nbval_skips_is_what_we_say(request, tmp_path, monkeypatch):
    for option in ("nbval_lax", "nbdime"):
        monkeypatch.setattr(request.config.option, option, False, raising=False)
    collector = IPyNbFile.from_parent(request.session, path=tmp_path / "a.ipynb")
    assert sorted(NOT_COMPARED) == sorted(collector.skip_compare)


# Dropping ------------------------------------------------------------------------------------------------------------


def test_strip_leaves_the_kernel_and_the_tags():
    notebook = made.executed()
    whole = deepcopy(notebook)
    notebook.metadata.update(language_info={"version": "3.11.7"}, widgets={"state": {}})
    notebook.cells[4].metadata.update(execution={"iopub.status.busy": "2026-11-24"}, tags=["picture"])
    strip(notebook)
    assert notebook == whole
    assert notebook.cells[4].metadata == {"tags": ["picture"]}


def test_the_view_of_a_widget_is_dropped_where_its_text_stands_beside_it():
    datas = [{VIEW: {"model_id": "a"}, "text/plain": "a slider"}, {VIEW: {"model_id": "a"}}]
    notebook = made.executed()
    notebook.cells[2].outputs = [new_output("display_data", data=data) for data in datas]
    strip(notebook)
    assert [list(output.data) for output in notebook.cells[2].outputs] == [["text/plain"], [VIEW]]


# Keeping -------------------------------------------------------------------------------------------------------------


def of_outputs(*datas: dict[str, str]) -> NotebookNode:
    """A notebook with a cell for each output."""
    return new_notebook(
        cells=[
            new_code_cell("a", execution_count=n, outputs=[new_output("execute_result", data=data, execution_count=n)])
            for n, data in enumerate(datas, 1)
        ]
    )


def kept(
    new: dict[str, str], stored: dict[str, str], same_code: bool = True, others: tuple[str, str] = ("x", "x")
) -> bool:
    """Whether the stored output of a cell is kept, beside a second cell with a text of its own."""
    now, before = (of_outputs(data, {"text/plain": other}) for data, other in zip((new, stored), others, strict=True))
    keep_equal(now, before, same_code)
    assert now.cells[0].outputs[0].data in (new, stored)
    return now.cells[0].outputs[0].data == stored


def measured(text: str) -> dict[str, str]:
    return {"text/html": f"{BEGIN}<pre>{text}</pre>{END}", "text/plain": "measured"}


def test_a_stored_output_is_kept_only_where_nbval_calls_it_equal():
    assert not kept({"text/plain": "1"}, {"text/plain": "2"})
    assert not kept({"text/plain": "1"}, {"text/plain": "1", "text/html": "1"})


def test_a_bare_picture_is_never_kept_for_another():
    assert not kept({"text/plain": "1", "image/png": "AAAA"}, {"text/plain": "1", "image/png": "BBBB"})
    assert not kept({"image/png": "AAAA"}, {"text/plain": "1"})


def test_measured_digits_are_kept_while_they_are_nearly_the_same_and_nothing_else_has_changed():
    assert kept(measured("recall .366"), measured("recall .365"))
    assert not kept(measured("recall .366"), measured("recall .340"))
    assert not kept(measured("recall .366"), measured("NDCG .366"))
    assert not kept(measured("recall .366"), measured("recall .365"), same_code=False)
    assert not kept(measured("recall .366"), measured("recall .365"), others=("x", "y"))


def test_a_kept_result_has_the_number_of_its_cell():
    now, before = of_outputs({"text/plain": "1"}), of_outputs({"text/plain": "1"})
    now.cells[0].execution_count, before.cells[0].outputs[0].metadata = 7, {"kept": True}
    keep_equal(now, before, same_code=False)
    assert now.cells[0].outputs[0].metadata == {"kept": True}
    assert now.cells[0].outputs[0].execution_count == 7


@pytest.mark.parametrize(
    ("new", "stored", "near"),
    [
        ("a 1.00 b", "a 1.02 b", True),  # within 2 % of the stored number
        ("a 1.00 b", "a 1.03 b", False),
        ("a .010 b", "a .012 b", True),  # within .002
        ("a .010 b", "a .013 b", False),
        ("a -.010 b", "a .010 b", False),
        ("a 1 2 b", "a 1 b", False),
        ("0.366 of 1,682 in 20 s.", "0.367 of 1,680 in 20 s.", True),
        ("1 Alien", "1 Aliens", False),
    ],
)
def test_near_texts(new, stored, near):
    assert near_texts(new, stored) is near


# Pictures ------------------------------------------------------------------------------------------------------------


def drawn(label: str = "recall .36", height: float = 0.0, width: float = 6.0) -> str:
    """A picture of a curve as a `data:` URL."""
    drawing, axes = canvas(width=width)
    x = np.linspace(0, 1, 50)
    axes.plot(x, np.sin(6 * x) + height, label=label)
    axes.set(xlabel="epoch", ylabel="value (no unit)")
    axes.legend()
    picture = figure(drawing, alt="A line chart, across the epoch from 0 to 1, upwards a sine from -1 to 1.")
    return f"data:image/png;base64,{b64encode(picture.png).decode()}"


def test_rounding_is_near():
    assert near_pictures(drawn(height=1e-5), drawn())


@pytest.mark.parametrize(
    "other",
    [{"label": "recall .38"}, {"label": "recall .35"}, {"height": 0.002}, {"width": 6.5}],
    ids=["an 8 for a 6", "a 5 for a 6", "a curve a fifth of a percent higher", "another size"],
)
def test_a_visible_change_is_not_near(other):
    assert not near_pictures(drawn(**other), drawn())


def test_the_glyphs_of_another_font_library_are_not_near():
    """They change more than a digit does, so no limit could let the first through and not the second."""
    with matplotlib.rc_context({"text.hinting": "none"}):
        other = drawn()
    assert not near_pictures(other, drawn())


def test_block_means_by_hand():
    image = np.zeros((9, 10, 3))
    image[:8, :8] = 2
    image[8, 9] = 6
    assert block_means(image)[..., 0].tolist() == [[2, 0], [0, 3]]  # the last block is 1 x 2 pixels: (0 + 6) / 2


def test_a_picture_is_kept_while_nothing_changed():
    def shown(url: str) -> dict[str, str]:
        return {"text/html": f'<img alt="a" src="{url}">', "text/plain": "Picture"}

    near, far = drawn(height=1e-5), drawn(height=0.1)
    assert near != drawn()
    assert kept(shown(near), shown(drawn()))
    assert not kept(shown(near), shown(drawn()), same_code=False)
    assert not kept(shown(far), shown(drawn()))
