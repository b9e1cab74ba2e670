"""Write the three locks, environment.yml and binder/environment.yml from pyproject.toml (`make lock`).

The pins that stand in the locks are kept as long as pyproject.toml allows them; `--upgrade` takes the newest instead.
torch and its CUDA packages stay out of the locks, because which build of torch is right depends on the machine: the
Makefile installs it first, by its version. The few pure Python packages that torch needs are in the locks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
DEV, CORE = ROOT / "requirements-dev.lock", ROOT / "requirements.lock"
SERVING = ROOT / "requirements-serving.lock"
CONDA, BINDER = ROOT / "environment.yml", ROOT / "binder/environment.yml"
PYTHONS, TOO_NEW_PYTHON = ["3.11", "3.12", "3.13"], "3.14"
BY_THE_MAKEFILE = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
SYSTEMS = ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin"]
OLDEST_MACOS = "14.0"
TOO_NEW = re.compile(rf".*python_full_version >= '{TOO_NEW_PYTHON}'")  # uv looks past the upper bound of our Pythons

LOCK_HEADER = """\
# {what}
# Written by `make lock` from pyproject.toml; do not edit. For Python 3.11 to 3.13 on Linux, and macOS 14 or newer.
# First install torch {torch}, then: pip install --no-deps --require-hashes -r {name}
"""

CONDA_HEADER = """\
# The conda environment: conda env create -f environment.yml && conda activate twotower && pip install --no-deps -e .
# Written by `make lock`; do not edit. Only Python comes from conda: the rest are the wheels that requirements-dev.lock
# pins, so that both ways lead to the same files. A test compares the pins. No CI solves this environment.
"""

BINDER_HEADER = """\
# What Binder installs: the core and the notebooks, at the versions of the lock, with PyTorch's CPU build.
# Written by `make lock`; do not edit. `postBuild` installs the library and fetches the data.
"""


def main() -> None:
    """Resolve everything first, then the smaller ones within it, so that the locks agree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    torch = torch_version()
    flags = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    everything = resolve(project, torch, DEV, ["--extra", "dev", *flags])
    write_lock(DEV, "Everything: running, notebooks, tests, lint.", torch, everything)
    core = resolve(project, torch, CORE, ["--constraints", str(DEV), *flags])
    write_lock(CORE, "What running needs, and what builds the package.", torch, core)
    serving = resolve(project, torch, SERVING, ["--extra", "serving", "--constraints", str(DEV), *flags])
    write_lock(SERVING, "What `twotower serve` needs: the core and the HTTP service.", torch, serving)
    versions = pins(everything)
    CONDA.write_text(
        CONDA_HEADER + conda_environment(project, torch, versions, project["project"]["optional-dependencies"])
    )
    BINDER.write_text(BINDER_HEADER + conda_environment(project, torch, versions, ["notebooks"]))
    for python in PYTHONS:
        for system in SYSTEMS:
            check_reach(python, system)


def torch_version() -> str:
    """The version of torch, which stands in the Makefile and nowhere else."""
    return re.search(r"^TORCH_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]


def resolve(project: dict, torch: str, lock: Path, flags: list[str]) -> str:
    """One version a package for all systems and Pythons, as uv resolves them; keeps the pins that stand in `lock`."""
    building = project["build-system"]["requires"]  # so that `pip install -e .` downloads nothing
    command = ["uv", "pip", "compile", "pyproject.toml", "-", "--output-file", str(lock), *flags]
    command += ["--universal", "--python-version", PYTHONS[0], "--fork-strategy", "fewest"]
    command += ["--generate-hashes", "--no-header", "--annotation-style", "line", "--quiet"]
    wanted = "\n".join([*building, f"torch=={torch}"])
    run(command, input=wanted)
    return lock.read_text()


def run(command: list[str], **more: object) -> None:
    """Run a tool of this environment; a failure ends the script."""
    subprocess.run([sys.executable, "-m", *command], text=True, cwd=ROOT, check=True, **more)


def write_lock(lock: Path, what: str, torch: str, resolved: str) -> None:
    """The lock without what the Makefile installs."""
    entries = re.findall(r"^\S.*\n(?:[ \t]+.*\n)*", resolved, re.M)
    kept = [entry for entry in entries if not BY_THE_MAKEFILE.match(entry) and not TOO_NEW.match(entry)]
    text = re.sub(rf", -c {DEV.name}|-c {DEV.name}, |    # via -c {DEV.name}\n", "", "".join(kept))
    lock.write_text(LOCK_HEADER.format(what=what, torch=torch, name=lock.name) + text)


def pins(resolved: str) -> dict[str, str]:
    """Name -> version of every package in a lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", resolved, re.M))


def conda_environment(project: dict, torch: str, versions: dict[str, str], extras: Iterable[str]) -> str:
    """What pyproject.toml names for the core and these extras, at the versions of the lock."""
    groups = [project["project"]["dependencies"], *(project["project"]["optional-dependencies"][one] for one in extras)]
    wanted = [Requirement(one) for group in groups for one in group]
    marks = {one.name: f" ; {one.marker}" if one.marker else "" for one in wanted}
    names = marks.keys() - {"torch", project["project"]["name"]}
    lines = ["name: twotower", "channels:", "  - conda-forge", "dependencies:"]
    lines += [f"  - python={PYTHONS[0]}", "  - pip", "  - pip:"]
    lines += ["      - --extra-index-url https://download.pytorch.org/whl/cpu", f"      - torch=={torch}"]
    lines += [f"      - {name}=={versions[name]}{marks[name]}" for name in sorted(names)]
    return "\n".join(lines) + "\n"


def check_reach(python: str, system: str) -> None:
    """A dry run: does every pin have a wheel for this Python on this system? One package comes as source only."""
    command = ["uv", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--require-hashes", "-r", str(DEV)]
    command += ["--only-binary", ":all:", "--no-binary", "antlr4-python3-runtime", "--target", "build/reach"]
    command += ["--python-version", python, "--python-platform", system]
    print(f"wheels for Python {python} on {system}", flush=True)
    run(command, env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS})


if __name__ == "__main__":
    main()
