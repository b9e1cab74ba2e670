"""Hits, and what sampling makes of ranks: every sample of a small catalogue written out.

The metrics themselves are judged in `test_evaluation.py`, where lists, histories and held-out items meet.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from twotower_lib.errors import SettingError
from twotower_lib.metrics import corrected_metric, hit_matrix, sampled_rank_chances, sampled_ranks
from twotower_lib.ranking import NOTHING, Ragged


def test_hits_belong_to_their_own_query_and_never_to_an_empty_place():
    hits = hit_matrix(np.array([[4, 5, NOTHING], [5, 0, NOTHING]]), Ragged.of([[5, 9], [4]]))
    assert hits.tolist() == [[False, True, False], [False, False, False]]


# Sampled metrics -----------------------------------------------------------------------------------------------------

CANDIDATES, NEGATIVES = 7, 3


def every_sampled_rank(rank: int) -> list[int]:
    """The rank in each of the 20 samples of 3 among the 6 others, of which rank - 1 stand above."""
    return [1 + sum(other < rank - 1 for other in sample) for sample in combinations(range(CANDIDATES - 1), NEGATIVES)]


SAMPLES = {rank: every_sampled_rank(rank) for rank in range(1, CANDIDATES + 1)}


def test_a_sampled_rank_by_hand():
    """Of 4 others 2 stand above, and 2 are drawn: 1 pair of 6 has none of them, 4 have one, 1 has both."""
    np.testing.assert_allclose(sampled_rank_chances(5, 2)[2], [1 / 6, 4 / 6, 1 / 6], rtol=1e-12)


def test_the_chances_are_those_of_all_samples():
    wanted = [[SAMPLES[rank].count(1 + above) / comb(6, 3) for above in range(4)] for rank in SAMPLES]
    np.testing.assert_allclose(sampled_rank_chances(CANDIDATES, NEGATIVES), wanted, rtol=0, atol=1e-12)


def test_the_chances_of_a_large_catalogue_are_finite_and_sum_to_1():
    chances = sampled_rank_chances(20_000, 100)
    assert (chances >= 0).all()
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-9)


def test_drawn_ranks_come_as_often_as_their_chances():
    """30,000 draws a rank: a share has a standard error of at most 0.5 / sqrt(30,000) = 0.0029; 4 of them."""
    ranks = np.repeat(np.arange(1, CANDIDATES + 1), 30_000)
    drawn = sampled_ranks(ranks, CANDIDATES, NEGATIVES, np.random.default_rng(0)).reshape(CANDIDATES, -1)
    for rank, row in enumerate(drawn, start=1):
        wanted = [SAMPLES[rank].count(place) / comb(6, 3) for place in range(1, 5)]
        shares = [np.mean(row == place) for place in range(1, 5)]
        np.testing.assert_allclose(shares, wanted, rtol=0, atol=4 * 0.0029)


def test_whoever_draws_all_others_has_the_true_rank():
    ranks = np.tile(np.arange(1, 6), 20)
    assert sampled_ranks(ranks, 5, 4, np.random.default_rng(0)).tolist() == ranks.tolist()
    np.testing.assert_allclose(sampled_rank_chances(5, 4), np.eye(5), rtol=0, atol=1e-12)
    np.testing.assert_allclose(corrected_metric(np.array([1, 0.5, 0.2, 0, 0]), 4, 0.3), [1, 0.5, 0.2, 0, 0], atol=1e-12)


def test_the_first_and_the_last_stay_so_and_each_has_its_own_catalogue():
    drawn = sampled_ranks(np.array([1, 50, 1, 9]), np.array([50, 50, 9, 9]), 8, np.random.default_rng(0))
    assert drawn.tolist() == [1, 9, 1, 9]


TOP_2 = np.array([1.0, 1, 0, 0, 0, 0, 0])


def cost(counted: np.ndarray, of_rank: np.ndarray, weight: float) -> float:
    """Squared bias plus weighted variance, summed over the true ranks, from all samples written out."""
    total = 0.0
    for rank, sampled in SAMPLES.items():
        values = counted[np.array(sampled) - 1]
        total += (values.mean() - of_rank[rank - 1]) ** 2 + weight * values.var()
    return total


@pytest.mark.parametrize("weight", [0.01, 0.3, 1.0])
def test_nothing_near_the_correction_costs_less(weight):
    best = corrected_metric(TOP_2, NEGATIVES, weight)
    least = cost(best, TOP_2, weight)
    for place in range(NEGATIVES + 1):
        for step in (-0.01, 0.01):
            assert cost(best + step * np.eye(NEGATIVES + 1)[place], TOP_2, weight) > least


def test_with_the_whole_variance_it_is_the_mean_over_the_true_ranks_that_a_sampled_rank_can_come_from():
    """The mean squared error is least there: of all samples with this rank, the share that comes from the top 2."""
    wanted = [
        sum(SAMPLES[rank].count(place) for rank in (1, 2)) / sum(row.count(place) for row in SAMPLES.values())
        for place in range(1, 5)
    ]
    np.testing.assert_allclose(corrected_metric(TOP_2, NEGATIVES, 1.0), wanted, rtol=1e-12)


def test_of_the_rank_itself_it_is_the_unbiased_estimate():
    """A sampled rank s has the mean 1 + 3 (r - 1) / 6, so 1 + 6 (s - 1) / 3 = 1, 3, 5, 7 has the mean r: no bias."""
    found = corrected_metric(np.arange(1.0, 8), NEGATIVES, 1e-9)
    np.testing.assert_allclose(found, [1, 3, 5, 7], rtol=0, atol=1e-6)


def test_less_weight_on_the_variance_is_less_bias_and_more_variance():
    chances = sampled_rank_chances(CANDIDATES, NEGATIVES)
    told = []
    for weight in (1.0, 0.1, 0.001):
        counted = corrected_metric(TOP_2, NEGATIVES, weight)
        mean = chances @ counted
        told.append((((mean - TOP_2) ** 2).sum(), (chances @ counted**2 - mean**2).sum()))
    bias, variance = zip(*told, strict=True)
    assert bias[0] > bias[1] > bias[2] and variance[0] < variance[1] < variance[2]


@pytest.mark.parametrize(
    ("call", "came"),
    [
        (lambda: sampled_ranks(np.array([0, 2]), 5, 2, np.random.default_rng(0)), "ranks from 0 to 2"),
        (lambda: sampled_ranks(np.array([1, 6]), 5, 2, np.random.default_rng(0)), "ranks from 1 to 6"),
        (lambda: sampled_ranks(np.array([1]), np.array([5]), 5, np.random.default_rng(0)), "5 negatives of 5 cand"),
        (lambda: sampled_rank_chances(5, 0), "0 negatives of 5 candidates"),
        (lambda: corrected_metric(np.ones(4), 4, 0.5), "4 negatives of 4 candidates"),
        (lambda: corrected_metric(np.ones(4), 2, 0.0), "variance_weight = 0.0\nneeded: a number above 0 and up to 1"),
        (lambda: corrected_metric(np.ones(4), 2, 1.1), "variance_weight = 1.1"),
    ],
)
def test_what_cannot_be_sampled_is_refused(call, came):
    with pytest.raises(SettingError, match=f"^{came}"):
        call()
