"""From tables to rows, and the published sources; `test_own_files.py` is about the files of a person's own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from twotower_lib import data, formats
from twotower_lib.data import ColumnSettings, Dataset, DataSettings, Ids, Interactions
from twotower_lib.errors import DataError, SettingError, SourceError, UnknownIdError
from twotower_lib.formats import Events, Tables
from twotower_lib.sources import SOURCES, Fetched, located

ROOT = Path(__file__).parent.parent
MIRROR = Path(os.environ.get("TWOTOWER_MIRROR") or ROOT.parent / "shared" / "data")


def same(a: Dataset, b: Dataset) -> None:
    """Assert that two data sets are equal in all but name and notes."""
    for x, y in ((a.interactions, b.interactions), (a.test, b.test)):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            for column in ("user", "item", "time", "rating"):
                np.testing.assert_array_equal(getattr(x, column), getattr(y, column), strict=True)
            assert (x.n_users, x.n_items) == (y.n_users, y.n_items)
    assert a.catalogue == b.catalogue
    assert a.people == b.people
    assert a.sha256 == b.sha256


# Records -------------------------------------------------------------------------------------------------------------


def test_ids_are_text() -> None:
    ids = Ids("user", ("7", "007", "NA"))
    assert [ids.row(name) for name in ("7", "007", "NA")] == [0, 1, 2]
    np.testing.assert_array_equal(ids.rows(["NA", "7"]), np.array([2, 0]), strict=True)
    assert ids.rows([]).dtype == np.int64
    assert (len(ids), ids[1]) == (3, "007")


def test_an_unknown_id_names_its_kind_the_count_and_the_nearest() -> None:
    ids = Ids("item", ("alpha", "beta"))
    with pytest.raises(UnknownIdError) as caught:
        ids.rows(["beta", "alpa"])
    assert caught.value.came == 'item "alpa" is not among the 2 items of the data'
    assert caught.value.do == "did you mean alpha?"


def test_an_unknown_id_far_from_all_gives_no_advice() -> None:
    with pytest.raises(UnknownIdError) as caught:
        Ids("user", ("alpha",)).row("zzz")
    assert caught.value.do == ""


def test_ids_can_be_pickled_after_use() -> None:
    ids = Ids("user", ("a", "b"))
    ids.row("b")
    assert pickle.loads(pickle.dumps(ids)) == ids


def events() -> Interactions:
    return Interactions(np.array([0, 0, 2]), np.array([1, 3, 1]), 3, 4, np.array([5, 6, 7]), np.float32([1, 2, 3]))


def test_take_by_mask_and_by_place() -> None:
    by_mask, by_place = events().take(np.array([True, False, True])), events().take(np.array([2, 0]))
    assert (by_mask.user.tolist(), by_mask.item.tolist(), by_mask.time.tolist()) == ([0, 2], [1, 1], [5, 7])
    assert (by_place.user.tolist(), by_place.rating.tolist()) == ([2, 0], [3, 1])
    assert (by_place.n_users, by_place.n_items, len(by_place)) == (3, 4, 2)


def test_pairs_and_counts() -> None:
    assert events().pairs.tolist() == [1, 3, 9]  # 0*4+1, 0*4+3, 2*4+1
    assert events().item_counts.tolist() == [0, 2, 0, 1]
    assert events().item_counts.dtype == np.int64
    nothing = events().take(np.array([], dtype=np.int64))
    assert nothing.item_counts.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("user", "item"), [([3], [0]), ([0], [4]), ([-1], [0]), ([0, 1], [0])], ids=["user", "item", "negative", "length"]
)
def test_rows_out_of_range_are_a_bug(user: list[int], item: list[int]) -> None:
    with pytest.raises(AssertionError):
        Interactions(np.array(user), np.array(item), 3, 4)


# Order ---------------------------------------------------------------------------------------------------------------


def test_rows_are_in_canonical_order() -> None:
    made = data.build("x", Tables(Events(["10", "9", "9", "b"], ["z", "2", "10", "z"], time=np.array([1, 5, 4, 0]))))
    assert made.people.users.names == ("9", "b", "10")
    assert made.catalogue.items.names == ("2", "z", "10")
    assert made.interactions.user.tolist() == [0, 0, 1, 2]
    assert made.interactions.item.tolist() == [2, 0, 1, 1]  # of user 9 the event at 4 comes before the one at 5


def test_the_order_of_the_file_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"u{u}", f"i{i}") for u in range(9) for i in rng.permutation(30)[:7]]
    time, rating = rng.integers(0, 20, len(pairs)), rng.integers(1, 6, len(pairs)).astype(np.float32)
    made = []
    for order in (np.arange(len(pairs)), rng.permutation(len(pairs))):
        chosen = [pairs[place] for place in order]
        columns = [user for user, _ in chosen], [item for _, item in chosen]
        made.append(data.build("x", Tables(Events(*columns, time[order], rating[order]))))
    same(*made)


def test_the_hash_is_that_of_the_sorted_lines() -> None:
    import hashlib

    tables = Tables(Events(["10", "9", "9"], ["a", "b", "a"]), Events(["9"], ["c"]))
    expected = hashlib.sha256(b"9\ta\n9\tb\n10\ta\ntest\n9\tc\n").hexdigest()
    assert data.build("x", tables).sha256 == expected
    assert data.build("x", Tables(tables.events)).sha256 != expected


def test_test_items_belong_to_the_catalogue() -> None:
    made = data.build("x", Tables(Events(["u"], ["b"]), Events(["v"], ["a"])))
    assert made.catalogue.items.names == ("a", "b")
    assert (made.interactions.n_users, made.test.n_items) == (2, 2)


# Repeated pairs and ratings ------------------------------------------------------------------------------------------


def rated(user: str, item: str, rating: list[float], time: list[int] | None = None) -> Events:
    """Events of one-letter users and items."""
    return Events(list(user), list(item), None if time is None else np.array(time), np.float32(rating))


def test_of_a_repeated_pair_the_first_by_time_is_kept() -> None:
    made = data.build("x", Tables(rated("uuu", "aba", [1, 2, 4], [9, 1, 3])))
    assert made.interactions.item.tolist() == [1, 0]
    assert (made.interactions.time.tolist(), made.interactions.rating.tolist()) == ([1, 3], [2, 4])
    assert made.notes == ("1 repeated pair: the first event of each was kept",)


def test_without_time_the_first_in_the_file_is_kept() -> None:
    made = data.build("x", Tables(rated("uuvv", "aaaa", [5, 1, 2, 3])))
    assert made.interactions.rating.tolist() == [5, 2]
    assert made.notes == ("2 repeated pairs: the first event of each was kept",)


def test_a_note_names_the_test_part() -> None:
    made = data.build("x", Tables(rated("u", "a", [5]), rated("uu", "bb", [5, 1])))
    assert made.notes == ("test: 1 repeated pair: the first event of each was kept",)


def test_min_rating_keeps_equal_and_better() -> None:
    made = data.build("x", Tables(rated("uuvw", "abca", [3.5, 4, 4.5, 1], [1, 2, 3, 4])), min_rating=4.0)
    assert [made.catalogue.items[row] for row in made.interactions.item] == ["b", "c"]
    assert made.interactions.time.tolist() == [2, 3]
    assert made.people.users.names == ("u", "v")


def test_min_rating_is_looked_at_before_repeated_pairs() -> None:
    made = data.build("x", Tables(rated("uu", "aa", [1, 5], [1, 2])), min_rating=4.0)
    assert (made.interactions.rating.tolist(), made.notes) == ([5], ())


def test_min_rating_above_all() -> None:
    with pytest.raises(DataError, match=r"none of 1 events has a rating of 5.0 or more(.|\n)*the highest rating is 3"):
        data.build("x", Tables(rated("u", "a", [3])), min_rating=5.0)


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"source": "ml-100"}, 'data.source = "ml-100"(.|\n)*did you mean ml-100k'),
        ({"source": "csv"}, "without data.interactions(.|\n)*give data.interactions=FILE"),
        ({"source": "csv", "interactions": "x", "min_rating": 4.0}, "give data.columns.rating=NAME"),
        ({"source": "csv", "interactions": "x", "separator": ";;"}, 'data.separator = ";;"(.|\n)*one character'),
        ({"source": "csv", "interactions": "x", "category_separator": ""}, "data.category_separator is empty"),
        ({"interactions": "x"}, "data.interactions is given, but data.source = ml-100k(.|\n)*give data=csv"),
        ({"source": "toy", "test": "x"}, "data.test is given"),
        ({"source": "toy", "items": "x"}, "data.items is given"),
        ({"source": "toy", "users": "x"}, "data.users is given"),
        ({"source": "toy", "separator": ","}, "data.separator is given"),
        ({"source": "toy", "columns": ColumnSettings(user="u")}, "data.columns is given"),
        ({"source": "gowalla", "min_rating": 4.0}, "gowalla has no ratings"),
        ({"min_rating": float("nan")}, "data.min_rating = nan"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], text: str) -> None:
    with pytest.raises(SettingError, match=text):
        DataSettings(**settings)  # type: ignore[arg-type]


def test_one_column_cannot_have_two_roles() -> None:
    with pytest.raises(SettingError, match=r"one column in two roles: data.columns.user=x, item=x"):
        ColumnSettings(user="x", item="x")


# Published formats ---------------------------------------------------------------------------------------------------

GENRES = "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical"
GENRES = f"{GENRES} Mystery Romance Sci-Fi Thriller War Western".split()
TRIAD = "Shanghai Triad (Yao a yao yao dao waipo qiao)"
FILMS = [  # id, title in the zip, title and year in the wheel, genres
    ("1", "Toy Story (1995)", "Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
    ("6", f"{TRIAD} (1995)", TRIAD, "1995", ["Drama"]),
    ("267", "unknown", "unkonwn", "unkonwn", ["unknown"]),
    ("1373", "Good Morning (1971)", "Good Morning", "1971", ["unknown"]),
    ("1412", "Land Before Time III (1995) (V)", "Land Before Time III (1995)", "V", ["Animation"]),
    ("1633", "Á köldum klaka (Cold Fever) (1994) ", "Á köldum klaka (Cold Fever)", "1994", ["Comedy", "Drama"]),
]  # fmt: skip
RATINGS = [("2", "6", "3", "881250949"), ("10", "1633", "5", "875747190"), ("2", "1", "1", "875747190")]
PEOPLE = [("1", "24", "M", "technician", "85711"), ("2", "53", "F", "other", "94043"), ("10", "23", "M", "writer", "x")]


def grouplens_zip(folder: Path) -> Path:
    """The official form, hand-made."""
    flags = [["1" if genre in film[4] else "0" for genre in GENRES] for film in FILMS]
    films = [
        f"{film[0]}|{film[1]}|01-Jan-1995||http://x|{'|'.join(flag)}" for film, flag in zip(FILMS, flags, strict=True)
    ]
    members = {
        "u.data": "\n".join("\t".join(row) for row in RATINGS),
        "u.item": "\n".join(films),
        "u.user": "\n".join("|".join(row) for row in PEOPLE),
        "u.genre": "\n".join(f"{genre}|{place}" for place, genre in enumerate(GENRES)) + "\n",
    }
    with zipfile.ZipFile(folder / "ml-100k.zip", "w") as archive:
        for name, text in members.items():
            archive.writestr(f"ml-100k/{name}", (text + "\n").encode("latin-1"))
    return folder / "ml-100k.zip"


def recbole_wheel(folder: Path) -> Path:
    """The typed files, hand-made, in another order."""
    films = ["\t".join((film[0], film[2], film[3], " ".join(film[4]))) for film in reversed(FILMS)]
    members = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *map("\t".join, reversed(RATINGS))],
        "item": ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq", *films],
        "user": ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token", *map("\t".join, PEOPLE)],
    }
    with zipfile.ZipFile(folder / "recbole.whl", "w") as archive:
        for ending, lines in members.items():
            archive.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{ending}", "\n".join(lines).encode())
    return folder / "recbole.whl"


def published(name: str, form: str, *paths: Path) -> Dataset:
    return data.build(name, formats.read(Fetched(name, form, paths)))


def test_both_forms_of_ml_100k_are_equal(tmp_path: Path) -> None:
    official = published("ml-100k", "ml-100k-grouplens", grouplens_zip(tmp_path))
    same(official, published("ml-100k", "ml-100k-recbole", recbole_wheel(tmp_path)))
    catalogue = official.catalogue
    assert catalogue.items.names == ("1", "6", "267", "1373", "1412", "1633")
    assert catalogue.titles[1] == TRIAD
    assert catalogue.titles[2:] == ("unknown", "Good Morning", "Land Before Time III", "Á köldum klaka (Cold Fever)")
    assert catalogue.years == ("1995", "1995", "", "1971", "1995", "1994")
    assert catalogue.categories[:3] == (("Animation", "Children's", "Comedy"), ("Drama",), ())
    assert catalogue.categories[3:] == ((), ("Animation",), ("Comedy", "Drama"))
    assert official.people.users.names == ("1", "2", "10")
    assert official.people.attributes == {
        "age": ("24", "53", "23"), "gender": ("M", "F", "M"), "occupation": ("technician", "other", "writer")
    }  # fmt: skip
    assert official.interactions.item.tolist() == [0, 1, 5]
    assert official.interactions.rating.tolist() == [1, 3, 5]


def test_toy_is_what_the_registry_says() -> None:
    toy = data.load(DataSettings(source="toy"))
    assert toy.catalogue.titles[0] == "The Long Way to Ceres"
    assert toy.catalogue.categories[0] == ("Space", "Family")
    assert toy.interactions.time is not None
    assert described(toy) == registered("toy")


def described(made: Dataset) -> tuple[int, int, int, int]:
    test = 0 if made.test is None else len(made.test)
    return len(made.people), len(made.catalogue), len(made.interactions), test


def registered(name: str) -> tuple[int, int, int, int]:
    source = SOURCES[name]
    return source.users, source.items, source.interactions, source.test


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("csv", "toy")])
def test_published_sources_are_what_the_registry_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` compares the hash of the pairs itself."""
    if "TWOTOWER_MIRROR" not in os.environ:
        monkeypatch.setenv("TWOTOWER_MIRROR", str(MIRROR))
    if located(name) is None:
        pytest.skip(f"{name} is neither in {MIRROR} nor in the cache; set TWOTOWER_MIRROR or fetch it once")
    made = data.load(DataSettings(source=name))
    assert described(made) == registered(name)
    assert made.notes == ()
    assert (made.interactions.rating is not None) == SOURCES[name].has_ratings


def test_other_pairs_than_the_registry_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = grouplens_zip(tmp_path)
    monkeypatch.setattr(data, "fetch", lambda name: Fetched(name, "ml-100k-grouplens", (path,)))
    with pytest.raises(SourceError, match=f"the pairs in {path} have the sha256 (.|\n)*delete {path} and fetch again"):
        data.load(DataSettings(source="ml-100k"))
    kept = data.load(DataSettings(source="ml-100k", min_rating=3.0))
    assert len(kept.interactions) == 2


def test_electronic_as_own_files_is_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOTOWER_MIRROR", str(MIRROR))
    found = located("electronic")
    if found is None:
        pytest.skip(f"electronic is not in {MIRROR}; set TWOTOWER_MIRROR")
    with zipfile.ZipFile(found.paths[0]) as archive:
        archive.extractall(tmp_path, ["train.tsv", "test.tsv"])
    made = data.load(
        DataSettings(
            source="csv",
            interactions=str(tmp_path / "train.tsv"),
            test=str(tmp_path / "test.tsv"),
            columns=ColumnSettings(user="user_procid", item="item_procid"),
        )
    )
    same(made, data.load(DataSettings(source="electronic")))


# Cost ----------------------------------------------------------------------------------------------------------------


def test_importing_data_is_cheap() -> None:
    code = "import sys, twotower_lib.data; print(*{'pandas', 'pandera', 'pooch', 'torch'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
