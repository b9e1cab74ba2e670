"""Each baseline against arithmetic by hand, a naive loop, or the equations it claims to solve."""

import numpy as np
import pytest
import torch

from twotower_lib import baselines
from twotower_lib.baselines import (
    BASELINES,
    EASE,
    BaselineSettings,
    EASESettings,
    IALSSettings,
    ItemKNNSettings,
    PopularitySettings,
    RandomSettings,
    fit_baseline,
    fit_ease,
    fit_ials,
    fit_item_knn,
    fit_popularity,
    fit_random,
    history_matrix,
)
from twotower_lib.data import Interactions
from twotower_lib.errors import SettingError, ShapeError
from twotower_lib.ranking import NOTHING, Queries, Ragged

N_USERS, N_ITEMS = 25, 12


def random_train(seed=0, share=0.3):
    """Random interactions; item 3 was met by nobody, user 5 met nothing, items 7 and 8 by the same users."""
    board = np.random.default_rng(seed).random((N_USERS, N_ITEMS)) < share
    board[:, 3] = False
    board[5] = False
    board[:, 8] = board[:, 7]
    user, item = np.nonzero(board)
    return Interactions(user, item, N_USERS, N_ITEMS), board.astype(float)


TRAIN, BOARD = random_train()
QUERIES = Queries(np.arange(N_USERS), Ragged.grouped(TRAIN.user, TRAIN.item, N_USERS))


def all_scores(recommender, queries=QUERIES):
    """The score of every item for every query, read from full lists; shape (queries, items)."""
    answer = recommender.recommend(queries, N_ITEMS)
    scores = np.full(answer.scores.shape, np.nan)
    np.put_along_axis(scores, answer.items, answer.scores, axis=1)
    return scores


# --- what all have in common ------------------------------------------------------------------------------------------


def test_the_names_of_the_baselines():
    assert list(BASELINES) == ["random", "popularity", "item-knn", "ease", "ials"]


def test_every_function_that_fits_is_joined():
    fits = {name for name in vars(baselines) if name.startswith("fit_")} - {"fit_baseline"}
    assert fits == {f"fit_{name.replace('-', '_')}" for name in BASELINES}


def test_an_unknown_baseline():
    with pytest.raises(SettingError, match=r"no baseline is called item_knn\n(.*\n)*.*did you mean item-knn"):
        fit_baseline("item_knn", TRAIN, BaselineSettings())


@pytest.mark.parametrize("name", BASELINES)
def test_a_history_is_a_set(name):
    recommender = fit_baseline(name, TRAIN, BaselineSettings())
    one = all_scores(recommender, Queries.of_history([1, 4, 7]))
    other = all_scores(recommender, Queries.of_history([7, 4, 4, 1, 7, 7]))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("row", [N_ITEMS, NOTHING])
def test_refuses_a_history_outside_the_catalogue(name, row):
    recommender = fit_baseline(name, TRAIN, BaselineSettings())
    with pytest.raises(ShapeError, match=r"histories with rows from .*\nneeded: item rows from 0 to 11"):
        recommender.recommend(Queries.of_history([row]), 1)


@pytest.mark.parametrize("name", ["item-knn", "ease", "ials"])
def test_an_empty_history_gives_every_item_0(name):
    recommender = fit_baseline(name, TRAIN, BaselineSettings())
    answer = recommender.recommend(Queries.of_history([]), 4)
    np.testing.assert_array_equal(answer.items, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(answer.scores, [[0, 0, 0, 0]])


def test_history_matrix_leaves_the_queries_as_they_were():
    queries = Queries.of_history([7, 4, 4, 1])
    np.testing.assert_array_equal(history_matrix(queries, 9).toarray(), [[0, 1, 0, 0, 1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(queries.history.values, [7, 4, 4, 1])


@pytest.mark.parametrize(
    ("settings", "wrong", "text"),
    [
        (RandomSettings, {"seed": -1}, "seed = -1\nneeded: 0 or larger"),
        (ItemKNNSettings, {"neighbours": 0}, "neighbours = 0\nneeded: 1 or more"),
        (ItemKNNSettings, {"shrink": -1.0}, "shrink = -1.0\nneeded: 0 or larger"),
        (EASESettings, {"regularisation": 0.0}, "regularisation = 0.0\nneeded: above 0"),
        (EASESettings, {"regularisation": float("nan")}, "regularisation = nan\nneeded: above 0"),
        (IALSSettings, {"factors": 0}, "factors = 0\nneeded: 1 or more"),
        (IALSSettings, {"alpha0": 0.0}, "alpha0 = 0.0\nneeded: above 0"),
        (IALSSettings, {"regularisation": 0.0}, "regularisation = 0.0\nneeded: above 0"),
        (IALSSettings, {"nu": -0.5}, "nu = -0.5\nneeded: 0 or larger"),
        (IALSSettings, {"deviation": 0.0}, "deviation = 0.0\nneeded: above 0"),
        (IALSSettings, {"epochs": 0}, "epochs = 0\nneeded: 1 or more"),
        (IALSSettings, {"seed": -1}, "seed = -1\nneeded: 0 or larger"),
    ],
)
def test_settings_out_of_range(settings, wrong, text):
    with pytest.raises(SettingError) as caught:
        settings(**wrong)
    assert str(caught.value) == text


# --- random -----------------------------------------------------------------------------------------------------------


def test_random_scores_are_uniform():
    """Over 2,000 different histories each of the 12 items stands first in a twelfth of the lists, within 5 sigma."""
    histories = Ragged.of([[i % 12, (i // 12) % 12, (i // 144) % 12, (i // 1728) % 12] for i in range(12**4)][::10])
    queries = Queries(np.full(len(histories), NOTHING), histories)
    distinct = len({tuple(sorted(set(histories[i]))) for i in range(len(histories))})
    first = fit_random(TRAIN, RandomSettings()).recommend(queries, 1)
    scores = np.unique(first.scores)
    assert len(scores) == distinct
    assert scores.min() > 0 and scores.max() < 1
    # The largest of 12 uniform numbers has mean 12/13 and standard deviation .0712.
    assert abs(scores.mean() - 12 / 13) < 5 * 0.0712 / distinct**0.5
    counts = np.bincount(first.items[np.unique(first.scores, return_index=True)[1], 0], minlength=12)
    assert (abs(counts - distinct / 12) < 5 * (distinct * (1 / 12) * (11 / 12)) ** 0.5).all()


def test_random_scores_change_with_the_seed_and_the_history():
    one, other = (all_scores(fit_random(TRAIN, RandomSettings(seed=seed))) for seed in (0, 1))
    assert not np.isclose(one, other).all(axis=1).any()
    assert len(np.unique(one, axis=0)) == len({tuple(row) for row in BOARD})


def test_random_scores_of_no_history_are_not_those_of_item_0():
    """A generator seeded with trailing zeros draws as one without them."""
    recommender = fit_random(TRAIN, RandomSettings())
    none, zero = (all_scores(recommender, Queries.of_history(history)) for history in ([], [0]))
    assert not np.isclose(none, zero).any()


# --- popularity -------------------------------------------------------------------------------------------------------


def test_popularity_by_hand():
    """Item 2 was met by three users, items 0 and 3 by one each, item 1 by none."""
    train = Interactions(np.array([0, 0, 1, 2, 2]), np.array([0, 2, 2, 2, 3]), 3, 4)
    answer = fit_popularity(train, PopularitySettings()).recommend(Queries.of_history([0]), 4)
    np.testing.assert_array_equal(answer.items, [[2, 0, 3, 1]])
    np.testing.assert_array_equal(answer.scores, [[3, 1, 1, 0]])


# --- item-knn ---------------------------------------------------------------------------------------------------------


def naive_item_knn(board, neighbours, shrink):
    """Scores of all users and items, by the text of the papers and nothing else."""
    n_items = board.shape[1]
    similarity = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            together = sum(row[i] * row[j] for row in board)
            if i != j and together:
                similarity[i, j] = together / ((board[:, i].sum() * board[:, j].sum()) ** 0.5 + shrink)
    scores = np.zeros(board.shape)
    for j in range(n_items):
        nearest = sorted(range(n_items), key=lambda i: (-np.float32(similarity[i, j]), i))[:neighbours]
        for user, row in enumerate(board):
            scores[user, j] = sum(similarity[i, j] for i in nearest if row[i])
    return scores


@pytest.mark.parametrize("neighbours", [1, 2, 5, 100])
@pytest.mark.parametrize("shrink", [0.0, 3.0])
def test_item_knn_against_a_naive_double_loop(neighbours, shrink):
    recommender = fit_item_knn(TRAIN, ItemKNNSettings(neighbours=neighbours, shrink=shrink))
    np.testing.assert_allclose(all_scores(recommender), naive_item_knn(BOARD, neighbours, shrink), rtol=1e-6)


def test_item_knn_by_hand():
    """Items 0 and 1 share one of (2, 1) users: s = 1 / (sqrt(2) + 1). Items 0 and 2 share one of (2, 2): s = 1 / 3."""
    train = Interactions(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 2, 2]), 3, 3)
    scores = all_scores_of_3(fit_item_knn(train, ItemKNNSettings(shrink=1.0)), [0])
    np.testing.assert_allclose(scores, [0, 1 / (2**0.5 + 1), 1 / 3], rtol=1e-6)


def all_scores_of_3(recommender, history):
    answer = recommender.recommend(Queries.of_history(history), 3)
    return answer.scores[0, answer.items[0].argsort()]


# --- ease -------------------------------------------------------------------------------------------------------------


def constrained_least_squares(board, regularisation):
    """For each column j: ridge regression of column j on all the other columns."""
    n_items = board.shape[1]
    weights = np.zeros((n_items, n_items))
    for j in range(n_items):
        others = [i for i in range(n_items) if i != j]
        left = board[:, others].T @ board[:, others] + regularisation * np.eye(n_items - 1)
        weights[others, j] = np.linalg.solve(left, board[:, others].T @ board[:, j])
    return weights


@pytest.mark.parametrize("regularisation", [0.5, 10.0, 300.0])
def test_ease_against_one_ridge_regression_a_column(regularisation):
    recommender = fit_ease(TRAIN, EASESettings(regularisation=regularisation))
    expected = constrained_least_squares(BOARD, regularisation)
    np.testing.assert_allclose(recommender.weights, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(all_scores(recommender), BOARD @ expected, rtol=1e-5, atol=1e-6)


def test_ease_in_float32_is_close(monkeypatch):
    monkeypatch.setattr(baselines, "EASE_FLOAT64_ITEMS", N_ITEMS - 1)
    weights = fit_ease(TRAIN, EASESettings(regularisation=10.0)).weights
    np.testing.assert_allclose(weights, constrained_least_squares(BOARD, 10.0), rtol=1e-3, atol=1e-5)
    assert weights.dtype == np.float32


def test_ease_adds_rows_of_the_history():
    """Item i of a history adds row i: the matrix is not its own transpose."""
    weights = np.array([[0, 1, 2], [3, 0, 4], [5, 6, 0]], dtype=np.float32)
    np.testing.assert_array_equal(all_scores_of_3(EASE(weights), [0, 2]), [5, 7, 2])


# --- ials -------------------------------------------------------------------------------------------------------------

IALS_SETTINGS = IALSSettings(factors=3, alpha0=0.4, regularisation=0.05, nu=0.7, epochs=2)


def objective(board, users, items, settings):
    """Rendle et al. 2021, eq. 1-4, cell by cell."""
    n_users, n_items = board.shape
    total = 0.0
    for u in range(n_users):
        for i in range(n_items):
            score = sum(users[u, f] * items[i, f] for f in range(users.shape[1]))
            total += board[u, i] * (score - 1) ** 2 + settings.alpha0 * score**2
    for u in range(n_users):
        weight = (board[u].sum() + settings.alpha0 * n_items) ** settings.nu
        total += settings.regularisation * weight * (users[u] @ users[u])
    for i in range(n_items):
        weight = (board[:, i].sum() + settings.alpha0 * n_users) ** settings.nu
        total += settings.regularisation * weight * (items[i] @ items[i])
    return total


def naive_users(board, items, settings):
    """Each user's normal equations, cell by cell."""
    n_factors = items.shape[1]
    users = np.zeros((len(board), n_factors))
    for u, row in enumerate(board):
        left = settings.regularisation * (row.sum() + settings.alpha0 * len(items)) ** settings.nu * np.eye(n_factors)
        right = np.zeros(n_factors)
        for i, item in enumerate(items):
            left += (row[i] + settings.alpha0) * np.outer(item, item)
            right += row[i] * item
        users[u] = np.linalg.solve(left, right)
    return users


def sides(settings):
    """Item embeddings after fitting, and the user embeddings that follow from them."""
    recommender = fit_ials(TRAIN, settings)
    return recommender.embed(QUERIES).numpy(), recommender.vectors.numpy()


def test_ials_embeds_a_query_by_its_normal_equations():
    users, items = sides(IALS_SETTINGS)
    np.testing.assert_allclose(users, naive_users(BOARD, items, IALS_SETTINGS), rtol=1e-9, atol=1e-12)


def test_ials_scores_are_inner_products():
    users, items = sides(IALS_SETTINGS)
    np.testing.assert_allclose(all_scores(fit_ials(TRAIN, IALS_SETTINGS)), users @ items.T, rtol=1e-5, atol=1e-6)


def test_ials_one_epoch_by_naive_normal_equations():
    """From the same start: users, then items; the side solved last is the items'."""
    settings = IALSSettings(factors=3, alpha0=0.4, regularisation=0.05, nu=0.7, epochs=2)
    one = fit_ials(TRAIN, IALSSettings(**{**vars(settings), "epochs": 1})).vectors.numpy()
    expected = naive_users(BOARD.T, naive_users(BOARD, one, settings), settings)
    np.testing.assert_allclose(fit_ials(TRAIN, settings).vectors.numpy(), expected, rtol=1e-8, atol=1e-12)


def test_ials_objective_falls_with_every_epoch():
    values = []
    for epochs in range(1, 8):
        settings = IALSSettings(**{**vars(IALS_SETTINGS), "epochs": epochs})
        values.append(objective(BOARD, *sides(settings), settings))
    assert (np.diff(values) < 0).all()


def test_ials_gradient_of_the_side_solved_last_is_0():
    """Central differences of the objective in every number of the user embeddings."""
    users, items = sides(IALS_SETTINGS)
    step = 1e-5
    for place in np.ndindex(users.shape):
        nudge = np.zeros(users.shape)
        nudge[place] = step
        up, down = (objective(BOARD, users + sign * nudge, items, IALS_SETTINGS) for sign in (1, -1))
        assert abs(up - down) / (2 * step) < 1e-6
        assert min(up, down) > objective(BOARD, users, items, IALS_SETTINGS)


def test_ials_starts_small_and_from_the_seed():
    one, same, other = (fit_ials(TRAIN, IALSSettings(epochs=1, seed=seed)).vectors for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.isclose(one, other).all()


@pytest.mark.parametrize("together", [1, 7])
def test_ials_does_not_depend_on_how_many_are_solved_together(monkeypatch, together):
    expected = fit_ials(TRAIN, IALS_SETTINGS).vectors
    monkeypatch.setattr(baselines, "SOLVED_TOGETHER", together)
    torch.testing.assert_close(fit_ials(TRAIN, IALS_SETTINGS).vectors, expected, rtol=1e-12, atol=1e-14)
