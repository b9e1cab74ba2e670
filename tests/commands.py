"""The command line in processes of its own that start in milliseconds: one process imports everything, then forks.

A test module says `pytest_plugins = ["tests.commands"]` and asks for `twotower`; it must not import this module.
"""

from __future__ import annotations

import json
import os
import random
import signal as signals
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
OFFLINE = {
    **{name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")},
    **{"NO_PROXY": "", "no_proxy": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
}
"""An environment in which every address refuses, for us and for pip."""

FORKS = """
import json, os, signal, sys, time
import hydra, pandas, pandera.pandas, torch
from twotower_lib import bundle, cli, recipe
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports what the first optimiser needs

def run(ask):
    for number, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(ask[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(ask["env"])
    os.chdir(ask["folder"])
    try:
        cli.main(ask["arguments"], prog_name="twotower")
    except SystemExit as done:
        return done.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1

for line in sys.stdin:
    ask = json.loads(line)
    child = os.fork()
    if child == 0:
        code = run(ask)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    ended, status = 0, 0
    if ask["signal"]:
        while ask["once"] and not os.path.exists(ask["once"]) and not ended:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            time.sleep(ask["delay"])
            os.kill(child, ask["signal"])
    if not ended:
        ended, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (negative: the signal that killed it), and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """The one JSON object on standard output."""
        assert self.out.count("\n") == 1, self.out
        found = json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert isinstance(found, dict)
        return found


class Moments:
    """Random moments in the life of a command that ends after about so many seconds, however busy the machine is."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.random = seconds, random.Random(0)

    def draw(self) -> float:
        """Seconds from the start to the kill; the first third of a life is its preparation."""
        return self.random.uniform(0.3, 1.05) * self.seconds

    def learn(self, came_in_time: bool) -> None:
        """Where kills come too late the life is shorter than thought; where they never do, it may be longer."""
        self.seconds *= 1.02 if came_in_time else 0.9


class Commands:
    """A process that has imported everything and forks a child for each command."""

    offline = OFFLINE
    moments = Moments

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def __call__(
        self,
        *arguments: str | Path,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        signal: int = 0,
        once: Path | None = None,
        delay: float = 0.0,
    ) -> Done:
        """Run `twotower` with these arguments.

        Args:
            arguments: of the command.
            folder: where it runs.
            env: variables beside those of this process.
            signal: what is sent to it, `delay` seconds after its start, or after the path `once` is there.
            once: see `signal`.
            delay: see `signal`.
        """
        out, err = self.folder / "out", self.folder / "err"
        ask = {
            "arguments": [str(one) for one in arguments],
            "folder": str(folder or self.folder),
            "env": dict(env or {}),
            "signal": signal,
            "once": str(once) if once else "",
            "delay": delay,
            "out": str(out),
            "err": str(err),
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(ask) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def good(self, *arguments: str | Path, **settings: object) -> Done:
        """Run a command that must succeed."""
        done = self(*arguments, **settings)  # type: ignore[arg-type]
        assert done.code == 0, done
        return done

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command as a person does, by an interpreter of its own."""
        command = [sys.executable, "-m", "twotower_lib.cli", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)

    def real(self, *arguments: str | Path) -> Done:
        """Run a command as a person does."""
        with self.start(*arguments) as process:
            out, err = process.communicate()
        return Done(process.returncode, out, err)

    def killed(self, *arguments: str | Path, moments: Moments) -> bool:
        """Run a command and `kill -9` it at a random moment; whether the kill came in time."""
        done = self(*arguments, signal=signals.SIGKILL, delay=moments.draw())
        assert done.code in (0, -signals.SIGKILL), done
        moments.learn(done.code != 0)
        return done.code != 0


@pytest.fixture(scope="session")
def twotower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The command line."""
    one = Commands(tmp_path_factory.mktemp("commands"))
    with one.process:
        yield one
        assert one.process.stdin
        one.process.stdin.close()
