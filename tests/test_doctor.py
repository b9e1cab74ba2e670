"""The doctor in broken set-ups, most of them real: it names what is wrong, ends as it promises, and never crashes."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKS = ["system", "python", "writing", "disk", "memory", "cores", "encoding", "proxy", "port", "environment"]
CHECKS += ["versions", "torch", "faiss", "together", "kernel", "jupyter", "widgets", "data"]
WAITING = CHECKS[10:]
WAITS = "not looked at: the environment comes first"


def run(*arguments, python=sys.executable, script=ROOT / "doctor.py", **env):
    """The doctor in a process of its own; a traceback is never right."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    command = [str(python), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def told(**settings):
    """Check -> what was told of it, from the JSON form; its exit code agrees with what it says."""
    done = run("--json", **settings)
    found = json.loads(done.stdout)
    checks = {one.pop("check"): one for one in found["checks"]}
    assert list(checks) == CHECKS
    broken = [one for one in checks.values() if one["state"] == "fix"]
    assert all(one["repair"] for one in broken)
    assert (done.returncode, found["ready"]) == (int(bool(broken)), not broken)
    assert {one["state"] for one in checks.values()} <= {"ok", "note", "fix"}
    return checks


@pytest.fixture
def doctor(monkeypatch, tmp_path):
    """The doctor as a module, in a checkout that holds nothing but the locks."""
    spec = importlib.util.spec_from_file_location("doctor", ROOT / "doctor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for lock in ROOT.glob("requirements*.lock"):
        shutil.copy(lock, tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "INSIDE", tmp_path / ".venv" / "bin" / "python")
    return module


@pytest.fixture
def quick(doctor, monkeypatch):
    """The same, in order as far as it looks; what runs in a process of its own is not looked at."""
    for name in ("torch", "faiss", "together", "kernel", "data"):
        replaced(doctor, name, lambda: doctor.ok("works"))
    monkeypatch.setattr(doctor, "in_venv", lambda: True)
    return doctor


def replaced(doctor, name, check):
    """Another function under the name of a check."""
    check.__name__ = name
    for checks in (doctor.MACHINE, doctor.INSTALLED):
        checks[:] = [check if one.__name__ == name else one for one in checks]


def stub(folder, name, code):
    """A module that comes before the real one; returns the variable that makes it so."""
    (folder / f"{name}.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def other_python(version):
    """An interpreter of another version, where this machine has one."""
    places = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for python in filter(None, places):
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    pytest.skip(f"there is no Python {version} on this machine")


# Its form ------------------------------------------------------------------------------------------------------------


def test_it_is_standard_library_only_and_old_pythons_can_read_it():
    tree = ast.parse((ROOT / "doctor.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
    assert len(names) > 10 and names <= sys.stdlib_module_names
    assert names.isdisjoint({"__future__", "dataclasses", "importlib.metadata", "graphlib", "tomllib", "zoneinfo"})


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.9", "3.12"])
def test_a_real_other_python_in_a_fresh_clone(version, tmp_path):
    python = other_python(version)
    for path in [ROOT / "doctor.py", *ROOT.glob("requirements*.lock")]:
        shutil.copy(path, tmp_path)
    done = run(python=python, script=tmp_path / "doctor.py")
    repair = "make setup" if version == "3.12" else "make setup PYTHON=python3.12"
    assert done.returncode == 1
    assert ("the project needs 3.11, 3.12 or 3.13" in done.stdout) == (version != "3.12")
    assert "fix   environment  nothing is installed yet: there is no .venv" in done.stdout
    assert re.search(rf"^Not ready yet: \d to fix. Begin with: {repair}$", done.stdout, re.M)


def test_a_machine_in_order():
    """This one: where the tests run, what they need is installed."""
    checks = told()
    assert [checks[name]["state"] for name in ("torch", "faiss", "together", "widgets", "python")] == ["ok"] * 5
    assert [name for name, one in checks.items() if "itself failed" in one["found"] or one["found"] == WAITS] == []


def test_the_report(quick, capsys):
    code = quick.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[: len(CHECKS)]] == CHECKS
    assert (code, lines[len(CHECKS) + 1]) == (0, "This machine is ready.")
    block = lines[lines.index("```") + 1 : -1]
    assert block[0].startswith("python 3.") and "torch 2." in block[0]
    assert all(line.startswith(("ok ", "note ")) for line in block[1:])
    assert lines[-1] == "```"


def test_the_block_leaves_out_what_only_waits(doctor, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "installed", dict)
    assert doctor.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    block = lines[lines.index("```") :]
    assert sum("not looked at" in line for line in lines) == len(WAITING)
    assert not any("not looked at" in line for line in block)
    assert any(line.startswith("fix   environment") for line in block)


def test_an_unknown_argument():
    done = run("--jsn")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "usage: python doctor.py [--json]\n")


def test_no_name_of_a_person_or_of_a_home_folder(quick, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USER", "ada")
    text = f"{quick.ROOT}/.venv/bin/python /home/ada/course /home/adam /scratch/ada/x /ada {quick.ROOT}-old"
    assert quick.plain(text) == f"./.venv/bin/python ~/course /home/adam /scratch/USER/x /USER {quick.ROOT}-old"
    replaced(quick, "disk", lambda: quick.fix("in /home/ada/course", "rm -r /home/ada/course"))
    found = quick.examine()
    assert found["disk"] == quick.fix("in ~/course", "rm -r ~/course")
    assert "ada" not in quick.report(found) and "ada" not in quick.as_json(found)


def test_letters_that_the_terminal_cannot_show(tmp_path):
    """A finding holds a folder's name; the terminal knows ASCII only."""
    (tmp_path / "Kü").mkdir()
    (tmp_path / "Kü" / "jupyter").touch(mode=0o755)
    quicker = stub(tmp_path, "torch", "raise ImportError")
    done = run(PYTHONIOENCODING="ascii", PATH=f"{tmp_path / 'Kü'}:{os.environ['PATH']}", **quicker)
    assert r"K\xfc/jupyter" in done.stdout


# It cannot crash -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_that_fails_itself_is_a_note(quick, name):
    def check():
        raise KeyError("x")

    replaced(quick, name, check)
    found = quick.examine()
    assert list(found) == CHECKS
    assert found[name] == quick.note("this check itself failed: KeyError: 'x'", "please report it")
    assert [one for one in CHECKS if found[one].found.startswith("this check itself")] == [name]


@pytest.mark.parametrize(
    "error", [RecursionError(), OSError(5, "I/O error"), ValueError("two\nlines"), ImportError("\n")]
)
def test_whatever_a_check_raises_is_told_in_one_line(doctor, error):
    def check():
        raise error

    found = doctor.looked(check)
    assert found.found.startswith(f"this check itself failed: {type(error).__name__}: ")
    assert "\n" not in found.found


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('libcudart.so.12: cannot open')", "ImportError: libcudart.so.12: cannot open"),
        ("import os; os.abort()", "the process died of SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "the process died of SIGSEGV"),
        ("import sys; sys.exit(3)", "no message"),
    ],
    ids=["not installed right", "abort", "segmentation fault", "exit"],
)
def test_a_torch_that_is_broken(code, said, tmp_path):
    checks = told(**stub(tmp_path, "torch", code))
    assert checks["torch"]["state"] == checks["together"]["state"] == "fix"
    assert checks["torch"]["found"] == f"torch does not work: {said}"
    assert checks["torch"]["repair"] in ("make setup", "make install-dev", "make clean install-dev")
    assert checks["faiss"]["state"] == "ok"


def test_a_torch_that_never_answers(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", stub(tmp_path, "torch", "import time; time.sleep(60)")["PYTHONPATH"])
    monkeypatch.setattr(doctor, "SECONDS", 0.5)
    assert doctor.torch() == doctor.fix("torch does not work: no answer in 0.5 s", doctor.again())


def test_torch_and_faiss_that_work_only_apart(doctor, monkeypatch, tmp_path):
    """As where each brings an OpenMP runtime of its own: the one that comes second aborts."""
    (tmp_path / "torch.py").write_text(
        "import os, sys\n"
        "if 'faiss' in sys.modules: os.abort()\n"
        "class ones:\n"
        "    def __init__(self, *_): pass\n"
        "    def __matmul__(self, _): return self\n"
        "    def tolist(self): return [[2, 2], [2, 2]]\n"
        "__version__ = '2'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor.torch() == doctor.ok("torch 2 works")
    assert doctor.together().found == "torch and faiss fail in one process: the process died of SIGABRT"


# The machine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "right"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)])
def test_python(doctor, monkeypatch, version, right):
    monkeypatch.setattr(doctor.sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "{}.{}.0".format(*version))
    monkeypatch.setattr(doctor, "installed", dict)
    found = doctor.python()
    assert found.state == ("ok" if right else "fix")
    assert right or found.repair == doctor.environment().repair == "make setup PYTHON=python3.12"


def test_a_python_without_its_parts(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "importable", lambda name: name != "ensurepip")
    assert doctor.python().found.endswith("was installed without ensurepip")
    assert "python3-venv" in doctor.python().repair


@pytest.mark.parametrize(
    ("version", "machine", "state"),
    [("14.0", "arm64", "ok"), ("26.1", "arm64", "ok"), ("13.6.1", "arm64", "fix"), ("15.0", "x86_64", "fix")],
)
def test_macos(doctor, version, machine, state):
    assert doctor.macos(version, machine).state == state


@pytest.mark.parametrize(("libc", "state"), [(("glibc", "2.28"), "ok"), (("glibc", "2.17"), "fix"), (("", ""), "ok")])
def test_linux(doctor, monkeypatch, libc, state):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(doctor.platform, "libc_ver", lambda: libc)
    assert doctor.system().state == state


def test_windows(doctor, monkeypatch):
    monkeypatch.setattr(doctor.platform, "system", lambda: "Windows")
    assert (doctor.system().state, doctor.system().repair.split(",")[0]) == ("fix", "wsl --install")


def test_a_folder_that_cannot_be_written(doctor, monkeypatch):
    """Not even root can make a file in /proc."""
    assert doctor.writing().state == "ok"
    monkeypatch.setattr(doctor, "ROOT", Path("/proc/self") if Path("/proc/self").is_dir() else Path("/nowhere"))
    found = doctor.writing()
    assert (found.state, found.repair) == ("fix", "clone the project into a folder of yours")


@pytest.mark.parametrize(
    ("free", "set_up", "state"), [(2.9, False, "fix"), (3.1, False, "ok"), (0.9, True, "fix"), (1.1, True, "ok")]
)
def test_disk(doctor, monkeypatch, free, set_up, state):
    if set_up:
        doctor.VENV.mkdir()
    usage = shutil.disk_usage(doctor.ROOT)._replace(free=free * 1e9)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert doctor.disk().state == state


@pytest.mark.parametrize(("total", "free", "state"), [(1.9, 1.9, "fix"), (8, 1.9, "note"), (8, 2.1, "ok")])
def test_memory(doctor, monkeypatch, total, free, state):
    assert 1e8 < doctor.available_memory() <= doctor.total_memory() * 1.01
    monkeypatch.setattr(doctor, "total_memory", lambda: total * 1e9)
    monkeypatch.setattr(doctor, "available_memory", lambda: free * 1e9)
    assert doctor.memory().state == state


def test_one_core(doctor, monkeypatch):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert doctor.cores().state == "note"


def test_text_that_is_not_utf8(doctor, monkeypatch):
    monkeypatch.setattr(doctor.locale, "getpreferredencoding", lambda _: "ISO-8859-1")
    assert doctor.encoding() == doctor.fix("text files are read as ISO-8859-1, not UTF-8", "export PYTHONUTF8=1")


def test_a_proxy_is_named_without_its_password(doctor, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    assert doctor.proxy().state == "ok"
    monkeypatch.setenv("https_proxy", "http://ada:secret@proxy:3128")
    assert doctor.proxy().state == "note" and "https_proxy set" in doctor.proxy().found
    assert "secret" not in doctor.proxy().found


def test_a_port_in_use(doctor, monkeypatch):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        monkeypatch.setattr(doctor, "PORT", one.getsockname()[1])
        one.listen()
        assert doctor.port().state == "note"
    assert doctor.port().state == "ok"


# The environment -----------------------------------------------------------------------------------------------------


def test_nothing_is_installed_yet(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "installed", dict)
    found = doctor.examine()
    assert found["environment"] == doctor.fix("nothing is installed yet: there is no .venv", "make setup")
    assert [found[name] for name in WAITING] == [doctor.WAITS] * len(WAITING)
    assert doctor.sentence(found).endswith("Begin with: make setup")


def test_another_python_than_that_of_venv(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "installed", dict)
    doctor.INSIDE.parent.mkdir(parents=True)
    doctor.INSIDE.symlink_to(sys.executable)
    assert doctor.environment() == doctor.fix(f"this is {sys.executable}, not the Python of .venv", "make doctor")
    monkeypatch.setattr(doctor.sys, "version_info", (3, 8, 18, "final", 0))
    assert doctor.python().state == "note", "the Python of .venv is another one"


def test_the_python_of_venv_is_gone(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "installed", dict)
    doctor.INSIDE.parent.mkdir(parents=True)
    doctor.INSIDE.symlink_to("/usr/bin/python3.99")
    assert doctor.environment().repair == "make clean install-dev"


def test_a_library_in_another_environment_is_looked_at(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda: {"twotower": "1"})
    assert doctor.environment().state == "note"


def test_in_the_venv(doctor, monkeypatch):
    monkeypatch.setattr(doctor.sys, "prefix", str(doctor.VENV))
    assert doctor.environment() == doctor.ok("this is the Python of .venv")


def test_make_clean_only_where_make_believes_that_it_is_done(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "installed", dict)
    doctor.VENV.mkdir()
    assert doctor.again() == "make setup"
    (doctor.VENV / ".made-core").touch()
    assert doctor.again() == "make clean setup"
    monkeypatch.setattr(doctor, "installed", lambda: {"jupyterlab": "4"})
    assert doctor.again() == "make install-dev"
    (doctor.VENV / ".made-dev").touch()
    assert doctor.again() == "make clean install-dev"


def test_the_marks_are_those_of_the_makefile():
    text = (ROOT / "Makefile").read_text()
    assert ".venv/.made-core:" in text and ".venv/.made-dev:" in text


def test_versions_of_the_lock(doctor, monkeypatch):
    core, everything = doctor.locked("requirements.lock"), doctor.locked("requirements-dev.lock")
    assert (
        core["torch"]
        == everything["torch"]
        == (re.search(r"TORCH_VERSION := (\S+)", (ROOT / "Makefile").read_text())[1], True)
    )
    assert core["colorama"][1] is False and core["numpy"][1] is True
    here = {name: version for name, (version, always) in core.items() if always}
    monkeypatch.setattr(doctor, "in_venv", lambda: True)

    def found(**changed):
        monkeypatch.setattr(doctor, "installed", lambda: {k: v for k, v in {**here, **changed}.items() if v})
        return doctor.versions()

    assert found() == doctor.ok(f"{len(here)} packages are those of the lock")
    assert found(torch=here["torch"] + "+cpu").state == "ok"
    assert found(torch="2.9.0").found == f"1 package (torch 2.9.0, not {here['torch']})"
    assert found(jupyterlab="3.0").state == "fix"
    assert found(numpy=None).found == "not installed: 1 package (numpy)"
    assert found(numpy=None, scipy=None, pandas=None, tqdm=None).found.startswith("not installed: 4 packages (")
    assert found(hatchling=None).state == "fix", "it builds the package, so the lock holds it"
    (doctor.VENV).mkdir()
    (doctor.VENV / ".made-dev").touch()
    assert found().found.startswith("not installed: "), "make install-dev promised more"
    (doctor.VENV / ".made-dev").unlink()
    monkeypatch.setattr(doctor, "in_venv", lambda: False)
    assert found(torch="2.9.0").state == "note", "conda, or a cloud: other versions may be meant"
    assert found(hatchling=None).state == "ok", "a wheel needs nothing that builds one"
    assert found(numpy=None).state == "fix"


# Notebooks -----------------------------------------------------------------------------------------------------------


def kernelspec(folder, *argv):
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    return folder


def test_a_kernel_of_another_python(doctor, monkeypatch, tmp_path):
    other = "/usr/bin/python3"
    monkeypatch.setenv("JUPYTER_PATH", str(kernelspec(tmp_path / "a", other, "-m", "ipykernel_launcher")))
    found = doctor.kernel()
    assert found == doctor.fix(f"notebooks would run with {other}, not with this Python", "unset JUPYTER_PATH")


@pytest.mark.parametrize("command", ["python", "python3", "python3.11", sys.executable])
def test_a_kernel_of_this_python(doctor, monkeypatch, tmp_path, command):
    """Jupyter takes its own Python where a kernel only says `python`."""
    monkeypatch.setenv("JUPYTER_PATH", str(kernelspec(tmp_path / "a", command, "-m", "ipykernel_launcher")))
    assert doctor.kernel() == doctor.ok("notebooks run with this Python")


def test_a_kernel_in_the_environment_that_was_moved(doctor, monkeypatch):
    spec = json.dumps(["/elsewhere/share/jupyter/kernels/python3", "/old/.venv/bin/python"])
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    monkeypatch.setattr(doctor, "run", lambda _: ("", spec))
    assert doctor.kernel().repair == f"{sys.executable} -m ipykernel install --sys-prefix"


@pytest.mark.parametrize(
    ("trouble", "state"),
    [("ModuleNotFoundError: No module named 'jupyter_client'", "note"), ("NoSuchKernel: python3", "fix")],
)
def test_no_kernel(doctor, monkeypatch, trouble, state):
    monkeypatch.setattr(doctor, "run", lambda _: (trouble, ""))
    assert doctor.kernel().state == state


def test_a_jupyter_of_another_python_comes_first(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.jupyter().state == "ok"
    (tmp_path / "jupyter").touch(mode=0o755)
    assert doctor.jupyter() == doctor.note(f"typing jupyter starts {tmp_path / 'jupyter'}", "make lab")


@pytest.mark.parametrize(
    ("pair", "state"),
    [(("8.1.9", "3.0.1"), "ok"), (("7.7.1", "3.0.1"), "fix"), (("8.1.9", "1.1"), "fix"), (("8.1.9", ""), "fix")],
)
def test_the_two_halves_of_the_widgets(doctor, monkeypatch, pair, state):
    here = {"jupyterlab": "4.6", "ipywidgets": pair[0], "jupyterlab-widgets": pair[1]}
    monkeypatch.setattr(doctor, "installed", lambda: {name: version for name, version in here.items() if version})
    assert doctor.widgets().state == state
    monkeypatch.setattr(doctor.sys, "prefix", str(doctor.ROOT))
    assert doctor.widgets().state == "fix", "no half for the browser here"


def test_without_notebooks(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "installed", dict)
    assert doctor.widgets() == doctor.note("the notebooks' packages are not installed", "make install-dev")


# Data ----------------------------------------------------------------------------------------------------------------


def test_a_damaged_file_in_the_cache(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("TWOTOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TWOTOWER_MIRROR", raising=False)
    (tmp_path / "cache").mkdir()
    assert doctor.data().state == "note" and doctor.data().repair.endswith("/twotower fetch ml-100k")
    (tmp_path / "cache" / "ml-100k.zip").write_bytes(b"half")
    found = doctor.data()
    assert (found.state, found.found) == ("fix", "ml-100k.zip is damaged or another file")
    assert found.repair.startswith(f"rm {tmp_path / 'cache' / 'ml-100k.zip'} && ")
    assert found.repair.endswith("/twotower fetch ml-100k")


def test_a_damaged_file_in_the_mirror(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("TWOTOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWOTOWER_MIRROR", str(tmp_path / "mirror"))
    assert doctor.data().repair == "unset TWOTOWER_MIRROR"
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "yelp2018-train.txt").write_bytes(b"half")
    assert doctor.data().found == "yelp2018-train.txt is damaged or another file"


def test_a_mirror_does_not_hide_the_cache(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("TWOTOWER_CACHE", str(tmp_path))
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("TWOTOWER_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "ml-100k.zip").write_bytes(b"half")
    assert doctor.data().state == "fix"


def test_a_whole_file(doctor, monkeypatch, tmp_path):
    from twotower_lib import sources

    monkeypatch.setenv("TWOTOWER_CACHE", str(tmp_path))
    monkeypatch.delenv("TWOTOWER_MIRROR", raising=False)
    (tmp_path / "ml-100k.zip").write_bytes(b"abc")
    monkeypatch.setitem(sources.HASHES, "ml-100k.zip", "md5:900150983cd24fb0d6963f7d28e17f72")  # RFC 1321: md5("abc")
    assert doctor.data() == doctor.ok("MovieLens 100K is here and whole")
    (tmp_path / "gowalla-train.txt").write_bytes(b"anything: its hash is not known")
    assert doctor.data().state == "ok"


def test_a_broken_library_is_a_note_of_this_check_only(doctor, monkeypatch):
    monkeypatch.delattr("twotower_lib.sources.located")
    found = doctor.looked(doctor.data)
    assert found.state == "note" and found.found.startswith("this check itself failed: ")


# make doctor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_venv", [True, False])
def test_make_doctor_takes_the_python_of_venv_or_any_and_installs_nothing(tmp_path, has_venv):
    for name in ("Makefile", "doctor.py", *(path.name for path in ROOT.glob("requirements*.lock"))):
        shutil.copy(ROOT / name, tmp_path)
    if has_venv:
        inside = tmp_path / ".venv" / "bin" / "python"
        inside.parent.mkdir(parents=True)
        inside.write_text('#!/bin/sh\necho "the Python of .venv runs $@"\n')
        inside.chmod(0o755)
    before = sorted(tmp_path.rglob("*"))
    command = ["make", "--no-print-directory", "doctor", "ARGS=--json", f"PYTHON={sys.base_prefix}/bin/python3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert sorted(tmp_path.rglob("*")) == before
    if has_venv:
        assert (done.returncode, done.stdout) == (0, "the Python of .venv runs doctor.py --json\n")
    else:
        assert done.returncode == 2 and json.loads(done.stdout)["sentence"].endswith("Begin with: make setup")
