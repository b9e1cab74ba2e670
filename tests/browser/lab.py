"""A JupyterLab of its own, on this machine, with a copy of the notebooks."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CLOSED_NETWORK = ROOT / "tests" / "notebooks" / "closed_network"

NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
"""A question about news would lie over the page."""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    notebooks: Path
    """The copy that it serves."""

    def address(self, notebook: str) -> str:
        return f"{self.url}lab/tree/{notebook}?reset&token={self.token}"


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """Start JupyterLab, with everything that it reads and writes below this folder; stop it at the end."""
    copy_notebooks(folder / "notebooks")
    settings = folder / "settings" / NEWS
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command(folder), env=environment(folder), stdout=log, stderr=subprocess.STDOUT)
    try:
        running = answer(folder, server)
        yield Lab(running["url"], running["token"], folder / "notebooks")
    finally:
        server.terminate()  # it stops its kernels first
        try:
            server.wait(30)
        finally:
            server.kill()


def copy_notebooks(target: Path) -> None:
    """Make the notebooks from their sources, without outputs: what is seen was computed in this run."""
    ignored = shutil.ignore_patterns("*.ipynb", "runs", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "notebooks", target, ignore=ignored)
    for source in target.glob("*.py"):
        jupytext.write(jupytext.read(source), source.with_suffix(".ipynb"))
    for copy in ROOT.glob("notebooks/exercises/*.ipynb"):  # a student's copy is stored without outputs
        shutil.copy(copy, target / "exercises")
    shutil.copytree(RESULTS, target.parent / "benchmarks" / "results")


def command(folder: Path) -> list[str]:
    settings = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.root_dir": folder / "notebooks",
        "IdentityProvider.token": secrets.token_hex(16),
        "LabApp.expose_app_in_browser": True,
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *flags]


def environment(folder: Path) -> dict[str, str]:
    """No settings of the person who runs the tests; the kernels find no way out of this machine."""
    own = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    places = {name: str(folder / place) for name, place in own.items()}
    return os.environ | places | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CLOSED_NETWORK)}


def answer(folder: Path, server: subprocess.Popen[bytes]) -> dict[str, str]:
    """Wait until the server has written down where it listens."""
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        for path in (folder / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text())
            except json.JSONDecodeError:
                pass  # it is still writing
        time.sleep(0.05)
    raise AssertionError(f"JupyterLab did not start:\n{(folder / 'log').read_text()[-3000:]}")
