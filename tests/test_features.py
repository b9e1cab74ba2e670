"""Codes: fitted on train, 0 for everything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import COLD_ITEM, LONER
from twotower_lib.data import Catalogue, Ids, Interactions, People
from twotower_lib.errors import SettingError
from twotower_lib.features import HistorySettings, fit_features
from twotower_lib.ranking import Queries, Ragged

# A tiny world: users 0 and 2 and items 1, 2, 4 occur in train; user 1 and items 0 and 3 do not.
TRAIN = Interactions(np.array([0, 0, 2]), np.array([1, 4, 2]), 3, 5, time=np.array([10, 20, 10]))
CATALOGUE = Catalogue(
    Ids("item", tuple("abcde")),
    tuple("abcde"),
    ("",) * 5,
    (("noir",), ("war", "drama"), ("drama",), ("noir", "war"), ()),  # noir only where train has never been
)
PEOPLE = People(
    Ids("user", tuple("xyz")), {"job": ("nurse", "pilot", "nurse"), "town": ("Oslo", "Oslo", "")}
)  # pilot only where train has never been


def fitted(mode="set", length=50, protocol="random"):
    return fit_features(TRAIN, CATALOGUE, PEOPLE, HistorySettings(mode=mode, length=length), protocol)


def lists(codes):
    """The lists of `Codes`, as Python lists."""
    ends = [*codes.offsets.tolist()[1:], len(codes.values)]
    return [codes.values[start:end].tolist() for start, end in zip(codes.offsets.tolist(), ends, strict=True)]


def ask(*users, histories=None):
    return Queries(np.array(users), Ragged.of(histories or [[]] * len(users)))


# --- By hand ----------------------------------------------------------------------------------------------------------


def test_codes_count_the_rows_of_train_from_one():
    features = fitted()
    assert features.item_codes.tolist() == [0, 1, 2, 0, 3]
    assert features.user_codes.tolist() == [1, 0, 2]
    assert features.n_items == 5


def test_tables_have_a_row_for_each_code_and_one_for_the_unknown():
    # codes 1, 2 of users; 1, 2, 3 of items; drama and war; job=nurse and town=Oslo
    features = fitted()
    assert features.item_table_sizes() == {"id": 4, "categories": 3}
    user_sizes = features.user_table_sizes()
    assert (user_sizes["id"], user_sizes["categories"]) == (3, 3)


def test_categories_are_those_of_train():
    # drama 1, war 2; noir is left out even where it stands beside war
    features = fitted()
    made = features.of_items(np.array([0, 1, 2, 3, 4]), ("id", "categories"))
    assert lists(made["categories"]) == [[], [2, 1], [1], [2], []]
    assert made["id"].values.tolist() == [0, 1, 2, 0, 3]
    assert made["id"].offsets is None


def test_attributes_of_people_are_those_of_train():
    # job=nurse 1, town=Oslo 2; pilot is left out, an empty cell is no attribute
    made = fitted().of_users(ask(0, 1, 2, -1), ("id", "categories"))
    assert lists(made["categories"]) == [[1, 2], [2], [1], []]
    assert made["id"].values.tolist() == [1, 0, 2, 0]


def test_the_same_word_of_two_attributes_has_two_codes():
    people = People(PEOPLE.users, {"born": ("Oslo",) * 3, "lives": ("Oslo",) * 3})
    features = fit_features(TRAIN, CATALOGUE, people, HistorySettings(), "random")
    assert lists(features.of_users(ask(0), ("categories",))["categories"]) == [[1, 2]]


@pytest.mark.parametrize("names", [("id",), ("history",), ("categories",), ("id", "history", "categories")])
def test_a_person_without_a_row_has_every_feature(names):
    made = fitted().of_users(ask(-1, 0, -1, histories=[[4, 0, 1], [], []]), names)
    assert set(made) == set(names)
    expected = {"id": [0, 1, 0], "history": [[3, 1], [], []], "categories": [[], [1, 2], []]}
    for name in names:
        assert (made[name].values.tolist() if name == "id" else lists(made[name])) == expected[name]


# --- Histories --------------------------------------------------------------------------------------------------------


def test_unknown_items_leave_a_history():
    histories = [[0, 3], [1, 0, 2, 3, 4], [], [4]]
    made = fitted().of_users(ask(0, -1, 2, 0, histories=histories), ("history",))["history"]
    assert lists(made) == [[], [1, 2, 3], [], [3]]


def test_set_reads_all_and_before_the_last_ones():
    histories = [[1, 2, 4, 1], [4, 2], [], [2]]
    queries = ask(0, 0, 0, 0, histories=histories)
    assert lists(fitted("set", 2).of_users(queries, ("history",))["history"]) == [[1, 2, 3, 1], [3, 2], [], [2]]
    assert lists(fitted("before", 2).of_users(queries, ("history",))["history"]) == [[3, 1], [3, 2], [], [2]]
    assert lists(fitted("before", 1).of_users(queries, ("history",))["history"]) == [[1], [2], [], [2]]


def test_ages_count_the_events_since():
    """The last event of a history has age 0; an unknown item (0 and 3) is left out and ages the others all the same."""
    histories = [[1, 2, 4, 1], [4, 0, 2, 3], [], [2]]
    made = fitted("before", 3).of_users(ask(0, 0, 0, 0, histories=histories), ("history",))["history"]
    assert lists(made) == [[2, 3, 1], [2], [], [2]]
    assert lists(replace(made, values=made.ages)) == [[2, 1, 0], [1], [], [0]]
    assert fitted("set").of_users(ask(0, histories=[[1, 2]]), ("history",))["history"].ages is None


def test_rows_are_lists_of_their_own():
    made = fitted("before", 3).of_users(ask(0, 0, 0, histories=[[1, 2, 4], [], [4, 2]]), ("id", "history"))
    assert made["id"].rows(1, 3).values.tolist() == made["id"].values[1:].tolist()
    for start, stop in ((0, 1), (0, 2), (1, 2), (2, 3), (1, 9)):  # 9: no more rows than there are
        some = made["history"].rows(start, stop)
        assert lists(some) == [[1, 2, 3], [], [3, 2]][start:stop]
        assert lists(replace(some, values=some.ages)) == [[2, 1, 0], [], [1, 0]][start:stop]


def test_owners_of_values():
    codes = fitted("before", 3).of_users(ask(0, 0, 0, 0, histories=[[], [1, 2], [], [4]]), ("history",))["history"]
    assert codes.owners.tolist() == [1, 1, 3]


def test_histories_without_anything():
    assert lists(fitted("before", 2).of_users(ask(0, -1), ("history",))["history"]) == [[], []]


# --- The small data ---------------------------------------------------------------------------------------------------


def test_only_train_is_fitted(events, catalogue, people):
    features = fit_features(events, catalogue, people, HistorySettings(), "random")
    warm = set(events.item.tolist())
    assert COLD_ITEM not in warm
    assert features.item_codes[COLD_ITEM] == 0
    assert sorted(features.item_codes[sorted(warm)].tolist()) == list(range(1, len(warm) + 1))
    assert features.user_codes[LONER] > 0
    assert features.user_codes[LONER + 1] == 0
    # western is the cold item's alone, drama it shares
    assert features.n_item_categories == 2
    assert lists(features.of_items(np.array([COLD_ITEM]), ("categories",))["categories"]) == [[2]]


def test_what_is_only_held_out_has_no_code(events, catalogue, people):
    train = events.take(events.time < 4)
    features = fit_features(train, catalogue, people, HistorySettings(), "time")
    for codes, of_train, of_all in (
        (features.item_codes, train.item, events.item),
        (features.user_codes, train.user, events.user),
    ):
        assert set(of_train) < set(of_all)
        assert set(np.flatnonzero(codes)) == set(of_train)


def test_many_questions_equal_each_question_alone(events, catalogue, people):
    features = fit_features(events, catalogue, people, HistorySettings(mode="before", length=3), "last")
    rng = np.random.default_rng(0)
    users = rng.integers(-1, events.n_users, 30)
    histories = [rng.integers(0, events.n_items, rng.integers(0, 6)).tolist() for _ in users]
    whole = features.of_users(ask(*users, histories=histories), ("id", "history", "categories"))
    for i, (user, history) in enumerate(zip(users, histories, strict=True)):
        one = features.of_users(ask(user, histories=[history]), ("id", "history", "categories"))
        assert one["id"].values.tolist() == [whole["id"].values[i].item()]
        for name in ("history", "categories"):
            assert lists(one[name]) == [lists(whole[name])[i]]


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "mode"), [("random", "set"), ("given", "set"), ("last", "before"), ("time", "before")]
)
def test_auto_reads_splits_in_time_as_before(protocol, mode):
    assert fitted("auto", protocol=protocol).history_mode == mode
    assert fitted("set", protocol=protocol).history_mode == "set"
    assert fitted("before", protocol=protocol).history_mode == "before"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "after"}, "history.mode = after\nneeded: auto, set or before"),
        ({"length": 0}, "history.length = 0\nneeded: 1 or more"),
        ({"dropout": 1.0}, "history.dropout = 1.0\nneeded: a chance from 0 to below 1"),
        ({"dropout": -0.1}, "history.dropout = -0.1\nneeded: a chance from 0 to below 1"),
        ({"dropout": float("nan")}, "history.dropout = nan\nneeded: a chance from 0 to below 1"),
    ],
)
def test_settings_out_of_range(settings, told):
    with pytest.raises(SettingError) as caught:
        HistorySettings(**settings)
    assert str(caught.value) == told


def test_before_needs_times(catalogue, people, events):
    with pytest.raises(SettingError, match=r"history\.mode = before"):
        fit_features(replace(events, time=None), catalogue, people, HistorySettings(mode="before"), "random")


def test_codes_move_together():
    codes = fitted().of_users(ask(0, 1), ("categories",))["categories"].to("meta")
    assert (codes.values.device.type, codes.offsets.device.type) == ("meta", "meta")
    assert fitted().of_users(ask(0), ("id",))["id"].to("meta").offsets is None
    ordered = fitted("before", 2).of_users(ask(0, histories=[[1]]), ("history",))["history"].to("meta")
    assert ordered.ages.device.type == "meta"
