"""ScaNN behind the contract: the message where it is missing, and what is made of its answers.

The real one runs through `tests/contracts/test_indexes.py` where it is installed. Here a stand-in searches exactly, but
finds only some of what it was asked for.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from twotower_lib.errors import SettingError, ShapeError
from twotower_lib.index import ExactIndex
from twotower_lib.scann_index import LEAST_ITEMS, ScannIndex


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


class StandIn:
    """A builder and its searcher in one; `finds` is how much of what is asked for it finds."""

    def __init__(self, finds=10**6):
        self.finds, self.asked = finds, []

    def builder(self, vectors, neighbours, measure):
        assert measure == "dot_product"
        self.vectors = vectors
        return self

    def tree(self, leaves, probes):
        self.leaves, self.probes = leaves, probes
        return self

    def score_ah(self, part, anisotropic_quantization_threshold):
        return self

    def build(self):
        return self

    def search(self, query, final_num_neighbors, leaves_to_search):
        self.asked.append((final_num_neighbors, leaves_to_search))
        products = self.vectors @ query
        items = np.argsort(-products)[: min(final_num_neighbors, self.finds)]
        return items.astype(np.uint32), products[items]


@pytest.fixture
def stand_in(monkeypatch):
    def put(**settings):
        made = StandIn(**settings)
        monkeypatch.setitem(sys.modules, "scann", SimpleNamespace(scann_ops_pybind=made))
        return made

    return put


def test_without_scann_it_is_said_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(SettingError) as caught:
        ScannIndex(normal(5, 3))
    assert str(caught.value) == (
        "an index of ScaNN without ScaNN\n"
        "needed: the extra scann, which is for Linux\n"
        "to do: pip install 'twotower[scann]'"
    )


def test_importing_the_module_needs_no_scann():
    """It was imported above, here where scann may be missing."""
    assert ScannIndex.is_exact is False and ScannIndex.metric == "inner_product"


@pytest.mark.parametrize("finds", [3, 60, 10**6])
def test_an_answer_that_stays_short_is_filled_up_with_no_item(stand_in, finds):
    """With 3 found the search goes on to the exact one."""
    stand_in(finds=finds)
    vectors, queries = normal(2000, 8), normal(30, 8, seed=1)
    np.testing.assert_array_equal(
        ScannIndex(vectors).search(queries, 10).items, ExactIndex(vectors).search(queries, 10).items
    )


def test_deleted_and_filtered_rows_are_dropped_from_what_it_finds(stand_in):
    stand_in()
    vectors, queries = normal(2000, 8), normal(30, 8, seed=1)
    index, allowed = ScannIndex(vectors), np.arange(2000) % 3 != 0
    index.delete(np.arange(100, 200))
    there = allowed & ~((np.arange(2000) >= 100) & (np.arange(2000) < 200))
    np.testing.assert_array_equal(
        index.search(queries, 5, allowed=allowed).items, ExactIndex(vectors).search(queries, 5, allowed=there).items
    )


def test_a_filter_makes_it_fetch_more_and_read_more_lists(stand_in):
    """k + 16 = 21, times 4 candidates: 84 in 32 lists; where half is allowed, 168 in 64."""
    made = stand_in()
    index = ScannIndex(normal(2000, 8))
    index.search(normal(1, 8, seed=1), 5)
    index.search(normal(1, 8, seed=1), 5, allowed=np.arange(2000) % 2 == 0)
    assert made.asked == [(84, 32), (168, 64)]
    assert (made.leaves, made.probes) == (178, 32)  # 4 sqrt(2000) = 178.9


def test_a_small_catalogue_is_searched_exactly(stand_in):
    made = stand_in()
    vectors = normal(LEAST_ITEMS - 1, 8)
    answer = ScannIndex(vectors).search(normal(9, 8, seed=1), 5)
    np.testing.assert_array_equal(answer.items, ExactIndex(vectors).search(normal(9, 8, seed=1), 5).items)
    assert made.asked == []


def test_vectors_that_are_refused(stand_in):
    stand_in()
    with pytest.raises(ShapeError, match="a catalogue without items"):
        ScannIndex(normal(0, 3))
