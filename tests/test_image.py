"""The Dockerfile: clean, and set up as the Makefile does it. No test builds an image."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import Live
from twotower_lib import recipe
from twotower_lib.bundle import load
from twotower_lib.recipe import compose

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
STEPS = re.sub(r"\\\n\s*", "", DOCKERFILE)


def test_hadolint_finds_nothing():
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}") or shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([tool, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_set_up_as_the_makefile_does_it():
    assert (
        re.search(r"^ARG TORCH_VERSION=(\S+)$", DOCKERFILE, re.M)[1]
        == re.search(r"^TORCH_VERSION := (\S+)$", MAKEFILE, re.M)[1]
    )
    (index,) = re.findall(r"--index-url[ =](\S+)", DOCKERFILE)
    assert f"--index-url {index} torch==" in MAKEFILE
    assert "install --no-deps --require-hashes -r requirements-serving.lock" in STEPS
    assert "$(INSTALL) --require-hashes -r requirements-serving.lock" in MAKEFILE
    assert re.search(r"^FROM python:(\d\.\d+)-slim-", DOCKERFILE, re.M)[1] in ("3.11", "3.12", "3.13")
    assert re.search(r"^USER (\d+)", DOCKERFILE, re.M)[1] != "0"


def test_what_the_image_copies_is_there_and_not_ignored():
    copied = [one for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M) for one in line.split()]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(kept) and len(copied) > 4
    assert all((ROOT / one).exists() for one in copied)


def test_the_health_check_of_the_image(tmp_path):
    command = json.loads(re.search(r"HEALTHCHECK .*?CMD (\[.*\])$", STEPS, re.M)[1])
    assert recipe.train(compose(["data=toy", "model.dim=8", "train.epochs=1", "train.refit=false"]), tmp_path / "run")
    recipe.export(tmp_path / "run", tmp_path / "bundle")
    with Live(load(tmp_path / "bundle"), drain_seconds=60.0) as live:
        code = command[2].replace("8000", str(live.port))
        assert command[:2] == ["python", "-c"] and code != command[2]
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
        live.server.handle_exit(signal.SIGTERM, None)
        assert subprocess.run([sys.executable, "-c", code]).returncode == 1
