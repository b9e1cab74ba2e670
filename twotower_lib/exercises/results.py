"""The stored results of the benchmarks, which notebooks read and the README tells.

A result is a file `<theme>_<machine>_<date>` under `benchmarks/results/` of the checkout. A theme may be measured on
several machines; the newest by date is read, whatever the machine is called.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twotower_lib.errors import ArtifactError

FOLDER = Path("benchmarks/results")


def newest(theme: str, folder: Path | None = None) -> Path:
    """The file of the newest result of a theme.

    Args:
        theme: what the name begins with, as `quality_ml-100k`: all of it up to the machine.
        folder: where results lie; by default those of the checkout around the working directory.

    Raises:
        ArtifactError: no result of this theme, or no checkout around the working directory.
    """
    here = Path.cwd()
    folders = [folder] if folder else [above / FOLDER for above in (here, *here.parents)]
    found = [path for one in folders for path in one.glob(f"{theme}_*_*") if _parts(path)[0] == theme]
    if not found:
        what = f"a file {theme}_<machine>_<date> under {folder or FOLDER}"
        raise ArtifactError(f"no result of {theme}", what, "run the command that makes it; CONTRIBUTING.md lists them")
    return max(found, key=lambda path: _parts(path)[::-1])


def result(theme: str, folder: Path | None = None) -> Any:
    """What stands in the newest result of a theme; CONTRIBUTING.md names the command that makes it."""
    return json.loads(newest(theme, folder).read_text(encoding="utf-8"))


def _parts(path: Path) -> tuple[str, ...]:
    """Theme, machine and date."""
    return tuple(path.stem.rsplit("_", 2))
