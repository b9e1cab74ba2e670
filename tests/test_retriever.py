"""Towers + features + index = one `Recommender`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.oracles.naive_ranking import naive_products, naive_top_k
from twotower_lib.errors import SettingError, UnknownIdError
from twotower_lib.features import HistorySettings, fit_features
from twotower_lib.index import FaissIndex
from twotower_lib.ranking import Queries, Ragged
from twotower_lib.retriever import Retriever, exact_retriever
from twotower_lib.seeding import seeded
from twotower_lib.towers import HeadSettings, TowerSettings, TwoTower, embed_catalogue, embed_queries

N_ITEMS = 30
WARM = np.arange(29)
"""All items but the last one, which nobody met."""


@pytest.fixture
def make(events, catalogue, people):
    """A retriever with these settings; its biases are large enough to decide every order."""
    features = fit_features(events, catalogue, people, HistorySettings(mode="set"), "random")

    def made(**settings):
        seeded(0)
        towers = TwoTower(features, TowerSettings(**{"dim": 8, **settings}))
        if towers.bias is not None:
            torch.nn.init.normal_(towers.bias.weight[1:], std=200)
        return exact_retriever(towers.eval(), features)

    return made


@pytest.fixture
def queries(events):
    return Queries(np.arange(20), Ragged.grouped(events.user, events.item, events.n_users).slice(0, 20))


def vectors_of(retriever):
    return embed_catalogue(retriever.towers, retriever.features)


def test_it_says_what_its_index_is(make):
    retriever = make()
    assert (retriever.n_items, retriever.is_exact) == (N_ITEMS, True)
    approximate = Retriever(retriever.towers, retriever.features, FaissIndex(vectors_of(retriever)[:7]))
    approximate.index.is_exact = False
    assert (approximate.n_items, approximate.is_exact) == (7, False)


@pytest.mark.parametrize("settings", [{}, {"user": ("id",)}, {"item_bias": False, "normalise": False}], ids=str)
def test_recommends_the_largest_inner_products_without_the_excluded(make, queries, settings):
    retriever = make(**settings)
    asked = embed_queries(retriever.towers, retriever.features, queries)
    items, scores = naive_top_k(
        naive_products(asked, vectors_of(retriever)), 40, [queries.history[row] for row in range(20)]
    )
    answer = retriever.recommend(queries, 40, queries.history)
    np.testing.assert_array_equal(answer.items, items)
    np.testing.assert_allclose(answer.scores, scores, rtol=1e-5)


def test_the_index_changes_nothing_when_it_is_exact(make, queries):
    retriever = make()
    other = Retriever(retriever.towers, retriever.features, FaissIndex(vectors_of(retriever)))
    one, two = retriever.recommend(queries, 9, queries.history), other.recommend(queries, 9, queries.history)
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.scores, two.scores)


def test_similar_leaves_out_biases_and_the_item_itself(make):
    retriever = make()
    unbiased = vectors_of(retriever)[:, :-1]
    expected, _ = naive_top_k(naive_products(unbiased[WARM], unbiased), N_ITEMS, [[item] for item in WARM])
    np.testing.assert_array_equal(retriever.similar(WARM, N_ITEMS).items, expected)


def test_similar_items_do_not_depend_on_any_bias(make):
    retriever = make()
    before = retriever.similar(WARM, 5)
    torch.nn.init.zeros_(retriever.towers.bias.weight)
    after = exact_retriever(retriever.towers, retriever.features).similar(WARM, 5)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_allclose(before.scores, after.scores, atol=1e-6)


def test_recommendations_do_depend_on_the_bias(make, queries):
    """Otherwise the two tests above would say nothing."""
    retriever = make()
    best = int(np.argmax(vectors_of(retriever)[:, -1]))
    np.testing.assert_array_equal(retriever.recommend(queries, 1).items, np.full((20, 1), best))


def test_similar_without_a_bias(make):
    retriever = make(item_bias=False)
    vectors = vectors_of(retriever)
    expected, _ = naive_top_k(naive_products(vectors, vectors)[[3, 11]], 6, [[3], [11]])
    np.testing.assert_array_equal(retriever.similar(np.array([3, 11]), 6).items, expected)


def test_similarity_of_normalised_items_is_a_cosine(make):
    scores = make().similar(np.arange(N_ITEMS - 1), N_ITEMS - 2).scores
    assert scores.max() <= 1 + 1e-6 and scores.min() >= -1 - 1e-6


def test_asking_changes_no_towers(make, queries):
    retriever = make()
    retriever.towers.train()
    before = {name: value.clone() for name, value in retriever.towers.state_dict().items()}
    retriever.recommend(queries, 3), retriever.similar(np.array([0]), 3)
    assert retriever.towers.training
    assert all(torch.equal(before[name], value) for name, value in retriever.towers.state_dict().items())


def test_an_item_that_training_never_met_has_nothing_similar(make):
    """Item 29 is cold, and its tower reads ids only."""
    with pytest.raises(UnknownIdError, match="an item of which training knew nothing"):
        make().similar(np.array([3, 29]), 5)


# Where a score comes from --------------------------------------------------------------------------------------------

SUMS = {
    "history": {},
    "no head": {"user_head": HeadSettings(depth=0)},
    "without a bias": {"item_bias": False},
    "not normalised": {"normalise": False},
    "tied": {"tied": True},
    "with ids and categories": {"user": ("id", "history", "categories"), "item": ("categories",)},
}


def perturbed(retriever):
    """A head that is not the identity, so that leaving it out is seen."""
    for layer in retriever.towers.user.head:
        torch.nn.init.normal_(layer.weight)
    return retriever


@pytest.mark.parametrize("settings", SUMS.values(), ids=SUMS.keys())
def test_contributions_add_up_to_the_score(make, queries, settings):
    retriever = perturbed(make(**settings))
    for row in range(len(queries)):
        query = queries.slice(row, row + 1)
        answer = retriever.recommend(query, 12, query.history)
        parts = retriever.contributions(query, answer.items[0])
        largest = np.abs(answer.scores).max()
        np.testing.assert_allclose(parts.scores, answer.scores[0], rtol=0, atol=1e-6 * max(1, largest))
        np.testing.assert_array_equal(parts.history, query.history[0])


def test_a_contribution_is_the_score_of_its_item_alone(make, queries):
    """Not normalised, a mean over n items scores 1/n of what each of them scores alone."""
    retriever, query = perturbed(make(normalise=False, item_bias=False)), queries.slice(4, 5)
    parts = retriever.contributions(query, WARM)
    alone = Queries(np.full(len(query.history.values), -1), Ragged.of([[item] for item in query.history[0]]))
    vectors = embed_queries(retriever.towers, retriever.features, alone).astype(np.float64)
    expected = vectors_of(retriever)[WARM].astype(np.float64) @ vectors.T / len(alone)
    np.testing.assert_allclose(parts.of_history, expected, atol=1e-6)


def test_normalised_contributions_are_those_divided_by_the_length(make, queries):
    query = queries.slice(4, 5)
    one, other = (perturbed(make(normalise=which, item_bias=False)) for which in (False, True))
    length = np.linalg.norm(embed_queries(one.towers, one.features, query))
    items = vectors_of(one)[WARM] / np.linalg.norm(vectors_of(one)[WARM], axis=1, keepdims=True)
    other.towers.load_state_dict(one.towers.state_dict())
    np.testing.assert_allclose(vectors_of(other)[WARM], items, atol=1e-6)
    divided = (
        one.contributions(query, WARM).of_history / length / np.linalg.norm(vectors_of(one)[WARM], axis=1)[:, None]
    )
    np.testing.assert_allclose(other.contributions(query, WARM).of_history, divided, atol=1e-6)


def test_the_bias_has_its_own_part(make, queries):
    retriever = make()
    parts = retriever.contributions(queries.slice(0, 1), WARM)
    np.testing.assert_allclose(parts.of_bias, vectors_of(retriever)[WARM, -1])
    np.testing.assert_array_equal(parts.of_rest, 0)


def test_only_what_is_read_contributes(events, catalogue, people):
    """Of (5, 29, 3, 5, 1) the tower reads the last three; item 29 is cold and is left out."""
    features = fit_features(events, catalogue, people, HistorySettings(mode="before", length=4), "last")
    seeded(0)
    retriever = exact_retriever(TwoTower(features, TowerSettings(dim=8)).eval(), features)
    query = Queries.of_history([5, 29, 3, 5, 1])
    parts = retriever.contributions(query, WARM)
    assert parts.history.tolist() == [3, 5, 1]
    expected = vectors_of(retriever)[WARM] @ embed_queries(retriever.towers, features, query)[0]
    np.testing.assert_allclose(parts.scores, expected, atol=1e-6)


def test_a_person_without_a_history_has_the_bias_alone(make):
    parts = make().contributions(Queries.of_history([]), WARM)
    assert parts.of_history.shape == (29, 0)
    np.testing.assert_array_equal(parts.scores, parts.of_bias)


@pytest.mark.parametrize("settings", [{"user": ("id",)}, {"user_head": HeadSettings(depth=2)}], ids=str)
def test_an_embedding_that_is_no_sum_has_no_contributions(make, queries, settings):
    with pytest.raises(SettingError, match="only then is the embedding a sum over the history"):
        make(**settings).contributions(queries.slice(0, 1), WARM)
