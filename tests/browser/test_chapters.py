"""Every chapter that has no test of its own in JupyterLab: it runs, its pictures are seen, its explorer has a keyboard.

One test a chapter with named steps, because the steps share one run of the notebook. `00_start` and `06_losses` have
tests of their own, which look closer.
"""

import pytest

pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: make install-dev")

from playwright.sync_api import expect

from tests.browser.reader import OUTPUTS, WITHOUT_WORDS, Reader, faults, reading
from tests.notebooks import WRITTEN

CHANGED = "([node, before]) => node.innerText !== before"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.mark.parametrize("stem", [one for one in WRITTEN if one not in ("00_start", "06_losses")])
def test_the_chapter(stem, lab, chromium, subtests):
    with reading(chromium) as reader:
        reader.open(lab, f"{stem}.ipynb")
        reader.run_all()
        assert not faults(reader.cells()), "\n".join(faults(reader.cells()))
        for step in STEPS:
            with subtests.test(step.__name__), reader.keeping_failure(f"failed-{stem}-{step.__name__}"):
                step(reader, stem)
        with subtests.test("the_browser_has_no_complaint"):
            assert not reader.complaints, "\n".join(reader.complaints)


def every_exercise_is_solved(reader: Reader, stem: str) -> None:
    checks = [text for _, text in outputs(reader, "text/plain") if text.startswith("Exercise ")]
    assert len(checks) >= 2
    assert [head for head in (text.splitlines()[0] for text in checks) if ": solved" not in head] == []


def every_picture_is_seen_whole(reader: Reader, stem: str) -> None:
    """No wider than the room it has; a screenshot of each is kept."""
    pictures = [number for number, html in outputs(reader, "text/html") if "<figure" in html]
    assert pictures
    for number in pictures:
        reader.go_to_cell(number)
        picture = reader.output(number).locator("figure img").first
        picture.scroll_into_view_if_needed()
        shown, room = picture.evaluate("img => [img.width, img.closest('.jp-OutputArea').clientWidth]")
        assert 0 < shown <= room
        reader.keep_screenshot(f"{stem}-picture-{number}")


def every_explorer_answers_the_keyboard(reader: Reader, stem: str) -> None:
    """A round button that is not chosen is reached by Tab and chosen by Space, and what is shown changes."""
    explorers = [number for number, _ in outputs(reader, WIDGET)]
    assert explorers
    for number in explorers:
        reader.go_to_cell(number)
        explorer = reader.output(number)
        reader.keep_screenshot(f"{stem}-explorer-{number}")
        before = explorer.inner_text()
        reader.tab_to(explorer.locator("input[type=radio]:not(:checked), button").first)
        reader.press("Space")
        reader.page.wait_for_function(CHANGED, arg=[explorer.element_handle(), before])
        reader.keep_screenshot(f"{stem}-explorer-{number}-used")


def nobody_is_shut_out(reader: Reader, stem: str) -> None:
    """By what axe can see, in all outputs."""
    expect(reader.page.locator(WITHOUT_WORDS)).to_have_count(0)
    found = reader.barriers(OUTPUTS)
    assert not found, "\n".join(found)


STEPS = (
    every_exercise_is_solved,
    every_picture_is_seen_whole,
    every_explorer_answers_the_keyboard,
    nobody_is_shut_out,
)


def outputs(reader: Reader, kind: str) -> list[tuple[int, str]]:
    """All outputs of a kind, each with the number of its cell."""
    return [
        (number, "".join(output["data"][kind]))
        for number, cell in enumerate(reader.cells())
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
        if kind in output.get("data", {})
    ]
