"""From recommendations to a report. Users with fractions written out, a naive loop, a peer, properties, intervals."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from platform import machine
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.naive_metrics import naive_metrics, naive_popularity, naive_slice_recall, naive_slices, ranked
from twotower_lib import evaluation
from twotower_lib.data import Interactions
from twotower_lib.errors import ExactnessError, SettingError
from twotower_lib.evaluation import (
    SLICES,
    Interval,
    Measured,
    Report,
    difference,
    evaluate,
    intervals,
    measure,
    popularity_slices,
)
from twotower_lib.metrics import METRICS
from twotower_lib.protocols import questions
from twotower_lib.ranking import NOTHING, Queries, Ragged, Recommendations
from twotower_lib.split import PARTS, Split

RANDOM = [np.random.default_rng(seed) for seed in range(20)]


@dataclass
class Scored:
    """A recommender whose scores are given: one row a user, one column an item."""

    scores: np.ndarray
    is_exact: bool = True

    @property
    def n_items(self) -> int:
        return self.scores.shape[1]

    def recommend(self, queries: Queries, k: int, exclude: Ragged | None = None) -> Recommendations:
        items = np.full((len(queries), k), NOTHING)
        for place, user in enumerate(queries.user):
            best = ranked(self.scores[user].tolist(), exclude[place].tolist() if exclude is not None else [])[:k]
            items[place, : len(best)] = best
        return Recommendations(items, np.where(items == NOTHING, -np.inf, 0).astype(np.float32))


def split_of(known: list[list[int]], held_out: list[list[int]], n_items: int) -> Split:
    """For each user the items known, and those held out for the test."""
    lists = [
        (user, item, part)
        for part, of in (("train", known), ("test", held_out))
        for user, row in enumerate(of)
        for item in row
    ]
    user, item = (np.array([one[place] for one in lists], dtype=np.int64) for place in (0, 1))
    part = np.array([PARTS[one[2]] for one in lists], dtype=np.int8)
    return Split(Interactions(user, item, len(known), n_items), part, "random")


def random_case(generator: np.random.Generator, n_users: int = 40, n_items: int = 25, grades: int = 6):
    """Scores full of ties, and a split in which some users have nothing known, nothing held out, or few candidates."""
    state = generator.choice(3, size=(n_users, n_items), p=[0.6, 0.25, 0.15])
    state[0] = 1  # nothing held out, no candidate
    state[1] = [1] * (n_items - 3) + [2, 0, 2]  # three candidates
    state[2] = [2] * (n_items - 1) + [0]  # nothing known, nearly everything held out
    known, held_out = ([np.flatnonzero(row == code).tolist() for row in state] for code in (1, 2))
    return Scored(generator.integers(grades, size=(n_users, n_items)).astype(float)), split_of(known, held_out, n_items)


# Five users by hand --------------------------------------------------------------------------------------------------

KNOWN = [[0], [1], [0, 1, 2, 3], [], [5], [0, 5]]
HELD_OUT = [[2, 4], [0, 3], [4], [0, 1, 2, 3, 4], [0], []]
SCORES = [
    [9, 8, 7, 6, 5, 4],  # shown without 0: 1, 2, 3
    [1, 1, 1, 1, 1, 1],  # all equal, so by row, without 1: 0, 2, 3
    [9, 9, 9, 9, 1, 2],  # two candidates are left: 5, 4, nothing
    [5, 4, 3, 2, 1, 6],  # nothing known: 5, 0, 1
    [0, 5, 4, 3, 2, 9],  # without 5: 1, 2, 3
    [0, 0, 0, 0, 0, 0],  # nothing held out: not asked
]
BY_HAND = questions(split_of(KNOWN, HELD_OUT, n_items=6), "test", sha256="abc")
HAND_SCORED = Scored(np.array(SCORES, dtype=float))
SECOND, THIRD = 1 / math.log2(3), 1 / 2  # the discounts of ranks 2 and 3; that of rank 1 is 1

EXPECTED = {
    # held out:        {2, 4}            {0, 3}                      {4}      {0, 1, 2, 3, 4}                     {0}
    # shown:           1 2 3             0 2 3                       5 4 -    5 0 1                               1 2 3
    "recall@3": [1 / 2, 2 / 2, 1 / 1, 2 / 5, 0 / 1],
    "capped_recall@3": [1 / 2, 2 / 2, 1 / 1, 2 / 3, 0 / 1],
    "precision@3": [1 / 3, 2 / 3, 1 / 3, 2 / 3, 0 / 3],
    "hit_rate@3": [1, 1, 1, 1, 0],
    "mrr@3": [1 / 2, 1 / 1, 1 / 2, 1 / 2, 0],
    "ndcg@3": [
        SECOND / (1 + SECOND),
        (1 + THIRD) / (1 + SECOND),
        SECOND / 1,
        (SECOND + THIRD) / (1 + SECOND + THIRD),
        0,
    ],
    "map@3": [(1 / 2) / 2, (1 / 1 + 2 / 3) / 2, (1 / 2) / 1, (1 / 2 + 2 / 3) / 3, 0],
    # Of six users 3 met item 0, 2 met 1, 1 met 2, 1 met 3, 0 met 4, 2 met 5; the mean over the items shown.
    "popularity@3": [4 / 6 / 3, 5 / 6 / 3, 2 / 6 / 2, 7 / 6 / 3, 4 / 6 / 3],
    # Nine interactions: item 0 fills the first third, 1 and 5 begin in the second, 2 and 3 in the last; 4 is unmet.
    "recall@3[head]": [None, 1 / 1, None, 1 / 1, 0 / 1],
    "recall@3[torso]": [None, None, None, 1 / 1, None],
    "recall@3[tail]": [1 / 2, 1 / 1, 1 / 1, 0 / 3, None],
    "recall@3[warm users]": [1 / 2, 1, 1, None, 0],
    "recall@3[cold users]": [None, None, None, 2 / 5, None],
    "recall@1": [0 / 2, 1 / 2, 0 / 1, 0 / 5, 0 / 1],
    "capped_recall@1": [0, 1 / 1, 0, 0, 0],
    "precision@1": [0, 1, 0, 0, 0],
    "hit_rate@1": [0, 1, 0, 0, 0],
    "mrr@1": [0, 1, 0, 0, 0],
    "ndcg@1": [0, 1, 0, 0, 0],
    "map@1": [0, 1, 0, 0, 0],
    "popularity@1": [2 / 6, 3 / 6, 2 / 6, 2 / 6, 2 / 6],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_metric_of_five_users_by_hand(name):
    table = measure(HAND_SCORED, BY_HAND, (1, 3)).table
    wanted = [math.nan if value is None else value for value in EXPECTED[name]]
    np.testing.assert_allclose(table[name], wanted, rtol=0, atol=1e-12)


def test_no_column_is_without_fractions_by_hand():
    assert set(measure(HAND_SCORED, BY_HAND, (1, 3)).table) == {"user", *EXPECTED}


def test_the_means_are_over_the_queries_that_have_the_metric():
    means = measure(HAND_SCORED, BY_HAND, (1, 3)).means
    assert means["recall@3"] == pytest.approx((1 / 2 + 1 + 1 + 2 / 5 + 0) / 5)
    assert means["recall@3[head]"] == pytest.approx((1 + 1 + 0) / 3)
    assert "user" not in means


def test_coverage_is_the_share_of_the_catalogue_that_anybody_saw():
    """Shown first: 1, 0, 5, 5, 1. Among the first three: all but nothing."""
    coverage = measure(HAND_SCORED, BY_HAND, (1, 3)).coverage
    assert coverage == {"coverage@1": 3 / 6, "coverage@3": 6 / 6}


def test_who_has_nothing_held_out_is_left_out_and_counted():
    assert BY_HAND.queries.user.tolist() == [0, 1, 2, 3, 4]
    assert (len(BY_HAND), BY_HAND.left_out) == (5, 1)


def test_cold_users_are_asked_and_marked():
    assert BY_HAND.cold.tolist() == [False, False, False, True, False]


def test_what_is_known_is_the_history_and_is_excluded():
    assert [BY_HAND.queries.history[query].tolist() for query in range(5)] == KNOWN[:5]
    assert [BY_HAND.exclude[query].tolist() for query in range(5)] == KNOWN[:5]
    assert [BY_HAND.held_out[query].tolist() for query in range(5)] == HELD_OUT[:5]


def test_no_known_item_is_shown():
    """The known items have the best scores: who forgets to exclude them shows nothing else."""
    asked = questions(split_of([[0, 1]], [[2]], n_items=4), "test")
    assert measure(Scored(np.array([[9.0, 8, 7, 6]])), asked, (1,)).means["recall@1"] == 1


def test_validation_is_asked_knowing_train_and_test_knowing_both():
    events = Interactions(np.zeros(3, np.int64), np.arange(3), 1, 4)
    split = Split(events, np.array([PARTS["train"], PARTS["valid"], PARTS["test"]], np.int8), "last")
    for part, known, held_out in (("valid", [0], [1]), ("test", [0, 1], [2])):
        asked = questions(split, part, "abc")
        assert (asked.exclude[0].tolist(), asked.held_out[0].tolist()) == (known, held_out)
        assert (asked.part, asked.protocol, asked.sha256) == (part, "last", "abc")
        assert asked.known.item.tolist() == known


# The naive loop, and a peer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generator", RANDOM[:5])
def test_equals_the_naive_loop_on_random_data_with_ties(generator):
    recommender, split = random_case(generator)
    asked = questions(split, "test")
    pairs = list(zip(asked.known.user, asked.known.item, strict=True))
    slices = naive_slices(asked.known.item_counts.tolist())
    rows = []
    for query, user in enumerate(asked.queries.user):
        candidates = ranked(recommender.scores[user].tolist(), asked.exclude[query].tolist())
        held_out = asked.held_out[query].tolist()
        row = {"user": user}
        for k in (1, 5, 21):
            row |= naive_metrics(candidates, held_out, k)
            row[f"popularity@{k}"] = naive_popularity(candidates[:k], pairs, asked.known.n_users)
        for name, members in zip(SLICES, slices, strict=True):
            row[f"recall@21[{name}]"] = naive_slice_recall(candidates, held_out, 21, members)
        row["recall@21[warm users]"] = row["recall@21"] if len(asked.exclude[query]) else None
        row["recall@21[cold users]"] = None if len(asked.exclude[query]) else row["recall@21"]
        rows.append(row)
    measured = measure(recommender, asked, (1, 5, 21)).table
    pd.testing.assert_frame_equal(
        measured, pd.DataFrame(rows).astype(measured.dtypes), check_like=True, rtol=0, atol=1e-12
    )


def peers(candidates: list[list[int]], held_out: Ragged, k: int) -> dict[str, np.ndarray]:
    """What pytrec_eval says: fed with minus the rank, so that its rule for ties has nothing to decide.

    Its reciprocal rank has no cut, so it gets the list cut at k; its MAP divides by all held-out items.
    """
    import pytrec_eval

    wanted = {str(query): {str(item): 1 for item in held_out[query]} for query in range(len(candidates))}
    given_lists = {
        str(q): {str(item): -float(rank) for rank, item in enumerate(row[:k])} for q, row in enumerate(candidates)
    }
    names = ("recall", "P", "ndcg_cut", "map_cut", "success")
    judge = pytrec_eval.RelevanceEvaluator(wanted, {"recip_rank", *(f"{name}.{k}" for name in names)})
    found = judge.evaluate(given_lists)
    columns = {name: np.array([found[str(q)][f"{name}_{k}"] for q in range(len(candidates))]) for name in names}
    return columns | {"recip_rank": np.array([found[str(q)]["recip_rank"] for q in range(len(candidates))])}


@pytest.mark.skipif(sys.platform == "linux" and machine() != "x86_64", reason="the peer has no wheel here")
@pytest.mark.parametrize("k", [1, 5, 10, 21, 25])
def test_equals_pytrec_eval_on_random_data_with_ties(k):
    recommender, split = random_case(RANDOM[5], n_users=200)
    asked = questions(split, "test")
    candidates = [
        ranked(recommender.scores[user].tolist(), asked.exclude[q].tolist())
        for q, user in enumerate(asked.queries.user)
    ]
    theirs, ours = peers(candidates, asked.held_out, k), measure(recommender, asked, (k,)).table
    held_out = asked.held_out.lengths
    capped = np.minimum(held_out, k)
    same = {
        "recall": theirs["recall"],
        "capped_recall": theirs["recall"] * held_out / capped,
        "precision": theirs["P"],
        "hit_rate": theirs["success"],
        "mrr": theirs["recip_rank"],
        "ndcg": theirs["ndcg_cut"],
        "map": theirs["map_cut"] * held_out / capped,
    }
    assert same.keys() == METRICS.keys()
    for name, values in same.items():
        np.testing.assert_allclose(ours[f"{name}@{k}"], values, rtol=0, atol=1e-9, err_msg=name)


# Properties ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(4, 15))
def test_every_metric_is_between_0_and_1(seed, n_users, n_items):
    recommender, split = random_case(np.random.default_rng(seed), n_users, n_items, grades=3)
    measured = measure(recommender, questions(split, "test"), (1, 2, 3, n_items + 2))
    table = measured.table.drop(columns="user")
    assert table.min().min() >= 0
    assert table.max().max() <= 1 + 1e-12  # a quotient of two sums may miss 1 by a rounding
    assert all(0 < value <= 1 for value in measured.coverage.values())


@given(st.integers(0, 2**32 - 1))
def test_a_longer_list_never_loses_recall(seed):
    recommender, split = random_case(np.random.default_rng(seed), n_users=8, n_items=9)
    asked = questions(split, "test")
    table = measure(recommender, asked, range(1, 11)).table
    recalls = table[[f"recall@{k}" for k in range(1, 11)]].to_numpy()
    assert (np.diff(recalls, axis=1) >= 0).all()
    cold = asked.cold
    assert cold.any()
    np.testing.assert_allclose(recalls[cold, -1], 1)  # the whole catalogue is shown


@given(st.integers(0, 2**32 - 1))
def test_new_numbers_for_items_and_users_change_nothing(seed):
    generator = np.random.default_rng(seed)
    _, split = random_case(generator, n_users=9, n_items=12)
    scores = generator.permuted(np.tile(np.arange(12.0), (9, 1)), axis=1)  # no ties, which fall by number
    user_to, item_to = generator.permutation(9), generator.permutation(12)
    events = replace(split.events, user=user_to[split.events.user], item=item_to[split.events.item])
    moved = np.empty_like(scores)
    moved[np.ix_(user_to, item_to)] = scores
    before = measure(Scored(scores), questions(split, "test"), (1, 4)).table
    after = measure(Scored(moved), questions(replace(split, events=events), "test"), (1, 4)).table
    plain = [name for name in before if "[" not in name]  # equally popular items may fall on either side of a third
    before["user"] = user_to[before["user"]]
    before = before.sort_values("user", ignore_index=True)
    pd.testing.assert_frame_equal(after[plain], before[plain], rtol=0, atol=1e-12)


def test_a_perfect_recommender_scores_1():
    _, split = random_case(RANDOM[6])
    asked = questions(split, "test")
    scores = np.zeros((split.events.n_users, split.events.n_items))
    scores[split.test.user, split.test.item] = 1
    table = measure(Scored(scores), asked, (1, 5)).table
    for k in (1, 5):
        assert (table[[f"{name}@{k}" for name in ("capped_recall", "hit_rate", "mrr")]] == 1).all(axis=None)
        np.testing.assert_allclose(table[[f"ndcg@{k}", f"map@{k}"]], 1, rtol=0, atol=1e-12)
        possible = np.minimum(asked.held_out.lengths, k)
        np.testing.assert_allclose(table[f"recall@{k}"], possible / asked.held_out.lengths)
        np.testing.assert_allclose(table[f"precision@{k}"], possible / k)


def test_a_random_recommender_agrees_with_k_among_the_candidates():
    """A held-out item is among the first k of C candidates with probability k / C: the mean of recall is that of k / C.

    The mean of precision is that of held-out / C. With 20 tables the expected value lies outside about one interval.
    """
    outside = []
    for generator in RANDOM:
        _, split = random_case(generator, n_users=150, n_items=40)
        asked = questions(split, "test")
        found = intervals(measure(Scored(generator.random((150, 40))), asked, (10,)).table, draws=400)
        candidates = 40 - asked.exclude.lengths
        recall = float(np.minimum(10 / candidates, 1).mean())
        precision = float((asked.held_out.lengths * np.minimum(10 / candidates, 1) / 10).mean())
        for name, expected in (("recall@10", recall), ("precision@10", precision)):
            outside.append(not found[name].low <= expected <= found[name].high)
            assert found[name].mean == pytest.approx(expected, rel=0.2)
    assert len(outside) == 40 and sum(outside) <= 6


# Slices --------------------------------------------------------------------------------------------------------------


def known_with(counts: list[int]) -> Interactions:
    """Items met so often, each time by another user."""
    item = np.repeat(np.arange(len(counts)), counts)
    return Interactions(np.arange(len(item)), item, max(len(item), 1), len(counts))


@pytest.mark.parametrize(
    ("counts", "slices"),
    [
        ([3, 3, 3], [0, 1, 2]),  # an item a third
        ([1, 4, 1, 0], [2, 0, 2, 2]),  # of 6: item 1 begins at 0, item 0 at 4 and item 2 at 5, both in the last two
        ([2, 3, 1], [1, 0, 2]),  # of 6: items 1, 0, 2 begin at 0, 3, 5
        ([9, 0, 0], [0, 2, 2]),  # one item is everything, the others are unmet
        ([1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2]),
        ([0, 0], [2, 2]),
    ],
)
def test_slices_hold_a_third_of_the_interactions_each(counts, slices):
    """An item belongs to the third in which its first interaction falls."""
    assert popularity_slices(known_with(counts)).tolist() == slices


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_slices_equal_the_naive_loop(counts):
    slices = popularity_slices(known_with(counts))
    assert [np.flatnonzero(slices == number).tolist() for number in range(3)] == [
        sorted(one) for one in naive_slices(counts)
    ]


# Intervals -----------------------------------------------------------------------------------------------------------


def coverage_of(draw, truth: float, tables: int) -> float:
    """The share of tables whose interval of column x holds the truth."""
    found = [intervals(draw(), draws=200)["x"] for _ in range(tables)]
    return sum(one.low <= truth <= one.high for one in found) / tables


def test_intervals_hold_the_true_mean_in_95_of_100_tables():
    """Skewed values of 60 users. Of 250 tables the share is known to +- 2.8 % only."""
    generator = np.random.default_rng(0)
    share = coverage_of(lambda: pd.DataFrame({"user": np.arange(60), "x": generator.beta(1, 3, 60)}), 1 / 4, 250)
    assert 0.9 <= share <= 0.98


def test_the_queries_of_one_user_stay_together():
    """1 to 14 queries a user, alike. Drawn one by one they would promise too much: 6 tables of 10 instead of 9.5."""
    generator = np.random.default_rng(1)

    def table() -> pd.DataFrame:
        user = np.repeat(np.arange(60), generator.integers(1, 15, 60))
        taste, luck = generator.normal(0, 0.1, 60), generator.normal(0, 0.1, len(user))
        return pd.DataFrame({"user": user, "x": 0.5 + taste[user] + luck})

    assert 0.9 <= coverage_of(table, 0.5, 250) <= 0.98
    assert coverage_of(lambda: table().assign(user=lambda rows: rows.index), 0.5, 100) < 0.8


def test_an_interval_by_hand():
    """Two users, one with the value 0, one with nine times 1: a draw gives 0 (1/4), 9/10 (1/2) or 1 (1/4)."""
    found = intervals(pd.DataFrame({"user": [7] + [9] * 9, "x": [0.0] + [1.0] * 9}))["x"]
    assert (found.mean, found.low, found.high) == (pytest.approx(9 / 10), 0, 1)
    assert found.as_dict() == {"mean": found.mean, "low": 0, "high": 1}


def test_the_interval_of_many_users_is_that_of_the_normal_distribution():
    """1.96 standard errors to either side; with 1,000 draws the width is known to about 3 %."""
    values = np.random.default_rng(2).random(500)
    found = intervals(pd.DataFrame({"user": np.arange(500), "x": values}))["x"]
    error = values.std() / math.sqrt(500)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert found.mean == pytest.approx(values.mean())
    assert (found.high + found.low) / 2 == pytest.approx(found.mean, abs=0.2 * error)


def test_equal_tables_have_equal_intervals():
    table = pd.DataFrame({"user": range(30), "x": np.linspace(0, 1, 30)})
    assert intervals(table) == intervals(table.copy())


def test_a_query_without_the_metric_counts_neither_above_nor_below_the_line():
    """User 1 has no value: the mean is that of the others; a draw of user 1 alone has none either and is left out."""
    found = intervals(pd.DataFrame({"user": [0, 1, 2], "x": [0.25, math.nan, 0.75], "nobody": [math.nan] * 3}))
    assert (found["x"].mean, found["x"].low, found["x"].high) == (0.5, 0.25, 0.75)
    assert math.isnan(found["nobody"].mean) and math.isnan(found["nobody"].low) and math.isnan(found["nobody"].high)


def measured(values: list[float], users: list[int] | None = None) -> Measured:
    return Measured(pd.DataFrame({"user": users or list(range(len(values))), "x": values}), {})


def test_a_difference_is_paired():
    """Every user gains 1/8, so the difference is certain, although the two intervals overlap almost wholly."""
    one, other = measured([0.125, 0.375, 0.625, 1.0]), measured([0.0, 0.25, 0.5, 0.875])
    assert difference(one, other) == {"x": Interval(0.125, 0.125, 0.125)}
    assert difference(other, one) == {"x": Interval(-0.125, -0.125, -0.125)}
    assert intervals(one.table)["x"].low < intervals(other.table)["x"].high


def test_a_difference_has_the_interval_of_its_table():
    one, other = RANDOM[7].random((2, 50))
    expected = intervals(pd.DataFrame({"user": np.arange(50), "x": one - other}))
    assert difference(measured(one.tolist()), measured(other.tolist())) == expected


def test_answers_to_other_questions_cannot_be_subtracted():
    with pytest.raises(
        SettingError,
        match=r"answers to 2 questions \(.*\) and to 2 questions \(.*\)\nneeded: answers to the same questions",
    ):
        difference(measured([0.0, 1.0], [0, 1]), measured([0.0, 1.0], [0, 2]))


# Refusals ------------------------------------------------------------------------------------------------------------


def test_an_approximate_index_is_refused_unless_it_is_the_index_that_is_measured():
    approximate = replace(HAND_SCORED, is_exact=False)
    with pytest.raises(ExactnessError, match=r"may miss items.*\nneeded: exact search.*\nto do: approximate=True"):
        measure(approximate, BY_HAND)
    with pytest.raises(ExactnessError):
        evaluate(approximate, BY_HAND, REFERENCES)
    assert measure(approximate, BY_HAND, approximate=True).table.equals(measure(HAND_SCORED, BY_HAND).table)


@pytest.mark.parametrize("ks", [(), (0,), (10, 0), (-1, 5)])
def test_a_list_length_below_1_is_refused(ks):
    with pytest.raises(SettingError, match=r"list lengths of 1 or more"):
        measure(HAND_SCORED, BY_HAND, ks)


@pytest.mark.parametrize(
    ("given_ones", "told"),
    [([], "chance and popularity"), (["chance"], "popularity"), (["popularity", "ease"], "chance")],
)
def test_no_report_without_its_references(given_ones, told):
    one = measure(HAND_SCORED, BY_HAND, (1, 3))
    with pytest.raises(SettingError) as caught:
        Report(one, dict.fromkeys(given_ones, one), BY_HAND)
    assert caught.value.came == f"a report without {told}"


# Report --------------------------------------------------------------------------------------------------------------

BY_POPULARITY = Scored(np.tile(np.array([3.0, 2, 1, 1, 0, 2]), (6, 1)))
REFERENCES = {
    "chance": measure(Scored(RANDOM[8].random((6, 6))), BY_HAND, (1, 3)),
    "popularity": measure(BY_POPULARITY, BY_HAND, (1, 3)),
    "ease": measure(Scored(RANDOM[9].random((6, 6))), BY_HAND, (1, 3)),
}
COVERAGES = {"coverage@1", "coverage@3"}


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(HAND_SCORED, BY_HAND, REFERENCES, (1, 3))


@pytest.fixture(scope="module")
def whole(report: Report) -> dict[str, Any]:
    return report.as_dict()


def test_a_report_as_json_values(whole):
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    metrics = EXPECTED.keys() | COVERAGES
    assert whole["metrics"].keys() == whole["chance"].keys() == metrics
    assert whole["baselines"].keys() == whole["differences"].keys() == {"popularity", "ease"}
    for baseline in ("popularity", "ease"):
        assert whole["baselines"][baseline].keys() == {"metrics"}
        assert whole["baselines"][baseline]["metrics"].keys() == metrics
        assert whole["differences"][baseline].keys() == metrics - COVERAGES
    assert (whole["users"], whole["users_left_out"], whole["cold_users"]) == (5, 1, 1)
    assert (whole["protocol"], whole["part"], whole["data"]) == ("random", "test", {"sha256": "abc"})
    assert whole["leak"] == "a random split knows the future of the user"


def test_the_numbers_of_a_report_are_those_that_were_measured(report, whole):
    own, theirs = report.measured, REFERENCES["popularity"]
    for shown, table in ((whole["metrics"], own.table), (whole["baselines"]["popularity"]["metrics"], theirs.table)):
        assert {name: one for name, one in shown.items() if name not in COVERAGES} == {
            name: one.as_dict() for name, one in intervals(table).items()
        }
        assert all(one["low"] <= one["mean"] <= one["high"] for name, one in shown.items() if name not in COVERAGES)
    for metric in EXPECTED:
        assert whole["chance"][metric] == REFERENCES["chance"].means[metric]
        gap = whole["differences"]["popularity"][metric]
        assert gap["mean"] == pytest.approx(own.means[metric] - theirs.means[metric])
        assert gap["low"] <= gap["mean"] <= gap["high"]
    assert whole["metrics"]["coverage@1"] == {"mean": 3 / 6}
    assert whole["chance"]["coverage@3"] == REFERENCES["chance"].coverage["coverage@3"]


def test_a_metric_that_no_query_has_is_not_in_the_json():
    """All users are warm."""
    asked = questions(split_of([[0], [1]], [[1], [2]], n_items=4), "test")
    one = measure(Scored(RANDOM[10].random((2, 4))), asked, (2,))
    whole = Report(one, {"chance": one, "popularity": one}, asked).as_dict()
    json.dumps(whole, allow_nan=False)
    assert "recall@2[warm users]" in whole["metrics"] and "recall@2[cold users]" not in whole["metrics"]
    assert whole["chance"]["recall@2[cold users]"] is None


def test_the_table_shows_every_metric_beside_its_references(report, whole):
    heading, rows = str(report).split("\n\n")
    assert "5 users of the test part, split random (a random split knows the future of the user)" in heading
    assert "1 users left out: no held-out item; 1 asked users are cold" in heading
    names, *lines = rows.splitlines()
    assert names.split() == ["model", "interval", "chance", "popularity", "ease"]
    cells = {line[:24].strip(): line[24:].split() for line in lines}
    assert cells.keys() == EXPECTED.keys() | COVERAGES
    for metric, (mean, *rest) in cells.items():
        assert mean == f"{report.measured.means[metric]:.4f}"
        assert rest[-3:] == [f"{one.means[metric]:.4f}" for one in REFERENCES.values()]
        if metric not in COVERAGES:
            assert rest[0] == "{low:.4f}..{high:.4f}".format(**whole["metrics"][metric])


def test_the_short_table_is_a_part_of_the_whole_one(report):
    short, whole = report.short().splitlines(), str(report).splitlines()
    assert set(short) < set(whole)
    names = {line[:24].split("@")[0] for line in short if "@" in line}
    assert names == {"recall", "ndcg", "hit_rate", "mrr", "popularity", "coverage"}


def test_the_table_leaves_out_what_no_query_has():
    asked = questions(split_of([[0], [1]], [[1], [2]], n_items=4), "test")
    one = measure(Scored(RANDOM[10].random((2, 4))), asked, (2,))
    assert "nan" not in str(Report(one, {"chance": one, "popularity": one}, asked))


def test_the_defaults_of_the_course():
    assert (evaluation.KS, evaluation.DRAWS) == ((10, 20, 50), 1000)
    assert {name.partition("[")[0] for name in measure(HAND_SCORED, BY_HAND).table if "[" in name} == {"recall@20"}
