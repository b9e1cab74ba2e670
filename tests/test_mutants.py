"""Each committed mutant turns its test red.

A mutant is one replacement in one file (see `tests/mutants/__init__.py`). It is made in a copy of the repository, and
its test runs there in a process of its own (`tests/mutants/forked.py`), two at a time. Red counts only where the test
itself failed for what the code did: not where it could not be collected or imported, nor where the change is no Python
or misspells a name.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import tests.mutants
from tests.mutants import forked

pytest_plugins = ["tests.mutants.plugin"]

Mutant = dict[str, str]

ROOT = Path(__file__).parent.parent
COPIED = ("twotower_lib", "tests", "datasets", "pyproject.toml")
MIRROR = ROOT.parent / "shared" / "data"
"""Where tests look for published files beside the checkout; a copy has nothing beside it."""
AT_ONCE = 2
SECONDS = 300
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:nbval")  # nbval alone takes a second to import
SLIPS = ("SyntaxError", "IndentationError", "NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError")
"""Errors of whoever wrote the mutant; a test that fails with one of them has noticed nothing."""

MODULES = {
    one.name: importlib.import_module(f"tests.mutants.{one.name}")
    for one in pkgutil.iter_modules(tests.mutants.__path__)
    if one.name not in ("forked", "plugin")
}
MUTANTS: list[Mutant] = [mutant for module in MODULES.values() for mutant in module.MUTANTS]

PROMISED = [  # changes that the course says a test would notice; the name of a mutant begins so
    "sign of log q",
    "log q divided by the temperature",
    "temperature multiplied",
    "mask that drops the positive",
    "same-item mask missing",
    "known-positives mask missing",
    "discount off by one",
    "recall's denominator capped silently",
    "seen items kept",
    "target left in its own history",
    "split leaking one row",
    "batches frozen across epochs",
    "index metric L2",
]


# The lists -----------------------------------------------------------------------------------------------------------


def test_the_lists_were_found():
    assert len(MODULES) >= 2
    assert all(module.MUTANTS for module in MODULES.values())
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS) >= 20


def test_every_promised_change_is_there():
    names = [mutant["name"] for mutant in MUTANTS]
    assert [promised for promised in PROMISED if not any(name.startswith(promised) for name in names)] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_a_mutant_is_one_change_in_one_place(mutant):
    assert mutant.keys() == {"name", "file", "old", "new", "test"}
    text = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    assert text.count(mutant["old"]) == 1
    changed = ast.dump(ast.parse(text.replace(mutant["old"], mutant["new"])))  # and it is Python
    assert changed != ast.dump(ast.parse(text))  # more than a comment or the space between two words
    file, name = mutant["test"].partition("[")[0].rsplit("::", 1)
    functions = [
        one.name
        for one in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(one, ast.FunctionDef)
    ]
    assert name in functions


# The runner ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one pytest process said: its exit code, (state, test, message) of each test that it named, and all of it."""

    code: int
    told: list[tuple[str, str, str]]
    text: str

    def of(self, test: str) -> list[tuple[str, str, str]]:
        """What was told of a test, or of all its cases."""
        return [one for one in self.told if one[1] == test or one[1].startswith(f"{test}[")]


def copy(folder: Path) -> Path:
    """A copy of what the tests need, without compiled files, which could be older than the change."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def mutated(folder: Path, mutant: Mutant) -> Path:
    """A copy with the change in it."""
    file = copy(folder) / mutant["file"]
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """That of a process whose imports come from a copy, before the library that is installed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    env |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "", "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
    if MIRROR.is_dir():
        env.setdefault("TWOTOWER_MIRROR", str(MIRROR))
    return env


def run(folder: Path, *chosen: str) -> Outcome:
    """Run tests in a copy."""
    code, text = forked.run(folder, ["-q", "-rA", "--tb=short", *WITHOUT, *chosen], environment(folder), SECONDS)
    told = re.findall(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) (tests/.*?\.py\S*?(?:\[.*?\])?)(?: - (.*))?$", text, re.M)
    return Outcome(code, told, text)


def why_not_red(outcome: Outcome, test: str) -> str:
    """Empty where the test failed for what the code did; otherwise the reason why that does not count."""
    if outcome.code == 0:
        return "survived: the test passes"
    failed = [one for one in outcome.of(test) if one[0] == "FAILED"]
    if outcome.code != 1 or not failed or any(state == "ERROR" for state, _, _ in outcome.told):
        return f"invalid: the test did not run to its end (exit code {outcome.code})"
    slips = [message for _, _, message in failed if message.startswith(SLIPS)]
    return f"invalid: {slips[0]}" if slips else ""


def red_test(outcome: Outcome) -> str:
    """The test that went red, and how many more did."""
    names = [name for state, name, _ in outcome.told if state == "FAILED"]
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


# Running them --------------------------------------------------------------------------------------------------------

Runs = Callable[[str], Outcome]


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The outcomes by the name of the mutant, `""` for the copy without a change; two processes work ahead."""
    wanted = test_turns_its_test_red.__name__
    chosen = [
        one.callspec.params["mutant"] for one in request.session.items if getattr(one, "originalname", "") == wanted
    ]
    folder = tmp_path_factory.mktemp("mutants")
    forked.start()

    def work(number: int, mutant: Mutant) -> Outcome:
        place = folder / str(number)
        place.mkdir()
        try:
            return run(mutated(place, mutant), mutant["test"])
        finally:
            shutil.rmtree(place)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        unchanged = folder / "unchanged"
        unchanged.mkdir()
        futures: dict[str, Future[Outcome]] = {
            "": pool.submit(run, copy(unchanged), *sorted({mutant["test"] for mutant in chosen}))
        }
        futures |= {mutant["name"]: pool.submit(work, number, mutant) for number, mutant in enumerate(chosen)}
        yield lambda name: futures[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_turns_its_test_red(mutant: Mutant, runs: Runs, record_property: Callable[[str, object], None]):
    before = runs("").of(mutant["test"])
    assert before, f"without the change the test does not run\n{runs('').text}"
    assert {state for state, _, _ in before} <= {"PASSED"}, f"red without the change: {before}"
    outcome = runs(mutant["name"])
    reason = why_not_red(outcome, mutant["test"])
    record_property("mutant", mutant["name"])
    record_property("red", f"NONE, {reason}" if reason else red_test(outcome))
    assert not reason, f"{reason}\n{outcome.text}"


# The runner itself ---------------------------------------------------------------------------------------------------


@pytest.mark.mutants
def test_the_copy_is_what_is_imported(tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    names = ["twotower_lib/errors.py", "tests/mutants/__init__.py"]
    test = f"""
import sys
import tests.mutants
from twotower_lib import errors

def test_where():
    assert [errors.__file__, tests.mutants.__file__] == {[str(folder / name) for name in names]}
    assert not any(name.startswith("twotower_lib.t") for name in sys.modules)
"""
    (copy(folder) / "tests" / "test_where.py").write_text(test)
    outcome = run(folder, "tests/test_where.py")
    assert outcome.code == 0, outcome.text


@pytest.mark.mutants
def test_a_test_that_never_ends_is_stopped_with_all_that_it_started(tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    test = "import subprocess\ndef test_sleep():\n    subprocess.run(['sleep', '98765'])\n"
    (copy(folder) / "tests" / "test_sleep.py").write_text(test)
    code, _ = forked.run(folder, ["tests/test_sleep.py"], environment(folder), 8)
    assert code == forked.TOO_LATE
    assert not any("98765" in (one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))


SAMPLE = {
    "file": "twotower_lib/errors.py",
    "old": 'return f"did you mean {close[0]}?"',
    "test": "tests/test_errors.py::test_the_nearest_known_name_or_all_of_them",
}


@pytest.mark.mutants
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"new": 'return f"did you mean {close[0]}!"'}, ""),
        ({"new": 'return f"did you mean {(close[0])}?"'}, "survived: the test passes"),
        ({"new": "return closest[0]"}, "invalid: NameError: name 'closest' is not defined"),
        ({"new": 'return f"did you mean'}, "invalid: the test did not run to its end (exit code 4)"),
        ({"old": "import difflib", "new": "import diflib"}, "invalid: the test did not run to its end (exit code 4)"),
        (
            {"new": "return 0", "test": "tests/test_errors.py::test_nowhere"},
            "invalid: the test did not run to its end (exit code 4)",
        ),
    ],
)
def test_what_counts_as_red(tmp_path, change, reason):
    mutant = SAMPLE | change
    folder = tmp_path / "copy"
    folder.mkdir()
    assert why_not_red(run(mutated(folder, mutant), mutant["test"]), mutant["test"]) == reason
