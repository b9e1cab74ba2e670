"""Who meets whom: permutations, histories without the target, and the log q of this very sampler."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.oracles.naive_history import earlier, others
from twotower_lib.batches import Batches
from twotower_lib.data import Interactions
from twotower_lib.errors import SettingError
from twotower_lib.features import HistorySettings, fit_features
from twotower_lib.ranking import Ragged


@pytest.fixture
def made(events, catalogue, people):
    """Make batches of the small data, or of other events of the same people and items."""

    def make(
        train=events, *, batch_size=16, mode="set", length=50, dropout=0.0, seed=0, user=("id", "history"), **options
    ):
        history = HistorySettings(mode=mode, length=length, dropout=dropout)
        features = fit_features(train, catalogue, people, history, "random")
        return Batches(train, features, user, ("id",), batch_size=batch_size, history=history, seed=seed, **options)

    return make


def users_of(batches, batch):
    """The user row of each row, found by its code."""
    row = {int(code): u for u, code in enumerate(batches.features.user_codes) if code}
    return [row[int(code)] for code in batch.user["id"].values]


def pairs_of(batches, epoch):
    return [
        (u, int(i)) for b in batches.epoch(epoch) for u, i in zip(users_of(batches, b), b.items, strict=True)
    ]  # fmt: skip


def histories_of(batches, epoch):
    """For each event (its place in train) the item rows of its history, as a list."""
    row = {int(code): i for i, code in enumerate(batches.features.item_codes) if code}
    place = {(int(u), int(i)): n for n, (u, i) in enumerate(zip(batches.train.user, batches.train.item, strict=True))}
    found = {}
    for batch in batches.epoch(epoch):
        codes = batch.user["history"]
        ends = [*codes.offsets.tolist()[1:], len(codes.values)]
        for pair, start, end in zip(
            zip(users_of(batches, batch), batch.items.tolist(), strict=True), codes.offsets, ends, strict=True
        ):
            found[place[pair]] = [row[int(code)] for code in codes.values[start:end]]
    return found


def tensors(batch):
    """Every tensor that a batch holds, by name."""
    found = {name: getattr(batch, name) for name in ("items", "log_q", "known_row", "known_item")}
    for side in ("user", "item"):
        for name, codes in getattr(batch, side).items():
            found[f"{side} {name}"] = codes.values
            if codes.offsets is not None:
                found[f"{side} {name} offsets"] = codes.offsets
    return found


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(map(tensors, one), map(tensors, other), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


# --- An epoch ---------------------------------------------------------------------------------------------------------


def test_an_epoch_meets_every_event_once(made, events):
    batches = made(batch_size=len(events) // 4)
    assert batches.steps_per_epoch == 4
    pairs = pairs_of(batches, 0)
    assert len(set(pairs)) == len(pairs) == 4 * (len(events) // 4)
    assert set(pairs) <= set(zip(events.user.tolist(), events.item.tolist(), strict=True))


def test_what_is_left_over_waits_for_the_next_epoch(made, events):
    size = len(events) - 3
    batches = made(batch_size=size)
    assert batches.steps_per_epoch == 1
    everything = set(zip(events.user.tolist(), events.item.tolist(), strict=True))
    left = [everything - set(pairs_of(batches, epoch)) for epoch in range(4)]
    assert [len(one) for one in left] == [3] * 4
    assert set.union(*left) > left[0]  # not always the same three


def test_epochs_differ_in_their_order_and_in_who_meets_whom(made):
    batches = made()
    orders = [pairs_of(batches, epoch) for epoch in range(3)]
    company = [frozenset(order[:16]) for order in orders]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert company[0] != company[1]


def test_an_epoch_is_shuffled(made, events):
    """The events stand in the order of users; a batch of 16 of them would hold two users or three."""
    batches = made()
    for batch in batches.epoch(0):
        assert len(set(users_of(batches, batch))) > 5


@pytest.mark.parametrize("mode", ["set", "before"])
def test_equal_seeds_give_equal_batches_and_others_do_not(made, mode):
    one, other = (list(made(mode=mode, length=4, dropout=0.3).epoch(3)) for _ in range(2))
    assert_same(one, other)
    third = list(made(mode=mode, length=4, dropout=0.3, seed=1).epoch(3))
    assert [batch.items.tolist() for batch in one] != [batch.items.tolist() for batch in third]


@pytest.mark.parametrize("mode", ["set", "before"])
@pytest.mark.parametrize("start", [0, 1, 5])
def test_going_on_from_a_step_equals_skipping(made, mode, start):
    whole = list(made(mode=mode, length=4, dropout=0.3).epoch(2))
    assert len(whole) > 5
    assert_same(list(made(mode=mode, length=4, dropout=0.3).epoch(2, start)), whole[start:])


def test_global_random_state_plays_no_part(made):
    np.random.seed(0)
    torch.manual_seed(0)
    one = list(made(dropout=0.3).epoch(0))
    np.random.seed(1)
    torch.manual_seed(1)
    assert_same(one, list(made(dropout=0.3).epoch(0)))


def test_fewer_events_than_a_batch_are_one_batch(made, events):
    batches = made(batch_size=10_000)
    assert (batches.batch_size, batches.steps_per_epoch) == (len(events), 1)
    (batch,) = batches.epoch(0)
    assert len(batch) == len(events)


def test_a_batch_of_one_has_no_negatives(made):
    with pytest.raises(SettingError) as caught:
        made(batch_size=1)
    assert str(caught.value) == "a batch of 1\nneeded: 2 events or more, since they are each other's negatives"


# --- log q ------------------------------------------------------------------------------------------------------------


def test_log_q_by_hand(made, events):
    # item 0 in three of four events, item 1 in one
    train = Interactions(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 0]), events.n_users, events.n_items)
    for epoch in range(8):
        (batch,) = made(train, batch_size=4).epoch(epoch)
        expected = [math.log(3 / 4) if item == 0 else math.log(1 / 4) for item in batch.items.tolist()]
        assert batch.log_q.tolist() == pytest.approx(expected)


def test_q_is_the_share_of_columns_that_an_item_has_in_an_epoch(made, events):
    """Counted over the batches themselves: log q belongs to this very sampler."""
    batches = made(batch_size=len(events) // 2 if len(events) % 2 == 0 else len(events))
    columns = [(int(i), float(q)) for batch in batches.epoch(0) for i, q in zip(batch.items, batch.log_q, strict=True)]
    assert len(columns) == len(events)
    share = Counter(item for item, _ in columns)
    assert len(share) > 20
    for item, log_q in columns:
        assert math.exp(log_q) == pytest.approx(share[item] / len(columns), rel=1e-6)


def test_q_sums_to_one_over_the_items_of_train(made, events):
    batches = made()
    assert batches.log_q[torch.from_numpy(events.item_counts > 0)].double().exp().sum().item() == pytest.approx(
        1, abs=1e-6
    )
    assert batches.log_q.isfinite().all()


def test_log_q_counts_the_train_part_only(made, events):
    kept = np.arange(len(events)) % 2 == 0
    (batch,) = made(events.take(kept), batch_size=10_000).epoch(0)
    counts = Counter(events.item[kept].tolist())
    expected = [math.log(counts[item] / kept.sum()) for item in batch.items.tolist()]
    assert batch.log_q.tolist() == pytest.approx(expected, rel=1e-6)
    assert counts != Counter(events.item.tolist())


# --- Mixed negatives --------------------------------------------------------------------------------------------------


def test_uniform_negatives_stand_behind_the_positives(made):
    plain, mixed = (list(made(uniform_negatives=n).epoch(1)) for n in (0, 7))
    for one, other in zip(plain, mixed, strict=True):
        assert len(other) == len(one) == 16
        assert len(other.items) == len(other.log_q) == len(other.item["id"].values) == 16 + 7
        assert torch.equal(other.items[:16], one.items)
        assert torch.equal(other.user["history"].values, one.user["history"].values)
        assert torch.equal(other.known_item, one.known_item)
    assert made(uniform_negatives=7).n_candidates == 23


def test_q_of_a_mixture_is_the_share_of_columns(made, events):
    """Counted over many batches: what an item's chance says is what happens, within five standard errors."""
    batches = made(batch_size=len(events), uniform_negatives=3 * len(events))
    items = torch.cat([batch.items for epoch in range(20) for batch in batches.epoch(epoch)])
    known = np.flatnonzero(events.item_counts)
    share = torch.bincount(items, minlength=events.n_items)[known].double() / len(items)
    q = batches.log_q[known].double().exp()
    assert q.sum().item() == pytest.approx(1, abs=1e-6)
    assert ((share - q).abs() < 5 * (q * (1 - q) / len(items)).sqrt()).all()


def test_q_of_a_mixture_by_hand(made, events):
    # item 0 in three of four events, item 1 in one; two more columns from the two items: (3 + 1) / 6 and (1 + 1) / 6
    train = Interactions(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 0]), events.n_users, events.n_items)
    (batch,) = made(train, batch_size=4, uniform_negatives=2).epoch(0)
    expected = [math.log(4 / 6) if item == 0 else math.log(2 / 6) for item in batch.items.tolist()]
    assert batch.log_q.tolist() == pytest.approx(expected)


def test_uniform_negatives_are_items_of_train(made, events):
    train = events.take(events.item % 2 == 0)
    drawn = [batch.items[16:] for batch in made(train, uniform_negatives=50).epoch(0)]
    assert (torch.cat(drawn) % 2 == 0).all()
    assert set(torch.cat(drawn).tolist()) == set(train.item.tolist())


def test_fewer_uniform_negatives_than_none(made):
    with pytest.raises(SettingError, match=r"^uniform_negatives = -1\nneeded: 0 or more$"):
        made(uniform_negatives=-1)


def test_uniform_negatives_differ_between_steps(made):
    one, other = (batch.items[16:] for batch in list(made(uniform_negatives=50).epoch(0))[:2])
    assert not torch.equal(one, other)


# --- Histories --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["set", "before"])
@pytest.mark.parametrize("length", [1, 3, 50])
def test_a_history_never_holds_its_target_nor_anything_of_another_user(made, events, mode, length):
    batches = made(mode=mode, length=length, batch_size=len(events))
    met = 0
    for epoch in range(5):
        found = histories_of(batches, epoch)
        assert len(found) == len(events)
        for place, items in found.items():
            assert events.item[place] not in items
            assert len(set(items)) == len(items) <= length
            assert set(items) <= others(events, place)
            met += len(items)
    assert met > len(events)


def test_a_long_set_history_holds_everything_else(made, events):
    found = histories_of(made(batch_size=len(events)), 0)
    assert {place: set(items) for place, items in found.items()} == {p: others(events, p) for p in range(len(events))}


def test_a_short_set_history_is_a_sample_that_covers_everything_over_the_epochs(made, events):
    batches = made(length=3, batch_size=len(events))
    epochs = [histories_of(batches, epoch) for epoch in range(80)]
    for place in range(len(events)):
        sizes = {len(epoch[place]) for epoch in epochs}
        # A run of three items loses one when the target is among them.
        assert sizes <= {min(3, len(others(events, place))), 2}
        assert set().union(*(epoch[place] for epoch in epochs)) == others(events, place)


def test_a_set_history_prefers_no_item(made, events):
    """Each other item of a user is in a sample equally often, whatever its time or its row."""
    train = events.take(events.user == 0)
    batches = made(train, length=3, batch_size=len(train))
    met = [histories_of(batches, epoch)[0] for epoch in range(600)]
    count = Counter(item for items in met for item in items)
    # Each item is in a run of 3 of n places with chance 3 / n: a binomial count, within 5 standard deviations.
    chance = 3 / len(train)
    spread = 5 * math.sqrt(600 * chance * (1 - chance))
    assert set(count) == others(train, 0)
    assert all(abs(times - 600 * chance) < spread for times in count.values()), count


def test_a_set_history_differs_within_an_epoch(made, events):
    """Events of one user do not all read the same run of items."""
    own = np.flatnonzero(events.user == 0)
    found = histories_of(made(length=2, batch_size=len(events)), 0)
    assert len(own) >= 8
    assert len({tuple(found[place]) for place in own}) > len(own) / 2


def test_any_items_can_meet_in_a_set_history(made, events):
    """Shelves are shuffled anew each epoch; in the order of time only neighbours would ever meet."""
    train = events.take(events.user == 0)
    batches = made(train, length=2, batch_size=len(train))
    met = {frozenset(items) for epoch in range(150) for items in histories_of(batches, epoch).values()}
    everyone = set(train.item.tolist())
    assert met >= {frozenset({one, other}) for one in everyone for other in everyone if one != other}


@pytest.mark.parametrize("length", [1, 3, 50])
def test_before_holds_the_most_recent_items_of_strictly_before(made, events, length):
    """Equal to a loop over all events; the data holds many events of a user in one second."""
    ties = Counter(zip(events.user.tolist(), events.time.tolist(), strict=True))
    assert sum(times > 1 for times in ties.values()) > 20
    found = histories_of(made(mode="before", length=length, batch_size=len(events)), 0)
    expected = {place: earlier(events, place, length) for place in range(len(events))}
    assert {place: set(items) for place, items in found.items()} == expected
    assert max(len(items) for items in found.values()) == min(length, max(map(len, expected.values())))


def test_before_by_hand(made, events):
    # user 0: item 4 at second 1, items 2 and 6 at second 5, item 1 at second 9; user 1: item 2 at second 1
    train = Interactions(
        np.array([0, 0, 0, 0, 1]), np.array([4, 2, 6, 1, 2]), events.n_users, events.n_items, np.array([1, 5, 5, 9, 1])
    )
    found = histories_of(made(train, mode="before", length=2, batch_size=5), 0)
    assert {place: sorted(items) for place, items in found.items()} == {0: [], 1: [4], 2: [4], 3: [2, 6], 4: []}


def test_ages_by_hand(made, events):
    """User 0 met items 4, 2, 6, 1 in this order: before item 1 came 6 (age 0), 2 (age 1), 4 (age 2)."""
    train = Interactions(np.array([0, 0, 0, 0]), np.array([4, 2, 6, 1]), events.n_users, events.n_items, np.arange(4))
    batches = made(train, mode="before", batch_size=4)
    (batch,) = batches.epoch(0)
    ages = {place: [] for place in range(4)}
    history = batch.user["history"]
    for owner, code, age in zip(history.owners.tolist(), history.values.tolist(), history.ages.tolist(), strict=True):
        place = train.item.tolist().index(batch.items[owner])
        ages[place].append((int(np.flatnonzero(batches.features.item_codes == code)[0]), age))
    assert ages == {0: [], 1: [(4, 0)], 2: [(2, 0), (4, 1)], 3: [(6, 0), (2, 1), (4, 2)]}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_ages_in_training_are_those_of_a_question(made, events, dropout):
    """Asked with the very events that came before, features say the same of each item; what is dropped ages nobody."""
    batches = made(mode="before", length=4, dropout=dropout, batch_size=16)
    earlier_events = [
        np.flatnonzero((events.user == user) & (events.time < time))
        for user, time in zip(events.user, events.time, strict=True)
    ]
    place = {pair: n for n, pair in enumerate(zip(events.user.tolist(), events.item.tolist(), strict=True))}
    seen = 0
    for batch in batches.epoch(0):
        history, users = batch.user["history"], users_of(batches, batch)
        for row, (user, item) in enumerate(zip(users, batch.items.tolist(), strict=True)):
            asked = batches.features.history(Ragged.of([events.item[earlier_events[place[int(user), item]]]]))
            mine = history.owners == row
            trained = set(zip(history.values[mine].tolist(), history.ages[mine].tolist(), strict=True))
            expected = set(zip(asked.values.tolist(), asked.ages.tolist(), strict=True))
            assert trained <= expected and (dropout or trained == expected)
            seen += len(trained)
    assert seen > 50


def test_a_set_has_no_ages(made):
    assert next(made(mode="set").epoch(0)).user["history"].ages is None


@pytest.mark.parametrize("mode", ["set", "before"])
def test_one_event_means_an_empty_history(made, events, mode):
    found = histories_of(made(mode=mode, batch_size=len(events)), 0)
    (loner,) = np.flatnonzero(np.bincount(events.user) == 1)
    (place,) = np.flatnonzero(events.user == loner)
    assert found[int(place)] == []


@pytest.mark.parametrize("mode", ["set", "before"])
@pytest.mark.parametrize("dropout", [0.2, 0.5])
def test_dropout_leaves_its_share_out(made, events, mode, dropout):
    def size(dropout):
        batches = made(mode=mode, dropout=dropout, batch_size=len(events))
        return sum(len(batch.user["history"].values) for epoch in range(10) for batch in batches.epoch(epoch))

    whole = size(0.0)
    spread = 5 * math.sqrt(dropout * (1 - dropout) / whole)
    assert 1 - size(dropout) / whole == pytest.approx(dropout, abs=spread)


def test_dropout_differs_between_batches_and_epochs(made, events):
    batches = made(dropout=0.5, batch_size=len(events))
    one, other = (histories_of(batches, epoch) for epoch in range(2))
    assert {p: set(items) for p, items in one.items()} != {p: set(items) for p, items in other.items()}


# --- Known positives --------------------------------------------------------------------------------------------------


def test_known_positives_are_exactly_the_train_items_of_each_rows_user(made, events):
    batches = made()
    seen = {u: set(events.item[events.user == u].tolist()) for u in range(events.n_users)}
    for batch in batches.epoch(1):
        pairs = list(zip(batch.known_row.tolist(), batch.known_item.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        found = {row: {item for r, item in pairs if r == row} for row in range(len(batch))}
        assert found == {row: seen[u] for row, u in enumerate(users_of(batches, batch))}
        assert all(item in found[row] for row, item in enumerate(batch.items.tolist()))


def test_known_positives_can_be_left_out(made):
    for batch in made(known_positives=False).epoch(0):
        assert len(batch.known_row) == len(batch.known_item) == 0


# --- What the towers read ---------------------------------------------------------------------------------------------


def test_a_batch_carries_the_features_that_are_asked_for(events, catalogue, people):
    history = HistorySettings(mode="set")
    features = fit_features(events, catalogue, people, history, "random")
    batches = Batches(
        events, features, ("categories", "id"), ("categories", "id"), batch_size=8, history=history, seed=0
    )
    batch = next(batches.epoch(0))
    users = np.array(users_of(batches, batch))
    assert (set(batch.user), set(batch.item)) == ({"categories", "id"}, {"categories", "id"})
    assert batch.item["id"].values.tolist() == features.item_codes[batch.items].tolist()
    taken = features.item_categories.take(batch.items.numpy())
    assert batch.item["categories"].values.tolist() == taken.values.tolist()
    assert batch.item["categories"].offsets.tolist() == taken.offsets[:-1].tolist()
    assert batch.user["categories"].values.tolist() == features.user_categories.take(users).values.tolist()


def test_events_need_not_stand_in_the_order_of_users(made, events):
    """With `set` histories any order will do; with times inside a user `before` needs theirs."""
    shuffled = events.take(np.random.default_rng(0).permutation(len(events)))
    for mode, order in (("set", shuffled), ("before", by_time(events))):
        batches = made(order, mode=mode, batch_size=len(events))
        expected = others if mode == "set" else (lambda train, place: earlier(train, place, 50))
        for place, items in histories_of(batches, 0).items():
            assert set(items) == expected(order, place)


def by_time(events):
    return events.take(np.lexsort((events.item, events.user, events.time)))


def test_events_without_times_are_read_as_a_set(made, events):
    found = histories_of(made(replace(events, time=None), batch_size=len(events)), 0)
    assert all(set(items) == others(events, place) for place, items in found.items())
