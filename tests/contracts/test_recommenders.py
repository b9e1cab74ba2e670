"""What every recommender keeps, on data whose answer is known by construction.

To join: one line in `RECOMMENDERS` (name -> a function from train interactions to a fitted recommender), and one in
`PERSONAL` if it learns from who met what, and so must find the field of the checkerboard that was withheld.
"""

from functools import partial

import numpy as np
import pytest

from tests.oracles.naive_ranking import naive_top_k
from twotower_lib.baselines import BASELINES, BaselineSettings, fit_baseline
from twotower_lib.data import Interactions
from twotower_lib.errors import ShapeError
from twotower_lib.ranking import NOTHING, Queries, Ragged, Recommender

SIZE = 30


RECOMMENDERS = {name: partial(fit_baseline, name, settings=BaselineSettings()) for name in BASELINES}
PERSONAL = ["item-knn", "ease", "ials"]


def checkerboard():
    """Even users met the even items, odd users the odd ones, but no user the item of their own number."""
    board = np.add.outer(np.arange(SIZE), np.arange(SIZE)) % 2 == 0
    np.fill_diagonal(board, False)
    user, item = np.nonzero(board)
    return Interactions(user, item, SIZE, SIZE)


TRAIN = checkerboard()
HISTORY = Ragged.grouped(TRAIN.user, TRAIN.item, SIZE)
EVERYONE = Queries(np.arange(SIZE), HISTORY)


@pytest.fixture(scope="module", params=RECOMMENDERS)
def recommender(request):
    return RECOMMENDERS[request.param](TRAIN)


@pytest.fixture(scope="module")
def score_matrix(recommender):
    """What the recommender thinks of every item, read from its own full lists."""
    full = recommender.recommend(EVERYONE, SIZE)
    scores = np.full((SIZE, SIZE), np.nan)
    np.put_along_axis(scores, full.items, full.scores, axis=1)
    return scores


@pytest.mark.parametrize("name", PERSONAL)
def test_finds_the_withheld_diagonal(name):
    answer = RECOMMENDERS[name](TRAIN).recommend(EVERYONE, 1, HISTORY)
    np.testing.assert_array_equal(answer.items[:, 0], np.arange(SIZE))


def test_keeps_the_contract(recommender):
    assert isinstance(recommender, Recommender)
    assert recommender.n_items == SIZE
    assert recommender.is_exact is True


def test_the_answer_has_its_shape_and_types(recommender):
    answer = recommender.recommend(EVERYONE, 7)
    assert answer.items.shape == answer.scores.shape == (SIZE, 7)
    assert answer.items.dtype == np.int64
    assert answer.scores.dtype == np.float32


def test_ranks_every_item_once(recommender):
    items = recommender.recommend(EVERYONE, SIZE).items
    np.testing.assert_array_equal(np.sort(items, axis=1), np.tile(np.arange(SIZE), (SIZE, 1)))


@pytest.mark.parametrize("k", [1, 2, 14, SIZE - 1, SIZE])
def test_is_exact_ties_by_row(recommender, score_matrix, k):
    answer = recommender.recommend(EVERYONE, k)
    items, scores = naive_top_k(score_matrix, k)
    np.testing.assert_array_equal(answer.items, items)
    np.testing.assert_array_equal(answer.scores, scores)


@pytest.mark.parametrize("k", [1, 5, SIZE])
def test_is_exact_among_what_is_not_excluded(recommender, score_matrix, k):
    answer = recommender.recommend(EVERYONE, k, HISTORY)
    items, scores = naive_top_k(score_matrix, k, HISTORY)
    np.testing.assert_array_equal(answer.items, items)
    np.testing.assert_array_equal(answer.scores, scores)


def test_what_is_not_excluded_may_be_shown(recommender):
    """Seen items are the argument, never looked up inside: without it the full list holds them."""
    items = recommender.recommend(EVERYONE, SIZE).items
    assert all(set(HISTORY[user]) <= set(items[user]) for user in range(SIZE))


def test_excluded_items_never_appear(recommender):
    items = recommender.recommend(EVERYONE, SIZE, HISTORY).items
    assert not any(set(HISTORY[user]) & set(items[user]) for user in range(SIZE))


def test_fills_up_where_fewer_than_k_are_left(recommender):
    all_but_two = Ragged.of([[item for item in range(SIZE) if item not in (4, 9)]])
    answer = recommender.recommend(Queries.of_history([0, 2]), 5, all_but_two)
    assert set(answer.items[0, :2]) == {4, 9}
    np.testing.assert_array_equal(answer.items[0, 2:], [NOTHING] * 3)
    np.testing.assert_array_equal(answer.scores[0, 2:], [-np.inf] * 3)


def test_fills_up_where_everything_is_excluded(recommender):
    answer = recommender.recommend(Queries.of_history([0]), 3, Ragged.of([range(SIZE)]))
    np.testing.assert_array_equal(answer.items, [[NOTHING] * 3])


def test_k_larger_than_the_catalogue(recommender):
    answer = recommender.recommend(Queries.of_history([0]), SIZE + 4)
    assert sorted(answer.items[0, :SIZE]) == list(range(SIZE))
    np.testing.assert_array_equal(answer.items[0, SIZE:], [NOTHING] * 4)


def test_a_batch_answers_as_its_queries_do_one_by_one(recommender):
    batch = recommender.recommend(EVERYONE, SIZE, HISTORY)
    for user in range(SIZE):
        single = recommender.recommend(EVERYONE.slice(user, user + 1), SIZE, HISTORY.slice(user, user + 1))
        np.testing.assert_array_equal(single.items[0], batch.items[user])
        np.testing.assert_array_equal(single.scores[0], batch.scores[user])


def test_a_person_without_an_id_is_an_ordinary_query(recommender):
    known = recommender.recommend(EVERYONE, 5, HISTORY)
    nameless = recommender.recommend(Queries(np.full(SIZE, NOTHING), HISTORY), 5, HISTORY)
    np.testing.assert_array_equal(nameless.items, known.items)
    np.testing.assert_array_equal(nameless.scores, known.scores)


def test_an_empty_history_has_an_answer(recommender):
    answer = recommender.recommend(Queries.of_history([]), 5)
    assert len(set(answer.items[0])) == 5
    assert (answer.items >= 0).all()
    assert np.isfinite(answer.scores).all()


def test_no_queries_no_answers(recommender):
    answer = recommender.recommend(Queries(np.zeros(0, np.int64), Ragged.empty(0)), 5)
    assert answer.items.shape == answer.scores.shape == (0, 5)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_fitting_again_gives_the_same(name):
    one, other = (RECOMMENDERS[name](TRAIN).recommend(EVERYONE, SIZE) for _ in range(2))
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_an_item_that_nobody_met_and_a_user_who_met_nothing(name):
    train = Interactions(TRAIN.user, TRAIN.item, SIZE + 1, SIZE + 1)
    answer = RECOMMENDERS[name](train).recommend(EVERYONE, SIZE + 1)
    assert (answer.items == SIZE).sum() == SIZE
    assert np.isfinite(answer.scores).all()


def test_refuses_a_k_below_1(recommender):
    with pytest.raises(ShapeError, match="k = 0"):
        recommender.recommend(EVERYONE, 0)


def test_refuses_exclusions_that_do_not_fit(recommender):
    with pytest.raises(ShapeError, match="1 lists of exclusions for 30 queries"):
        recommender.recommend(EVERYONE, 1, Ragged.of([[0]]))
    with pytest.raises(ShapeError, match="excluded rows from -1 to 3"):
        recommender.recommend(Queries.of_history([0]), 1, Ragged.of([[3, NOTHING]]))
