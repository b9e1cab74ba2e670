"""The lock files, environment.yml, pyproject.toml, the Makefile and the workflow say the same thing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CORE, SERVING, DEV = (ROOT / f"requirements{which}.lock" for which in ("", "-serving", "-dev"))
LOCKS = [CORE, SERVING, DEV]
EVERYTHING = ("notebooks", "serving", "tensorboard", "scann", "dev")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
CONDA, BINDER = (yaml.safe_load((ROOT / name).read_text()) for name in ("environment.yml", "binder/environment.yml"))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())

TORCH_VERSION = re.search(r"^TORCH_VERSION := (\S+)$", MAKEFILE, re.M)[1]
PYTHONS = ["3.11", "3.12", "3.13"]


def entries(lock: Path) -> dict[str, str]:
    """Name -> the whole entry of a lock, without the comments."""
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.M)
    found = re.findall(r"^(\S+?)==(.*\n(?:[ \t]+.*\n)*)", text, re.M)
    assert len(found) == len(dict(found)), "a package is pinned twice"
    return dict(found)


def pins(lock: Path) -> dict[str, str]:
    """Name -> version of a lock."""
    return {name: re.split(r"[\s;]", entry, maxsplit=1)[0] for name, entry in entries(lock).items()}


def conda_pins(environment: dict) -> dict[str, str]:
    """Name -> version of the pip section of an environment.yml."""
    (section,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    wanted = [Requirement(line) for line in section if not line.startswith("--")]
    return {one.name: str(one.specifier).removeprefix("==") for one in wanted}


def named(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with some extras."""
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [one for group in groups for one in map(Requirement, group) if one.name != PROJECT["name"]]


def test_each_lock_is_a_part_of_the_next():
    core, serving, dev = map(entries, LOCKS)
    assert 30 < len(core) < len(serving) < 100 < len(dev)
    assert core == {name: serving[name] for name in core}
    assert serving == {name: dev[name] for name in serving}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_a_hash_and_no_lock_names_a_place(lock):
    text = lock.read_text()
    assert [name for name, entry in entries(lock).items() if "--hash=sha256:" not in entry] == []
    assert re.findall(r"https?:|file:|--index|--find-links|(?<![\w.-])/\w+", text) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_torch_is_left_to_the_makefile_and_what_it_needs_is_not(lock):
    assert [name for name in pins(lock) if re.match(r"(torch|triton|nvidia-.*|cuda-.*)$", name)] == []
    assert {"filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions"} <= pins(lock).keys()
    assert f"torch {TORCH_VERSION}" in lock.read_text()


@pytest.mark.parametrize(
    ("lock", "extras"), [(CORE, ()), (SERVING, ("serving",)), (DEV, EVERYTHING)], ids=["core", "serving", "dev"]
)
def test_the_lock_pins_what_pyproject_asks_for_within_its_ranges(lock, extras):
    versions = pins(lock) | {"torch": TORCH_VERSION}
    wanted = named(*extras)
    assert {one.name for one in wanted} <= versions.keys()
    assert [str(one) for one in wanted if versions[one.name] not in one.specifier] == []
    assert [str(one) for one in wanted if not one.specifier] == []


def imported_distributions() -> set[str]:
    """What the library imports from outside, by the names under which it is installed."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "twotower_lib").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"twotower_lib"}
    owners = packages_distributions()
    return {canonicalize_name(owners[top][0]) for top in tops}


def test_what_the_library_imports_is_what_it_declares():
    imported, core = imported_distributions(), {one.name for one in named()}
    assert imported <= core | {one.name for one in named("notebooks", "serving", "tensorboard")}
    assert core - imported == set(), "declared, but never imported"


def test_what_builds_the_package_is_in_the_lock():
    """So `pip install --no-build-isolation -e .` downloads nothing that is not pinned."""
    for one in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert pins(CORE)[one.name] in one.specifier


def test_the_development_extra_holds_the_others():
    own = [one for one in map(Requirement, PROJECT["optional-dependencies"]["dev"]) if one.name == PROJECT["name"]]
    assert own[0].extras == PROJECT["optional-dependencies"].keys() - {"dev"}


@pytest.mark.parametrize(
    ("environment", "extras"), [(CONDA, EVERYTHING), (BINDER, ("notebooks",))], ids=["root", "binder"]
)
def test_an_environment_yml_has_the_pins_of_the_lock(environment, extras):
    versions = conda_pins(environment)
    assert versions.pop("torch") == TORCH_VERSION
    assert versions == {name: pins(DEV)[name] for name in versions}
    assert versions.keys() == {one.name for one in named(*extras)} - {"torch"}
    assert f"python={PYTHONS[0]}" in environment["dependencies"]


def test_one_list_of_pythons():
    """The metadata, the check in the Makefile, the script that locks, and the workflow."""
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [minor for minor in range(30) if f"3.{minor}.1" in allowed] == [int(one.split(".")[1]) for one in PYTHONS]
    assert [line[-4:] for line in PROJECT["classifiers"] if ":: 3." in line] == PYTHONS
    assert "(3, 11) <= v < (3, 14)" in MAKEFILE
    assert f"PYTHONS, TOO_NEW_PYTHON = {PYTHONS}".replace("'", '"') in (ROOT / "scripts/lock.py").read_text()
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS


def test_every_target_is_declared_and_explained():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split())
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert targets == phony == {line.split()[0] for line in shown.splitlines()}


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "README.md", ".github/workflows/ci.yml", ".ci/run"])
def test_the_targets_that_are_named_elsewhere_exist(file):
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split())
    named_there = set(re.findall(r"(?:`|run: |exec |^)make ([a-z-]+)", (ROOT / file).read_text(), re.M))
    assert named_there and named_there <= phony


def test_the_wheel_holds_the_library_its_configs_and_the_toy_data(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    library = [path for path in (ROOT / "twotower_lib").rglob("*") if path.suffix in {".py", ".yaml"}]
    assert {path.relative_to(ROOT).as_posix() for path in library} <= inside
    assert "twotower_lib/datasets/toy.csv" in inside
    assert {name.split("/")[0] for name in inside} == {"twotower_lib"}
