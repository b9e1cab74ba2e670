"""The exact top k against a naive sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.oracles.naive_ranking import naive_products, naive_top_k
from twotower_lib import topk
from twotower_lib.errors import ShapeError
from twotower_lib.ranking import NOTHING, Ragged
from twotower_lib.topk import CHUNK, longest_norm, rank_scores, rank_vectors, rounding, top_k


def assert_top_k(scores, k):
    """`top_k` gives what sorting everything gives."""
    items, values = naive_top_k(scores, k)
    found_scores, found_items = top_k(torch.from_numpy(scores), k)
    np.testing.assert_array_equal(found_items.numpy(), items)
    np.testing.assert_array_equal(found_scores.numpy(), values)


# --- top k ------------------------------------------------------------------------------------------------------------

EDGES = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 40 * CHUNK - 1, 40 * CHUNK, 40 * CHUNK + 1]


@pytest.mark.parametrize("n_items", EDGES)
@pytest.mark.parametrize("k", [1, 2, 20, 70])
@pytest.mark.parametrize("values", [2, 9, 10**6])
def test_top_k_at_the_edges_of_chunks(n_items, k, values):
    """Few different values tie at every cut, many seldom."""
    scores = np.random.default_rng(n_items + k).integers(0, values, (5, n_items)).astype(np.float32)
    assert_top_k(scores, k)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("n_items", [50, 3000])
def test_top_k_where_much_is_minus_infinity(share, n_items):
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((8, n_items)).astype(np.float32)
    scores[generator.random((8, n_items)) < share] = -np.inf
    assert_top_k(scores, 20)


@pytest.mark.parametrize("value", [0.0, -3.5, np.inf, -np.inf])
def test_top_k_where_all_scores_are_equal(value):
    assert_top_k(np.full((3, 4000), value, dtype=np.float32), 7)


def test_top_k_takes_zero_and_minus_zero_for_equal():
    scores = np.zeros((1, 500), dtype=np.float32)
    scores[0, ::2] = -0.0
    np.testing.assert_array_equal(top_k(torch.from_numpy(scores), 4)[1], [[0, 1, 2, 3]])


@pytest.mark.parametrize("n_items", [700, 6400])
def test_top_k_of_scores_in_order(n_items):
    rising = np.arange(n_items, dtype=np.float32)[None]
    assert_top_k(rising, 30)
    assert_top_k(rising[:, ::-1].copy(), 30)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 300).flatmap(
        lambda n: arrays(np.float32, (2, n), elements=st.sampled_from([-np.inf, -1.5, 0.0, 2.0, 2.5, np.inf]))
    ),
    st.integers(1, 9),
)
def test_top_k_on_what_hypothesis_thinks_of(scores, k):
    assert_top_k(scores, k)


def test_top_k_refuses_what_is_not_a_number():
    scores = torch.zeros(2, 4000)
    scores[1, 77] = torch.nan
    with pytest.raises(ShapeError, match="not a number"):
        top_k(scores, 3)


# --- scores made in blocks --------------------------------------------------------------------------------------------


def ranked(scores, k, exclude=None):
    def score_block(start, stop, out):
        out.copy_(torch.from_numpy(scores[start:stop]))

    return rank_scores(score_block, *scores.shape, k, exclude)


@pytest.mark.parametrize("n_items", [1, CHUNK, 200, 1_100_000])
@pytest.mark.parametrize("n_queries", [1, 3])
def test_ranks_scores_block_by_block(n_items, n_queries):
    scores = np.random.default_rng(0).integers(0, 50, (n_queries, n_items)).astype(np.float32)
    exclude = Ragged.of([np.flatnonzero(row == 49)[::2] for row in scores])
    answer = ranked(scores, 5, exclude)
    items, values = naive_top_k(scores, 5, exclude) if n_items < 10**6 else partly_sorted(scores, 5, exclude)
    np.testing.assert_array_equal(answer.items, items)
    np.testing.assert_array_equal(answer.scores, values)


def partly_sorted(scores, k, exclude):
    """The oracle where sorting everything takes too long: only the scores of 48 and more."""
    items = np.stack([top_of_row(row, k, exclude[query]) for query, row in enumerate(scores)])
    return items, np.take_along_axis(scores, items, axis=1)


def top_of_row(row, k, excluded):
    best = np.setdiff1d(np.flatnonzero(row >= 48), excluded)
    return best[np.lexsort((best, -row[best]))][:k]


def test_what_was_excluded_for_one_query_is_there_for_the_next():
    """The buffer is used again: nothing of one block may stay in the next."""
    scores = np.tile(np.arange(600_000, dtype=np.float32), (3, 1))
    answer = ranked(scores, 1, Ragged.of([[599_999], [], [599_999, 599_998]]))
    np.testing.assert_array_equal(answer.items, [[599_998], [599_999], [599_997]])


def test_memory_does_not_depend_on_the_number_of_queries():
    sizes = []

    def score_block(start, stop, out):
        sizes.append(out.numel())
        out.zero_()

    answer = rank_scores(score_block, 5000, 1000, 2)
    assert max(sizes) <= 1_000_000 and sum(sizes) == 5_000_000
    np.testing.assert_array_equal(answer.items, [[0, 1]] * 5000)


def test_rank_scores_refuses_what_cannot_be():
    with pytest.raises(ShapeError, match="k = 0"):
        ranked(np.zeros((1, 3), np.float32), 0)
    with pytest.raises(ShapeError, match="without items"):
        ranked(np.zeros((1, 0), np.float32), 1)
    with pytest.raises(ShapeError, match=r"excluded rows from 0 to 3\nneeded: rows from 0 to 2"):
        ranked(np.zeros((1, 3), np.float32), 1, Ragged.of([[0, 3]]))


# --- inner products ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 64, 500])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rounding_bounds_the_error_of_float32(dim, scale):
    generator = np.random.default_rng(dim)
    queries = torch.from_numpy(scale * generator.standard_normal((40, dim))).float()
    vectors = torch.from_numpy(generator.standard_normal((700, dim))).float()
    error = np.abs((queries @ vectors.T).double().numpy() - naive_products(queries.numpy(), vectors.numpy()))
    assert (error.max(axis=1) <= rounding(queries, longest_norm(vectors))).all()


def test_rounding_by_hand():
    """(2 + 2) * 2**-24 * |(3, 4)| * 2 = 40 * 2**-24."""
    np.testing.assert_allclose(rounding(torch.tensor([[3.0, 4.0]]), 2.0), [40 * 2.0**-24])


def test_longest_norm_looks_at_every_vector():
    vectors = torch.zeros(10_000, 2)
    vectors[-1] = torch.tensor([3.0, 4.0])
    assert longest_norm(vectors) == 5.0


@pytest.mark.parametrize("values", [2, 1000])
@pytest.mark.parametrize("cells", [1, 300, 10**6])
def test_rank_vectors_with_little_room(monkeypatch, cells, values):
    """What is put aside is sorted in the middle of the catalogue when it grows too large; the answer stays."""
    monkeypatch.setattr(topk, "TILE", (7, 2 * CHUNK))
    monkeypatch.setattr(topk, "BLOCK_CELLS", cells)
    generator = np.random.default_rng(0)
    queries, vectors = (generator.integers(-values, values, (n, 3)).astype(np.float32) for n in (20, 1000))
    exclude = Ragged.of(generator.integers(0, 1000, (20, 50)))
    items, scores = naive_top_k(naive_products(queries, vectors), 6, exclude)
    answer = rank_vectors(torch.from_numpy(queries), torch.from_numpy(vectors), 6, exclude)
    np.testing.assert_array_equal(answer.items, items)
    np.testing.assert_array_equal(answer.scores, scores)


def test_rank_vectors_answers_with_the_products():
    answer = rank_vectors(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0], [5.0, 0.0]]), 3)
    np.testing.assert_array_equal(answer.items, [[2, 1, 0]])
    np.testing.assert_array_equal(answer.scores, [[5.0, 4.0, 3.0]])
    assert NOTHING not in answer.items
