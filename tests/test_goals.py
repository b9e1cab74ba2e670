"""What a notebook says of its goals and exercises is so: each rule takes a chapter's source and gives a list of faults.

A goal, a bullet of the first cell, begins with its verb in bold and names its proof in brackets:

    - **compute** logits of a batch (exercise 06.1);
    - **read** a recall beside chance (the assertion under *Is that good?*);

An exercise stands under a heading with its name and title, says how many minutes it takes, has one cell to be solved,
and is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import jupytext
import pytest
from nbformat import NotebookNode

from tests.notebooks import COURSE, FOLDER, ROOT, made
from tests.notebooks.grammar import goals
from twotower_lib.exercises import CHAPTERS, of_chapter
from twotower_lib.exercises.engine import Exercise
from twotower_lib.exercises.progress_file import FILE

SOURCES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))

Rule = Callable[[NotebookNode, list[Exercise]], list[str]]

ALWAYS_KNOWN = {"None", "True", "False", "return"}
"""Words of Python in code; and every word that the task says."""


def exercises_of(stem: str) -> list[Exercise]:
    """Those of the chapter of a notebook."""
    return list(of_chapter(stem[:2])) if stem[:2] in CHAPTERS else []


def proof(goal: str) -> tuple[list[str], list[str]]:
    """Names of exercises and titles of sections with an assertion, which a goal names in brackets."""
    brackets = " ".join(re.findall(r"\(([^()]*)\)", goal))
    names = re.findall(r"\b\d\d\.\d\b", brackets) if re.search(r"\bexercises? \d", brackets) else []
    headings = re.findall(r"\bunder \*([^*]+)\*", brackets) if "assertion" in brackets else []
    return names, headings


def verb(goal: str) -> str:
    """The first word in bold."""
    return re.findall(r"^\*\*(\w+)\*\*", goal)[0]


def task(notebook: NotebookNode, exercise: Exercise) -> str:
    """What a reader is told of an exercise: prose and cells from its heading to the next, without the answers."""
    told, inside = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := re.match(r"#+ (.*)", cell.source)):
            inside = heading[1] == exercise.heading
        if inside and "solution" not in cell.metadata.get("tags", []):
            told.append(re.sub(r"(?s)### BEGIN SOLUTION.*?### END SOLUTION", "", cell.source))
    return "\n".join(told)


# The rules -----------------------------------------------------------------------------------------------------------


def every_goal_has_a_proof(notebook: NotebookNode, exercises: list[Exercise]) -> list[str]:
    """An exercise by its number, or an assertion by its heading."""
    return [f"names no exercise and no assertion: {goal}" for goal in goals(notebook) if not any(proof(goal))]


def goals_and_exercises_agree(notebook: NotebookNode, exercises: list[Exercise]) -> list[str]:
    """A goal names exercises of this chapter, and says what they do with their verb."""
    verbs = {one.name: one.verb for one in exercises}
    named = [(name, verb(goal)) for goal in goals(notebook) for name in proof(goal)[0]]
    return [
        f"{name} is for {verbs.get(name, 'nothing')}, not {word}" for name, word in named if verbs.get(name) != word
    ]


def every_exercise_is_there(notebook: NotebookNode, exercises: list[Exercise]) -> list[str]:
    """Under its heading, with its minutes, its check, and where its hints are."""
    wanted = {one: (one.effort, f'exercise("{one.name}").check(', f'exercise("{one.name}").hint(') for one in exercises}
    return [f"{one.name}: no {text}" for one in exercises for text in wanted[one] if text not in task(notebook, one)]


def one_cell_to_solve(notebook: NotebookNode, exercises: list[Exercise]) -> list[str]:
    """As many cells to be solved as exercises."""
    found = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
    return [] if len(found) == len(exercises) else [f"{len(found)} cells to solve, {len(exercises)} exercises"]


def hints_say_nothing_new(notebook: NotebookNode, exercises: list[Exercise]) -> list[str]:
    """A name or a file in the code of a hint stands in the task already."""
    faults = []
    for one in exercises:
        known = set(re.findall(r"\w+", task(notebook, one))) | ALWAYS_KNOWN
        used = {
            word for hint in one.hints for code in re.findall(r"`([^`]+)`", hint) for word in re.findall(r"\w+", code)
        }
        faults += [f"{one.name}: {word} is new in a hint" for word in sorted(used - known) if not word.isdigit()]
    return faults


RULES: list[Rule] = [
    every_goal_has_a_proof,
    goals_and_exercises_agree,
    every_exercise_is_there,
    one_cell_to_solve,
    hints_say_nothing_new,
]


# Every notebook ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_keeps_the_rule(path: Path, rule: Rule):
    assert rule(jupytext.read(path), exercises_of(path.stem)) == []


def test_exercises_belong_to_chapters_of_the_course():
    assert {f"{number}_{stem}" for number, stem in CHAPTERS.items()} <= set(COURSE)


def test_git_leaves_the_progress_file_alone():
    assert str(FILE) in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_notebooks_were_found():
    assert SOURCES and len(SOURCES) == len(list(FOLDER.glob("*.py")))


# Every rule can be broken --------------------------------------------------------------------------------------------

EXERCISE = of_chapter("06")[0]

SOURCE = f"""{made.HEADER}
# %% [markdown]
# # Small
#
# - **compute** logits (exercise 06.1);
# - **see** that a
#   sum is one (your guess, and the assertion, under *A sum*);
#
# %% [markdown]
# ## A sum

# %%
assert 1 + 1 == 2

# %% [markdown]
# ### Exercise 06.1: Scores and temperature
#
# *{EXERCISE.effort}.* `users` (batch, dim), `items` (cand, dim), the temperature T.

# %% tags=["exercise"]
def logits(users, items, temperature):
    ### BEGIN SOLUTION
    secret = users @ items.T
    return secret / temperature
    ### END SOLUTION

# %%
exercise("06.1").check(logits)

# %%
exercise("06.1").hint()

# %% [markdown]
# ## Afterwards
#
# secret
"""

BROKEN = [
    (every_goal_has_a_proof, ", and the assertion, under *A sum*", ""),
    (every_goal_has_a_proof, "the assertion, under *A sum*", "*A sum*"),
    (every_goal_has_a_proof, "(exercise 06.1)", "(each call below is one of them)"),
    (every_goal_has_a_proof, "(exercise 06.1)", "exercise 06.1"),
    (goals_and_exercises_agree, "**compute**", "**find**"),
    (goals_and_exercises_agree, "(exercise 06.1)", "(exercise 06.7)"),
    (goals_and_exercises_agree, "(exercise 06.1)", "(exercises 06.1 and 07.1)"),
    (every_exercise_is_there, EXERCISE.effort, "some minutes"),
    (every_exercise_is_there, 'exercise("06.1").check(', 'exercise("06.2").check('),
    (every_exercise_is_there, 'exercise("06.1").hint(', 'exercise("06.2").hint('),
    (one_cell_to_solve, ' tags=["exercise"]', ""),
    (hints_say_nothing_new, "temperature T.", "temperature."),
]


def kept(source: str) -> list[str]:
    """Names of the rules that are broken."""
    notebook = jupytext.reads(source, "py:percent")
    return [rule.__name__ for rule in RULES if rule(notebook, [EXERCISE])]


def test_the_small_chapter_keeps_every_rule():
    assert kept(SOURCE) == []


@pytest.mark.parametrize(("rule", "old", "new"), BROKEN, ids=[f"{rule.__name__}-{new}" for rule, _, new in BROKEN])
def test_a_broken_chapter_is_found_by_its_rule_alone(rule, old, new):
    assert SOURCE.count(old) == 1
    assert kept(SOURCE.replace(old, new)) == [rule.__name__]


def test_every_rule_has_been_broken():
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_what_stands_in_a_solution_or_after_the_exercise_is_not_told():
    text = task(jupytext.reads(SOURCE, "py:percent"), EXERCISE)
    assert "secret" in SOURCE and "secret" not in text
    assert "def logits(users, items, temperature):" in text
