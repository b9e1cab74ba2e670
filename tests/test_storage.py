"""A folder is whole or not there: exceptions, damage to any byte, force, and `kill -9` at every step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twotower_lib import storage
from twotower_lib.errors import ArtifactError, OutputExistsError
from twotower_lib.storage import FORMAT, MANIFEST, new_folder, open_folder, refuse_existing, write_folder, write_text

ROOT = Path(__file__).parent.parent
FILES = {"a.bin": bytes(range(40)), "empty": b"", "deep/er/b.txt": "größer\n".encode()}


def write(path: Path, word: str = "", kind: str = "toy", force: bool = False) -> Path:
    """A folder of three files; `word` is added to each, and stands in the facts."""
    with write_folder(path, kind, {"word": word}, force) as work:
        for name, content in FILES.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content + word.encode())
    return path


def whole(path: Path) -> str:
    """The word of a folder, after every file of it was compared."""
    folder = open_folder(path, "toy")
    word = folder.facts["word"]
    for name, content in FILES.items():
        assert folder.file(name).read_bytes() == content + word.encode()
    return str(word)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Written and read ----------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    assert whole(write(tmp_path / "new" / "a", "one")) == "one"
    assert names_in(tmp_path / "new") == {"a"}
    assert names_in(tmp_path / "new" / "a") == {"a.bin", "empty", "deep", MANIFEST}


def test_the_manifest_can_be_checked_by_hand(tmp_path):
    """Its last line is the sha256 of what stands above it; each file has its size and its sha256."""
    text, seal = (write(tmp_path / "a") / MANIFEST).read_text(encoding="utf-8").removesuffix("\n").rsplit("\n", 1)
    assert seal == hashlib.sha256(text.encode()).hexdigest()
    files = {name: {"bytes": len(one), "sha256": hashlib.sha256(one).hexdigest()} for name, one in FILES.items()}
    assert json.loads(text) == {"kind": "toy", "format": FORMAT, "facts": {"word": ""}, "files": files}


def test_facts_come_back_as_they_went(tmp_path):
    facts = {"metric": "inner product", "items": 3, "share": 0.1, "names": ["größer", None], "more": {"b": 1, "a": []}}
    with write_folder(tmp_path / "a", "toy", facts):
        pass
    assert open_folder(tmp_path / "a", "toy").facts == facts


def test_a_folder_without_files_and_facts_is_a_folder(tmp_path):
    with write_folder(tmp_path / "a", "toy"):
        pass
    assert open_folder(tmp_path / "a", "toy").facts == {}


# Whole or not at all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("force", [False, True])
def test_an_exception_leaves_what_was_there(tmp_path, error, force):
    if force:
        write(tmp_path / "a", "old")
    with pytest.raises(error), write_folder(tmp_path / "a", "toy", force=force) as work:
        (work / "a.bin").write_bytes(b"half")
        raise error
    assert names_in(tmp_path) == ({"a"} if force else set())
    if force:
        assert whole(tmp_path / "a") == "old"


def test_facts_that_are_no_json_leave_nothing(tmp_path):
    with pytest.raises(TypeError), write_folder(tmp_path / "a", "toy", {"path": tmp_path}):
        pass
    assert names_in(tmp_path) == set()


def test_what_the_disk_did_not_keep_is_noticed_before_the_folder_is_there(tmp_path, monkeypatch):
    """The manifest is made from what was written; then a byte is lost."""
    make = storage._write_manifest

    def lossy(folder: Path, *rest: object) -> None:
        make(folder, *rest)
        (folder / "a.bin").write_bytes(b"lost")

    monkeypatch.setattr(storage, "_write_manifest", lossy)
    with pytest.raises(ArtifactError, match=r"a\.bin is damaged"):
        write(tmp_path / "a")
    assert names_in(tmp_path) == set()


def test_everything_is_flushed_before_the_folder_is_renamed(tmp_path, monkeypatch):
    """After a power cut a renamed folder must not hold files without content."""
    flushed: list[int] = []
    before_rename: list[int] = []
    flush, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        flush(handle)

    def replace(old: Path, new: Path) -> None:
        before_rename.extend(flushed)
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    path = write(tmp_path / "a")
    assert {(path / name).stat().st_ino for name in (*FILES, MANIFEST, ".")} <= set(before_rename)
    assert flushed[-1] == tmp_path.stat().st_ino  # the parent, so that the new name is kept too


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.bin", "deep/er/b.txt", MANIFEST])
@pytest.mark.parametrize("flip", [0x01, 0x20, 0xFF])
def test_every_flipped_byte_is_noticed_and_its_file_named(tmp_path, name, flip):
    path = write(tmp_path / "a") / name
    content = path.read_bytes()
    assert len(content) > 5
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        with pytest.raises(ArtifactError) as caught:
            open_folder(tmp_path / "a", "toy")
        assert caught.value.came.startswith(f"{path} is damaged"), place
    path.write_bytes(content)
    assert whole(tmp_path / "a") == ""


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_cut_and_every_addition_is_noticed_and_its_file_named(tmp_path, name):
    path = write(tmp_path / "a") / name
    content = path.read_bytes()
    changed = [*(content[:length] for length in range(len(content))), content + b"\n", content + b"\0", content * 2]
    for one in (other for other in changed if other != content):
        path.write_bytes(one)
        with pytest.raises(ArtifactError) as caught:
            open_folder(tmp_path / "a", "toy")
        assert caught.value.came.startswith(f"{path} is damaged"), one


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(tmp_path, name):
    path = write(tmp_path / "a") / name
    path.unlink()
    with pytest.raises(ArtifactError) as caught:
        open_folder(tmp_path / "a", "toy")
    assert caught.value.came == f"{path} is missing"


@pytest.mark.parametrize("name", ["more.bin", "deep/more.bin", ".hidden", "deep/manifest.json"])
def test_a_file_too_many_is_named(tmp_path, name):
    path = write(tmp_path / "a") / name
    path.write_bytes(b"")
    with pytest.raises(ArtifactError) as caught:
        open_folder(tmp_path / "a", "toy")
    assert caught.value.came == f"{path} is not in the manifest"


def test_a_folder_of_another_kind(tmp_path):
    write(tmp_path / "a", kind="checkpoint")
    with pytest.raises(ArtifactError) as caught:
        open_folder(tmp_path / "a", "toy")
    assert str(caught.value) == f"{tmp_path / 'a'} is a checkpoint of format {FORMAT}\nneeded: a toy of format {FORMAT}"


def test_a_folder_of_another_format(tmp_path, monkeypatch):
    write(tmp_path / "a")
    monkeypatch.setattr(storage, "FORMAT", FORMAT + 1)
    with pytest.raises(ArtifactError, match=f"is a toy of format {FORMAT}\nneeded: a toy of format {FORMAT + 1}"):
        open_folder(tmp_path / "a", "toy")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("a file")])
def test_no_folder_at_all(tmp_path, make: Callable[[Path], object]):
    make(tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"no folder .*a\nneeded: a toy folder"):
        open_folder(tmp_path / "a", "toy")


# Force ---------------------------------------------------------------------------------------------------------------


def test_a_folder_that_stands_there_is_refused(tmp_path):
    write(tmp_path / "a", "old")
    with pytest.raises(OutputExistsError, match=r"exists already\n.*\nto do: choose another name, or add --force"):
        write(tmp_path / "a", "new")
    assert whole(tmp_path / "a") == "old"


def test_force_replaces_a_folder_of_ours(tmp_path):
    write(tmp_path / "a", "old")
    (tmp_path / "a" / "added later").touch()
    assert whole(write(tmp_path / "a", "new", force=True)) == "new"
    assert names_in(tmp_path) == {"a"}


def test_force_writes_where_nothing_is(tmp_path):
    assert whole(write(tmp_path / "a", "new", force=True)) == "new"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("content", [["thesis.txt"], [], None])
def test_what_is_not_ours_is_never_replaced(tmp_path, force, content):
    """A folder without a manifest, an empty one, a file."""
    path = tmp_path / "a"
    if content is None:
        path.write_text("thesis")
    else:
        path.mkdir()
        for name in content:
            (path / name).write_text("thesis")
    with pytest.raises(OutputExistsError) as caught:
        write(path, force=force)
    assert str(path) in caught.value.came
    assert path.read_text() == "thesis" if content is None else names_in(path) == set(content)
    assert names_in(tmp_path) == {"a"}


def test_a_run_is_known_by_its_own_mark(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    refuse_existing(tmp_path / "run", force=True, mark="recipe.yaml")
    with pytest.raises(OutputExistsError, match=r"it holds no manifest\.json"):
        refuse_existing(tmp_path / "run", force=True)
    with pytest.raises(OutputExistsError, match="exists already"):
        refuse_existing(tmp_path / "run", force=False, mark="recipe.yaml")


# Without a manifest --------------------------------------------------------------------------------------------------


def write_run(path: Path, word: str, force: bool = False) -> None:
    with new_folder(path, force, mark="recipe.yaml") as work:
        assert not path.exists() or (path / "recipe.yaml").read_text() != word
        (work / "recipe.yaml").write_text(word)


def test_a_new_folder_is_there_at_the_end_with_what_was_written(tmp_path):
    write_run(tmp_path / "runs" / "a", "new")
    assert names_in(tmp_path / "runs") == {"a"}
    assert names_in(tmp_path / "runs" / "a") == {"recipe.yaml"}


def test_a_new_folder_replaces_one_with_its_mark_and_no_other(tmp_path):
    write_run(tmp_path / "a", "old")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_run(tmp_path / "a", "new")
    write_run(tmp_path / "a", "new", force=True)
    assert (tmp_path / "a" / "recipe.yaml").read_text() == "new"
    with pytest.raises(OutputExistsError, match=r"it holds no recipe\.yaml"):
        write_run(write(tmp_path / "b"), "new", force=True)
    assert (whole(tmp_path / "b"), names_in(tmp_path)) == ("", {"a", "b"})


@pytest.mark.parametrize("force", [False, True])
def test_an_exception_leaves_no_new_folder(tmp_path, force):
    if force:
        write_run(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a", force, mark="recipe.yaml") as work:
        (work / "recipe.yaml").write_text("half")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ({"a"} if force else set())
    assert not force or (tmp_path / "a" / "recipe.yaml").read_text() == "old"


# Leftovers -----------------------------------------------------------------------------------------------------------


def dead_process() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def leftover(path: Path, process: int) -> Path:
    """The temporary folder of a process that writes to `path`."""
    work = path.with_name(f".{path.name}.{process}.tmp")
    work.mkdir()
    (work / "a.bin").touch()
    return work


def test_the_next_write_clears_what_dead_processes_left(tmp_path):
    dead, own = leftover(tmp_path / "a", dead_process()), leftover(tmp_path / "a", os.getpid())
    other = leftover(tmp_path / "b", dead_process())
    write(tmp_path / "a")
    assert not dead.exists() and not own.exists()
    assert other.exists()


def test_the_folder_of_a_living_process_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        work = leftover(tmp_path / "a", living.pid)
        write(tmp_path / "a")
        assert (work / "a.bin").exists()


def test_an_old_folder_that_had_stepped_aside_comes_back(tmp_path):
    """A process died after the first of the two renames."""
    write(tmp_path / "a", "old").rename(tmp_path / ".a.old")
    assert whole(tmp_path / "a") == "old"
    assert names_in(tmp_path) == {"a"}


def test_an_old_folder_aside_is_cleared_by_the_next_write(tmp_path):
    """A process died after the second rename."""
    write(tmp_path / "a", "old").rename(tmp_path / ".a.old")
    write(tmp_path / "a", "new", force=True)
    write(tmp_path / "a", "newer", force=True)
    assert whole(tmp_path / "a") == "newer"
    assert names_in(tmp_path) == {"a"}


def test_an_old_folder_that_had_stepped_aside_is_refused_like_any_other(tmp_path):
    write(tmp_path / "a", "old").rename(tmp_path / ".a.old")
    with contextlib.suppress(OutputExistsError):
        write(tmp_path / "a", "new")
    assert whole(tmp_path / "a") == "old"


def test_a_hidden_folder_of_somebody_else_stays(tmp_path):
    (tmp_path / ".a.backup.tmp").mkdir()
    write(tmp_path / "a")
    assert names_in(tmp_path) == {"a", ".a.backup.tmp"}


def test_a_name_with_brackets_has_its_leftovers_cleared_too(tmp_path):
    leftover(tmp_path / "run[1]", os.getpid())
    write(tmp_path / "run[1]")
    assert names_in(tmp_path) == {"run[1]"}


# kill -9 -------------------------------------------------------------------------------------------------------------

WRITER = """
import os, signal, sys, time
from pathlib import Path
from tests.test_storage import write
from twotower_lib.storage import write_text

def die_at(step, folder):
    \"\"\"Killed before the step of this number that names a path in the folder.\"\"\"
    left = [step]
    def hook(event, args):
        if event.partition(".")[0] in ("open", "os", "shutil") and folder in repr(args):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    what, path, word, step, delay = line.rstrip("\\n").split("\\t")
    path = Path(path)
    child = os.fork()
    if child == 0:
        try:
            if int(step):
                die_at(int(step), str(path.parent))
            write(path, word, force=True) if what == "folder" else write_text(path, word)
        finally:
            os._exit(0)
    if float(delay):
        time.sleep(float(delay))
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Writer:
    """A process that forks a child for every write, and may kill it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def killed(self, what: str, path: Path, word: str, step: int = 0, delay: float = 0) -> bool:
        """Write in a child; killed before a step, or after a delay in seconds. Whether the kill came in time."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{what}\t{path}\t{word}\t{step}\t{delay}\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        assert code in (0, -9)
        return code == -9


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    one = Writer()
    with one.process:
        yield one
        one.process.stdin.close()


def there(path: Path) -> str:
    """The word of the folder, or nothing where none is; a mixture would raise."""
    try:
        return whole(path)
    except ArtifactError as error:
        assert error.came == f"no folder {path}"
        return ""


def test_killed_before_any_step_of_a_new_folder_leaves_it_whole_or_not_there(tmp_path, writer):
    found, step = [], 1
    while writer.killed("folder", tmp_path / str(step) / "a", "new", step):
        found.append(there(tmp_path / str(step) / "a"))
        step += 1
    assert step > 20
    assert found == sorted(found)  # from some step on it is there
    assert set(found) == {"", "new"}


def test_killed_before_any_step_of_a_replacement_leaves_the_old_folder_or_the_new(tmp_path, writer):
    found, step = [], 1
    while True:
        path = write(tmp_path / str(step) / "a", "old")
        if not writer.killed("folder", path, "new", step):
            break
        found.append(whole(path))
        write(path, "newer", force=True)
        assert whole(path) == "newer"
        assert names_in(path.parent) == {"a"}
        step += 1
    assert step > 30
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}


def test_killed_twice_the_old_folder_is_still_there(tmp_path, writer):
    """The first process died between its two renames, the second one at any step."""
    found, step = [], 1
    while True:
        path = tmp_path / str(step) / "a"
        write(path, "old").rename(path.with_name(".a.old"))
        if not writer.killed("folder", path, "new", step):
            break
        found.append(whole(path))
        step += 1
    assert step > 20
    assert set(found) == {"old", "new"}


@pytest.mark.parametrize("replaced", [False, True])
def test_killed_at_50_random_moments(tmp_path, writer, replaced):
    """Each write finds what the kills before it left; a new folder or a replacement."""
    path, moments, kills, before = tmp_path / "a", random.Random(0), 0, ""
    start = time.perf_counter()
    writer.killed("folder", tmp_path / "timed", "")
    longest = time.perf_counter() - start
    for number in range(1000):
        if not replaced:
            shutil.rmtree(path, ignore_errors=True)
            before = ""
        kills += writer.killed("folder", path, str(number), delay=moments.uniform(1e-6, longest))
        assert there(path) in {before, str(number)}
        before = there(path)
        if kills == 50:
            break
    assert kills == 50
    write(path, "last", force=True)
    assert (whole(path), names_in(tmp_path)) == ("last", {"a", "timed"})


# One text file -------------------------------------------------------------------------------------------------------


def test_a_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "größer\n\N{ROCKET}")
    assert path.read_bytes() == "größer\n\N{ROCKET}".encode()
    write_text(path, "")
    assert path.read_bytes() == b""
    assert names_in(tmp_path) == {"a.txt"}


def test_a_text_that_the_disk_does_not_take_leaves_what_was_there(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError("no space left")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_text_that_cannot_be_written_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "half of it \ud800")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == {"a.txt"}


def test_killed_before_any_step_a_text_is_the_old_or_the_new(tmp_path, writer):
    path, found, step = tmp_path / "a.txt", [], 1
    while True:
        path.write_text("old")
        if not writer.killed("text", path, "new", step):
            break
        found.append(path.read_text())
        step += 1
    assert step > 2
    assert path.read_text() == "new"
    assert found == sorted(found, reverse=True)
    assert {"old"} <= set(found) <= {"old", "new"}
