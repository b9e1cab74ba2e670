"""The shape of the house: its layers, its map, its size."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest

import twotower_lib

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "twotower_lib"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PARTS = ["twotower_lib", "scripts", "tests", "benchmarks", "datasets"]


def load_script(name: str):
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


size_table = load_script("size_table")


def layers() -> list[set[str]]:
    """The modules of each layer, lowest first, as import-linter is told."""
    (contract,) = (one for one in CONTRACTS if one["type"] == "layers")
    return [set(re.findall(r"\w+", layer)) for layer in reversed(contract["layers"])]


def modules() -> set[str]:
    """The modules and packages that lie directly in the library."""
    found = {path.stem for path in LIBRARY.glob("*.py")} | {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    return found - {"__init__"}


def listed() -> list[str]:
    """The modules in the order in which the map lists them: a line each, the name first, then two spaces or more."""
    lines = re.findall(r"^\s*[-*]?\s*`?(\w+)(?:\.py|/)?`?(?::|\s{2,})\s*\S", twotower_lib.__doc__, re.M)
    return [name for name in lines if name in set().union(*layers())]


def test_the_map_lists_every_module_once():
    assert len(modules()) > 10
    assert sorted(listed()) == sorted(modules())


def test_the_map_follows_the_layers_from_the_lowest():
    height = {name: number for number, layer in enumerate(layers()) for name in layer}
    heights = [height[name] for name in listed()]
    assert heights == sorted(heights), " -> ".join(f"{name} ({height[name]})" for name in listed())


def test_every_module_has_a_layer():
    assert modules() <= set().union(*layers())


def test_serving_has_its_own_contract_as_soon_as_it_exists():
    """It must not reach what only training needs."""
    kept_apart = {"training", "losses", "baselines", "recipe"}
    contracts = [one for one in CONTRACTS if one.get("source_modules") == ["twotower_lib.serving"]]
    forbidden = {name for one in contracts for name in one["forbidden_modules"]}
    wanted = {*(f"twotower_lib.{name}" for name in kept_apart), "matplotlib"} if "serving" in modules() else set()
    assert wanted <= forbidden


def test_there_is_no_drawer_for_everything():
    files = [path for part in PARTS for path in (ROOT / part).rglob("*")]
    assert len(files) > 30
    assert [path for path in files if re.fullmatch(r"_?(utils?|helpers?|common|misc)", path.stem)] == []


def test_datasets_holds_no_python():
    """An `__init__.py` there would hide the package of that name that others may have installed."""
    assert (ROOT / "datasets").is_dir()
    assert list((ROOT / "datasets").rglob("*.py")) == []


def test_the_library_stays_under_its_limits():
    files = size_table.read_library(LIBRARY)
    assert {file.module for file in files} - {"__init__"} == modules()
    assert size_table.over_limits(files) == []


def test_a_name_that_notebooks_do_not_import_is_that_of_a_module():
    assert size_table.BEHIND_THE_NOTEBOOKS.issubset(set().union(*layers()))


def test_no_notebook_imports_what_is_said_to_stand_behind_them():
    sources = list((ROOT / "notebooks").glob("[0-9]*.py"))
    assert sources
    imported = {name for path in sources for name in re.findall(r"twotower_lib\.(\w+)", path.read_text())}
    assert imported and imported & size_table.BEHIND_THE_NOTEBOOKS <= {"exercises"}


SAMPLE = '''\
"""A docstring
of two lines."""

import os  # a comment does not make this line longer

LIMIT = 3
"""What a constant means."""

# a comment


def first(
    one: int,
) -> str:
    """One line."""

    # a comment
    return """text that
is a value"""


def second(): return LIMIT
'''


def test_what_counts_as_a_line_of_code(tmp_path):
    """import, LIMIT; three lines of signature and two of the return; one line of `second`: 8."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    (file,) = size_table.read_library(tmp_path)
    assert len(file.lines) == 8
    assert file.functions == (5, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f():\n    pass\n" * 3 + "x = 1\n" * 400, "sample.py: 406 lines"),
        ("def f():\n" + "    pass\n" * 9 + "def g():\n" + "    pass\n" * 9, "half of the functions: 10"),
        ("def f():\n    pass\n" + "def g():\n" + "    pass\n" * 40, "nine functions in ten: 37"),
        ("def f():\n    pass\n" * 2 + "x = 1\n" * 3396, "imported by notebooks *: 3,400"),
        ("def f():\n    pass\n" * 2 + "x = 1\n" * 5496, "without exercises: 5,500"),
    ],
)
def test_each_limit_can_be_broken(tmp_path, text, told):
    (tmp_path / "sample.py").write_text(text)
    assert told in "\n".join(size_table.over_limits(size_table.read_library(tmp_path)))
