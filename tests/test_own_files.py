"""A person's own files, made by hand in each test: what must survive, and every fault with its text."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from twotower_lib import data
from twotower_lib.data import ColumnSettings, Dataset, DataSettings
from twotower_lib.errors import DataError

WEIRD = ["007", "NA", "9007199254740993", "a b", "x,y", "\N{WHITE SMILING FACE}\N{ROCKET}", "nan", "7"]
NAN = '"nan"'


def own(folder: Path, text: str | bytes, name: str = "clicks.csv", **settings: object) -> Dataset:
    """Load one file of events with this text."""
    return data.load(DataSettings(source="csv", interactions=write(folder, text, name), **settings))  # type: ignore[arg-type]


def write(folder: Path, text: str | bytes, name: str) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def faults(folder: Path, text: str | bytes, name: str = "clicks.csv", **settings: object) -> list[str]:
    """The lines that name faults, without the folder."""
    with pytest.raises(DataError) as caught:
        own(folder, text, name, **settings)
    return fault_lines(caught.value, folder)


def fault_lines(error: DataError, folder: Path) -> list[str]:
    count, *lines = error.came.splitlines()
    assert count == f"{len(lines)} fault{'s' if len(lines) > 1 else ''} in the data:"
    return [line.strip().replace(f"{folder}/", "") for line in lines]


# A person's own files: what must survive -----------------------------------------------------------------------------


def test_ids_survive_untouched(tmp_path: Path) -> None:
    lines = ["item,extra,user", *(f'"{name}",1,"{name}"' for name in WEIRD)]
    made = own(tmp_path, "\n".join(lines))
    assert set(made.people.users.names) == set(made.catalogue.items.names) == set(WEIRD)
    assert made.catalogue.titles == made.catalogue.items.names
    for user, item in zip(made.interactions.user, made.interactions.item, strict=True):
        assert made.people.users[user] == made.catalogue.items[item]


@pytest.mark.parametrize(
    ("name", "text", "separator"),
    [
        ("x.tsv", "user\titem\nu\ta,b\n", None),
        ("x.inter", "user\titem\nu\ta,b\n", None),
        ("x.txt", "user\titem\nu\ta,b\n", "tab"),
        ("x.txt", "user\titem\nu\ta,b\n", "\\t"),
        ("x.csv", "user;item\nu;a,b\n", ";"),
        ("x.csv", '\ufeffuser,item\r\nu,"a,b"\r\n', None),
        ("x.csv", '\n\nuser,item\n\nu,"a,b"\n\n', None),
    ],
    ids=["tsv", "inter", "tab", "escaped", "semicolon", "mark and CRLF", "blank lines"],
)
def test_separators_marks_and_blank_lines(tmp_path: Path, name: str, text: str, separator: str | None) -> None:
    made = own(tmp_path, text, name, separator=separator)
    assert (made.people.users.names, made.catalogue.items.names) == (("u",), ("a,b",))


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["0", "1.9", "-0.5"], [0, 1, -1]),
        (["1e3", " 7 ", "9007199254740991"], [1000, 7, 2**53 - 1]),
        (["1970-01-01", "1970-01-02T00:00:01.9", "1970-01-01 02:00:00+01:00"], [0, 86401, 3600]),
        (["2024-02-29T12:00:00Z", "1969-12-31T23:59:59.5", "2024-02-29"], [1709208000, -1, 1709164800]),
    ],
    ids=["numbers", "large numbers", "dates", "dates before 1970"],
)
def test_times(tmp_path: Path, cells: list[str], seconds: list[int]) -> None:
    text = "user,item,t\n" + "".join(f"u{place},i,{cell}\n" for place, cell in enumerate(cells))
    made = own(tmp_path, text, columns=ColumnSettings(time="t"))
    assert made.interactions.time.tolist() == seconds
    assert made.interactions.time.dtype == np.int64


def test_two_events_in_one_second_are_not_duplicates(tmp_path: Path) -> None:
    made = own(tmp_path, "user,item,t\nu,a,1.2\nu,a,1.7\n", columns=ColumnSettings(time="t"))
    assert made.notes == ("1 repeated pair: the first event of each was kept",)


def test_items_and_users_files(tmp_path: Path) -> None:
    items = write(tmp_path, 'item,title,year,categories\nb,"Bee, the",1999,x| y||\nc,,,\n', "items.csv")
    users = write(tmp_path, "age,user,town\n7,v,NA\n8,w,\n", "users.csv")
    made = own(tmp_path, "user,item\nu,a\nv,b\n", items=items, users=users)
    assert made.catalogue.items.names == ("a", "b", "c")
    assert made.catalogue.titles == ("a", "Bee, the", "c")
    assert made.catalogue.years == ("", "1999", "")
    assert made.catalogue.categories == ((), ("x", "y"), ())
    assert made.people.users.names == ("u", "v", "w")
    assert made.people.attributes == {"age": ("", "7", "8"), "town": ("", "NA", "")}


def test_an_items_file_with_an_id_alone(tmp_path: Path) -> None:
    made = own(tmp_path, "user,item\nu,a\n", items=write(tmp_path, "item\na\nz\n", "items.csv"))
    assert (made.catalogue.titles, made.catalogue.categories) == (("a", "z"), ((), ()))


# A person's own files: every fault -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"user,item\n", "a header and no rows"),
        (b"usr,item,x\nu,a,1\n", 'no column "user"; it has usr, item, x; did you mean usr?'),
        (b"who,item\nu,a\n", 'no column "user"; it has who, item'),
        (b"user;item\nu;a\n", 'one column only, "user;item"; give data.separator=";"'),
        (b"user\titem\nu\ta\n", 'one column only, "user\titem"; give data.separator="tab"'),
        (b"user,item,user\nu,a,u\n", '2 columns are named "user"'),
        (b"user,item\nu,a\n,b\n", "1 empty user id (line 3)"),
        (b"user,item\nu,\nw\nv,  \n", "3 empty item ids (lines 2, 3, 4)"),
        (b"user,item\nu,a\nu,b\nu,a\n", "1 row repeats an earlier one (line 4)"),
        (b"user,item\n" + b"u,a\n" * 7, "6 rows repeat an earlier one (lines 3, 4, 5, 6, 7, ...)"),
        (b"user,item\nu,a,b\nu,c\n", "1 row has more cells than the 2 of the header (line 2)"),
        (b"user,item\nu,a,\n", "1 row has more cells than the 2 of the header (line 2)"),
        (b"user,item\nu,a\nM\xfcller,b\n", "not UTF-8 at byte 15 (line 3); save it as UTF-8"),
        ("user,item\nu,a\n".encode("utf-16"), "not UTF-8 at byte 0 (line 1); save it as UTF-8"),
        (b'user,item\nu,"a\nv,b\n', "a quote is never closed, or text follows a closing quote (row of line 2)"),
        (b'user,item\nu,"a"b\n', "a quote is never closed, or text follows a closing quote (row of line 2)"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: bytes, expected: str) -> None:
    assert faults(tmp_path, text) == [f"clicks.csv: {expected}"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["abc"], '1 rating is not a finite number (line 2: "abc")'),
        (["1", "inf", "", "-1e39"], '3 ratings are not finite numbers (line 3: "inf", line 4: "", line 5: "-1e39")'),
        (
            ["nan"] * 6,
            f"6 ratings are not finite numbers ({', '.join(f'line {n}: {NAN}' for n in range(2, 7))}, ...)",
        ),
    ],
)
def test_bad_ratings(tmp_path: Path, cells: list[str], expected: str) -> None:
    text = "user,item,r\n" + "".join(f"u{place},i,{cell}\n" for place, cell in enumerate(cells))
    assert faults(tmp_path, text, columns=ColumnSettings(rating="r")) == [f"clicks.csv: {expected}"]


@pytest.mark.parametrize(
    ("cells", "bad"),
    [(["1", "2", "2024-01-01"], 4), (["2024-01-01", "2024-13-01", "2024-01-02"], 3), (["1", "inf", "2"], 3)],
)
def test_bad_times(tmp_path: Path, cells: list[str], bad: int) -> None:
    text = "user,item,t\n" + "".join(f"u{place},i,{cell}\n" for place, cell in enumerate(cells))
    expected = "1 time is not a number of seconds or an ISO 8601 date as the others are"
    assert faults(tmp_path, text, columns=ColumnSettings(time="t")) == [
        f'clicks.csv: {expected} (line {bad}: "{cells[bad - 2]}")'
    ]


def test_lines_are_those_of_the_editor(tmp_path: Path) -> None:
    text = 'user,item\n\n"u\nu\r\nu",a\r\n\r\n,b\n"v\n",\n'
    assert faults(tmp_path, text) == ["clicks.csv: 1 empty user id (line 7)", "clicks.csv: 1 empty item id (line 8)"]


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    settings = DataSettings(source="csv", interactions=str(tmp_path / "folder.csv"), test=str(tmp_path / "no.csv"))
    with pytest.raises(DataError) as caught:
        data.load(settings)
    assert fault_lines(caught.value, tmp_path) == ["folder.csv: a folder, not a file", "no.csv: there is no such file"]


def test_all_faults_of_all_files_come_together(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        "user,item,r\n,a,x\nu,a,1\nu,a,1\nu,,2,9\n",
        columns=ColumnSettings(rating="r", title="name"),
        test=write(tmp_path, "user,item\nu,a\n", "test.csv"),
        items=write(tmp_path, "item,title\na,b\n", "items.csv"),
        users=write(tmp_path, "user,age\nu,1\n,2\nu,3\n", "users.csv"),
    )
    assert found == [
        "clicks.csv: 1 row has more cells than the 3 of the header (line 5)",
        "clicks.csv: 1 empty user id (line 2)",
        'clicks.csv: 1 rating is not a finite number (line 2: "x")',
        "clicks.csv: 1 row repeats an earlier one (line 4)",
        'test.csv: no column "r"; it has user, item',
        'items.csv: no column "name"; it has item, title',
        "users.csv: 1 empty user id (line 3)",
        'users.csv: 1 user id occurs again (line 4: "u")',
    ]


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        own(tmp_path, "a,b\n1,2\n")
    assert caught.value.needed == "UTF-8 text with a header line, an id in every row, finite numbers, and no row twice"
    assert "data.columns.user=NAME" in caught.value.do


def test_a_larger_file_comes_back_whole(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = {(f"u{draw.randrange(3000)}", f"i{draw.randrange(900)}") for _ in range(20_000)}
    made = own(tmp_path, "user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    users, items = made.people.users, made.catalogue.items
    back = {(users[u], items[i]) for u, i in zip(made.interactions.user, made.interactions.item, strict=True)}
    assert back == rows
