"""What `import twotower_lib` gives, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import twotower_lib

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "pandas", "numpy", "faiss", "scipy", "hydra", "omegaconf", "pandera", "requests", "tqdm")


def imported_by(statement):
    """Which of the heavy packages a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print('imported:', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.rpartition("imported:")[2].split()


def for_type_checkers():
    """The names that type checkers see, with the modules they come from."""
    tree = ast.parse(Path(twotower_lib.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    return {name.name: node.module for node in block.body for name in node.names}


def test_every_public_name_is_listed_once_and_everywhere():
    listed = twotower_lib.__all__
    assert len(listed) == len(set(listed)) == 17
    assert list(twotower_lib._HOMES) == listed
    assert dir(twotower_lib) == sorted(listed)
    assert for_type_checkers() == {name: f"twotower_lib.{home}" for name, home in twotower_lib._HOMES.items()}


@pytest.mark.parametrize("name", twotower_lib.__all__)
def test_every_public_name_loads_and_is_described(name):
    found = getattr(twotower_lib, name)
    assert found.__name__ == name
    assert found.__module__ == f"twotower_lib.{twotower_lib._HOMES[name]}"
    assert found.__doc__ and not found.__doc__.startswith(f"{name}(")  # not the one that dataclasses make


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'twotower_lib' has no attribute 'nothing'"):
        twotower_lib.nothing  # noqa: B018


def test_the_import_is_instant():
    assert imported_by("import twotower_lib") == []
    assert imported_by("from twotower_lib import cli") == []


def test_help_imports_nothing_heavy():
    assert imported_by("from twotower_lib.cli import main; main(['--help'], standalone_mode=False)") == []


def test_a_name_imports_only_what_it_needs():
    assert "torch" in imported_by("from twotower_lib import seeded")
    assert "pandas" not in imported_by("from twotower_lib import TwoTower, in_batch_softmax, Queries")
