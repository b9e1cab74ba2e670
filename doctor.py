"""Is this machine ready for the course? `make doctor`, or `python3 doctor.py`.

One line a check: `ok`, `note` (worth knowing), or `fix` with the command that mends it. Ends with one sentence and a
block for an issue; exits 0 when nothing is to fix, else 1. `--json` prints one JSON object instead, for a teacher who
collects those of a class. Nothing is installed or changed, and no name of a person or of a home folder is printed.

Standard library only, and only what Python 3.6 can read, so that an old Python gets a sentence and not a SyntaxError.
No check can end the doctor: each runs in its own try, and what may crash runs in a process of its own.
"""

# ruff: noqa: UP022, UP033 (the newer forms are what an old Python does not know)

import hashlib
import json
import locale
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
INSIDE = VENV / "bin" / "python"
OLDEST, TOO_NEW = (3, 11), (3, 14)
GB = 1e9
DISK_TO_SET_UP, DISK_TO_WORK, MEMORY = 3, 1, 2
"""Gigabytes."""
SECONDS = 120
"""For a check that runs in a process of its own; a first import from a slow disk takes long."""
PORT = 8888
SHOWN = ("torch", "faiss-cpu", "numpy", "pandas", "ipywidgets", "jupyterlab", "twotower")
"""Distributions whose versions stand in the block for an issue."""
ELSEWHERE = "use Binder or Colab: the badges in README.md"


class Finding(NamedTuple):
    """What a check found, and the command that mends it."""

    state: str
    found: str
    repair: str = ""


WAITS = Finding("note", "not looked at: the environment comes first")


def ok(found):
    return Finding("ok", found)


def note(found, repair=""):
    return Finding("note", found, repair)


def fix(found, repair):
    return Finding("fix", found, repair)


# The machine ---------------------------------------------------------------------------------------------------------


def system():
    kind, release = platform.system(), platform.release()
    if kind == "Windows":
        return fix("Windows itself is not supported", "wsl --install, and clone the project inside WSL")
    if kind == "Darwin":
        return macos(platform.mac_ver()[0], platform.machine())
    libc, version = platform.libc_ver()
    if libc == "glibc" and numbers(version) < (2, 28):
        return fix(f"glibc {version}; the packages need 2.28 or newer", ELSEWHERE)
    return ok(f"{kind} {release}, {platform.machine()}")


def macos(version, machine):
    if machine == "x86_64":
        return fix("a Python for Intel Macs, for which there is no current PyTorch", ELSEWHERE)
    if numbers(version) < (14,):
        return fix(f"macOS {version}; the packages need 14 or newer", "update macOS, or " + ELSEWHERE)
    return ok(f"macOS {version}, {machine}")


def python():
    version = platform.python_version()
    if not suits():
        found = f"Python {version}; the project needs 3.11, 3.12 or 3.13"
        return note(found) if INSIDE.exists() else fix(found, set_up())
    missing = [name for name in ("ssl", "zlib", "ctypes", "venv", "ensurepip") if not importable(name)]
    if missing and not VENV.exists():
        repair = "sudo apt install python3-venv (or install Python from python.org)"
        return fix(f"Python {version} was installed without {', '.join(missing)}", repair)
    return ok(f"Python {version}")


def suits():
    return OLDEST <= tuple(sys.version_info[:2]) < TOO_NEW


def set_up():
    return "make setup" if suits() else "make setup PYTHON=python3.12"


def writing():
    try:
        with tempfile.TemporaryFile(dir=str(ROOT)):
            return ok("files can be written here")
    except OSError as error:
        return fix(f"no file can be written in {ROOT} ({error.strerror})", "clone the project into a folder of yours")


def disk():
    free = shutil.disk_usage(str(ROOT)).free / GB
    needed = DISK_TO_WORK if VENV.exists() else DISK_TO_SET_UP
    if free < needed:
        return fix(f"{free:.1f} GB of disk free, {needed} GB needed", "make room; pip cache purge frees some")
    return ok(f"{free:.0f} GB of disk free")


def memory():
    total, free = total_memory() / GB, available_memory() / GB
    if total < MEMORY:
        return fix(f"{total:.1f} GB of memory, {MEMORY} GB needed", ELSEWHERE)
    if free < MEMORY:
        return note(f"{free:.1f} GB of {total:.0f} GB of memory free", "close other programs before a notebook")
    return ok(f"{total:.0f} GB of memory")


def total_memory():
    """Bytes that a process here may use: of the machine, or of its container if that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).is_file() else "max"
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def available_memory():
    """Bytes that are free now; all of them where the system does not say (macOS)."""
    path = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", path.read_text()) if path.is_file() else None
    return int(found.group(1)) * 1024 if found else total_memory()


def cores():
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ok(f"{count} cores") if count > 1 else note("1 core: the notebooks' times are for two")


def encoding():
    """Titles of films hold letters beyond ASCII."""
    name = locale.getpreferredencoding(False)
    if name.lower().replace("-", "") != "utf8":
        return fix(f"text files are read as {name}, not UTF-8", "export PYTHONUTF8=1")
    return ok("text is UTF-8")


def proxy():
    names = [name for name in sorted(os.environ) if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    if names:
        return note(f"{', '.join(names)} set: pip and downloads go through it")
    return ok("no proxy")


def port():
    """Jupyter takes the next one where this is in use, and a bookmark of the old one leads elsewhere."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", PORT))
        except OSError:
            return note(f"port {PORT} is in use; Jupyter will take another one and print its address")
    return ok(f"port {PORT} is free")


# The environment -----------------------------------------------------------------------------------------------------


def environment():
    """Which Python is this? Everything below asks about what is installed for it."""
    if in_venv():
        return ok("this is the Python of .venv")
    if "twotower" in installed():
        return note("this Python is not that of .venv, but the library is installed for it")
    if INSIDE.exists():
        return fix(f"this is {sys.executable}, not the Python of .venv", "make doctor")
    if os.path.lexists(str(INSIDE)):
        return fix("the Python that .venv was made with is gone", "make clean install-dev")
    return fix("nothing is installed yet: there is no .venv", set_up())


def versions():
    """What is installed, against the locks."""
    here = installed()
    everything = locked("requirements-dev.lock")
    missing = [name for name in needed() if name not in here]
    other = [f"{name} {here[name]}, not {wanted}" for name, (wanted, _) in everything.items() if differs(name, wanted)]
    if missing:
        return fix(f"not installed: {some(missing)}", again())
    if other:
        return fix(some(other), again()) if in_venv() else note(some(other))
    return ok(f"{len(set(everything) & set(here))} packages are those of the lock")


def needed():
    """What must be there: in .venv what the set-up promised, elsewhere what the library itself declares."""
    if in_venv():
        lock = locked("requirements-dev.lock" if (VENV / ".made-dev").exists() else "requirements.lock")
        return [name for name, (_, always) in lock.items() if always]
    from importlib.metadata import requires

    return [re.match(r"[\w.-]+", one).group().lower() for one in requires("twotower") or [] if ";" not in one]


def locked(name):
    """Name -> (version, needed on every system) of a lock, and of torch, which its header names."""
    content = (ROOT / name).read_text(encoding="utf-8")
    pins = {one: (version, not mark) for one, version, mark in re.findall(r"^([\w.-]+)==([^\s;]+)( ;)?", content, re.M)}
    pins["torch"] = (re.search(r"install torch ([\d.]+\d)", content).group(1), True)
    return pins


def differs(name, wanted):
    """Whether another version is installed; the build, as in 2.13.0+cpu, does not count."""
    return name in installed() and installed()[name].partition("+")[0] != wanted


def torch():
    return tried("torch", TORCH)


def faiss():
    return tried("faiss", FAISS)


def together():
    """Two OpenMP runtimes in one process have crashed on some systems, in one order of import or in the other."""
    for code in (TORCH + FAISS + BOTH, FAISS + TORCH + BOTH):
        trouble, _ = run(code)
        if trouble:
            return fix(f"torch and faiss fail in one process: {trouble}", "make clean install-dev")
    return ok("torch and faiss work in one process, in both orders of import")


def kernel():
    trouble, said = run(KERNEL)
    if "No module named" in trouble:
        return note("the notebooks' packages are not installed", "make install-dev")
    install = f"{sys.executable} -m ipykernel install --sys-prefix"
    if trouble:
        return fix(f"Jupyter finds no Python kernel: {trouble}", install)
    folder, command = json.loads(said)
    if re.match(r"python(\d(\.\d+)?)?$", command) or same_environment(command):
        return ok("notebooks run with this Python")
    by_variable = any(one and folder.startswith(one) for one in os.environ.get("JUPYTER_PATH", "").split(os.pathsep))
    return fix(
        f"notebooks would run with {command}, not with this Python", "unset JUPYTER_PATH" if by_variable else install
    )


def same_environment(command):
    """Whether an interpreter belongs to this environment; it may have another name or be a link."""
    return Path(command).parent.resolve() == Path(sys.executable).parent.resolve()


def jupyter():
    found = shutil.which("jupyter")
    if found and not same_environment(found):
        return note(f"typing jupyter starts {found}", "make lab")
    return ok("no other jupyter comes first")


def widgets():
    """Widgets have a half in Python and a half in JupyterLab; a wrong pair shows as "model not found"."""
    here = installed()
    pair = [here.get(name, "") for name in ("ipywidgets", "jupyterlab-widgets")]
    front = Path(sys.prefix, "share/jupyter/labextensions/@jupyter-widgets/jupyterlab-manager/package.json")
    if "jupyterlab" not in here:
        return note("the notebooks' packages are not installed", "make install-dev")
    if [one.split(".")[0] for one in pair] != ["8", "3"]:
        return fix("ipywidgets {} beside jupyterlab_widgets {}".format(*(one or "-" for one in pair)), again())
    if not front.is_file():
        return fix("JupyterLab's half of the widgets is missing", again())
    return ok("ipywidgets {} with jupyterlab_widgets {}".format(*pair))


def data():
    from twotower_lib import sources

    mirror = os.environ.get(sources.MIRROR_VARIABLE)
    if mirror and not Path(mirror).is_dir():
        return fix(f"{sources.MIRROR_VARIABLE} names a folder that is not there", f"unset {sources.MIRROR_VARIABLE}")
    fetch = f"{Path(sys.executable).with_name('twotower')} fetch"
    for folder in ([Path(mirror)] if mirror else []) + [sources.cache_folder()]:
        for name, file in known_files(sources):
            if (folder / file.name).is_file() and not intact(folder / file.name, file.hash):
                return fix(f"{file.name} is damaged or another file", f"rm {folder / file.name} && {fetch} {name}")
    if sources.located("ml-100k") is None:
        return note("MovieLens 100K is not here yet; the first run fetches it", f"{fetch} ml-100k")
    return ok("MovieLens 100K is here and whole")


def known_files(sources):
    """(name of the data set, file) for each file of the registry."""
    return [(s.name, file) for s in sources.SOURCES.values() for address in s.addresses for file in address.files]


def intact(path, expected):
    """Whether a file has this hash (`sha256:...`); one that is not known cannot be wrong here."""
    algorithm, _, digest = expected.partition(":")
    return not expected or hashlib.new(algorithm, path.read_bytes()).hexdigest() == digest


MACHINE = [system, python, writing, disk, memory, cores, encoding, proxy, port, environment]
INSTALLED = [versions, torch, faiss, together, kernel, jupyter, widgets, data]
"""These wait until `environment` is in order."""


# What the checks ask with --------------------------------------------------------------------------------------------

TORCH = """
import torch
assert (torch.ones(2, 2) @ torch.ones(2, 2)).tolist() == [[2, 2], [2, 2]]
shown = torch.__version__
"""
FAISS = """
import faiss, numpy
index = faiss.IndexFlatIP(2)
index.add(numpy.eye(2, dtype="float32"))
assert index.search(numpy.array([[0, 1]], "float32"), 1)[1].tolist() == [[1]]
shown = faiss.__version__
"""
BOTH = """
torch.ones(512, 512) @ torch.ones(512, 512)
index.search(numpy.ones((512, 2), "float32"), 1)
"""
KERNEL = """
import json
from jupyter_client.kernelspec import get_kernel_spec
spec = get_kernel_spec("python3")
shown = json.dumps([spec.resource_dir, spec.argv[0]])
"""


def run(code):
    """(trouble, what is shown) of code in a fresh interpreter; the trouble is empty where there was none."""
    command = [sys.executable, "-c", code + "\nprint('shown:' + shown)"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS} s", ""
    if done.returncode < 0:
        return f"the process died of {signal.Signals(-done.returncode).name}", ""
    if done.returncode:
        return last_line(done.stderr.decode("utf-8", "replace")), ""
    return "", done.stdout.decode("utf-8", "replace").rpartition("shown:")[2].strip()


def tried(name, code):
    trouble, version = run(code)
    return fix(f"{name} does not work: {trouble}", again()) if trouble else ok(f"{name} {version} works")


def last_line(message):
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no message"


@lru_cache(maxsize=None)
def installed():
    """Name -> version of every distribution of this Python; empty where the Python is too old to say."""
    try:
        from importlib.metadata import distributions
    except ImportError:
        return {}
    found = [(one.metadata["Name"], one.version) for one in distributions()]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in reversed(found) if name and version}


def importable(name):
    try:
        __import__(name)
    except Exception:
        return False
    return True


def in_venv():
    return Path(sys.prefix).resolve() == VENV.resolve()


def again():
    """The set-up once more; from nothing where it believes that it is done."""
    target = "install-dev" if (VENV / ".made-dev").exists() or "jupyterlab" in installed() else "setup"
    done = (VENV / (".made-dev" if target == "install-dev" else ".made-core")).exists()
    return f"make clean {target}" if done else f"make {target}"


def numbers(version):
    return tuple(int(one) for one in re.findall(r"\d+", version))


def some(names):
    """How many, with examples."""
    examples = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} package{'s' if len(names) > 1 else ''} ({examples})"


# The report ----------------------------------------------------------------------------------------------------------


def examine():
    """Name -> finding, in order."""
    found = {check.__name__: looked(check) for check in MACHINE}
    waits = found["environment"].state == "fix"
    for check in INSTALLED:
        found[check.__name__] = WAITS if waits else looked(check)
    return {name: Finding(*map(plain, one)) for name, one in found.items()}


def looked(check):
    """The finding of a check; a mistake in the check itself is one, too."""
    try:
        return check()
    except Exception as error:
        return note(f"this check itself failed: {type(error).__name__}: {last_line(str(error))}", "please report it")


def plain(text):
    """Without the names of places and people: the checkout is `.`, the home folder `~`, and the user USER."""
    home = os.path.expanduser("~")
    for place, short in ((str(ROOT), "."), (home, "~"), (os.path.realpath(home), "~")):
        if len(place) > 1:
            text = re.sub(re.escape(place) + r"(?![\w.-])", short, text)
    people = {os.environ.get(name, "") for name in ("USER", "LOGNAME")} | {os.path.basename(home)}
    for person in people - {""}:
        text = re.sub(r"(?<=[/\\])" + re.escape(person) + r"(?![\w.-])", "USER", text)
    return text


def line(name, finding):
    return f"{finding.state:<5} {name:<12} {finding.found}" + (f"  -> {finding.repair}" if finding.repair else "")


def sentence(found):
    broken = [one for one in found.values() if one.state == "fix"]
    if not broken:
        return "This machine is ready."
    return f"Not ready yet: {len(broken)} to fix. Begin with: {broken[0].repair}"


def about():
    """What somebody who reads an issue wants to know first."""
    here = installed()
    shown = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    shown["machine"] = platform.machine()
    shown.update({name: here[name] for name in SHOWN if name in here})
    return shown


def report(found):
    """The lines, the sentence, and the block for an issue."""
    block = [", ".join(f"{name} {value}" for name, value in about().items())]
    block += [line(name, one) for name, one in found.items() if one.state != "ok" and one != WAITS]
    block += ["ok    " + " ".join(name for name, one in found.items() if one.state == "ok")]
    return "\n".join(
        [line(name, one) for name, one in found.items()]
        + ["", sentence(found), "", "If you ask for help, paste this into the issue:", "```", *block, "```"]
    )


def as_json(found):
    checks = [{"check": name, **one._asdict()} for name, one in found.items()]
    ready = all(one.state != "fix" for one in found.values())
    return json.dumps({"ready": ready, "sentence": sentence(found), "about": about(), "checks": checks})


def main(arguments):
    if set(arguments) - {"--json"}:
        sys.stderr.write("usage: python doctor.py [--json]\n")
        return 2
    found = examine()
    shown = as_json(found) if arguments else report(found)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    return int(any(one.state == "fix" for one in found.values()))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("stopped")
