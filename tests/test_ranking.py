"""Ragged lists and queries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower_lib.errors import ShapeError
from twotower_lib.ranking import Queries, Ragged, blocks, offsets_of

LISTS = [[7], [], [8, 9, 9], [1, 2]]


def lists_of(ragged):
    return [list(map(int, ragged[i])) for i in range(len(ragged))]


# --- ragged lists -----------------------------------------------------------------------------------------------------


def test_of_lists_and_back():
    ragged = Ragged.of(LISTS)
    assert lists_of(ragged) == LISTS
    assert ragged.values.dtype == ragged.offsets.dtype == np.int64
    np.testing.assert_array_equal(ragged.lengths, [1, 0, 3, 2])
    np.testing.assert_array_equal(ragged.owners, [0, 2, 2, 2, 3, 3])


def test_of_no_lists_and_of_empty_ones():
    assert lists_of(Ragged.of([])) == []
    assert lists_of(Ragged.of([[], []])) == lists_of(Ragged.empty(2)) == [[], []]


@pytest.mark.parametrize("chosen", [[], [1], [2, 0], [3, 3, 1, 2], [0, 1, 2, 3]])
def test_take(chosen):
    taken = Ragged.of(LISTS).take(np.array(chosen, dtype=np.int64))
    assert lists_of(taken) == [LISTS[i] for i in chosen]


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("stop", range(5))
def test_slice(start, stop):
    if start <= stop:
        assert lists_of(Ragged.of(LISTS).slice(start, stop)) == LISTS[start:stop]


def test_slices_of_slices():
    assert lists_of(Ragged.of(LISTS).slice(1, 4).slice(1, 2)) == [[8, 9, 9]]


def test_last_is_the_end_of_each_list():
    ragged = Ragged.of(LISTS)
    for length in range(4):
        assert lists_of(ragged.last(length)) == [one[max(len(one) - length, 0) :] for one in LISTS]
    assert ragged.from_end.tolist() == [place for one in LISTS for place in range(len(one), 0, -1)]


def test_grouped_keeps_the_order_inside_a_list():
    grouped = Ragged.grouped(np.array([2, 0, 2, 2, 0]), np.array([5, 4, 3, 9, 1]), 4)
    assert lists_of(grouped) == [[4, 1], [], [5, 3, 9], []]


@given(st.lists(st.lists(st.integers(0, 50))))
def test_grouping_by_owner_gives_the_lists_back(lists):
    ragged = Ragged.of(lists)
    assert lists_of(Ragged.grouped(ragged.owners, ragged.values, len(lists))) == lists


def test_offsets():
    np.testing.assert_array_equal(offsets_of(np.array([2, 0, 3])), [0, 2, 2, 5])


@pytest.mark.parametrize("offsets", [[], [1, 3], [0, 2], [0, 4]])
def test_refuses_offsets_that_do_not_fit(offsets):
    with pytest.raises(ShapeError, match="offsets that start at 0 and end at the number of values"):
        Ragged(np.arange(3), np.array(offsets, dtype=np.int64))


def test_queries_are_cut_with_their_histories_and_times():
    queries = Queries(np.array([4, -1, 6, 7]), Ragged.of(LISTS), np.array([10, 20, 30, 40]))
    part = queries.slice(1, 3)
    np.testing.assert_array_equal(part.user, [-1, 6])
    assert lists_of(part.history) == [[], [8, 9, 9]]
    np.testing.assert_array_equal(part.time, [20, 30])


def test_refuses_queries_that_do_not_fit():
    with pytest.raises(ShapeError, match="3 users, 4 histories, no times"):
        Queries(np.arange(3), Ragged.of(LISTS))
    with pytest.raises(ShapeError, match="1 times"):
        Queries(np.arange(4), Ragged.of(LISTS), np.array([1]))


@pytest.mark.parametrize("n", [0, 1, 5, 6, 7])
def test_blocks_cover_everything_once(n):
    covered = [i for start, stop in blocks(n, 3) for i in range(start, stop)]
    assert covered == list(range(n))
    assert all(stop - start <= 3 for start, stop in blocks(n, 3))
