"""A filter after the search: what it drops, what it leaves short; and beside one before the search."""

import numpy as np
import pytest

from tests.oracles.naive_ranking import naive_products, naive_top_k
from twotower_lib.errors import ShapeError
from twotower_lib.filters import filter_after, under_filled
from twotower_lib.index import ExactIndex, FaissIndex, IndexSettings
from twotower_lib.ranking import NOTHING, Ragged, Recommendations

LINE = np.array([[5.0], [4], [3], [2], [1]], dtype=np.float32)
"""Five items on a line: the query 1 ranks them by row."""


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


def one_query():
    return np.ones((1, 1), dtype=np.float32)


def filtered(fetched, allowed, k=2, **more):
    return filter_after(ExactIndex(LINE), one_query(), k, np.array(allowed, dtype=bool), fetched=fetched, **more)


@pytest.mark.parametrize(
    ("fetched", "items"),
    [(2, [1, NOTHING]), (3, [1, NOTHING]), (4, [1, 3]), (5, [1, 3])],
)
def test_what_is_left_of_so_many_by_hand(fetched, items):
    """Rows 1, 3 and 4 are allowed; of the best two only row 1 is left, and row 3 is the fourth."""
    answer = filtered(fetched, [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(answer.items, [items])
    np.testing.assert_array_equal(answer.scores, [[4, 2 if items[1] == 3 else -np.inf]])
    assert (answer.items.dtype, answer.scores.dtype) == (np.int64, np.float32)
    assert under_filled(answer) == (items[1] == NOTHING)


def test_what_fills_up_a_list_is_no_item_though_the_last_one_is_allowed():
    """Row -1 would be the last of the catalogue."""
    answer = filtered(5, [1, 0, 0, 0, 1], k=3, exclude=Ragged.of([[1, 2, 4]]))
    np.testing.assert_array_equal(answer.items, [[0, NOTHING, NOTHING]])
    np.testing.assert_array_equal(answer.scores, [[5, -np.inf, -np.inf]])


def test_nothing_allowed_nothing_found():
    assert (filtered(5, [0] * 5).items == NOTHING).all()


def test_lists_with_an_empty_place_are_under_filled():
    items = np.array([[1, 2, 3], [4, 5, NOTHING], [NOTHING] * 3, [7, 8, 9]])
    assert under_filled(Recommendations(items, np.zeros((4, 3), dtype=np.float32))) == 2
    assert under_filled(Recommendations(items[:0], np.zeros((0, 3), dtype=np.float32))) == 0


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_before_and_after_agree_where_everything_is_fetched(share):
    vectors, queries = normal(400, 6), normal(25, 6, seed=1)
    allowed = np.random.default_rng(2).random(400) < share
    exclude = Ragged.of(np.random.default_rng(3).integers(0, 400, (25, 30)))
    items, scores = naive_top_k(np.where(allowed, naive_products(queries, vectors), -np.inf), 8, exclude)
    index = ExactIndex(vectors)
    for answer in (
        filter_after(index, queries, 8, allowed, fetched=400, exclude=exclude),
        index.search(queries, 8, exclude, allowed),
    ):
        np.testing.assert_array_equal(answer.items, items)
        np.testing.assert_allclose(answer.scores, scores, rtol=1e-6)


def test_after_leaves_short_what_before_fills():
    """The allowed tenth are the items that point away from the queries: of the best 40 none is allowed."""
    vectors = normal(2000, 4)
    queries = normal(20, 4, seed=1) / 4 + np.array([2, 0, 0, 0], dtype=np.float32)
    allowed = vectors[:, 0] < np.quantile(vectors[:, 0], 0.1)
    for kind in ("flat", "hnsw", "ivf"):
        index = FaissIndex(vectors, IndexSettings(kind=kind))
        assert under_filled(filter_after(index, queries, 10, allowed, fetched=40)) == 20
        before = index.search(queries, 10, allowed=allowed)
        assert under_filled(before) == 0 and allowed[before.items].all()


@pytest.mark.parametrize(("fetched", "length"), [(1, 5), (2, 4)])
def test_requests_that_are_refused(fetched, length):
    said = rf"{fetched} items fetched for k = 2, and \({length},\) truth values\nneeded: .* each of 5 rows"
    with pytest.raises(ShapeError, match=said):
        filtered(fetched, [1] * length)
