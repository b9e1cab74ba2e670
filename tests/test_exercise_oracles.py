"""The oracles of chapters 05 and 11 against numbers by hand.

The record of an exercise refuses an oracle that disagrees with its solution when it is imported, so each test imports
it: a wrong oracle turns a test red and does not keep the tests from being collected.
"""

import numpy as np
import pytest
import torch


def oracle(name):
    from twotower_lib.exercises import of_chapter

    (found,) = (one for one in of_chapter(name[:2]) if one.name == name)
    return found.oracle


def test_a_question_costs_by_hand():
    # dot: 10 x 4; network: 8 numbers into 8, 8 into 2, 2 into 1, ten times: 10 x (64 + 16 + 2)
    assert oracle("05.1")(10, 4, [8, 2]) == [40, 820]


def test_a_cosine_and_a_bias_by_hand():
    # (3, 4) has length 5; half of the bias 2
    assert oracle("05.2")(torch.tensor([[3.0, 4.0]]), torch.tensor([2.0]), 0.5) == [[0.6, 0.8, 1.0]]


def test_a_mean_with_gaps_by_hand():
    vectors = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]], [[9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert oracle("05.3")(vectors, mask) == [[2.0, 1.0], [0.0, 0.0]]


def test_recency_by_hand():
    # half-life 1: 1/4, 1/2 and 1, and a gap; their sum is 7/4
    ages, mask = torch.tensor([[2.0, 1.0, 0.0, 0.0]]), torch.tensor([[True, True, True, False]])
    assert oracle("05.4")(ages, mask, 1.0)[0] == pytest.approx([1 / 7, 2 / 7, 4 / 7, 0])


def test_the_lists_that_are_read_by_hand():
    # (0, 1) scores 0, .8 and 0 with the centroids: list 1 first, then list 0, which stands before list 2
    centroids = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    assert oracle("11.1")(np.array([0.0, 1.0]), centroids, np.array([0, 1, 2, 1]), 1) == [False, True, False, True]
    assert oracle("11.1")(np.array([0.0, 1.0]), centroids, np.array([0, 1, 2, 1]), 2) == [True, True, False, True]


def test_three_recalls_by_hand():
    # exact search finds 1 of 2 wanted items; the index keeps 3 of the 4 exact ones; with it 2 of 2 are found
    exact, found, wanted = np.array([[1, 2, 3, 4]]), np.array([[2, 3, 4, 9]]), np.array([[4, 9]])
    assert oracle("11.2")(exact, found, wanted) == [0.5, 0.75, 1.0]


def test_one_more_dimension_by_hand():
    # lengths 5 and 3: nothing is missing to 25, and 16 to 25 from 9
    assert oracle("11.3")(np.array([[3.0, 4.0], [0.0, 3.0]])) == [[3.0, 4.0, 0.0], [0.0, 3.0, 4.0]]


def test_scores_by_codes_by_hand():
    # (1, 2) with (0, 1), and (3, 4) with (2, 1)
    centroids = np.array([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 1.0], [-1.0, 1.0]]])
    assert oracle("11.4")(np.array([1.0, 2.0, 3.0, 4.0]), centroids, np.array([[1, 0]])) == [2 + 10]
