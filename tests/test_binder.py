"""What Binder is given, and the rehearsal of it. The pins of binder/environment.yml are compared in test_setup.py.

The rehearsals themselves take minutes and are commands: `python scripts/rehearse.py binder` and `wheel`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
POST_BUILD, START = ROOT / "binder" / "postBuild", ROOT / "binder" / "start"
ENVIRONMENT = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
MB = 2**20

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").is_file(), reason="the rehearsal reads /proc, which only Linux has"
)


# The folder ----------------------------------------------------------------------------------------------------------


def test_it_holds_three_files():
    """A file that repo2docker does not know would be one that somebody believes in; runtime.txt is never read here."""
    assert sorted(path.name for path in (ROOT / "binder").iterdir()) == ["environment.yml", "postBuild", "start"]
    assert not (ROOT / ".binder").exists()


def test_the_environment_installs_no_local_folder():
    """`-e .` in it, or a lock beside it, would turn off the cache of layers: only this one file is copied early."""
    (section,) = (part["pip"] for part in ENVIRONMENT["dependencies"] if isinstance(part, dict))
    lines = [line for line in section if not re.match(r"[\w-]+==", line)]
    assert lines == ["--extra-index-url https://download.pytorch.org/whl/cpu"]


def test_repo2docker_takes_the_folder_and_nothing_of_the_root():
    if importlib.util.find_spec("repo2docker") is None:
        pytest.skip("repo2docker is not installed: make install-dev")
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    steps = done.stdout
    assert f"Building conda environment for python={python_version()}" in done.stderr  # and not the root's Dockerfile
    assert '--file "binder/environment.yml"' in steps
    assert steps.index("COPY --chown=0:0 src/binder/environment.yml") < steps.index(
        "COPY --chown=0:0 src/ ${REPO_DIR}/"
    )
    assert "RUN ./binder/postBuild" in steps
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in steps


def python_version():
    (wanted,) = (one for one in ENVIRONMENT["dependencies"] if str(one).startswith("python="))
    return wanted.removeprefix("python=")


# Its scripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [POST_BUILD, START], ids=lambda path: path.name)
def test_a_script_is_executable_and_strict(script):
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert os.access(script, os.X_OK)
    assert next(line for line in lines[1:] if line and not line.startswith("#")) == "set -euo pipefail"
    subprocess.run(["bash", "-n", script], check=True)


def test_start_becomes_the_server_with_one_thread():
    assert START.read_text().splitlines()[-1] == 'exec "$@"'
    say = 'echo $$ "$OMP_NUM_THREADS" "$NUMBA_NUM_THREADS" "$0" "$@"; exit 7'
    command = [START, "sh", "-c", say, "an argument", "two  words"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]}) as one:
        assert one.stdout.read() == f"{one.pid} 1 1 an argument two  words\n"
    assert one.returncode == 7


@pytest.fixture
def stubs(tmp_path):
    """Commands that only note how they were called; one may fail."""
    for name in ("python", "twotower", "jupyter"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $@" >> "$LOG"\ncase "$*" in *"$FAILS"*) exit 3;; esac\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def post_build(stubs, fails="nothing of the sort"):
    env = {"PATH": f"{stubs}:/usr/bin:/bin", "LOG": str(stubs / "log"), "FAILS": fails}
    code = subprocess.run([POST_BUILD], cwd=ROOT, env=env).returncode
    return code, (stubs / "log").read_text().splitlines()


def test_post_build(stubs):
    code, called = post_build(stubs)
    assert code == 0
    install, *rest = called
    assert install.startswith("python -m pip install") and install.endswith("--no-deps --editable .")
    assert rest[0] == "twotower fetch ml-100k"
    assert "python -m compileall -q twotower_lib" in rest
    assert "jupyter labextension disable @jupyterlab/apputils-extension:announcements" in rest


@pytest.mark.parametrize("fails", ["pip install", "fetch", "compileall", "import", "labextension"])
def test_post_build_ends_with_its_first_failure(stubs, fails):
    code, called = post_build(stubs, fails)
    assert code == 3
    assert fails in called[-1]


# The rehearsal -------------------------------------------------------------------------------------------------------


def load(name):
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rehearse():
    return load("rehearse")


@pytest.fixture
def rehearsal(rehearse, tmp_path):
    """A rehearsal under a limit of 300 MB, by looking."""
    with rehearse.Rehearsal.under_limit(tmp_path, 300 * MB) as one:
        one.cgroup = None
        yield one


def python(code):
    return [sys.executable, "-c", code]


CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
"""
HOLD = "import time; held = bytearray(b'x') * (100 * 2**20); time.sleep(1)\n"


@needs_proc
def test_memory_is_that_of_the_whole_family(rehearsal):
    """100 MB in a child that began a session of its own, and 100 MB in its parent."""
    printed = rehearsal.step("two", [*python(f"{CHILD}{HOLD}child.wait(); print('done')"), HOLD])
    assert printed == "done\n"
    (step,) = rehearsal.steps
    assert 200 <= step.peak_mb < 260
    assert 1 <= step.seconds < 20


@needs_proc
def test_a_child_whose_parent_is_gone_counts(rehearsal):
    """The shell in brackets ends at once; what it began belongs to nobody, but to the session of the step."""
    rehearsal.step("orphan", ["sh", "-c", '("$@" &); sleep 1', "sh", *python(HOLD)])
    assert rehearsal.steps[0].peak_mb >= 100


@needs_proc
def test_what_passes_the_limit_is_killed_with_its_children(rehearsal, tmp_path):
    note = tmp_path / "child"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"{CHILD}time.sleep(1); held = bytearray(b'x') * (400 * 2**20); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(SystemExit, match=r"memory: \d+ MB passed the limit of 300 MB"):
        rehearsal.step("too much", [*python(code), child])
    assert time.monotonic() - began < 30
    stat = Path("/proc", note.read_text(), "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"  # dead, and nobody asked yet


@needs_proc
def test_a_step_that_fails_shows_its_last_lines(rehearsal):
    with pytest.raises(SystemExit, match=r"line 98\nline 99\nbroken: ended with 4"):
        rehearsal.step("broken", python("print(*(f'line {n}' for n in range(100)), sep='\\n'); exit(4)"))


@needs_proc
def test_the_environment_is_empty(rehearsal, monkeypatch):
    monkeypatch.setenv("TWOTOWER_MIRROR", "/somewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    seen = json.loads(rehearsal.step("look", python("import json, os; print(json.dumps(dict(os.environ)))")))
    reaching = {
        name
        for name in seen
        if name.upper().startswith(("PIP_", "SSL_CERT")) or name.upper().endswith(("_PROXY", "CA_BUNDLE"))
    }
    assert "PIP_TIMEOUT" in reaching
    assert seen.keys() - reaching - {"LC_CTYPE"} == {"HOME", "PATH", "LANG"}
    assert list(Path(seen["HOME"]).iterdir()) == []
    assert str(ROOT) not in seen["PATH"]


@needs_proc
def test_nothing_is_left_running(rehearse, tmp_path):
    with pytest.raises(ZeroDivisionError), rehearse.Rehearsal.under_limit(tmp_path) as one:
        process = one.start(["sleep", "60"], None, tmp_path / "log")
        raise ZeroDivisionError
    assert process.returncode == -9


def test_a_cgroup_where_one_can_be_made(rehearse, tmp_path):
    """The files of cgroup v2, as plain ones."""
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    own = rehearse.make_cgroup(tmp_path, 5 * MB)
    assert own.parent == tmp_path and (own / "memory.max").read_text() == str(5 * MB)
    rehearsal = rehearse.Rehearsal(tmp_path, cgroup=own)
    rehearsal.home.mkdir()
    process = rehearsal.start(["sh", "-c", "echo $$ $0 $1", "one", "two"], None, tmp_path / "log")
    process.wait()
    assert (tmp_path / "log").read_text() == f"{process.pid} one two\n"
    assert (own / "cgroup.procs").read_text() == f"{process.pid}\n"
    assert "a cgroup" in rehearse.how_limited(rehearsal)


def test_no_cgroup_where_none_can_be_made(rehearse, tmp_path):
    assert rehearse.make_cgroup(tmp_path / "nowhere", MB) is None
    (tmp_path / "cgroup.subtree_control").write_text("cpu pids\n")
    assert rehearse.make_cgroup(tmp_path, MB) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.subtree_control"]


def test_what_conda_hands_to_pip(rehearse):
    section = rehearse.pip_section(ENVIRONMENT)
    assert section[0].startswith("--extra-index-url ") and section[1] == f"torch=={rehearse.torch_version()}"
    assert rehearse.without_options(section) == section[1:]


def test_the_copy_holds_what_git_knows(rehearse, tmp_path):
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no clone, or git is not installed")
    rehearse.copy_checkout(tmp_path)
    assert os.access(tmp_path / "binder" / "postBuild", os.X_OK)
    assert (tmp_path / "twotower_lib" / "errors.py").read_bytes() == (ROOT / "twotower_lib" / "errors.py").read_bytes()
    assert not (tmp_path / ".venv").exists()


def test_the_table(rehearse, tmp_path):
    one = rehearse.Rehearsal(tmp_path, steps=[rehearse.Step("a", 1.25, 100), rehearse.Step("b", 2.0, 50)])
    last, limit = rehearse.table(one).splitlines()
    assert last.split() == ["3.2", "s", "100", "MB", "all"]
    assert limit.startswith("limit 2048 MB, held by looking")


def test_a_result_says_how_busy_the_machine_was(rehearse, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearse, "ROOT", tmp_path)
    monkeypatch.setattr(rehearse, "RESULTS", tmp_path)
    rehearse.save("wheel", rehearse.Rehearsal(tmp_path, steps=[rehearse.Step("a", 1.5, 100)]))
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"wheel_\d+-cores_\d{4}-\d\d-\d\d\.json", path.name)
    result = json.loads(path.read_text())
    assert result["steps"] == [{"name": "a", "seconds": 1.5, "peak_mb": 100}] and result["load"] >= 0
