"""The chapter on the loss in JupyterLab: its map answers the keyboard, and a student's copy judges what is typed.

One test with named steps, because the steps share one run of each notebook and may not be spread over two processes.
"""

import json
import re

import pytest

pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: make install-dev")

from playwright.sync_api import Locator, expect

from tests.browser.lab import RESULTS
from tests.browser.reader import OUTPUTS, WITHOUT_WORDS, Reader, faults, reading

WRONG, RIGHT = "return users @ items.T * temperature", "return users @ items.T / temperature"
MISCONCEPTION = "The scores were multiplied by the temperature."


def test_the_losses(lab, chromium, subtests):
    for notebook, steps in STEPS.items():
        with reading(chromium) as reader:
            reader.open(lab, notebook)
            reader.run_all()
            assert not faults(reader.cells()), "\n".join(faults(reader.cells()))
            for step in steps:
                with subtests.test(step.__name__), reader.keeping_failure(f"failed-{step.__name__}"):
                    step(reader)
            with subtests.test(f"the_browser_has_no_complaint: {notebook}"):
                assert not reader.complaints, "\n".join(reader.complaints)


def every_exercise_is_solved(reader: Reader) -> None:
    assert_verdicts(reader, ["solved"] * 4)


def every_exercise_is_not_attempted_yet(reader: Reader) -> None:
    assert_verdicts(reader, ["not attempted yet"] * 4)


def the_bias_is_seen(reader: Reader) -> None:
    number = reader.cell_number('alt="Bars and points')
    reader.go_to_cell(number)
    picture = reader.output(number).locator("figure img")
    expect(picture).to_have_attribute("alt", re.compile("^Bars and points for 40 films"))
    picture.scroll_into_view_if_needed()
    reader.keep_screenshot("losses-bias")


def the_map_is_read_by_keyboard_alone(reader: Reader) -> None:
    """Every answer is that of the stored result; no key goes to the notebook."""
    cells, told = reader.cells(), reader.page.locator(".tt-map [role=status]")
    reader.go_to_cell(reader.cell_number("tt-map"))
    expect(told).to_contain_text(at(1.0, 0.15))
    reader.tab_to(option(reader, "strength", "0.0"))
    reader.press("Space")
    expect(told).to_contain_text(at(0.0, 0.15))
    reader.tab_to(option(reader, "warmth", "0.3"))
    reader.press("Space")
    expect(told).to_contain_text(at(0.0, 0.3))
    told.scroll_into_view_if_needed()
    reader.keep_screenshot("losses-map")
    assert reader.cells() == cells


def a_mistake_that_people_make_is_named(reader: Reader) -> None:
    told = judged(reader, WRONG)
    expect(told).to_contain_text(MISCONCEPTION)
    reader.keep_screenshot("exercise-wrong")


def the_right_answer_solves_the_exercise(reader: Reader) -> None:
    told = judged(reader, RIGHT)
    expect(told).to_contain_text("Exercise 06.1: Scores and temperature: solved")
    expect(told).not_to_contain_text(MISCONCEPTION)
    reader.keep_screenshot("exercise-solved")


def nobody_is_shut_out(reader: Reader) -> None:
    """By what axe can see, in all outputs."""
    expect(reader.page.locator(WITHOUT_WORDS)).to_have_count(0)
    found = reader.barriers(OUTPUTS)
    assert not found, "\n".join(found)


STEPS = {
    "06_losses.ipynb": [
        every_exercise_is_solved,
        the_bias_is_seen,
        the_map_is_read_by_keyboard_alone,
        nobody_is_shut_out,
    ],
    "exercises/06_losses.ipynb": [
        every_exercise_is_not_attempted_yet,
        a_mistake_that_people_make_is_named,
        nobody_is_shut_out,
        the_right_answer_solves_the_exercise,
    ],
}


def assert_verdicts(reader: Reader, expected: list[str]) -> None:
    """What the heads of all checks say after the title, in the order of the notebook."""
    checks = [cell for cell in reader.cells() if cell["cell_type"] == "code" and ").check(" in cell["source"]]
    heads = ["".join(cell["outputs"][0]["data"]["text/plain"]).splitlines()[0] for cell in checks]
    assert [re.split(": |, ", head)[2] for head in heads] == expected, heads


def at(strength: float, temperature: float) -> str:
    """How the stored map's line begins at one place."""
    rows = json.loads(sorted(RESULTS.glob("log_q_map_*.json"))[-1].read_text())["last"]["rows"]
    (row,) = (one for one in rows if (one["log_q"], one["temperature"]) == (strength, temperature))
    return f"recall@20 {row['recall@20']:.3f} ("


def option(reader: Reader, name: str, text: str) -> Locator:
    """The round button that a screen reader would call by this text."""
    return reader.page.locator(f".tt-{name}").get_by_role("radio", name=text, exact=True)


def judged(reader: Reader, answer: str) -> Locator:
    """Write a last line for exercise 06.1, run its cell and the check after it; the check's output."""
    number = reader.cell_number("def logits(")
    reader.go_to_cell(number)
    reader.press("Enter", "ControlOrMeta+End", "Shift+Home")
    reader.type(answer)
    assert reader.cells()[number]["source"].endswith(f"\n    {answer}"), reader.cells()[number]["source"]
    reader.press("Shift+Enter", "Shift+Enter")
    return reader.output(number + 1).locator(".tt-check")
