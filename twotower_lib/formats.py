"""The formats of published data sets: verified local files -> `Tables`, in which everything is still text.

Archives are read directly, without unpacking them. What two formats of one source write differently (a year inside the
title or apart from it, a genre that means "no genre") is made equal here, so that it does not matter which address a
source came from.
"""

from __future__ import annotations

import csv
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twotower_lib.errors import SourceError
from twotower_lib.sources import Fetched

NO_GENRE = {"unknown", "unkonwn", "(no genres listed)"}
UNREADABLE = (
    *(KeyError, IndexError, ValueError, OSError, EOFError),
    *(csv.Error, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)
"""What the readers raise for a file that is of another format or cut off."""


@dataclass(frozen=True)
class Events:
    """Who did what, in the order of the file; time in Unix seconds."""

    user: Sequence[str]
    item: Sequence[str]
    time: NDArray[np.int64] | None = None
    rating: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ItemTable:
    """What is known about items; entry i of every column belongs to id i."""

    ids: Sequence[str]
    titles: Sequence[str]
    years: Sequence[str]
    categories: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class UserTable:
    """What is known about users; entry u of every attribute belongs to id u."""

    ids: Sequence[str]
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tables:
    """All that a source holds."""

    events: Events
    test: Events | None = None
    items: ItemTable | None = None
    users: UserTable | None = None


def read(fetched: Fetched) -> Tables:
    """Read what was fetched.

    Raises:
        SourceError: the files are not of the format that the registry names.
    """
    try:
        return READERS[fetched.format](fetched.paths)
    except UNREADABLE as error:
        names = ", ".join(str(path) for path in fetched.paths)
        raise SourceError(
            f"{names} cannot be read as {fetched.format} ({error})",
            f"the files that the registry describes for {fetched.source}",
            f"delete {names} and fetch again",
        ) from error


def _ml_100k_grouplens(paths: tuple[Path, ...]) -> Tables:
    """`u.data` with tabs, `u.item` and `u.user` with bars; 19 genre flags; Latin-1."""
    genres = [line.split("|")[0] for line in _lines(paths, "u.genre", "latin-1")]
    items = [line.split("|") for line in _lines(paths, "u.item", "latin-1")]
    people = [line.split("|") for line in _lines(paths, "u.user", "latin-1")]
    flagged = [[name for name, flag in zip(genres, row[5:], strict=True) if flag == "1"] for row in items]
    return Tables(
        events=_rated([line.split("\t") for line in _lines(paths, "u.data")]),
        items=_films([row[0] for row in items], [row[1] for row in items], flagged),
        users=_people(people),
    )


def _ml_100k_recbole(paths: tuple[Path, ...]) -> Tables:
    """Typed files with tabs and a header; the year split off the title, at the last bracket whatever it held."""
    items = [line.split("\t") for line in _lines(paths, "ml-100k.item")[1:]]
    people = [line.split("\t") for line in _lines(paths, "ml-100k.user")[1:]]
    return Tables(
        events=_rated([line.split("\t") for line in _lines(paths, "ml-100k.inter")[1:]]),
        items=_films(
            [row[0] for row in items],
            ["unknown" if row[1] in NO_GENRE else f"{row[1]} ({row[2]})" for row in items],
            [row[3].split(" ") for row in items],
        ),
        users=_people(people),
    )


def _ml_latest(paths: tuple[Path, ...]) -> Tables:
    """`ratings.csv` and `movies.csv`."""
    ratings = list(csv.reader(_lines(paths, "ratings.csv")[1:]))
    movies = list(csv.reader(_lines(paths, "movies.csv")[1:]))
    genres = [row[2].split("|") for row in movies]
    return Tables(events=_rated(ratings), items=_films([row[0] for row in movies], [row[1] for row in movies], genres))


def _lightgcn(paths: tuple[Path, ...]) -> Tables:
    """`train.txt` and `test.txt`, a line `user item item ...`."""
    return Tables(events=_listed(_lines(paths, "train.txt")), test=_listed(_lines(paths, "test.txt")))


def _ir_benchmark(paths: tuple[Path, ...]) -> Tables:
    """`train.tsv` and `test.tsv`, a header and a line `user item`."""
    return Tables(events=_listed(_lines(paths, "train.tsv")[1:]), test=_listed(_lines(paths, "test.tsv")[1:]))


def _toy(paths: tuple[Path, ...]) -> Tables:
    """One file; title and categories are repeated in every row."""
    rows = list(csv.DictReader(_lines(paths, "toy.csv")))
    films = {row["item"]: row for row in rows}
    return Tables(
        events=Events(
            [row["user"] for row in rows],
            [row["item"] for row in rows],
            time=np.array([row["time"] for row in rows]).astype(np.int64),
        ),
        items=_films(
            list(films),
            [row["title"] for row in films.values()],
            [row["categories"].split("|") for row in films.values()],
        ),
    )


READERS: dict[str, Callable[[tuple[Path, ...]], Tables]] = {
    "ml-100k-grouplens": _ml_100k_grouplens,
    "ml-100k-recbole": _ml_100k_recbole,
    "ml-latest": _ml_latest,
    "lightgcn": _lightgcn,
    "ir-benchmark": _ir_benchmark,
    "toy": _toy,
}


def _rated(rows: list[list[str]]) -> Events:
    """Rows (user, item, rating, time)."""
    return Events(
        [row[0] for row in rows],
        [row[1] for row in rows],
        time=np.array([row[3] for row in rows]).astype(np.int64),
        rating=np.array([row[2] for row in rows]).astype(np.float32),
    )


def _listed(lines: list[str]) -> Events:
    """Lines `user item item ...`."""
    users, items = [], []
    for line in lines:
        user, *theirs = line.split()
        users.extend([user] * len(theirs))
        items.extend(theirs)
    return Events(users, items)


def _films(ids: list[str], titles: list[str], genres: list[list[str]]) -> ItemTable:
    """Films with the year taken off the title, and without genres that mean that there is none."""
    split = [split_title(title) for title in titles]
    return ItemTable(
        ids=ids,
        titles=[title for title, _ in split],
        years=[year for _, year in split],
        categories=[tuple(genre for genre in film if genre and genre not in NO_GENRE) for film in genres],
    )


def _people(rows: list[list[str]]) -> UserTable:
    """Rows (user, age, gender, occupation, post code); the post code is left out."""
    columns = {name: [row[place] for row in rows] for place, name in enumerate(("age", "gender", "occupation"), 1)}
    return UserTable([row[0] for row in rows], columns)


_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})(?:[-–]\d{0,4})?\)(?:\s*\(V\))?")


def split_title(text: str) -> tuple[str, str]:
    """The title and the year of a film; a trailing "(V)" marks a film made for video and is dropped.

    >>> split_title("Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)")
    ('Shanghai Triad (Yao a yao yao dao waipo qiao)', '1995')
    >>> split_title("unknown")
    ('unknown', '')
    """
    tidy = " ".join(text.split())
    found = _YEAR.fullmatch(tidy)
    return (found["title"], found["year"]) if found else (tidy, "")


def _lines(paths: tuple[Path, ...], name: str, encoding: str = "utf-8") -> list[str]:
    """The lines of the file of this name: inside an archive, or a file whose name ends so."""
    text = _member(paths, name).decode(encoding)
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _member(paths: tuple[Path, ...], name: str) -> bytes:
    """The bytes of the file of this name."""
    for path in paths:
        if path.name.endswith(name):
            return path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if Path(member).name == name:
                        return archive.read(member)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if Path(entry.name).name == name else None
                    if file is not None:
                        return file.read()
    raise ValueError(f"there is no {name}")
