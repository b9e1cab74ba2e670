"""A folder is written whole or not at all, and verified before anything in it is parsed.

A folder has a `manifest.json`: its kind, its facts (such as the metric of an index), and size and sha256 of every
file, followed by a hash of the manifest itself. Writing goes to a temporary folder beside the final place, everything
is flushed to the disk and read back, and only then the folder is renamed. A process that is killed at any moment
leaves the old folder or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from twotower_lib.errors import ArtifactError, OutputExistsError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Folder:
    """A verified folder: where it is, and the facts that its manifest states."""

    path: Path
    facts: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """The path of one file."""
        return self.path / name


def refuse_existing(path: Path, force: bool, mark: str = MANIFEST) -> None:
    """Refuse to write to `path` where something stands already.

    With `force` a folder of ours may be replaced; it is known by the file `mark` in it. Anything else is never
    replaced.

    Raises:
        OutputExistsError: there is something, and it may not be replaced.
    """
    if not path.exists():
        return
    if not force:
        raise OutputExistsError(
            f"{path} exists already", "a folder that does not exist yet", "choose another name, or add --force"
        )
    if not (path / mark).is_file():
        raise OutputExistsError(
            f"{path} was not written by this program: it holds no {mark}",
            "a folder of ours, or a new name",
            "choose another name; --force replaces only what this program wrote",
        )


@contextmanager
def new_folder(path: Path, force: bool = False, mark: str = MANIFEST) -> Iterator[Path]:
    """A folder that is there with all that is written inside the `with`, or not at all; it has no manifest.

    Args:
        path: where it shall be.
        force: replace a folder of ours, known by the file `mark` in it, that is there already.
        mark: see `force`.

    Yields:
        A temporary folder to write the files into. An exception inside the `with` leaves no trace.
    """
    with _work_folder(path, force, mark) as work:
        yield work
        _flush_all(work)
        _put_in_place(work, path)


@contextmanager
def write_folder(path: Path, kind: str, facts: Mapping[str, Any] | None = None, force: bool = False) -> Iterator[Path]:
    """Write a folder with its manifest as one act.

    Args:
        path: where it shall be.
        kind: what it holds, such as `"bundle"`; `open_folder` asks for the same.
        facts: what a reader must know before opening a file, JSON values.
        force: replace a folder that is there already.

    Yields:
        A temporary folder to write the files into. An exception inside the `with` leaves no trace.
    """
    with _work_folder(path, force, MANIFEST) as work:
        yield work
        _write_manifest(work, kind, facts or {})
        open_folder(work, kind)
        _put_in_place(work, path)


@contextmanager
def _work_folder(path: Path, force: bool, mark: str) -> Iterator[Path]:
    """An empty folder beside `path`, which is gone at the end unless it was put in place."""
    finish_replacing(path)
    refuse_existing(path, force, mark)
    work = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        work.mkdir()
    except OSError as error:
        raise OutputExistsError(
            f"no folder can be made at {path}: {error.strerror}",
            "a place that you can write to",
            "choose another place",
        ) from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def open_folder(path: Path, kind: str) -> Folder:
    """Check every file of a folder against its manifest.

    Raises:
        ArtifactError: the folder is missing, of another kind, or a file is missing, too many, or changed; the file is
            named.
    """
    finish_replacing(path)
    if not path.is_dir():
        raise ArtifactError(f"no folder {path}", f"a {kind} folder", "check the path")
    manifest = _read_manifest(path)
    if manifest["kind"] != kind or manifest["format"] != FORMAT:
        raise ArtifactError(
            f"{path} is a {manifest['kind']} of format {manifest['format']}", f"a {kind} of format {FORMAT}"
        )
    found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {MANIFEST}
    for name in sorted(found ^ manifest["files"].keys()):
        state = "is not in the manifest" if name in found else "is missing"
        raise ArtifactError(f"{path / name} {state}", "the files that were written", "write the folder anew")
    for name, entry in manifest["files"].items():
        if _sha256(path / name) != entry["sha256"]:
            raise _damaged(path / name)
    return Folder(path, manifest["facts"])


def write_text(path: Path, text: str) -> None:
    """Write one text file as one act: the old text or the new, never half."""
    work = _beside(path)
    try:
        with work.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged: its bytes are not those that were written", "an unchanged file", "write the folder anew"
    )


def _canonical(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest's bytes, its own hash on a last line."""
    text = _canonical(manifest).encode()
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def _write_manifest(folder: Path, kind: str, facts: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[path.relative_to(folder).as_posix()] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    manifest = {"kind": kind, "format": FORMAT, "facts": dict(facts), "files": files}
    (folder / MANIFEST).write_bytes(_sealed(manifest))
    _flush_all(folder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{path} is missing", "a folder of ours", "check the path, or write the folder anew")
    written = path.read_bytes()
    try:
        manifest = json.loads(written[: written.rstrip().rindex(b"\n")])
        if _sealed(manifest) == written:
            return dict(manifest)
    except ValueError:
        pass
    raise _damaged(path)


def _put_in_place(work: Path, path: Path) -> None:
    """Rename; a folder that stands there steps aside first, under a name that `finish_replacing` knows."""
    aside = _aside(path)
    if path.exists():
        os.replace(path, aside)
    os.replace(work, path)
    _flush(path.parent)
    _discard(aside, work)


def _discard(aside: Path, leftover: Path) -> None:
    """Delete a replaced folder; first it gets the name of a leftover, since half deleted it must never come back."""
    if aside.exists():
        os.replace(aside, leftover)
        shutil.rmtree(leftover, ignore_errors=True)


def finish_replacing(path: Path) -> None:
    """Bring the old folder back if a process died between the two renames."""
    if not path.exists() and _aside(path).exists():
        os.replace(_aside(path), path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _beside(path: Path) -> Path:
    """Where this process writes before it renames."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _clear_leftovers(path: Path) -> None:
    """Remove what processes left that died while writing to `path`."""
    for work in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        owner = work.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if owner.isdecimal() and (int(owner) == os.getpid() or not _is_alive(int(owner))):
            shutil.rmtree(work, ignore_errors=True)
    _discard(_aside(path), _beside(path))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
