"""The first notebook in JupyterLab: it runs, its explorer answers keyboard and mouse, and nobody is shut out.

One test with named steps, because the steps share one run of the notebook and may not be spread over two processes.
"""

import re

import pytest

pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: make install-dev")

from playwright.sync_api import expect

from tests.browser.panel import Panel, tables
from tests.browser.reader import HEIGHT, OUTPUTS, WITHOUT_WORDS, Reader, faults, reading


def test_the_first_notebook(lab, chromium, subtests):
    with reading(chromium) as reader:
        reader.open(lab, "00_start.ipynb")
        reader.keep_screenshot("start-top")
        reader.run_all()
        cells = reader.cells()
        assert not faults(cells), "\n".join(faults(cells))
        for step in STEPS:
            with subtests.test(step.__name__), reader.keeping_failure(f"failed-{step.__name__}"):
                step(reader, Panel(reader.page))
        with subtests.test("the_browser_has_no_complaint"):
            assert not reader.complaints, "\n".join(reader.complaints)
        with subtests.test("no_key_went_to_the_notebook"):
            assert reader.cells() == cells


def the_picture_is_seen_whole_and_described(reader: Reader, panel: Panel) -> None:
    number = reader.cell_number("figure(")
    picture = reader.output(number).locator("figure img")
    reader.go_to_cell(number)
    expect(picture).to_have_attribute("alt", re.compile("^Scatter plot of all films.*Across: .*Upwards: "))
    drawn, shown, room = picture.evaluate(
        "img => [img.naturalWidth, img.width, img.closest('.jp-OutputArea').clientWidth]"
    )
    assert 0 < shown <= min(drawn, room)
    picture.scroll_into_view_if_needed()
    reader.keep_screenshot("start-picture")


def the_explorer_begins_with_the_answer_of_the_table_below_it(reader: Reader, panel: Panel) -> None:
    """The first comes through widgets and kernel, the second from a plain call."""
    number = reader.cell_number("Explorer(")
    reader.go_to_cell(number)
    first = tables(panel.shown)
    assert first == tables(reader.output(number + 2))
    assert_comparison(first, rows=10)
    reader.keep_screenshot("explorer-before")


def a_history_is_written_by_keyboard_alone(reader: Reader, panel: Panel) -> None:
    reader.go_to_cell(reader.cell_number("Explorer("))
    reader.tab_to(panel.option("mode", "a history of your own"))
    reader.press("Space")
    expect(panel.shown).to_contain_text("Search for a title")

    reader.tab_to(panel.field("words"))
    reader.type("alien")
    found = ["Alien (1979)", "Alien 3 (1992)", "Alien: Resurrection (1997)", "Aliens (1986)"]
    expect(panel.options("matches")).to_have_text(found)
    expect(panel.part("matches")).to_contain_text("4 of 4 titles")
    reader.tab_to(panel.option("matches", "Aliens"))
    reader.press("Space")
    reader.tab_to(panel.part("add"))
    reader.press("Enter")
    expect(panel.options("history")).to_have_text(["Aliens (1986)"])
    expect(panel.shown).to_contain_text("A person who likes 1 item.")
    assert_comparison(tables(panel.shown), rows=10)


def a_second_title_changes_the_answer_and_can_be_taken_back(reader: Reader, panel: Panel) -> None:
    """By keyboard, too."""
    alone = tables(panel.shown)
    reader.tab_to(panel.field("words"), "Shift+Tab")
    reader.press("ControlOrMeta+a")
    reader.type("sound of music")
    expect(panel.options("matches")).to_have_text(["Sound of Music, The (1965)"])
    reader.tab_to(panel.part("add"))
    reader.press("Space")
    expect(panel.options("history")).to_have_text(["Aliens (1986)", "Sound of Music, The (1965)"])
    expect(panel.shown).to_contain_text("Latest first: Sound of Music, The (1965); Aliens (1986)")
    together = tables(panel.shown)
    assert_comparison(together, rows=10)
    assert titles(together[0]) != titles(alone[0])
    reader.keep_screenshot("explorer-after")

    reader.tab_to(panel.option("history", "Sound of Music"))
    reader.tab_to(panel.part("remove"))
    reader.press("Enter")
    expect(panel.shown).to_contain_text("A person who likes 1 item.")
    assert tables(panel.shown) == alone


def the_lists_can_be_made_shorter(reader: Reader, panel: Panel) -> None:
    """By keyboard, too."""
    reader.tab_to(panel.field("k"))
    reader.press("ControlOrMeta+a")
    reader.type("3")
    reader.press("Enter")
    expect(panel.shown.locator("tbody tr")).to_have_count(6)
    assert_comparison(tables(panel.shown), rows=3)


def the_other_questions_are_asked_with_the_mouse(reader: Reader, panel: Panel) -> None:
    panel.option("mode", "a person").click()
    write(reader, panel, "user", "276")
    expect(panel.shown).to_contain_text("Person 276 knows")
    write(reader, panel, "user", "nobody")
    expect(panel.shown.get_by_role("alert")).to_contain_text('user "nobody" is not among')

    panel.option("mode", "items like one item").click()
    write(reader, panel, "words", "the")
    expect(panel.part("matches")).to_contain_text(re.compile(r"8 of \d{3} titles"))
    expect(panel.options("matches")).to_have_count(8)
    write(reader, panel, "words", "terminator")
    panel.options("matches").filter(has_text="Terminator, The").click()
    expect(panel.shown).to_contain_text("Items like Terminator, The (1984).")
    assert_comparison(tables(panel.shown), rows=3)


def nobody_is_shut_out(reader: Reader, panel: Panel) -> None:
    """By what axe can see, in all outputs and in the states of the explorer, in the light and in the dark theme."""
    expect(reader.page.locator(WITHOUT_WORDS)).to_have_count(0)
    found = reader.barriers(OUTPUTS)
    for question, words in (("a person", "is not among"), ("a history of your own", "A person who likes 1 item.")):
        panel.option("mode", question).click()
        expect(panel.shown).to_contain_text(words)
        found += reader.barriers(".tt-explorer")
    reader.change_theme("JupyterLab Dark")
    found += reader.barriers(OUTPUTS)
    assert not found, "\n".join(found)


def it_can_be_used_in_a_narrow_window_and_in_the_dark(reader: Reader, panel: Panel) -> None:
    """Nothing lies over anything else: Playwright clicks only what can be hit."""
    number = reader.cell_number("Explorer(")
    reader.change_theme("JupyterLab Dark")
    panel.option("mode", "a history of your own").click()
    expect(panel.shown).to_contain_text("A person who likes 1 item.")
    reader.go_to_cell(number)
    reader.keep_screenshot("explorer-dark")
    reader.page.set_viewport_size({"width": 800, "height": HEIGHT})
    for question in ("items like one item", "a person", "a history of your own"):
        panel.option("mode", question).click()
    panel.part("add").click()
    expect(panel.shown).to_contain_text("A person who likes 2 items.")
    first, second = (table.bounding_box() for table in panel.shown.locator("table").all())
    assert first["y"] + first["height"] <= second["y"], "one table below the other"
    reader.change_theme("JupyterLab Light")
    reader.go_to_cell(number)
    reader.keep_screenshot("explorer-narrow")


STEPS = [
    the_picture_is_seen_whole_and_described,
    the_explorer_begins_with_the_answer_of_the_table_below_it,
    a_history_is_written_by_keyboard_alone,
    a_second_title_changes_the_answer_and_can_be_taken_back,
    the_lists_can_be_made_shorter,
    the_other_questions_are_asked_with_the_mouse,
    nobody_is_shut_out,
    it_can_be_used_in_a_narrow_window_and_in_the_dark,
]


def write(reader: Reader, panel: Panel, name: str, text: str) -> None:
    """Replace what stands in a field, and click somewhere else."""
    panel.field(name).click(click_count=3)
    reader.type(text)
    panel.shown.click(position={"x": 1, "y": 1})


def titles(table: list[list[str]]) -> list[str]:
    """What the rows below the head recommend."""
    return [row[1].splitlines()[0] for row in table[1:]]


def assert_comparison(found: list[list[list[str]]], rows: int) -> None:
    """Two lists, and each row of one says where its item stands in the other."""
    assert [len(table) for table in found] == [1 + rows, 1 + rows]
    for table, other in (found, found[::-1]):
        assert table[0] == ["place", "item", "known by", "score", "in the other list"]
        places = {title: place for place, title in enumerate(titles(other), 1)}
        for number, (row, title) in enumerate(zip(table[1:], titles(table), strict=True), 1):
            there = places.get(title)
            words = "only here" if there is None else "same place" if there == number else f"place {there}"
            assert (row[0], row[4]) == (str(number), words)
