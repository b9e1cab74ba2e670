"""Rehearse a set-up in an empty environment, under Binder's memory limit: seconds and peak memory of each step.

    python scripts/rehearse.py binder [NOTEBOOK]    what Binder does with binder/, then a notebook under its server
    python scripts/rehearse.py wheel                the wheel and the core's lock, outside the checkout, on the toy data

`--save` also writes benchmarks/results/. Each takes minutes and about 3 GB of disk for as long as it runs.

What differs from Binder: Python comes from this machine and not from conda-forge, there is no container, and the
notebook is run by nbclient beside the server and not by a browser. Memory is the sum over all processes of their
proportional set size, looked at ten times a second; what passes the limit is killed. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import NoReturn

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FIRST_NOTEBOOK = Path("notebooks/00_start.ipynb")
CGROUPS = Path("/sys/fs/cgroup")

MB = 2**20
LIMIT = 2048 * MB
"""Binder kills what takes more."""
LOOK_EVERY = 0.1
SERVER_SECONDS = 120
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
REACHING_PACKAGES = re.compile(r"PIP_.*|.*_PROXY|SSL_CERT_(FILE|DIR)|.*CA_BUNDLE", re.I)
"""The variables of this machine that an empty environment keeps: how to reach packages."""


def main() -> None:
    """Run one rehearsal and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["binder", "wheel"])
    parser.add_argument("notebook", nargs="?", type=Path, default=FIRST_NOTEBOOK, help="path within the repository")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/ too")
    asked = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").is_file():
        sys.exit("This reads the memory of processes from /proc, which only Linux has.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that nothing is left running, or on the disk
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder, Rehearsal.under_limit(Path(folder)) as rehearsal:
        if asked.what == "binder":
            binder(rehearsal, asked.notebook)
        else:
            wheel(rehearsal)
    print(table(rehearsal))
    if asked.save:
        save(asked.what, rehearsal)


# What is rehearsed ---------------------------------------------------------------------------------------------------


def binder(rehearsal: Rehearsal, notebook: Path) -> None:
    """The pip section of binder/environment.yml, postBuild, start with a server, a notebook."""
    checkout = rehearsal.home  # on Binder the checkout is the home folder
    copy_checkout(checkout)
    section = pip_section(yaml.safe_load((checkout / "binder/environment.yml").read_text()))
    wanted = rehearsal.folder / "wanted.txt"
    wanted.write_text("\n".join(section if reached(CPU_INDEX) else without_options(section)) + "\n")
    rehearsal.virtual_environment()
    rehearsal.step("the pip section of binder/environment.yml", [*rehearsal.pip, "--requirement", wanted])
    rehearsal.step("postBuild", ["binder/postBuild"], cwd=checkout)
    rehearsal.step("doctor", ["python", "doctor.py"], cwd=checkout)
    with rehearsal.server(checkout):
        if (checkout / notebook).is_file():
            execute = ["binder/start", "jupyter", "execute", "--timeout=600", notebook]
            rehearsal.step(f"{notebook} under the server", execute, cwd=checkout)
        else:
            print(f"{notebook} is not there: no notebook was run")


def wheel(rehearsal: Rehearsal) -> None:
    """Build the wheel, install it with the lock, and walk from training to an answer on the toy data."""
    built = rehearsal.folder / "built"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built]
    rehearsal.step("build the wheel", build, cwd=ROOT)
    rehearsal.virtual_environment()
    index = ["--index-url", CPU_INDEX] if reached(CPU_INDEX) else []
    rehearsal.step("torch", [*rehearsal.pip, *index, f"torch=={torch_version()}"])
    lock = [*rehearsal.pip, "--no-deps", "--require-hashes", "--requirement", ROOT / "requirements.lock"]
    rehearsal.step("the core's lock", lock)
    rehearsal.step("the wheel", [*rehearsal.pip, "--no-deps", "--no-index", *built.glob("*.whl")])
    rehearsal.step("pip check", ["python", "-m", "pip", "check"])
    where = rehearsal.step("import", ["python", "-c", "import twotower_lib; print(twotower_lib.__file__)"])
    assert str(rehearsal.venv) in where, f"the library came from elsewhere: {where}"
    rehearsal.step("twotower train", ["twotower", "train", "data=toy", "train.epochs=5", "out=run"])
    rehearsal.step("twotower evaluate", ["twotower", "evaluate", "run", "part=test", "--against", "popularity,ease"])
    rehearsal.step("twotower export", ["twotower", "export", "run", "bundle"])
    answer = rehearsal.step("twotower query", ["twotower", "query", "bundle", "--user", "p01", "--json"])
    assert len(json.loads(answer.splitlines()[-1])["results"]) == 10, answer


def reached(index: str) -> bool:
    """Whether PyTorch's index answers; where it does not, torch comes from the default one, as in the Makefile."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=15):
            return True
    except OSError:
        print("PyTorch's own index does not answer here: torch comes from the default one")
        return False


def torch_version() -> str:
    """The version of torch, which stands in the Makefile."""
    return re.search(r"^TORCH_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]


def pip_section(environment: dict) -> list[str]:
    """The lines that conda hands to pip."""
    (section,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    return section


def without_options(section: Iterable[str]) -> list[str]:
    """The requirements of a pip section without another index."""
    return [one for one in section if not one.startswith("--")]


def copy_checkout(to: Path) -> None:
    """The files that git knows or would add, as they are now."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


# How ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step, and what it took. What lives shorter than a look at it shows less memory than it had."""

    name: str
    seconds: float
    peak_mb: int


@dataclass
class Rehearsal:
    """A folder with an empty home and a virtual environment, and the steps that ran in it."""

    folder: Path
    limit: int = LIMIT
    cgroup: Path | None = None
    steps: list[Step] = field(default_factory=list)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def under_limit(cls, folder: Path, limit: int = LIMIT) -> Iterator[Rehearsal]:
        """A rehearsal that leaves no process behind, whatever happens."""
        rehearsal = cls(folder, limit, make_cgroup(CGROUPS, limit))
        rehearsal.home.mkdir()
        try:
            yield rehearsal
        finally:
            rehearsal.end()
            if rehearsal.cgroup:
                with suppress(OSError):  # the last process may take a moment to leave it
                    rehearsal.cgroup.rmdir()

    @property
    def home(self) -> Path:
        """The home folder: empty at first, so there is no cache of anything."""
        return self.folder / "home"

    @property
    def venv(self) -> Path:
        """The environment."""
        return self.folder / "venv"

    @property
    def pip(self) -> list[str]:
        """Install with the environment's own pip."""
        return ["python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]

    @property
    def env(self) -> dict[str, str]:
        """The variables of every step."""
        kept = {name: value for name, value in os.environ.items() if REACHING_PACKAGES.fullmatch(name)}
        path = f"{self.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {**kept, "HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"}

    def virtual_environment(self) -> None:
        """Python comes from this machine: conda-forge is not asked."""
        self.step(
            f"an environment of Python {sys.version_info[0]}.{sys.version_info[1]}",
            [sys.executable, "-m", "venv", self.venv],
        )

    def step(self, name: str, command: Sequence[str | Path], cwd: Path | None = None) -> str:
        """Run a command to its end, note what it took, and give back what it printed."""
        began, log = time.monotonic(), self.folder / "log.txt"
        process = self.start(command, cwd, log)
        peak = self.watch(lambda: process.poll() is not None)
        self.running.remove(process)
        self.note(name, began, peak)
        printed = log.read_text(errors="replace")
        if process.returncode:
            self.fail(name, f"ended with {process.returncode}", printed)
        return printed

    @contextmanager
    def server(self, checkout: Path) -> Iterator[None]:
        """JupyterLab by `start`, as Binder launches it; the body runs once the first page has come."""
        began, port, log = time.monotonic(), free_port(), self.folder / "server.txt"
        address = f"http://127.0.0.1:{port}/lab/tree/{FIRST_NOTEBOOK}?token=rehearsal"
        lab = ["jupyter", "lab", "--ip=127.0.0.1", f"--port={port}", "--no-browser", "--allow-root"]
        process = self.start(["binder/start", *lab, "--IdentityProvider.token=rehearsal"], checkout, log)
        peak = self.watch(lambda: answers(address) or process.poll() is not None or late(began))
        if process.poll() is not None or late(began):
            self.fail("start", f"no page within {SERVER_SECONDS} s", log.read_text(errors="replace"))
        self.note("start: the first page of JupyterLab", began, peak)
        yield
        self.end()

    def start(self, command: Sequence[str | Path], cwd: Path | None, log: Path) -> subprocess.Popen[bytes]:
        """Start a command in the empty environment, inside the cgroup if there is one."""
        words = [str(one) for one in command]
        if self.cgroup:
            words = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cgroup / "cgroup.procs"), *words]
        with log.open("wb") as file:
            process = subprocess.Popen(
                words,
                cwd=cwd or self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def watch(self, done: Callable[[], bool]) -> int:
        """Look at the memory of all that runs until `done`; the peak in bytes. Past the limit everything is killed."""
        peak = 0
        while not done():
            peak = max(peak, sum(map(proportional_size, family(one.pid for one in self.running))))
            if peak > self.limit:
                self.end()
                self.fail("memory", f"{peak // MB} MB passed the limit of {self.limit // MB} MB", "")
            time.sleep(LOOK_EVERY)
        return peak

    def note(self, name: str, began: float, peak: int) -> None:
        """Add a step, and say so at once."""
        self.steps.append(Step(name, round(time.monotonic() - began, 1), peak // MB))
        print(row(self.steps[-1]), flush=True)

    def fail(self, name: str, reason: str, printed: str) -> NoReturn:
        """End with the last lines of what was printed."""
        sys.exit("\n".join([*printed.splitlines()[-30:], f"{name}: {reason}"]))

    def end(self) -> None:
        """Kill what still runs, with all that it started."""
        for pid in family(one.pid for one in self.running):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.running:
            self.running.pop().wait()


def make_cgroup(top: Path, limit: int) -> Path | None:
    """A cgroup (version 2) with this memory limit, where the system lets us make one."""
    own = top / f"rehearsal-{os.getpid()}"
    try:
        if "memory" not in (top / "cgroup.subtree_control").read_text().split():
            return None
        own.mkdir()
        (own / "memory.max").write_text(str(limit))
    except OSError:
        return None
    return own


def family(roots: Iterable[int]) -> set[int]:
    """These processes, their descendants, and whoever is in a session that one of them began."""
    found = set(roots)
    everyone = processes()
    while more := {pid for pid, (parent, session) in everyone.items() if {parent, session} & found} - found:
        found |= more
    return found


def processes() -> dict[int, tuple[int, int]]:
    """Number of each process -> (its parent, its session)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()  # after the name, which may hold anything
        except OSError:  # it has just ended
            continue
        found[int(path.parent.name)] = int(words[1]), int(words[3])
    return found


def proportional_size(pid: int) -> int:
    """Bytes of memory of a process; what it shares is divided among those who share it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else 0


def answers(address: str) -> bool:
    """Whether the page comes."""
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return b"JupyterLab" in page.read()
    except OSError:
        return False


def late(began: float) -> bool:
    """Whether a server has had its time."""
    return time.monotonic() - began > SERVER_SECONDS


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# The report ----------------------------------------------------------------------------------------------------------


def row(step: Step) -> str:
    """One line of the table."""
    return f"{step.seconds:>8.1f} s {step.peak_mb:>6} MB  {step.name}"


def how_limited(rehearsal: Rehearsal) -> str:
    """What held the limit."""
    by = "a cgroup" if rehearsal.cgroup else "looking ten times a second (no cgroup v2 of our own can be made here)"
    return f"limit {rehearsal.limit // MB} MB, held by {by}"


def table(rehearsal: Rehearsal) -> str:
    """The last lines: the whole."""
    seconds, peak = sum(one.seconds for one in rehearsal.steps), max(one.peak_mb for one in rehearsal.steps)
    return "\n".join([row(Step("all", round(seconds, 1), peak)), how_limited(rehearsal)])


def save(what: str, rehearsal: Rehearsal) -> None:
    """Write the result file."""
    cores = len(os.sched_getaffinity(0))
    path = RESULTS / f"{what}_{cores}-cores_{date.today()}.json"
    load = round(os.getloadavg()[2], 1)  # processes that wanted a core, on average over a quarter of an hour
    result = {"limit": how_limited(rehearsal), "load": load, "steps": [asdict(one) for one in rehearsal.steps]}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
