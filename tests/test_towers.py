"""Two towers: what leaves them is what an index stores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twotower_lib import towers as towers_module
from twotower_lib.errors import SettingError
from twotower_lib.features import Codes, HistorySettings, fit_features
from twotower_lib.ranking import Queries, Ragged
from twotower_lib.seeding import seeded
from twotower_lib.towers import (
    POOLINGS,
    Head,
    HeadSettings,
    TowerSettings,
    TwoTower,
    embed_catalogue,
    embed_queries,
    embed_rows,
    list_softmax,
    parts,
    pooled,
    query_parts,
)

ALL = ("id", "history", "categories")


@pytest.fixture
def features(events, catalogue, people):
    return fit_features(events, catalogue, people, HistorySettings(mode="set"), "random")


@pytest.fixture
def make(features):
    """Towers of these settings, the same weights every time, with biases that are not all zero."""

    def made(**settings):
        seeded(0)
        towers = TwoTower(features, TowerSettings(**{"dim": 8, **settings}))
        if towers.bias is not None:
            torch.nn.init.normal_(towers.bias.weight[1:])
        return towers

    return made


@pytest.fixture
def queries(events):
    rng = np.random.default_rng(0)
    users = rng.integers(-1, events.n_users, 50)
    return Queries(users, Ragged.of([rng.integers(0, events.n_items - 1, rng.integers(1, 9)) for _ in users]))


def vectors_of(towers, features, queries):
    return embed_queries(towers, features, queries), embed_catalogue(towers, features)


# --- Vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [("id",), ("history",), ("id", "history"), ALL])
@pytest.mark.parametrize("item", [("id",), ("id", "categories")])
def test_embeddings_have_length_one(make, features, queries, user, item):
    users, items = vectors_of(make(user=user, item=item, item_bias=False), features, queries)
    assert users.shape == (50, 8)
    assert items.shape == (features.n_items, 8)
    assert users.dtype == items.dtype == np.float32
    nothing_known = (queries.user < 0) | (features.user_codes[queries.user] == 0)
    lengths = np.linalg.norm(users, axis=1)
    np.testing.assert_allclose(lengths, np.where(nothing_known, 0, 1) if user == ("id",) else 1, atol=1e-6)
    warm = features.item_codes > 0
    np.testing.assert_allclose(np.linalg.norm(items[warm], axis=1), 1, atol=1e-6)


def test_normalisation_can_be_switched_off(make, features, queries):
    with_it, without = (make(normalise=on, item_bias=False) for on in (True, False))
    lengths = np.linalg.norm(embed_queries(without, features, queries), axis=1)
    assert lengths.std() > 0.01
    np.testing.assert_allclose(
        embed_queries(without, features, queries) / lengths[:, None],
        embed_queries(with_it, features, queries),
        atol=1e-6,
    )


@pytest.mark.parametrize("temperature", [0.15, 0.5])
def test_the_item_bias_is_one_more_dimension(make, features, queries, temperature):
    """score = cos + T b, so logits = score / T = cos / T + b."""
    towers = make(temperature=temperature)
    users, items = vectors_of(towers, features, queries)
    assert users.shape[1] == items.shape[1] == 9
    cosine = users[:, :8] @ items[:, :8].T
    assert np.abs(cosine).max() <= 1 + 1e-6
    bias = towers.bias.weight.detach().numpy()[features.item_codes, 0]
    assert np.abs(bias).max() > 1
    np.testing.assert_allclose(users @ items.T, cosine + temperature * bias, atol=1e-6)
    np.testing.assert_allclose(users @ items.T / towers.temperature.item(), cosine / temperature + bias, atol=2e-5)


def test_an_item_without_a_code_has_no_bias_and_no_direction(make, features):
    cold = np.flatnonzero(features.item_codes == 0)
    assert len(cold) > 0
    assert (embed_rows(make(), features, cold) == 0).all()


def test_categories_alone_can_have_a_bias_an_item(make, features):
    """The tower does not read the id, but its bias does."""
    assert TowerSettings(item=("categories",)).item_inputs == ("categories", "id")
    assert TowerSettings(item=("categories",), item_bias=False).item_inputs == ("categories",)
    assert TowerSettings(item=("id", "categories")).item_inputs == ("id", "categories")
    towers = make(item=("categories",))
    assert set(towers.item.tables) == {"categories"}
    items = embed_catalogue(towers, features)
    # items 1 and 5 are of no category and differ by their bias alone
    np.testing.assert_array_equal(items[[1, 5], :8], 0)
    assert items[1, 8] != items[5, 8]


def test_biases_start_at_zero(features):
    assert (TwoTower(features, TowerSettings(dim=8)).bias.weight == 0).all()


# --- The user's vector ------------------------------------------------------------------------------------------------


def test_a_user_starts_as_the_normalised_mean_of_their_history(make, features):
    """The default head is a linear map that starts as the identity."""
    towers = make()
    table = towers.user.tables["history"].weight.detach().numpy()
    histories = [[0, 1, 2], [3], [4, 4, 5]]
    made = embed_queries(towers, features, Queries(np.array([-1, 0, 1]), Ragged.of(histories)))
    for vector, history in zip(made, histories, strict=True):
        mean = np.mean([table[features.item_codes[item]] for item in history], axis=0)
        np.testing.assert_allclose(vector[:8], mean / np.linalg.norm(mean), atol=1e-6)
        assert vector[8] == 1


@pytest.mark.parametrize("depth", [0, 1])
def test_an_empty_history_is_nothing_and_leaves_popularity(make, features, depth):
    """The zero vector, and the constant that meets the item bias: the items are ranked by their bias."""
    towers = make(user_head=HeadSettings(depth=depth))
    (nobody,) = embed_queries(towers, features, Queries(np.array([-1]), Ragged.of([[]])))
    assert nobody.tolist() == [0] * 8 + [1]
    bias = towers.bias.weight.detach().numpy()[features.item_codes, 0]
    np.testing.assert_allclose(embed_catalogue(towers, features) @ nobody, 0.15 * bias, atol=1e-6)


def test_an_empty_history_has_finite_gradients(make, features):
    towers = make()
    inputs = features.of_users(Queries(np.array([-1, -1]), Ragged.of([[], [0]])), ("history",))
    towers.embed_users(inputs).square().sum().backward()
    assert towers.user.tables["history"].weight.grad.isfinite().all()
    assert towers.user.head[0].weight.grad.isfinite().all()


def test_features_are_summed(make, features):
    towers = make(user=ALL, user_head=HeadSettings(depth=0), normalise=False, item_bias=False)
    (made,) = embed_queries(towers, features, Queries(np.array([1]), Ragged.of([[0, 2]])))
    table = {name: towers.user.tables[name].weight.detach().numpy() for name in ALL}
    # user 1 has one attribute, their town
    (town,) = features.user_categories[1]
    parts = [
        table["id"][features.user_codes[1]],
        (table["history"][features.item_codes[0]] + table["history"][features.item_codes[2]]) / 2,
        table["categories"][town],
    ]
    np.testing.assert_allclose(made, np.sum(parts, axis=0), atol=1e-6)
    assert all(np.abs(part).max() > 0.01 for part in parts)


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_pooled_by_hand():
    table = torch.nn.Embedding.from_pretrained(torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 6.0]]))
    assert pooled(table, Codes(torch.tensor([2, 0, 1]))).tolist() == [[3, 6], [0, 0], [1, 2]]
    lists = Codes(torch.tensor([1, 2, 2, 1, 1, 2]), torch.tensor([0, 2, 2, 3]))  # [1 2], [], [2], [1 1 2]
    torch.testing.assert_close(
        pooled(table, lists), torch.tensor([[2, 4], [0, 0], [3, 6], [5 / 3, 10 / 3]]), rtol=1e-6, atol=0
    )


def test_the_unknown_stays_zero_through_training(make, features):
    towers = make(user=ALL, item=("id", "categories"), learn_temperature=True)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=0.1, weight_decay=0.0)
    everyone = Queries(np.array([-1, 0, 1, 23]), Ragged.of([[0], [1], [29], []]))
    for _ in range(3):
        loss = -(
            towers.embed_users(features.of_users(everyone, ALL))
            @ towers.embed_items(features.of_items(np.array([0, 1, 29]), ("id", "categories"))).T
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tables = [*towers.user.tables.values(), *towers.item.tables.values(), towers.bias]
    assert len(tables) == 6
    for table in tables:
        assert (table.weight[0] == 0).all()
        assert (table.weight[1:] != 0).any()


def test_tied_tables_are_one_memory_and_untied_ones_two(make):
    tied, untied = make(tied=True), make()
    assert tied.user.tables["history"].weight is tied.item.tables["id"].weight
    assert untied.user.tables["history"].weight.data_ptr() != untied.item.tables["id"].weight.data_ptr()
    size = untied.item.tables["id"].weight.numel()
    count = [sum(p.numel() for p in towers.parameters()) for towers in (untied, tied)]
    assert count[0] - count[1] == size


def test_tables_start_with_their_scale(features):
    seeded(0)
    made = TwoTower(features, TowerSettings(dim=512, init_scale=0.6))
    weight = made.item.tables["id"].weight[1:]
    # N(0, (.6 / sqrt(512))^2): a vector is about .6 long
    assert weight.std().item() == pytest.approx(0.6 / math.sqrt(512), rel=0.03)
    assert weight.norm(dim=1).mean().item() == pytest.approx(0.6, rel=0.03)


def test_equal_seeds_give_equal_weights(features):
    def weights(seed):
        seeded(seed)
        return TwoTower(features, TowerSettings(dim=8)).state_dict()

    one, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["item.tables.id.weight"], other["item.tables.id.weight"])


# --- Pooling ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ordered(events, catalogue, people):
    """Features that read histories in their order."""
    return fit_features(events, catalogue, people, HistorySettings(mode="before", length=6), "last")


@pytest.fixture
def pooling(ordered):
    """Towers of these settings over ordered histories, whose attention has learned something."""

    def made(**settings):
        seeded(0)
        towers = TwoTower(ordered, TowerSettings(**{"dim": 8, **settings}))
        if settings.get("pooling") == "attention":
            torch.nn.init.normal_(towers.user.pooling.query, std=3.0)
        return towers

    return made


def weights_by_loops(towers, items, features):
    """For each item of one history, oldest first, its weight before the division; unknown items have none."""
    table = towers.user.tables["history"].weight.tolist()
    weights = []
    for place, item in enumerate(items):
        code = features.item_codes[item]
        age = len(items) - 1 - place
        if towers.settings.pooling == "recency":
            weight = 0.5 ** (age / math.exp(towers.user.pooling.log_half_life.item()))
        elif towers.settings.pooling == "attention":
            weight = math.exp(sum(q * x for q, x in zip(towers.user.pooling.query.tolist(), table[code], strict=True)))
        else:
            weight = 1.0
        weights.append(weight if code else 0.0)
    return weights


HISTORIES = [[1], [], [0, 1, 2, 3], [7, 29, 3], [29], [4, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1]]
"""With the item 29, which train does not know; the last one is longer than what is read."""


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_equals_the_naive_loop(pooling, ordered, name):
    towers = pooling(pooling=name, half_life=2.0, user_head=HeadSettings(depth=0), normalise=False, item_bias=False)
    made = embed_queries(towers, ordered, Queries(np.full(len(HISTORIES), -1), Ragged.of(HISTORIES)))
    table = towers.user.tables["history"].weight.detach().double().numpy()
    for vector, history in zip(made, HISTORIES, strict=True):
        read, expected = history[-6:], np.zeros(8)
        weights = weights_by_loops(towers, read, ordered)
        for item, weight in zip(read, weights, strict=True):
            if weight:
                expected += weight / sum(weights) * table[ordered.item_codes[item]]
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_recency_by_hand(pooling, ordered):
    """Half-life 1: the newest of three items weighs 4 / 7, then 2 / 7, then 1 / 7."""
    towers = pooling(pooling="recency", half_life=1.0)
    codes = ordered.history(Ragged.of([[3, 1, 2], []]))
    assert codes.ages.tolist() == [2, 1, 0]
    torch.testing.assert_close(towers.user.shares(codes), torch.tensor([1 / 7, 2 / 7, 4 / 7]))


def test_an_unknown_item_takes_time_but_no_weight(pooling, ordered):
    """The middle one of three is unknown: the oldest is still two events old, 1 / 4 against 1."""
    codes = ordered.history(Ragged.of([[3, 29, 2]]))
    torch.testing.assert_close(
        pooling(pooling="recency", half_life=1.0).user.shares(codes), torch.tensor([1 / 5, 4 / 5])
    )


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_under_a_mask_is_the_same_as_lists_without_padding(pooling, ordered, name):
    """The other way to write it: a rectangle of codes, and minus infinity where a list has ended."""
    towers = pooling(pooling=name, half_life=2.0)
    codes = ordered.history(Ragged.of(HISTORIES))
    logits = towers.user.pooling(towers.user.tables["history"], codes)
    filled, values = torch.full((len(HISTORIES), 6), -torch.inf), torch.zeros(len(HISTORIES), 6, dtype=torch.int64)
    for row in range(len(HISTORIES)):
        mine = codes.owners == row
        filled[row, : mine.sum()], values[row, : mine.sum()] = logits[mine], codes.values[mine]
    weights = torch.softmax(filled, dim=1).nan_to_num(0.0)
    expected = (weights[:, :, None] * towers.user.tables["history"].weight[values]).sum(1)
    made = pooled(towers.user.tables["history"], codes, towers.user.shares(codes))
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_history_is_pooled_alike_in_any_company(pooling, ordered, name):
    """Not normalised, which would hide a common factor."""
    towers = pooling(pooling=name, half_life=2.0, normalise=False)
    users = np.full(len(HISTORIES), -1)
    together = embed_queries(towers, ordered, Queries(users, Ragged.of(HISTORIES)))
    for row, history in enumerate(HISTORIES):
        alone = embed_queries(towers, ordered, Queries(users[:1], Ragged.of([history])))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
    assert together[[1, 4]].tolist() == [[0] * 8 + [1]] * 2  # nothing, and nothing known


def test_shares_of_a_list_are_a_softmax_however_large_its_logits():
    lists = Codes(torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2, 2, 3]))
    logits = torch.tensor([1000.0, 1000.0 + math.log(3), -500.0, -2000.0, -2000.0])
    torch.testing.assert_close(
        list_softmax(logits, lists), torch.tensor([0.25, 0.75, 1.0, 0.5, 0.5]), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("name", ["recency", "attention"])
def test_gradients_of_pooling_are_those_of_finite_differences(pooling, ordered, name):
    """Of the learned half-life, or of the query."""
    towers = pooling(pooling=name, half_life=2.0).double()
    inputs = {"history": ordered.history(Ragged.of(HISTORIES))}
    (learned,) = towers.user.pooling.parameters()
    direction = torch.linspace(-1, 1, 9, dtype=torch.float64)

    def value():
        return (towers.embed_users(inputs) @ direction).square().sum()

    value().backward()
    for place in range(learned.numel()):
        with torch.no_grad():
            learned.view(-1)[place] += 1e-6
            above = value().item()
            learned.view(-1)[place] -= 2e-6
            below = value().item()
            learned.view(-1)[place] += 1e-6
        assert learned.grad.view(-1)[place].item() == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-8)
    assert learned.grad.abs().max() > 1e-3


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("user", [("history",), ALL])
@pytest.mark.parametrize("normalise", [True, False])
def test_what_the_items_of_a_history_add_is_the_whole_vector(pooling, ordered, name, user, normalise):
    towers = pooling(pooling=name, half_life=2.0, user=user, normalise=normalise)
    torch.nn.init.normal_(towers.user.head[0].weight)
    for history in HISTORIES:
        query = Queries(np.array([1]), Ragged.of([history]))
        read, shares = query_parts(towers, ordered, query)
        assert read.tolist() == [item for item in history[-6:] if ordered.item_codes[item]]
        assert shares.shape == (len(read) + 1, 8)
        np.testing.assert_allclose(shares.sum(0), embed_queries(towers, ordered, query)[0, :8], atol=1e-6)


def test_what_recency_adds_follows_the_order(pooling, ordered):
    """The same two items the other way round: the newer one adds twice as much, half-life 1."""
    towers = pooling(pooling="recency", half_life=1.0, normalise=False)
    (_, one), (_, other) = (query_parts(towers, ordered, Queries.of_history(rows)) for rows in ([3, 2], [2, 3]))
    np.testing.assert_allclose(one[0], other[1] / 2, atol=1e-6)
    np.testing.assert_allclose(one[1], other[0] * 2, atol=1e-6)


def test_pooling_by_recency_needs_an_order(make):
    with pytest.raises(SettingError) as caught:
        make(pooling="recency")
    assert str(caught.value) == (
        "model.pooling = recency, but the history is read as a set, without an order\n"
        "needed: history.mode = before, which needs events with times"
    )


def test_other_ways_to_pool_start_from_the_weights_of_the_mean(ordered):
    """And attention, whose query is zero, from the very same vectors."""
    towers = {}
    for name in POOLINGS:
        seeded(0)
        towers[name] = TwoTower(ordered, TowerSettings(dim=8, pooling=name))
    mean = towers["mean"].state_dict()
    assert not any("pooling" in key for key in mean)
    for other in towers.values():
        assert all(torch.equal(other.state_dict()[key], value) for key, value in mean.items())
    asked = Queries(np.full(len(HISTORIES), -1), Ragged.of(HISTORIES))
    vectors = {name: embed_queries(one, ordered, asked) for name, one in towers.items()}
    np.testing.assert_allclose(vectors["attention"], vectors["mean"], atol=1e-6)
    assert np.abs(vectors["recency"] - vectors["mean"]).max() > 1e-3


# --- Ids that are dropped ---------------------------------------------------------------------------------------------


def test_an_id_is_dropped_as_often_as_set_and_only_in_training(make, features):
    """The user's vector is then that of somebody unknown, the item's that of a new one, without a bias."""
    towers = make(user=("id", "history"), item=("id", "categories"), id_dropout=0.3, normalise=False)
    users = features.of_users(Queries(np.full(2000, 1), Ragged.of([[0, 2]] * 2000)), ("id", "history"))
    items = features.of_items(np.full(2000, 2), ("id", "categories"))
    nobody = features.of_users(Queries(np.array([-1]), Ragged.of([[0, 2]])), ("id", "history"))
    new = {**features.of_items(np.array([2]), ("categories",)), "id": Codes(torch.tensor([0]))}
    torch.manual_seed(0)
    for embed, inputs, unknown in ((towers.embed_users, users, nobody), (towers.embed_items, items, new)):
        known, without = embed({name: one for name, one in inputs.items()}), towers.eval()
        whole, bare = embed(inputs)[0], embed(unknown)[0]
        assert without is towers.train()
        is_bare = torch.isclose(known, bare, atol=1e-6).all(1)
        is_whole = torch.isclose(known, whole, atol=1e-6).all(1)
        assert (is_bare ^ is_whole).all()
        # 2,000 draws: a standard deviation of .01
        assert is_bare.double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert new["id"].values.tolist() == [0] and new["categories"].values.numel() > 0
    assert users["id"].values.tolist() == [2] * 2000  # what came is left as it was


def test_a_side_with_nothing_beside_its_id_keeps_it(make, features):
    towers = make(user=("id", "history"), item=("id",), id_dropout=0.9).train()
    items = features.of_items(np.arange(20), ("id",))
    assert torch.equal(towers.embed_items(items), towers.eval().embed_items(items))


def test_ids_are_kept_where_nothing_is_dropped(make, features, queries):
    """And no number is drawn: what dropout draws after it stays the same."""
    towers = make(user=ALL).train()
    before = torch.get_rng_state()
    towers.embed_users(features.of_users(queries, ALL))
    assert torch.equal(torch.get_rng_state(), before)


# --- Parts ------------------------------------------------------------------------------------------------------------


def test_the_parts_by_hand(ordered, features):
    """29 warm items (one is cold) and code 0 make 30 rows, of 8 numbers of 4 bytes; 24 people and code 0."""
    n_items, n_users = features.item_table_sizes()["id"], features.user_table_sizes()["id"]
    settings = TowerSettings(dim=8, user=("id", "history"), pooling="attention", user_head=HeadSettings(depth=1))
    found = {one.name: one for one in parts(TwoTower(ordered, settings))}
    expected = {
        "item.tables.id.weight": (n_items, 8),
        "user.tables.id.weight": (n_users, 8),
        "user.tables.history.weight": (n_items, 8),
        "user.pooling.query": (8,),
        "user.head.0.weight": (8, 8),
        "bias.weight": (n_items, 1),
        "log_scale": (),
    }
    assert {name: one.shape for name, one in found.items()} == expected
    assert found["item.tables.id.weight"].parameters == n_items * 8
    assert found["log_scale"].parameters == 1
    assert all(one.bytes == 4 * one.parameters for one in found.values())


def test_a_tied_table_is_one_part(make):
    total = {tied: sum(one.parameters for one in parts(make(tied=tied))) for tied in (True, False)}
    (table,) = (one for one in parts(make()) if one.name == "item.tables.id.weight")
    assert total[False] - total[True] == table.parameters


# --- Temperature ------------------------------------------------------------------------------------------------------


def test_the_temperature_starts_as_set(make):
    assert make(temperature=0.07).temperature.item() == pytest.approx(0.07, rel=1e-6)
    assert not make().log_scale.requires_grad
    assert make(learn_temperature=True).log_scale.requires_grad


def test_the_temperature_has_a_lower_bound(make):
    for max_scale in (100.0, 20.0):
        towers = make(learn_temperature=True, max_scale=max_scale)
        with torch.no_grad():
            towers.log_scale.fill_(10.0)
        assert towers.temperature.item() == pytest.approx(1 / max_scale)


def test_a_learned_temperature_moves_both_ways(make):
    for sign, compare in ((1, float.__gt__), (-1, float.__lt__)):
        towers = make(learn_temperature=True)
        optimiser = torch.optim.SGD(towers.parameters(), lr=0.1)
        (sign / towers.temperature).backward()
        optimiser.step()
        assert compare(towers.temperature.item(), 0.15)


def test_a_temperature_beyond_its_bound_can_come_back(make):
    towers = make(learn_temperature=True)
    with torch.no_grad():
        towers.log_scale.fill_(math.log(100.0) + 0.01)  # one step of Adam too far
    optimiser = torch.optim.SGD(towers.parameters(), lr=1.0)
    for _ in range(10):
        optimiser.zero_grad()
        (-towers.temperature).backward()  # a loss that wants a larger temperature
        optimiser.step()
    assert towers.temperature.item() > 0.01


# --- Heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        (HeadSettings(depth=0), []),
        (HeadSettings(depth=1), ["Linear"]),
        (HeadSettings(depth=2, activation="gelu"), ["Linear", "GELU", "Dropout", "Linear"]),
        (
            HeadSettings(depth=3, layer_norm=True),
            ["Linear", "LayerNorm", "ReLU", "Dropout", "Linear", "LayerNorm", "ReLU", "Dropout", "Linear"],
        ),
    ],
)
def test_layers_of_a_head(settings, layers):
    head = Head(8, settings)
    assert [type(layer).__name__ for layer in head] == layers
    assert head(torch.zeros(2, 8)).shape == (2, 8)
    linear = [layer for layer in head if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [*[128] * (settings.depth - 1), 8][: settings.depth]
    assert all(layer.bias is None for layer in linear[-1:])


def test_a_head_of_depth_one_starts_as_the_identity():
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Head(8, HeadSettings(depth=1))(vectors), vectors)
    assert torch.equal(Head(8, HeadSettings(depth=0))(vectors), vectors)


# --- Embedding many ---------------------------------------------------------------------------------------------------


def test_dropout_is_off_while_embedding_and_the_mode_comes_back(make, features, queries):
    towers = make(dropout=0.5, user_head=HeadSettings(depth=2, dropout=0.5))
    quiet = make(dropout=0.0, user_head=HeadSettings(depth=2, dropout=0.0))
    for mode in (True, False):
        towers.train(mode)
        users, items = vectors_of(towers, features, queries)
        assert [module.training for module in towers.modules()] == [mode] * len(list(towers.modules()))
        np.testing.assert_array_equal(users, embed_queries(quiet, features, queries))
        np.testing.assert_array_equal(items, embed_catalogue(quiet, features))


def test_dropout_is_on_in_training(make, features, queries):
    towers = make(dropout=0.5, normalise=False, item_bias=False, user_head=HeadSettings(depth=0)).train()
    inputs = features.of_users(queries, ("history",))
    one, other = towers.embed_users(inputs), towers.embed_users(inputs)
    assert not torch.equal(one, other)
    assert (one == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_blocks_equal_everything_at_once(make, features, queries, monkeypatch):
    towers = make(user=ALL, item=("id", "categories"))
    users, items = vectors_of(towers, features, queries)
    for size in (1, 7, 50):
        monkeypatch.setattr(towers_module, "EMBED_BLOCK", size)
        in_blocks = vectors_of(towers, features, queries)
        np.testing.assert_allclose(in_blocks[0], users, atol=1e-6)
        np.testing.assert_allclose(in_blocks[1], items, atol=1e-6)


def test_rows_are_those_of_the_catalogue(make, features):
    towers = make(item=("id", "categories"))
    rows = np.array([7, 0, 7, 29])
    np.testing.assert_allclose(embed_rows(towers, features, rows), embed_catalogue(towers, features)[rows], atol=1e-6)


def test_embedding_keeps_no_gradients(make, features, queries):
    towers = make()
    vectors_of(towers, features, queries)
    assert all(parameter.grad is None for parameter in towers.parameters())
    towers.embed_users(features.of_users(queries, ("history",))).sum().backward()  # training goes on as before
    assert towers.user.tables["history"].weight.grad is not None


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"user": ("histroy",)},
            "model.user has a feature histroy\nneeded: id, history, categories\nto do: did you mean history?",
        ),
        (
            {"item": ("history",)},
            "model.item has a feature history\nneeded: id, categories\nto do: known: categories, id",
        ),
        ({"user": ()}, "model.user = []\nneeded: one feature or more, each once"),
        ({"item": ("id", "id")}, "model.item = ['id', 'id']\nneeded: one feature or more, each once"),
        ({"dim": 0}, "model.dim = 0\nneeded: 1 or more"),
        ({"temperature": 0.0}, "model.temperature = 0.0\nneeded: at least 1 / max_scale = 0.01"),
        ({"temperature": -1.0}, "model.temperature = -1.0\nneeded: at least 1 / max_scale = 0.01"),
        ({"temperature": 0.009}, "model.temperature = 0.009\nneeded: at least 1 / max_scale = 0.01"),
        ({"temperature": math.nan}, "model.temperature = nan\nneeded: at least 1 / max_scale = 0.01"),
        ({"temperature": 0.1, "max_scale": 5.0}, "model.temperature = 0.1\nneeded: at least 1 / max_scale = 0.2"),
        (
            {"tied": True, "user": ("id",)},
            "model.tied without a history and item ids\nneeded: user: [history, ...], item: [id, ...]",
        ),
        (
            {"tied": True, "item": ("categories",)},
            "model.tied without a history and item ids\nneeded: user: [history, ...], item: [id, ...]",
        ),
        ({"dropout": 1.0}, "model.dropout = 1.0\nneeded: a chance from 0 to below 1"),
        ({"pooling": "men"}, "model.pooling = men\nneeded: mean, recency, attention\nto do: did you mean mean?"),
        (
            {"pooling": "attention", "user": ("id",)},
            "model.pooling = attention without a history\nneeded: user: [history, ...]",
        ),
        (
            {"id_dropout": 1.0, "user": ("id", "history")},
            "model.id_dropout = 1.0\nneeded: a chance from 0 to below 1",
        ),
        (
            {"id_dropout": 0.5},
            "model.id_dropout = 0.5, but no tower reads an id and something beside it\n"
            "needed: user: [id, history], or item: [id, categories]",
        ),
    ],
)
def test_tower_settings_out_of_range(settings, told):
    with pytest.raises(SettingError) as caught:
        TowerSettings(**settings)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"depth": -1}, "a head of depth -1 and width 128\nneeded: depth >= 0 and width >= 1"),
        ({"width": 0}, "a head of depth 0 and width 0\nneeded: depth >= 0 and width >= 1"),
        ({"activation": "relo"}, "activation = relo\nneeded: relu, gelu, tanh\nto do: did you mean relu?"),
        ({"dropout": -0.1}, "dropout of a head = -0.1\nneeded: a chance from 0 to below 1"),
    ],
)
def test_head_settings_out_of_range(settings, told):
    with pytest.raises(SettingError) as caught:
        HeadSettings(**settings)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    "settings", [{"max_scale": 0.0}, {"max_scale": -1.0}, {"init_scale": -1.0}, {"half_life": 0.0}]
)
def test_scales_out_of_range(settings):
    with pytest.raises(SettingError, match=rf"model\.{next(iter(settings))} = "):
        TowerSettings(**settings)


def test_the_coldest_temperature_that_is_allowed():
    assert TowerSettings(temperature=0.01).temperature == 0.01
