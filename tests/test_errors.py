"""The tree of errors: complete, told in three parts, whole across processes, and every branch in use."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from pathlib import Path

import pytest

from twotower_lib import errors
from twotower_lib.errors import TwoTowerError, nearest

LIBRARY = Path(errors.__file__).parent
CLASSES = {
    name: one for name, one in vars(errors).items() if inspect.isclass(one) and one.__module__ == errors.__name__
}
LEAVES = {name: one for name, one in CLASSES.items() if one is not TwoTowerError}


def drawn() -> dict[str, tuple[str, str]]:
    """Name -> (name of its parent, what it says about itself), as the tree in the docstring of the module shows it."""
    assert errors.__doc__
    found, line = {}, {-1: "ValueError"}
    for indent, name, text in re.findall(
        r"^ {4}([\s│├└─]*)(\w+Error)\b(?:\(ValueError\)| +(.*))", errors.__doc__, re.M
    ):
        depth = len(indent) // 4
        found[name] = (line[depth - 1], text)
        line[depth] = name
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    assert len(CLASSES) > 5
    assert {name: parent for name, (parent, _) in drawn().items()} == {
        name: one.__base__.__name__ for name, one in CLASSES.items()
    }


def test_every_branch_of_the_tree_says_what_it_is_for():
    assert all(text for name, (_, text) in drawn().items() if name in LEAVES)
    assert all(inspect.getdoc(one) for one in CLASSES.values())


def test_all_are_value_errors():
    assert all(issubclass(one, TwoTowerError) and issubclass(one, ValueError) for one in CLASSES.values())


def test_every_name_tells_that_it_is_an_error():
    assert all(name.endswith("Error") for name in CLASSES)


def made_in_the_library() -> set[str]:
    """Names of ours that any module calls: `raise X(...)`, or `return X(...)` in a function that words an error."""
    files = sorted(LIBRARY.rglob("*.py"))
    assert len(files) > 15
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files if path.name != "errors.py"]
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {func.id if isinstance(func, ast.Name) else getattr(func, "attr", "") for func in calls}
    return names & CLASSES.keys()


def test_every_error_is_raised_somewhere_and_the_root_nowhere():
    assert made_in_the_library() == LEAVES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_says_what_came_what_was_needed_and_what_to_do(name):
    error = CLASSES[name]("k = 0", "k of 1 or more", "give -k 10")
    assert str(error) == "k = 0\nneeded: k of 1 or more\nto do: give -k 10"
    assert (error.came, error.needed, error.do) == ("k = 0", "k of 1 or more", "give -k 10")


def test_what_to_do_may_be_left_out():
    error = TwoTowerError("k = 0", "k of 1 or more")
    assert str(error) == "k = 0\nneeded: k of 1 or more"
    assert error.do == ""


@pytest.mark.parametrize("do", ["", "give -k 10"])
@pytest.mark.parametrize("name", CLASSES)
def test_an_error_crosses_a_process_border_whole(name, do):
    error = CLASSES[name]("k = 0", "k of 1 or more", do)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is CLASSES[name]
    assert (back.came, back.needed, back.do, str(back)) == (error.came, error.needed, error.do, str(error))


@pytest.mark.parametrize(
    ("word", "known", "clause"),
    [
        ("tempreature", ["dim", "temperature"], "did you mean temperature?"),
        ("reca", ["recall", "precision"], "did you mean recall?"),
        ("zzz", ["dim", "depth"], "known: depth, dim"),
        ("zzz", ["b", "a", "b"], "known: a, b"),
        ("zzz", (f"n{i:02}" for i in range(12)), "known: n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11"),
        (
            "zzz",
            [f"n{i:02}" for i in range(15)],
            "known: n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11 and 3 more",
        ),
    ],
)
def test_the_nearest_known_name_or_all_of_them(word, known, clause):
    assert nearest(word, known) == clause
