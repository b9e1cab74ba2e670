"""What every index keeps, against a naive sort of products in float64.

To join: one line in `INDEXES` (name -> a function from float32 vectors to an index). What an index that is not exact
must keep as well stands in the tests that take `index_of`; those of the exact order take `exact_index_of`.
"""

from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.oracles.naive_ranking import naive_products, naive_top_k
from twotower_lib.errors import ShapeError
from twotower_lib.index import ExactIndex, FaissIndex, IndexSettings, recall_against_exact
from twotower_lib.ranking import NOTHING, Index, Ragged
from twotower_lib.scann_index import ScannIndex
from twotower_lib.topk import TILE

INDEXES = {
    "exact": ExactIndex,
    "faiss-flat": FaissIndex,
    "faiss-hnsw": partial(FaissIndex, settings=IndexSettings(kind="hnsw", ef_search=32)),
    "faiss-ivf": partial(FaissIndex, settings=IndexSettings(kind="ivf", lists=60, probes=6)),
    "faiss-pq": partial(FaissIndex, settings=IndexSettings(kind="pq")),
    "faiss-ivfpq": partial(FaissIndex, settings=IndexSettings(kind="ivfpq", lists=60, probes=6)),
}
if find_spec("scann"):
    INDEXES["scann"] = ScannIndex
EXACT = ["exact", "faiss-flat"]


@pytest.fixture(params=INDEXES)
def index_of(request):
    return INDEXES[request.param]


@pytest.fixture(params=EXACT)
def exact_index_of(request):
    return INDEXES[request.param]


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


def random_lists(n_lists, length, n_items, seed=0):
    return Ragged.of(np.random.default_rng(seed).integers(0, n_items, (n_lists, length)))


def assert_exact(index, vectors, queries, k, exclude=None):
    items, scores = naive_top_k(naive_products(queries, vectors), k, exclude)
    answer = index.search(queries, k, exclude)
    np.testing.assert_array_equal(answer.items, items)
    np.testing.assert_allclose(answer.scores, scores, rtol=1e-6, atol=1e-6)
    assert answer.items.dtype == np.int64
    assert answer.scores.dtype == np.float32


def clustered(rows, dim, seed, lengths=0.0):
    """Vectors around 40 centres, as those of similar items are; their lengths differ by this much."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((40, dim))
    vectors = centres[generator.integers(40, size=rows)] + 0.7 * generator.standard_normal((rows, dim))
    vectors *= np.exp(lengths * generator.standard_normal((rows, 1)))
    return vectors.astype(np.float32)


def assert_in_order(answer, vectors, queries, exclude=None):
    """Whatever was found has its own product as score, comes in order, once, and is not excluded."""
    products = naive_products(queries, vectors)
    for query, (items, scores) in enumerate(zip(answer.items, answer.scores, strict=True)):
        items = items[items != NOTHING]
        assert items.tolist() == sorted(items, key=lambda item: (-products[query, item], item))
        assert len(set(items)) == len(items)
        np.testing.assert_allclose(scores[: len(items)], products[query, items], rtol=1e-6)
        assert exclude is None or not set(items) & set(exclude[query])


def test_keeps_the_contract(index_of):
    index = index_of(normal(5, 3))
    assert isinstance(index, Index)
    assert index.metric == "inner_product"
    assert index.n_items == 5


@pytest.mark.parametrize("name", INDEXES)
def test_declares_its_exactness(name):
    assert INDEXES[name](normal(5, 3)).is_exact is (name in EXACT)


def test_finds_the_one_item_that_points_the_same_way(index_of):
    answer = index_of(np.eye(20, dtype=np.float32)).search(np.eye(20, dtype=np.float32), 1)
    np.testing.assert_array_equal(answer.items[:, 0], np.arange(20))
    np.testing.assert_array_equal(answer.scores[:, 0], np.ones(20))


def test_measures_the_inner_product_and_not_the_distance(index_of):
    """To the query (1, 0) the nearest item is (1, 0) with product 1; (3, 3) is farther off and has product 3."""
    index = index_of(np.array([[1, 0], [3, 3], [0.9, 0]], dtype=np.float32))
    np.testing.assert_array_equal(index.search(np.array([[1, 0]], dtype=np.float32), 3).items, [[1, 0, 2]])


@pytest.mark.parametrize("lengths", [0.0, 0.2])
@pytest.mark.parametrize("k", [10, 100])
def test_finds_most_of_what_there_is(index_of, lengths, k):
    """By distance, exactly, it would be 2 of 3 at best."""
    vectors, queries = clustered(4000, 16, 1, lengths), clustered(100, 16, 2)
    index, exact = index_of(vectors), ExactIndex(vectors)
    assert_in_order(index.search(queries, k), vectors, queries)
    assert recall_against_exact(index, exact, queries, k) >= (1 if index.is_exact else 0.8)
    by_distance = ((queries[:, None] - vectors) ** 2).sum(2).argsort(1)[:, :k]
    true = exact.search(queries, k).items
    assert np.mean([len(set(one) & set(other)) / k for one, other in zip(by_distance, true, strict=True)]) < 2 / 3


@pytest.mark.parametrize("excluded", [30, 200, 400])
def test_k_items_are_found_though_all_the_best_are_excluded(index_of, excluded):
    """The best are excluded and as many others, but for every third query, which excludes nothing."""
    vectors, queries = clustered(8000, 16, 1), clustered(60, 16, 2)
    index, exact = index_of(vectors), ExactIndex(vectors)
    best, others = exact.search(queries, excluded).items, random_lists(60, excluded, 8000)
    exclude = Ragged.of([[] if query % 3 == 0 else {*best[query], *others[query]} for query in range(60)])
    answer = index.search(queries, 20, exclude)
    assert (answer.items != NOTHING).all()
    assert_in_order(answer, vectors, queries, exclude)
    assert recall_against_exact(index, exact, queries, 20, exclude) >= (1 if index.is_exact else 0.8)


def test_fills_up_only_where_fewer_than_k_are_left_of_many(index_of):
    vectors, queries = normal(3000, 8), normal(3, 8, seed=1)
    left = [[], [2999], [5, 70, 2000]]
    exclude = Ragged.of([sorted(set(range(3000)) - set(one)) for one in left])
    answer = index_of(vectors).search(queries, 3, exclude)
    assert [sorted(items[items != NOTHING]) for items in answer.items] == left
    assert_in_order(answer, vectors, queries, exclude)


@pytest.mark.parametrize("n_items", [1, 2, 63, 64, 65, 1000, TILE[1] - 1, TILE[1], TILE[1] + 1, 2 * TILE[1] + 65])
@pytest.mark.parametrize("k", [1, 20, 100])
def test_is_exact_at_every_size(exact_index_of, n_items, k):
    vectors = normal(n_items, 8)
    assert_exact(exact_index_of(vectors), vectors, normal(3, 8, seed=1), k)


@pytest.mark.parametrize("dim", [1, 3, 64, 257])
def test_is_exact_at_every_dimension(exact_index_of, dim):
    vectors = normal(300, dim)
    assert_exact(exact_index_of(vectors), vectors, normal(5, dim, seed=1), 10)


@pytest.mark.parametrize("n_queries", [1, TILE[0] - 1, TILE[0], TILE[0] + 1, 1025])
def test_is_exact_at_every_number_of_queries(exact_index_of, n_queries):
    vectors = normal(150, 6)
    exclude = random_lists(n_queries, 5, 150)
    assert_exact(exact_index_of(vectors), vectors, normal(n_queries, 6, seed=1), 4, exclude)


@pytest.mark.parametrize("excluded", [1, 30, 299, 2000])
def test_excluded_items_never_appear_and_k_others_do(exact_index_of, excluded):
    vectors, queries = normal(300, 4), normal(6, 4, seed=1)
    exclude = random_lists(6, excluded, 300)
    assert_exact(exact_index_of(vectors), vectors, queries, 12, exclude)


def test_exclusion_of_exactly_the_best(exact_index_of):
    vectors, queries = normal(500, 4), normal(6, 4, seed=1)
    index = exact_index_of(vectors)
    best = index.search(queries, 60).items
    rest = index.search(queries, 20, Ragged.of(best[:, :40]))
    np.testing.assert_array_equal(rest.items, best[:, 40:])


def test_exclusions_of_different_lengths(exact_index_of):
    vectors, queries = normal(200, 4), normal(4, 4, seed=1)
    exclude = Ragged.of([[], range(190), [7], range(200)])
    assert_exact(exact_index_of(vectors), vectors, queries, 15, exclude)


def test_fills_up_where_fewer_than_k_are_left(index_of):
    answer = index_of(normal(6, 3)).search(normal(1, 3, seed=1), 4, Ragged.of([[0, 1, 2, 3, 5]]))
    np.testing.assert_array_equal(answer.items, [[4, NOTHING, NOTHING, NOTHING]])
    np.testing.assert_array_equal(answer.scores[0, 1:], [-np.inf] * 3)


def test_ties_come_in_the_order_of_rows(exact_index_of):
    """Whole numbers make equal products exactly equal; 4 values over 9,000 items tie at every cut."""
    vectors = np.random.default_rng(0).integers(-1, 2, (9000, 3)).astype(np.float32)
    queries = np.random.default_rng(1).integers(-1, 2, (20, 3)).astype(np.float32)
    assert_exact(exact_index_of(vectors), vectors, queries, 25, random_lists(20, 27, 9000))


@pytest.mark.parametrize("query", [0.0, 1.3])
def test_identical_items_come_in_the_order_of_rows(exact_index_of, query):
    vectors = np.full((5000, 7), 0.1, dtype=np.float32)
    answer = exact_index_of(vectors).search(np.full((2, 7), query, dtype=np.float32), 30)
    np.testing.assert_array_equal(answer.items, [np.arange(30)] * 2)


def test_order_is_that_of_float64_where_float32_cannot_tell(exact_index_of):
    """2**24 + i is 2**24 or the next even number in float32; the better items stand last, far beyond k + 16."""
    better = np.arange(200, dtype=np.float32) / 256
    vectors = np.stack([np.full(200, 2.0**24, dtype=np.float32), better], axis=1)
    query = np.ones((1, 2), dtype=np.float32)
    assert len(np.unique(vectors @ query[0])) == 1, "float32 cannot tell these products apart"
    np.testing.assert_array_equal(exact_index_of(vectors).search(query, 3).items, [[199, 198, 197]])


@pytest.mark.parametrize("order", [1, -1])
def test_rising_and_falling_scores(exact_index_of, order):
    """The worst case for a search that goes through the items once: every one is better than all before."""
    vectors = np.arange(20_000, dtype=np.float32)[::order, None].copy()
    queries = np.ones((300, 1), dtype=np.float32)
    answer = exact_index_of(vectors).search(queries, 3)
    expected = [19_999, 19_998, 19_997] if order == 1 else [0, 1, 2]
    np.testing.assert_array_equal(answer.items, [expected] * 300)


def test_a_batch_answers_as_its_queries_do_one_by_one(index_of):
    vectors, queries = normal(5000, 16), normal(300, 16, seed=1)
    exclude = random_lists(300, 27, 5000)
    index = index_of(vectors)
    batch = index.search(queries, 10, exclude)
    for row in range(0, 300, 13):
        single = index.search(queries[row : row + 1], 10, exclude.slice(row, row + 1))
        np.testing.assert_array_equal(single.items[0], batch.items[row])
        np.testing.assert_array_equal(single.scores[0], batch.scores[row])


def test_a_batch_answers_as_its_queries_do_though_rounding_decides(index_of):
    """Two items, 600 times each: one is the other read backwards, and so is each query, so that their products are
    equal but for the order of the sum. It is enough queries for a BLAS to add up in another order than for one."""
    item, half = normal(1, 258), normal(1000, 129, seed=1)
    index = index_of(np.concatenate([item.repeat(600, axis=0), item[:, ::-1].repeat(600, axis=0)]))
    queries = np.concatenate([half, half[:, ::-1]], axis=1)
    batch = index.search(queries, 5).items
    for row in range(0, 1000, 25):
        np.testing.assert_array_equal(index.search(queries[row : row + 1], 5).items[0], batch[row])


def test_exact_indexes_agree_on_close_scores():
    """Clusters of vectors that differ in the last bits of float32."""
    centre = normal(40, 32).repeat(50, axis=0)
    vectors = centre * (1 + 1e-7 * normal(2000, 32, seed=1))
    queries = normal(100, 32, seed=2)
    answers = [INDEXES[name](vectors).search(queries, 60) for name in EXACT]
    for answer in answers:
        np.testing.assert_array_equal(answer.items, answers[0].items)
        np.testing.assert_array_equal(answer.scores, answers[0].scores)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.integers(1, 9), n_items=st.integers(1, 140), name=st.sampled_from(EXACT))
def test_is_exact_on_what_hypothesis_thinks_of(data, k, n_items, name):
    numbers = st.integers(-(2**20), 2**20).map(float)
    vectors = data.draw(arrays(np.float32, (n_items, 2), elements=numbers))
    queries = data.draw(arrays(np.float32, (3, 2), elements=numbers))
    exclude = Ragged.of(data.draw(st.lists(st.lists(st.integers(0, n_items - 1)), min_size=3, max_size=3)))
    assert_exact(INDEXES[name](vectors), vectors, queries, k, exclude)


def test_no_queries_no_answers(index_of):
    assert index_of(normal(5, 3)).search(np.zeros((0, 3), np.float32), 2).items.shape == (0, 2)


def test_a_vector_of_another_dimension(index_of):
    with pytest.raises(
        ShapeError, match=r"query vectors float32 of shape \(1, 4\)\nneeded: a float32 matrix \(rows, 3\)"
    ):
        index_of(normal(5, 3)).search(normal(1, 4), 2)


def test_a_vector_that_is_no_matrix(index_of):
    with pytest.raises(ShapeError, match=r"query vectors float32 of shape \(3,\)"):
        index_of(normal(5, 3)).search(normal(1, 3)[0], 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(index_of, bad):
    queries = normal(4, 3)
    queries[2, 1] = bad
    with pytest.raises(ShapeError, match="query vectors with a number that is not finite, first in row 2"):
        index_of(normal(5, 3)).search(queries, 2)
    with pytest.raises(ShapeError, match="item vectors with a number that is not finite, first in row 2"):
        index_of(queries)


def test_vectors_whose_products_overflow(index_of):
    with pytest.raises(ShapeError, match="fit into float32"):
        index_of(np.full((5, 3), 1e30, np.float32)).search(np.full((1, 3), 1e30, np.float32), 2)


def test_an_empty_catalogue(index_of):
    with pytest.raises(ShapeError, match="a catalogue without items"):
        index_of(np.zeros((0, 3), np.float32))


def test_a_k_below_1(index_of):
    with pytest.raises(ShapeError, match="k = 0"):
        index_of(normal(5, 3)).search(normal(1, 3), 0)


def test_exclusions_that_do_not_fit(index_of):
    with pytest.raises(ShapeError, match="2 lists of exclusions for 1 queries"):
        index_of(normal(5, 3)).search(normal(1, 3), 1, Ragged.empty(2))
    with pytest.raises(ShapeError, match="excluded rows from 5 to 5"):
        index_of(normal(5, 3)).search(normal(1, 3), 1, Ragged.of([[5]]))
