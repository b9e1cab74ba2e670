"""The first cell of the notebooks on Google Colab, and the one address of the repository.

The cell runs in an interpreter that sees only what a test puts there: made-up distributions, and a pip that writes down
what it was asked for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import packaging
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
CELL = (ROOT / "scripts" / "colab_cell.py").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]
CORE = {one.name: one for one in map(Requirement, PROJECT["dependencies"])}
LIBRARY = f"-q --no-deps git+{ADDRESS}"

ON_COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n"
PIP = """
import pathlib, sys
folder = pathlib.Path(__file__).parent.parent
asked = sys.argv[1:]
assert asked.pop(0) == "install"
with (folder / "asked").open("a") as file:
    print(*asked, file=file)
if asked[-1].startswith("git+"):
    (folder / "twotower-later").rename(folder / "twotower-1.dist-info")
sys.exit((folder / "fails").exists())
"""


class Colab:
    """A folder of distributions, and the cell run with nothing else installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(Path(packaging.__file__).parent, folder / "packaging")
        (folder / "pip").mkdir()
        (folder / "pip" / "__init__.py").touch()  # else the real one comes first
        (folder / "pip" / "__main__.py").write_text(PIP)
        self.install("twotower", "1", place="twotower-later")

    def install(self, name: str, version: str, place: str = "") -> None:
        """A distribution as the metadata of Python sees it; ours with its real requirements, as a wheel has them."""
        info = self.folder / (place or f"{name.lower().replace('-', '_')}-{version}.dist-info")
        info.mkdir()
        needs = [f"Requires-Dist: {one}" for one in PROJECT["dependencies"]]
        needs += [
            f'Requires-Dist: {one}; extra == "notebooks"' for one in PROJECT["optional-dependencies"]["notebooks"]
        ]
        lines = [
            "Metadata-Version: 2.4",
            f"Name: {name}",
            f"Version: {version}",
            *(needs if name == "twotower" else []),
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n")

    def install_all(self, **other: str) -> None:
        """Every core distribution at a version in its range (the lowest), and ipywidgets; `other` come instead."""
        versions = {name: re.search(r">=([\d.]+)", str(one.specifier))[1] for name, one in CORE.items()}
        for name, version in (versions | {"ipywidgets": "7.7.1"} | other).items():
            if version:
                self.install(name, version)

    def run(self, before: str = ON_COLAB) -> tuple[str, list[str]]:
        """What the cell prints, and what it asks pip for."""
        command = [sys.executable, "-S", "-c", before + CELL]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={"PYTHONPATH": str(self.folder)})
        assert done.returncode == 0, done.stderr
        log = self.folder / "asked"
        return done.stdout, log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def colab(tmp_path):
    return Colab(tmp_path)


# The cell ------------------------------------------------------------------------------------------------------------


def test_it_is_short():
    assert len([line for line in CELL.splitlines() if line]) <= 12


def test_everything_there(colab):
    colab.install_all()
    shutil.move(colab.folder / "twotower-later", colab.folder / "twotower-1.dist-info")
    assert colab.run() == ("", [])


def test_only_the_library_is_missing(colab):
    colab.install_all()
    assert colab.run() == ("", [LIBRARY])


def test_half_missing(colab):
    """Beside them a newer torch of another build, which stays, and Colab's ipywidgets 7, which stays too."""
    colab.install_all(torch="2.14.1+cu130", **{"faiss-cpu": "", "pandera": "", "omegaconf": ""})
    printed, asked = colab.run()
    lacks = [str(CORE[name]) for name in ("faiss-cpu", "omegaconf", "pandera")]
    assert asked == [LIBRARY, *(f"-q {one}" for one in lacks)]
    assert printed.splitlines() == [f"{one} added" for one in lacks]


def test_nothing_there(colab):
    printed, asked = colab.run()
    assert asked == [LIBRARY, *(f"-q {one}" for one in CORE.values()), "-q ipywidgets>=7"]
    assert printed.count(" added\n") == len(CORE) + 1


def test_what_is_out_of_range_is_replaced_and_told(colab):
    colab.install_all(pandas="2.2.2", torch="2.9.0+cu126")
    printed, asked = colab.run()
    assert asked == [LIBRARY, f"-q {CORE['pandas']}", f"-q {CORE['torch']}"]
    assert printed.splitlines() == [
        f"{CORE[name]} replaced: now Runtime > Restart session" for name in ("pandas", "torch")
    ]


def test_names_in_capitals_count(colab):
    colab.install_all(pyyaml="", PyYAML="6.0.2")
    assert colab.run()[1] == [LIBRARY]


def test_not_on_colab(colab):
    assert colab.run(before="") == ("", [])


def test_not_on_colab_nothing_is_imported():
    code = f"import sys; before = set(sys.modules)\n{CELL}\nprint(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_failure_of_pip_ends_the_cell(colab):
    (colab.folder / "fails").touch()
    with pytest.raises(AssertionError, match="CalledProcessError"):
        colab.run()


# Where the cell and the address stand --------------------------------------------------------------------------------


NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_the_first_code_cell_of_every_notebook(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells[0].metadata.get("tags") == ["setup"]
    assert cells[0].source == CELL.rstrip("\n")
    assert cells[0].outputs == []


def test_the_address_is_one():
    """What names this repository anywhere names it as pyproject.toml does; one command there changes all."""
    owner_and_name = ADDRESS.removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w-]+/twotower", owner_and_name)
    pattern = re.compile(
        r"(?:github\.com|mybinder\.org/v2/gh|colab\.research\.google\.com/github)/([\w.-]+/twotower)\b"
    )
    found = {}
    for path in tracked():
        for one in pattern.findall(path.read_text(encoding="utf-8", errors="ignore")):
            found.setdefault(one, set()).add(path.relative_to(ROOT).as_posix())
    assert found.keys() == {owner_and_name}
    assert {"README.md", "pyproject.toml", "scripts/colab_cell.py"} <= found[owner_and_name]


def tracked():
    """The files that could name it."""
    ending = {".md", ".toml", ".py", ".ipynb", ".yml", ".yaml", ".json", ".txt"}
    skipped = {".venv", ".git", "build", "dist", "runs", "bundles"}
    for path in ROOT.rglob("*"):
        if path.suffix in ending and path.is_file() and skipped.isdisjoint(path.relative_to(ROOT).parts):
            yield path


def badges():
    """Image -> target, for the badges of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\[!\[[^\]]+\]\((\S+?)\)\]\((\S+?)\)$", readme, re.M))


def test_the_badges_open_the_first_notebook():
    owner_and_name, notebook = ADDRESS.removeprefix("https://github.com/"), "notebooks/00_start.ipynb"
    assert badges() == {
        "https://mybinder.org/badge_logo.svg": f"https://mybinder.org/v2/gh/{owner_and_name}/HEAD?labpath={notebook}",
        "https://colab.research.google.com/assets/colab-badge.svg": f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{notebook}",
    }
    if not NOTEBOOKS:
        pytest.skip("no notebook is written yet: what the badges open is not there")
    assert (ROOT / notebook).is_file()
