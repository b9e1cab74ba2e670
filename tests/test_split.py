"""Splits: by hand on a few events, and what must hold on any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twotower_lib import bundle, recipe
from twotower_lib.baselines import BaselineSettings, fit_baseline
from twotower_lib.data import Catalogue, Dataset, Ids, Interactions, People
from twotower_lib.errors import LeakError, SettingError, SplitError
from twotower_lib.evaluation import measure
from twotower_lib.features import UNKNOWN, HistorySettings, fit_features
from twotower_lib.protocols import questions
from twotower_lib.seeding import child
from twotower_lib.split import (
    LEAKS,
    PARTS,
    PROTOCOLS,
    Split,
    SplitSettings,
    check,
    fold_in,
    global_time,
    items_of_users,
    last_fraction,
    random_ratio,
    split,
    whole_users,
)

TRAIN, VALID, TEST = PARTS["train"], PARTS["valid"], PARTS["test"]
FOLD_IN_VALID, FOLD_IN_TEST = VALID - 1, TEST - 1


def events_of(user, item, time=None, n_users=None, n_items=None):
    """Events in the order (user, time, item)."""
    user, item = np.array(user, dtype=np.int64), np.array(item, dtype=np.int64)
    when = np.zeros(len(user), dtype=np.int64) if time is None else np.array(time, dtype=np.int64)
    order = np.lexsort((item, when, user))
    n_users = max(user, default=-1) + 1 if n_users is None else n_users
    n_items = max(item, default=-1) + 1 if n_items is None else n_items
    return Interactions(
        user[order], item[order], int(n_users), int(n_items), None if time is None else when[order]
    )  # fmt: skip


def dataset_of(events, test=None):
    def names(n):
        return tuple(str(i) for i in range(n))

    items, users = Ids("item", names(events.n_items)), Ids("user", names(events.n_users))
    catalogue = Catalogue(items, items.names, ("",) * len(items), ((),) * len(items))
    return Dataset("made", events, catalogue, People(users), "", test)


def pairs(events):
    return list(zip(events.user.tolist(), events.item.tolist(), strict=True))


# --- Each protocol by hand --------------------------------------------------------------------------------------------


def test_last_holds_out_the_last_share_of_each_user_rounded_down():
    # user 0: ten events, .2 -> 2; user 1: four events -> 0; user 2: five -> 1
    number = [*range(10), *range(4), *range(5)]
    events = events_of([0] * 10 + [1] * 4 + [2] * 5, number, number)
    held_out = last_fraction(events, 0.2, child(0, "none"))
    assert pairs(events.take(held_out)) == [(0, 8), (0, 9), (2, 4)]


def test_last_goes_by_time_and_not_by_item():
    events = events_of([0, 0, 0, 0], [3, 2, 1, 0], [10, 20, 30, 40])
    assert pairs(events.take(last_fraction(events, 0.5, child(0, "none")))) == [(0, 1), (0, 0)]


def test_last_in_one_second_takes_the_larger_rows():
    events = events_of([0] * 4, [3, 0, 2, 1], [5, 5, 5, 5])
    assert pairs(events.take(last_fraction(events, 0.5, child(0, "none")))) == [(0, 2), (0, 3)]


def test_last_does_not_need_events_in_order():
    events = events_of([0] * 4 + [1] * 4, [0, 1, 2, 3] * 2, [1, 2, 3, 4, 8, 7, 6, 5])
    mixed = events.take(np.array([5, 0, 7, 2, 4, 1, 6, 3]))
    assert set(pairs(mixed.take(last_fraction(mixed, 0.25, child(0, "none"))))) == {(0, 3), (1, 0)}


def test_time_holds_out_everything_from_one_moment_on():
    # ten events, .2 held out: times 8 and 9, whoever they belong to
    events = events_of([0, 1, 2, 0, 1, 2, 0, 1, 2, 3], range(10), range(10))
    assert sorted(pairs(events.take(global_time(events, 0.2, child(0, "none"))))) == [(2, 8), (3, 9)]


def test_time_keeps_one_second_together():
    # the cut falls at the eighth of ten events, and the sixth to the tenth are of its second
    events = events_of([0] * 10, range(10), [0, 1, 2, 3, 4, 5, 5, 5, 5, 5])
    assert events.take(global_time(events, 0.2, child(0, "none"))).time.tolist() == [5] * 5


def test_random_holds_out_a_rounded_share_of_all_events():
    events = events_of([0] * 13, range(13))
    for share, expected in ((0.2, 3), (0.5, 6), (0.04, 1)):  # 2.6, 6.5 (to even), .52
        assert random_ratio(events, share, child(0, "none")).sum() == expected


def test_random_prefers_no_event():
    events = events_of([0] * 10, range(10))
    count = sum(random_ratio(events, 0.3, child(0, "n", n)).astype(int) for n in range(2000))
    # each event 600 times; 5 standard deviations of a binomial count are 102
    assert np.abs(count - 600).max() < 102


def test_last_by_hand_with_validation():
    # 20 events: test is the last 4; of the 16 left validation is the last floor(1.6) = 1
    events = events_of([0] * 20, range(20), range(20))
    made = split(dataset_of(events), SplitSettings(protocol="last", test=0.2, valid=0.1))
    assert made.train.item.tolist() == list(range(15))
    assert made.valid.item.tolist() == [15]
    assert made.test.item.tolist() == [16, 17, 18, 19]


def test_time_by_hand_with_validation():
    events = events_of([0, 1] * 10, range(20), range(20))
    made = split(dataset_of(events), SplitSettings(protocol="time", test=0.2, valid=0.25))
    assert sorted(made.train.item.tolist()) == list(range(12))
    assert sorted(made.valid.item.tolist()) == [12, 13, 14, 15]
    assert sorted(made.test.item.tolist()) == [16, 17, 18, 19]


def test_random_by_hand_with_validation():
    events = events_of([0, 1] * 50, range(100))
    made = split(dataset_of(events), SplitSettings(protocol="random", test=0.2, valid=0.1))
    assert (len(made.train), len(made.valid), len(made.test)) == (72, 8, 20)


# --- What must hold on any data ---------------------------------------------------------------------------------------


@st.composite
def interactions(draw):
    """Up to six users and twelve items, each pair at most once, with few different seconds."""
    chosen = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 11)), min_size=1, max_size=60))
    user, item = zip(*sorted(chosen), strict=True)
    time = draw(st.lists(st.integers(0, 8), min_size=len(user), max_size=len(user)))
    return events_of(user, item, time, 6, 12)


shares = st.sampled_from([0.1, 0.2, 1 / 3, 0.5, 0.8])


@given(interactions(), shares, shares, st.sampled_from(["random", "last", "time"]), st.integers(0, 5))
def test_parts_are_disjoint_and_cover_everything(events, test, valid, protocol, seed):
    try:
        made = split(dataset_of(events), SplitSettings(protocol=protocol, test=test, valid=valid, seed=seed))
    except SplitError as error:
        assert not isinstance(error, LeakError)
        assert "is empty" in str(error)
        return
    parts = [pairs(made.of(part)) for part in PARTS]
    assert all(parts)
    together = [pair for part in parts for pair in part]
    assert sorted(together) == sorted(pairs(events))
    assert len(set(together)) == len(events)


@given(interactions(), shares)
def test_last_holds_out_the_latest_of_each_user_and_leaves_one(events, share):
    held_out = last_fraction(events, share, child(0, "none"))
    for user in set(events.user.tolist()):
        own = events.user == user
        kept, gone = events.time[own & ~held_out], events.time[own & held_out]
        assert len(kept) >= 1
        assert len(gone) <= share * own.sum() < len(gone) + 1
        assert len(gone) == 0 or gone.min() >= kept.max()


@given(interactions(), shares)
def test_time_has_one_moment_before_which_all_is_kept(events, share):
    held_out = global_time(events, share, child(0, "none"))
    moment = events.time[held_out].min(initial=9)
    np.testing.assert_array_equal(held_out, events.time >= moment)
    # Without the events of that very second it would be too few, with them it is enough.
    assert (events.time > moment).sum() < share * len(events) + 1
    assert held_out.sum() > share * len(events) - 1


@given(interactions(), shares, st.integers(0, 3))
def test_random_holds_out_its_share(events, share, seed):
    held_out = random_ratio(events, share, child(seed, "split"))
    assert held_out.sum() == round(share * len(events))


@given(interactions(), st.sampled_from(["last", "time"]))
def test_valid_is_cut_by_the_same_protocol(events, protocol):
    """Cutting validation is what cutting a test from the rest would be."""
    try:
        made = split(dataset_of(events), SplitSettings(protocol=protocol, test=0.2, valid=0.3))
    except SplitError:
        assume(False)
    known = made.known("test")
    assert pairs(made.valid) == pairs(known.take(PROTOCOLS[protocol](known, 0.3, child(0, "none"))))
    assert pairs(made.test) == pairs(events.take(PROTOCOLS[protocol](events, 0.2, child(0, "none"))))


# --- Seeds ------------------------------------------------------------------------------------------------------------


def test_seeds_of_the_random_protocol(events):
    def parts(**settings):
        return split(dataset_of(events), SplitSettings(protocol="random", **settings)).part

    np.testing.assert_array_equal(parts(), parts(seed=42))
    assert (parts(seed=1) != parts(seed=2)).any()
    np.random.seed(5)
    np.testing.assert_array_equal(parts(seed=1), parts(seed=1))


def test_validation_is_not_drawn_like_the_test():
    """Two draws of a generator of their own: with equal shares the places in their lists would else be the same."""
    events = events_of([0] * 100, range(100))
    made = split(dataset_of(events), SplitSettings(protocol="random", test=0.5, valid=0.5))
    again = split(dataset_of(made.known("test")), SplitSettings(protocol="random", test=0.5, valid=0.5))
    assert pairs(again.test) != pairs(made.valid)


@pytest.mark.parametrize("protocol", ["last", "time"])
def test_splits_in_time_have_no_seed(events, protocol):
    one, other = (split(dataset_of(events), SplitSettings(protocol=protocol, seed=seed)).part for seed in (1, 2))
    np.testing.assert_array_equal(one, other)


# --- Published parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["last", "time", "random", "given"])
@pytest.mark.parametrize("times", [True, False])
def test_published_parts_are_kept_whatever_the_settings_say(protocol, times):
    train = events_of([0] * 10 + [1] * 10, [*range(10), *range(10)], range(20) if times else None, 2, 15)
    test = events_of([0, 1, 1], [12, 13, 10], [3, 4, 5] if times else None, 2, 15)
    made = split(dataset_of(train, test), SplitSettings(protocol=protocol, valid=0.1))
    assert made.protocol == "given"
    assert sorted(pairs(made.test)) == sorted(pairs(test))
    assert sorted(pairs(made.known("test"))) == sorted(pairs(train))
    assert len(made.valid) == 2
    assert (made.events.time is not None) == times
    key = (made.events.item, made.events.user) if not times else (made.events.item, made.events.time, made.events.user)
    np.testing.assert_array_equal(np.lexsort(key), np.arange(len(made.events)))


def given_in_order(*test_times):
    """Two users with ten train events each, the second ten times as late, and test events of both."""
    times = [*range(10), *range(0, 100, 10)]
    train = events_of([0] * 10 + [1] * 10, [*range(10)] * 2, times, 2, 15)
    return dataset_of(train, events_of([0, 1, 1], [12, 13, 14], test_times, 2, 15))


def test_validation_is_the_end_of_each_user_where_the_test_part_is():
    for seed in range(20):
        made = split(given_in_order(9, 90, 95), SplitSettings(valid=0.1, seed=seed))
        assert pairs(made.valid) == [(0, 9), (1, 9)]
        assert made.protocol == "given"


@pytest.mark.parametrize("times", [(8, 90, 95), (9, 89, 200)])
def test_validation_is_drawn_where_one_test_event_lies_before_train(times):
    """Of the same user: everything of the first one lies before the second one's end."""
    seeds = range(20)
    drawn = {tuple(pairs(split(given_in_order(*times), SplitSettings(valid=0.1, seed=seed)).valid)) for seed in seeds}
    assert len(drawn) > 10


def test_published_events_keep_their_columns():
    """Times and ratings stay with their events where both parts have them, and go where one lacks them."""
    train = events_of([0] * 4, [0, 1, 2, 3], [40, 30, 20, 10], 1, 6)
    train = replace(train, rating=np.array([1, 2, 3, 4], dtype=np.float32))  # item 3 has the rating 1, ... item 0 has 4
    test = replace(events_of([0, 0], [4, 5], [25, 5], 1, 6), rating=np.array([5, 6], dtype=np.float32))
    made = split(dataset_of(train, test), SplitSettings(valid=0.25))
    assert made.events.item.tolist() == [5, 3, 2, 4, 1, 0]
    assert made.events.time.tolist() == [5, 10, 20, 25, 30, 40]
    assert made.events.rating.tolist() == [5, 1, 2, 6, 3, 4]
    assert sorted(pairs(made.test)) == [(0, 4), (0, 5)]
    bare = split(dataset_of(train, replace(test, time=None, rating=None)), SplitSettings(valid=0.25))
    assert bare.events.time is None
    assert bare.events.rating is None


# --- What is known ----------------------------------------------------------------------------------------------------

HAND = Split(
    events_of([0, 0, 0, 0, 1, 1, 2], [3, 1, 2, 0, 1, 4, 5], [1, 2, 3, 4, 1, 2, 1], 4, 7),
    np.array([TRAIN, TRAIN, VALID, TEST, TRAIN, TEST, VALID], dtype=np.int8),
    "last",
)


def test_known_seen_and_cold_by_hand():
    assert pairs(HAND.train) == pairs(HAND.known("valid")) == [(0, 3), (0, 1), (1, 1)]
    assert pairs(HAND.known("test")) == [(0, 3), (0, 1), (0, 2), (1, 1), (2, 5)]
    assert len(HAND.known("train")) == 0
    assert [HAND.seen("valid")[u].tolist() for u in range(4)] == [[3, 1], [1], [], []]
    assert [HAND.seen("test")[u].tolist() for u in range(4)] == [[3, 1, 2], [1], [5], []]
    assert HAND.cold_users("valid").tolist() == [False, False, True, True]
    assert HAND.cold_users("test").tolist() == [False, False, False, True]
    assert HAND.cold_items("valid").tolist() == [True, False, True, False, True, True, True]
    assert HAND.cold_items("test").tolist() == [True, False, False, False, True, False, True]


def test_refit_gives_validation_back_to_train():
    again = HAND.refit()
    assert pairs(again.train) == pairs(HAND.known("test"))
    assert pairs(again.test) == pairs(HAND.test)
    assert len(again.valid) == 0
    assert again.part.dtype == HAND.part.dtype
    assert pairs(again.known("test")) == pairs(HAND.known("test"))
    assert len(HAND.valid) == 2  # the split itself is as it was


@pytest.mark.parametrize("protocol", ["random", "last", "time", "users"])
def test_what_is_asked_is_never_seen(events, protocol):
    made = split(dataset_of(events), SplitSettings(protocol=protocol))
    for part in ("valid", "test"):
        seen, asked = made.seen(part), made.of(part)
        assert len(asked) > 0
        assert not any(item in seen[user] for user, item in pairs(asked))


def test_seen_items_stand_oldest_first(events):
    made = split(dataset_of(events), SplitSettings(protocol="random"))
    when = dict(zip(pairs(events), events.time.tolist(), strict=True))
    for user in range(events.n_users):
        times = [when[user, item] for item in made.seen("test")[user].tolist()]
        assert times == sorted(times)
    assert len(items_of_users(events)) == events.n_users


def test_every_protocol_states_its_leak(events):
    assert LEAKS.keys() == PROTOCOLS.keys()
    for protocol in ("random", "last", "time", "users"):
        assert split(dataset_of(events), SplitSettings(protocol=protocol)).leak == LEAKS[protocol]


# --- Held-out users ---------------------------------------------------------------------------------------------------


def test_users_holds_out_all_events_of_a_share_of_the_users_that_have_any():
    # users 0, 2, ..., 18 with 1 to 10 events; the others have none, and a share of ten is taken
    user = np.repeat(np.arange(0, 20, 2), np.arange(1, 11))
    events = events_of(user, range(len(user)), n_users=20)
    for share, expected in ((0.2, 2), (0.36, 4), (0.04, 0)):  # 3.6 and .4 are rounded
        held_out = whole_users(events, share, child(1, "none"))
        chosen = set(events.user[held_out].tolist())
        assert len(chosen) == expected
        assert chosen.isdisjoint(events.user[~held_out].tolist())


def test_users_prefers_no_user():
    events = events_of(np.repeat(np.arange(10), np.arange(1, 11)), range(55))
    drawn = sum(
        np.isin(np.arange(10), events.user[whole_users(events, 0.3, child(0, n))]) for n in map(str, range(2000))
    )
    # each user 600 times, however many events; 5 standard deviations of a binomial count are 102
    assert np.abs(drawn - 600).max() < 102


def test_the_fold_in_leaves_a_share_of_each_user_rounded_down():
    counts = np.array([1, 4, 5, 9, 10, 35])
    events = events_of(np.repeat(np.arange(6), counts), [*range(64)])
    known = fold_in(events, 0.2, child(0, "none"))
    # .2 of them: .2, .8, 1, 1.8, 2, 7
    assert (counts - np.bincount(events.user[known], minlength=6)).tolist() == [0, 0, 1, 1, 2, 7]


def test_the_fold_in_prefers_no_event():
    events = events_of([0] * 10, range(10), range(10))
    asked = sum((~fold_in(events, 0.2, child(0, "n", n))).astype(int) for n in range(2000))
    # each event 400 times; 5 standard deviations of a binomial count are 89
    assert np.abs(asked - 400).max() < 89


BY_USERS = Split(
    events_of([0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0, 3, 1], [1, 2, 1, 2, 3, 1, 2, 3], 4, 5),
    np.array([TRAIN, TRAIN, FOLD_IN_VALID, VALID, FOLD_IN_VALID, FOLD_IN_TEST, FOLD_IN_TEST, TEST], dtype=np.int8),
    "users",
)
"""User 0 is of train, user 1 of validation, user 2 of the test; user 3 has no event, item 4 neither."""


def test_parts_of_users_by_hand():
    check(BY_USERS)
    assert pairs(BY_USERS.train) == pairs(BY_USERS.known("valid")) == [(0, 0), (0, 1)]
    assert pairs(BY_USERS.valid) == [(1, 2)]
    assert pairs(BY_USERS.test) == [(2, 1)]
    assert pairs(BY_USERS.known("test")) == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 0)]
    assert [BY_USERS.seen("valid")[u].tolist() for u in range(4)] == [[0, 1], [1, 0], [], []]
    assert [BY_USERS.seen("test")[u].tolist() for u in range(4)] == [[0, 1], [1, 2, 0], [0, 3], []]
    assert BY_USERS.cold_users("valid").tolist() == [False, False, True, True]
    assert BY_USERS.cold_users("test").tolist() == [False, False, False, True]
    # Item 3 stands in a fold-in only: no model has met it.
    assert BY_USERS.cold_items("test").tolist() == [False, False, False, True, True]


def test_refit_trains_on_all_of_the_validation_users_and_on_none_of_the_test_users():
    again = BY_USERS.refit()
    assert again.part.tolist() == [*[TRAIN] * 5, FOLD_IN_TEST, FOLD_IN_TEST, TEST]
    assert pairs(again.train) == pairs(BY_USERS.known("test")) == pairs(again.known("test"))
    assert [again.seen("test")[u].tolist() for u in range(4)] == [BY_USERS.seen("test")[u].tolist() for u in range(4)]


@given(interactions(), shares, st.integers(0, 5))
def test_a_split_by_users_beside_a_loop(events, asked, seed):
    try:
        made = split(dataset_of(events), SplitSettings(protocol="users", test=0.34, valid=0.4, asked=asked, seed=seed))
    except SplitError as error:
        assert "is empty" in str(error)
        return
    parts = {part: set(pairs(made.of(part))) for part in PARTS}
    for user in set(events.user.tolist()):
        own = {pair for pair in pairs(events) if pair[0] == user}
        (home,) = [part for part in PARTS if own & parts[part]] or [None]
        if home == "train":
            assert own <= parts["train"]
            continue
        # A held-out user; where nothing is asked of them, `home` is none and all of their events are fold-in.
        held_out = own & parts[home] if home else set()
        assert len(held_out) == int(len(own) * asked)
        if home:
            assert not own & set(pairs(made.known(home)))
            assert {(user, item) for item in made.seen(home)[user].tolist()} == own - held_out


def test_a_user_in_two_parts_of_a_split_by_users_is_a_leak():
    parts = [TRAIN, TRAIN, FOLD_IN_VALID, VALID, FOLD_IN_TEST, TEST]
    check(leaking("users", [1] * 6, parts, user=[0, 0, 1, 1, 2, 2]))
    for told in ([TRAIN, FOLD_IN_TEST, FOLD_IN_VALID, VALID, FOLD_IN_TEST, TEST], [*parts[:5], VALID, TEST]):
        owners = [0, 0, 1, 1, 2, 2, 2][: len(told)]
        with pytest.raises(LeakError) as caught:
            check(leaking("users", [1] * len(told), told, user=owners))
        assert str(caught.value) == (
            "users with events in two parts of a split by users: 1\nneeded: each user in one part"
        )


def test_a_split_by_users_has_a_seed_and_needs_no_times(events):
    def parts(seed):
        return split(dataset_of(replace(events, time=None)), SplitSettings(protocol="users", seed=seed)).part

    np.testing.assert_array_equal(parts(1), parts(1))
    assert (parts(1) != parts(2)).any()


def test_no_model_has_a_row_for_a_held_out_user_who_is_asked_with_the_fold_in(dataset):
    made = split(dataset, SplitSettings(protocol="users", seed=3))
    for part, of_part in (("valid", made), ("test", made.refit())):
        asked = questions(made, part)
        features = fit_features(of_part.train, dataset.catalogue, dataset.people, HistorySettings(), made.protocol)
        assert features.history_mode == "set"
        assert (features.user_codes[asked.queries.user] == UNKNOWN).all()
        assert not np.isin(asked.queries.user, asked.known.user).any()
        assert not asked.cold.any()
        assert asked.exclude is asked.queries.history
        for user, history, held_out in zip(asked.queries.user, asked.exclude, asked.held_out, strict=True):
            own = made.events.item[made.events.user == user]
            assert sorted([*history, *held_out]) == sorted(own)
            assert len(held_out) == int(0.2 * len(own))


def test_who_comes_first_does_not_matter(dataset):
    """Users in another order, with the same parts: every user is told the same and reaches the same."""
    made = split(dataset, SplitSettings(protocol="users", seed=3))
    renamed = np.random.default_rng(0).permutation(made.events.n_users)
    order = np.lexsort((made.events.item, made.events.time, renamed[made.events.user]))
    events = replace(made.events, user=renamed[made.events.user]).take(order)
    other = Split(events, made.part[order], "users")
    reached = []
    for one in (made, other):
        asked = questions(one, "test")
        table = measure(fit_baseline("ease", asked.known, BaselineSettings()), asked, [5]).table.set_index("user")
        reached.append(table.rename(index=dict(enumerate(renamed))) if one is made else table)
    np.testing.assert_allclose(reached[0].sort_index(), reached[1].sort_index(), equal_nan=True)


def test_users_from_the_settings_to_the_bundle(tmp_path):
    """`twotower train`, `evaluate` and `export`: a held-out user is known by the fold-in."""
    settings = ("data=toy", "split.protocol=users", "split.valid=0.25", "model.dim=8", "train.epochs=1")
    chosen = recipe.compose(settings)
    assert recipe.train(chosen, tmp_path / "run")
    report = recipe.evaluate_run(tmp_path / "run", ["ease"], part="test")
    assert (report.asked.protocol, list(report.references)) == ("users", ["chance", "popularity", "ease"])
    recipe.export(tmp_path / "run", tmp_path / "bundle")
    seen, asked = bundle.load(tmp_path / "bundle").seen, recipe.prepare(chosen).asked("test")
    np.testing.assert_array_equal(seen.take(asked.queries.user).values, asked.queries.history.values)


# --- Leaks ------------------------------------------------------------------------------------------------------------


def leaking(protocol, times, parts, items=None, user=None):
    n = len(times)
    user = np.array(user or [0] * n)
    item = np.array(items or range(n))
    events = Interactions(user, item, int(user.max()) + 1, int(item.max()) + 1, np.array(times))
    return Split(events, np.array(parts, dtype=np.int8), protocol)


def test_check_is_content_with_parts_in_order():
    for protocol in ("last", "time", "random", "given"):
        check(leaking(protocol, [1, 2, 3, 4], [TRAIN, TRAIN, VALID, TEST]))
    check(leaking("random", [1, 2, 3, 4], [TEST, VALID, TRAIN, TRAIN]))


@pytest.mark.parametrize("protocol", ["last", "time"])
@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            [TRAIN, VALID, TRAIN, TEST],
            "1 of the valid events lie before train events\nneeded: all of train before valid",
        ),
        ([TRAIN, TEST, VALID, VALID], "1 of the test events lie before valid events\nneeded: all of valid before test"),
    ],
)
def test_a_part_that_is_older_than_the_one_before_it_is_a_leak(protocol, parts, told):
    with pytest.raises(LeakError) as caught:
        check(leaking(protocol, [1, 2, 3, 4], parts))
    assert str(caught.value) == told


def test_last_compares_the_events_of_one_user_and_time_those_of_all():
    # user 0 at seconds 10 to 12, user 1 at 1 to 3
    times, parts, user = [10, 11, 12, 1, 2, 3], [TRAIN, VALID, TEST] * 2, [0, 0, 0, 1, 1, 1]
    check(leaking("last", times, parts, user=user))
    with pytest.raises(LeakError, match="1 of the valid events lie before train events"):
        check(leaking("time", times, parts, user=user))


def test_a_train_event_after_a_test_event_is_a_leak_where_the_user_has_no_validation():
    # user 0: test at second 1, train at second 2; the validation events belong to user 1
    parts = [TEST, TRAIN, TRAIN, VALID, TEST]
    with pytest.raises(LeakError):
        check(leaking("last", [1, 2, 1, 2, 3], parts, user=[0, 0, 1, 1, 1]))


@pytest.mark.parametrize("protocol", list(LEAKS))
def test_the_same_pair_in_two_parts_is_a_leak(protocol):
    with pytest.raises(LeakError) as caught:
        check(leaking(protocol, [1, 2, 3, 4], [TRAIN, TRAIN, VALID, TEST], items=[0, 1, 2, 1]))
    assert str(caught.value) == "pairs of user and item that are both in train and in test: 1\nneeded: disjoint parts"


def test_published_parts_that_share_a_pair_are_a_leak():
    train = events_of([0] * 10, range(10), None, 1, 12)
    test = events_of([0, 0], [3, 11], None, 1, 12)
    with pytest.raises(LeakError, match="pairs of user and item that are both in train and in test: 1"):
        split(dataset_of(train, test), SplitSettings())


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"protocol": "lsat"},
            "split.protocol = lsat\nneeded: random, last, time, users, given\nto do: did you mean last?",
        ),
        ({"test": 0.0}, "split.test = 0.0\nneeded: a share above 0 and below 1"),
        ({"test": 1.0}, "split.test = 1.0\nneeded: a share above 0 and below 1"),
        ({"valid": -0.1}, "split.valid = -0.1\nneeded: a share above 0 and below 1"),
        ({"asked": 1.0}, "split.asked = 1.0\nneeded: a share above 0 and below 1"),
        ({"valid": float("nan")}, "split.valid = nan\nneeded: a share above 0 and below 1"),
    ],
)
def test_settings_out_of_range(settings, told):
    with pytest.raises(SettingError) as caught:
        SplitSettings(**settings)
    assert str(caught.value) == told


@pytest.mark.parametrize("protocol", ["last", "time"])
def test_splits_in_time_need_times(protocol):
    events = events_of([0] * 10, range(10))
    with pytest.raises(SplitError) as caught:
        split(dataset_of(events), SplitSettings(protocol=protocol))
    assert str(caught.value) == (
        f"split.protocol = {protocol}, but the events have no times\n"
        "needed: a column of times\n"
        "to do: name it by data.columns.time=..., or use split.protocol=random"
    )


def test_given_needs_a_test_part(events):
    with pytest.raises(SplitError) as caught:
        split(dataset_of(events), SplitSettings(protocol="given"))
    assert str(caught.value) == (
        "split.protocol = given, but made has no test part\nneeded: data.test, or another protocol"
    )


@pytest.mark.parametrize(
    ("protocol", "times", "part"),
    [
        ("last", [1, 2, 3], "valid"),  # .2 of three events of a user is none
        ("random", [1, 2], "valid"),  # .2 of two events is none, .1 is none either: the first one missing is told
        ("time", [5, 5, 5, 5], "train"),  # all of one second
    ],
)
def test_an_empty_part(protocol, times, part):
    events = events_of([0] * len(times), range(len(times)), times)
    with pytest.raises(SplitError) as caught:
        split(dataset_of(events), SplitSettings(protocol=protocol))
    assert not isinstance(caught.value, LeakError)
    assert str(caught.value) == (
        f"the {part} part of a {protocol} split of {len(times)} events is empty\n"
        "needed: at least one event in every part\n"
        "to do: use more data, or larger shares split.test and split.valid"
    )
