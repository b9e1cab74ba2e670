"""The oracles of chapter 05 against numbers by hand.

The record of an exercise refuses an oracle that disagrees with its solution when it is imported, so each test imports
it: a wrong oracle turns a test red and does not keep the tests from being collected.
"""

from importlib import import_module

import pytest
import torch


def oracle(name):
    (found,) = (one for one in import_module("twotower_lib.exercises.towers").EXERCISES if one.name == name)
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
