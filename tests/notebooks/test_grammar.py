"""Every notebook keeps the grammar, and every rule of it can be broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from tests.notebooks import COURSE, WRITTEN, grammar, made, stored

Change = Callable[[NotebookNode], None]


def replaced(old: str, new: str) -> NotebookNode:
    """The small notebook with one change in its source."""
    assert made.SOURCE.count(old) >= 1
    return made.executed(made.SOURCE.replace(old, new, 1))


def showing(kind: str, value: str) -> NotebookNode:
    """The small notebook with one more output."""
    notebook = made.executed()
    grammar.codes(notebook)[0].outputs.append(new_output("display_data", data={kind: value}))
    return notebook


BROKEN: list[tuple[grammar.Rule, NotebookNode]] = [
    (grammar.headings_in_order, replaced("# ## A sum", "# # A sum")),
    (grammar.headings_in_order, replaced("# ## A sum", "# ### A sum")),
    (grammar.headings_in_order, replaced("# # A small notebook", "# A small notebook")),
    (grammar.three_to_five_goals, replaced("# - **draw** a line (the picture).\n", "")),
    (
        grammar.three_to_five_goals,
        replaced("# - **draw**", "# - **do** it (b);\n# - **do** it (c);\n" * 2 + "# - **draw**"),
    ),
    (grammar.three_to_five_goals, replaced("**draw** a line", "a line")),
    (grammar.three_to_five_goals, replaced("a line (the picture)", "a line")),
    (grammar.proofs_exist, replaced("*A sum*", "*A difference*")),
    (grammar.proofs_exist, replaced("assert total == 4\n", "")),
    (grammar.what_to_know, replaced("**You should know** numbers. ", "")),
    (grammar.minutes, replaced("5 minutes", "a while")),
    (grammar.minutes, replaced("5 minutes", "5 minutes, or 50 minutes")),
    (grammar.paper, replaced("(https://example.org/elements)", "")),
    (grammar.short_cells, replaced("total = 2 + 2\n", "total = 2 + 2\n" * 24)),
    (grammar.short_cells, replaced('# %% tags=["picture"]\ntotal', '# %% tags=["picture"]\n')),
    (grammar.alt_everywhere, made.executed(html='<img src="data:image/png;base64,AAAA">')),
    (grammar.alt_everywhere, made.executed(html='<img alt=" " src="data:image/png;base64,AAAA">')),
    (grammar.alt_everywhere, replaced("# ### A picture", "# ### A picture\n#\n# ![](line.png)")),
    (grammar.no_bare_pictures, showing("image/png", "AAAA")),
    (grammar.no_bare_pictures, showing("image/svg+xml", "<svg/>")),
    (grammar.links_say_where, replaced("[the till]", "[Click here]")),
    (grammar.links_say_where, replaced("[the till]", "[https://example.org/till]")),
    (grammar.in_production, replaced("# ## In production", "# ## In a shop")),
    (grammar.in_production, replaced("([the till](https://example.org/till))", "")),
    (grammar.five_questions, replaced(made.QUESTION, "")),
    (grammar.five_questions, replaced("<details>", "<details open>")),
    (grammar.five_questions, replaced("# Because.\n", "#\n")),
    (grammar.summary, replaced("# ## What you have seen", "# ## The end")),
    (grammar.next_one, replaced(" Next: `01_data`.", "")),
    (grammar.no_semicolons, replaced('{total}")', '{total}");')),
    (grammar.tags_not_comments, replaced("total = 2 + 2", "# NBVAL_IGNORE_OUTPUT\ntotal = 2 + 2")),
]


@pytest.mark.parametrize("rule", grammar.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("stem", WRITTEN)
def test_the_notebook_keeps_the_rule(stem, rule):
    assert rule(stored(stem)) == []


@pytest.mark.parametrize("rule", grammar.RULES, ids=lambda rule: rule.__name__)
def test_the_small_notebook_keeps_the_rule(rule):
    assert rule(made.executed()) == []


@pytest.mark.parametrize(("rule", "notebook"), BROKEN, ids=[rule.__name__ for rule, _ in BROKEN])
def test_a_broken_one_is_found_by_its_rule_alone(rule, notebook):
    assert [one.__name__ for one in grammar.RULES if one(notebook)] == [rule.__name__]


def test_every_rule_has_been_broken():
    assert {rule for rule, _ in BROKEN} == set(grammar.RULES)


@pytest.mark.parametrize("stem", WRITTEN)
def test_the_next_notebook_is_the_next_of_the_course(stem):
    following = [*COURSE, "last chapter"][COURSE.index(stem) + 1]
    assert following in stored(stem).cells[-1].source
