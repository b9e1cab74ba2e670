"""What each pattern of the sanitise file hides, and that it hides nothing else."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_output
from notebook_outputs import Comparison

from twotower_lib.plots import BEGIN, END

COMPARISON = Comparison()

HIDDEN = {
    "PIXELS": ('<img alt="a" src="data:image/png;base64,iVBO+/w==">', '<img alt="a" src="data:image/png;base64,AAAA">'),
    "MEASURED HERE": (f"<p>1</p>{BEGIN}<pre>.366\n.443</pre>{END}", f"<p>1</p>{BEGIN}.367{END}"),
}

SEEN = [
    ('<img alt="a" src="data:image/png;base64,AAAA">', '<img alt="b" src="data:image/png;base64,AAAA">'),
    ('<img alt="a" src="data:image/png;base64,AAAA">', '<img alt="a" src="data:image/jpeg;base64,AAAA">'),
    ('<img src="data:image/png;base64,AAAA" alt="a">', '<img src="data:image/png;base64,AAAA" alt="b">'),
    (f"{BEGIN}.366{END} of 5", f"{BEGIN}.366{END} of 6"),
    (f"{BEGIN}1{END} a {BEGIN}2{END}", f"{BEGIN}1{END} b {BEGIN}2{END}"),
    (f"{BEGIN}.366", f"{BEGIN}.367"),
    (".366", ".367"),
    ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdee"),
    ("<Axes at 0x7f6e5c>", "<Axes at 0x7f6e5d>"),
]


def equal(one: str, other: str) -> bool:
    """Whether nbval calls two outputs equal."""
    return COMPARISON.equal(*([new_output("display_data", data={"text/html": text})] for text in (one, other)))


def test_every_pattern_has_its_case():
    assert list(COMPARISON.sanitize_patterns.values()) == list(HIDDEN)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_pattern_hides_what_it_should_and_is_needed_for_it(name):
    assert equal(*HIDDEN[name])
    without = {regex: text for regex, text in COMPARISON.sanitize_patterns.items() if text != name}
    outputs = [[new_output("display_data", data={"text/html": text})] for text in HIDDEN[name]]
    assert not Comparison(without).equal(*outputs)


@pytest.mark.parametrize(("one", "other"), SEEN)
def test_everything_else_is_compared(one, other):
    assert equal(one, one) and equal(other, other)
    assert not equal(one, other)
