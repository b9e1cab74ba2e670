"""The readers of published formats; `test_data.py` compares what they make of whole sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from twotower_lib import formats
from twotower_lib.errors import SourceError
from twotower_lib.sources import SOURCES, Fetched


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Heat (1995)", "Heat", "1995"),
        ("Seven (a.k.a. Se7en) (1995) ", "Seven (a.k.a. Se7en)", "1995"),
        ("2001: A Space Odyssey", "2001: A Space Odyssey", ""),
        ("Death Note (2006–2007)", "Death Note", "2006"),
        ("Ready Player One", "Ready Player One", ""),
        ("1900 (Novecento)", "1900 (Novecento)", ""),
        ("(500) Days of  Summer (2009)", "(500) Days of Summer", "2009"),
        ("(2010)", "(2010)", ""),
    ],
)
def test_titles_and_years(text: str, title: str, year: str) -> None:
    assert formats.split_title(text) == (title, year)


def test_lightgcn_files_beside_each_other(tmp_path: Path) -> None:
    train, test = tmp_path / "x-train.txt", tmp_path / "x-test.txt"
    train.write_text("0 5 7 \n1 5\n2\n")
    test.write_text("0 9\n")
    made = formats.read(Fetched("x", "lightgcn", (train, test)))
    assert (made.events.user, made.events.item) == (["0", "0", "1"], ["5", "7", "5"])
    assert (made.test.user, made.test.item) == (["0"], ["9"])


@pytest.mark.parametrize("form", formats.READERS)
def test_every_format_refuses_another_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"<html>not here</html>")
    with pytest.raises(SourceError, match=f"{path} cannot be read as {form}(.|\n)*delete {path} and fetch again"):
        formats.read(Fetched("x", form, (path,)))


def test_every_format_of_the_registry_has_a_reader() -> None:
    used = {address.format for source in SOURCES.values() for address in source.addresses}
    assert used == set(formats.READERS)
