"""pytest in a copy of the repository, each time in a fork of one process that has imported what others wrote.

A mutant's test takes a fraction of a second, and importing torch, pandas and their kin takes three. Nothing of this
repository is imported before the fork, so what a fork imports is the copy's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

IMPORTED_ONCE = ["torch", "faiss", "scipy.sparse", "scipy.stats", "pandas", "pandera.pandas", "safetensors.torch"]
IMPORTED_ONCE += ["omegaconf", "hydra", "click", "pooch", "tqdm", "jaxtyping", "beartype.door", "hypothesis.strategies"]
IMPORTED_ONCE += ["pytest", "httpx", "fastapi.testclient", "ipywidgets", "nbformat"]
IMPORTED = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
TOO_LATE = 124
"""The exit code where time ran out, as that of `timeout`."""


def start() -> None:
    """Say what the process that is forked imports; before the first call of `run`."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED_ONCE)


def run(folder: Path, arguments: Sequence[str], environment: dict[str, str], seconds: float) -> tuple[int, str]:
    """The exit code of pytest in a folder, `TOO_LATE` where it took longer, and what it printed."""
    said = folder.with_name(f"{folder.name}.txt")
    asked = (str(folder), list(arguments), environment, str(said))
    process = multiprocessing.get_context("forkserver").Process(target=_pytest, args=asked)
    process.start()
    process.join(seconds)
    is_late = process.exitcode is None
    if is_late:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
    return TOO_LATE if is_late else process.exitcode, text


def _pytest(folder: str, arguments: list[str], environment: dict[str, str], said: str) -> None:
    """What the fork does."""
    os.setsid()  # so that what a test has started can be stopped with it
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)
    for name in [one for one in sys.modules if one.partition(".")[0] in ("tests", "twotower_lib")]:
        del sys.modules[name]  # this very file was imported from the repository
    sys.exit(pytest.main([*IMPORTED, *arguments]))
