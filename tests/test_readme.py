"""The README's sentences, held against the stored results."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from twotower_lib.exercises.results import result

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from published import PUBLISHED  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


def newest(theme):
    return result(theme, RESULTS)


QUALITY, TUNING = newest("quality_ml-100k"), newest("tuning_ml-100k")
WITHOUT = ["log q", "the same-item mask", "the known-positives mask", "the item bias"]


def lost(protocol, side):
    """The interval of recall@20 of the history tower minus that of a side."""
    minus = QUALITY[protocol][side]["differences"]["history tower"]["recall@20"]
    return {"mean": -minus["mean"], "low": -minus["high"], "high": -minus["low"]}


def holds_zero(interval):
    return interval["low"] <= 0 <= interval["high"]


def test_beside_ease_and_ials_on_the_random_split():
    assert [holds_zero(lost("random", side)) for side in ("ease", "ials")] == [True, True]


def test_above_them_on_the_last_fraction_and_mostly_by_recency():
    for side in ("ease", "ials"):
        whole, recent = lost("last", side), lost("last", f"{side}, recent")
        assert recent["low"] > 0 and recent["mean"] < whole["mean"] / 2
    assert lost("last", "history as a set")["low"] > 0
    assert holds_zero(QUALITY["last"]["history as a set"]["differences"]["ials"]["recall@20"])


@pytest.mark.parametrize("protocol", ["random", "last"])
def test_log_q_is_worth_most(protocol):
    costs = {side: lost(protocol, f"without {side}") for side in WITHOUT}
    assert max(costs, key=lambda side: costs[side]["mean"]) == "log q"
    assert costs["log q"]["low"] > max(costs[side]["high"] for side in WITHOUT[1:])
    assert costs["the known-positives mask"]["low"] > 0
    assert holds_zero(costs["the same-item mask"]) and holds_zero(costs["the item bias"])


@pytest.mark.parametrize("protocol", ["random", "last"])
def test_what_the_published_splits_taught_makes_no_difference_here(protocol):
    delta = QUALITY[protocol]["history tower, as on the public splits"]["differences"]["history tower"]
    assert all(holds_zero(delta[metric]) for metric in ("recall@20", "ndcg@20"))


@pytest.mark.parametrize("protocol", ["random", "last"])
def test_without_log_q_temperatures_are_higher(protocol):
    chosen = {name: side["chosen"]["settings"] for name, side in TUNING[protocol].items()}
    assert chosen["without log q"]["temperature"] >= 2 * chosen["history tower"]["temperature"]


@pytest.mark.parametrize("protocol", ["random", "last"])
def test_every_side_had_a_grid_of_twelve_and_towers_three_seeds(protocol):
    assert {len(side["tried"]) for side in TUNING[protocol].values()} == {12}
    assert QUALITY[protocol].keys() - TUNING[protocol].keys() == {"random", "popularity"}
    assert {len(QUALITY[protocol][side]["recall@20"]["seeds"]) for side in ("history tower", "id towers")} == {3}


def of_kind(rows, kind, code=None):
    return [row for row in rows if row["index"].split()[0] == kind and (row["code"] or None) == code]


def test_what_lists_and_codes_give_over_a_million_vectors():
    clear, blurred = (one["rows"] for one in newest("index_trade").values())
    assert max(row["x_exact"] for row in of_kind(clear, "ivf") if row["recall"] >= 0.99) > 10
    for code, times in ((32, 8), (8, 30)):
        row = next(row for row in of_kind(clear, "pq", code) if row["recall"] > 0.99)
        assert round(clear[0]["searched"] / row["searched"]) >= times and row["x_exact"] < 1
    assert max(row["x_exact"] for row in blurred if row["recall"] >= 0.95) == blurred[0]["x_exact"] == 1


def test_an_index_that_was_changed_finds_as_much_as_one_built_anew():
    changes = newest("index_changes")
    assert (changes["items"], changes["added"], changes["deleted"]) == (200_000, 10_000, 10_000)
    assert all(abs(row["after"] - row["built_anew"]) < 1e-3 for row in changes["rows"].values())


def test_exact_search_beside_its_floor():
    exact = newest("index_exact")
    assert exact["same_items"] and exact["of_matmul"] < 3.5 and exact["of_flat"] < 0.3


SIDES = {name: side["test"]["minus ease"] for name, side in newest("held-out_latest-small")["sides"].items()}
BEST = "history tower, one table, corrected loss"


def test_of_people_whom_no_model_met_the_tower_is_not_above_ease():
    assert SIDES["history tower"]["ndcg@100"]["high"] < 0 and SIDES[BEST]["ndcg@100"]["mean"] < 0
    assert SIDES[BEST]["ndcg@100"]["mean"] > 0.55 * SIDES["history tower"]["ndcg@100"]["mean"]
    assert abs(SIDES[BEST]["capped_recall@50"]["mean"]) < 0.001 and holds_zero(SIDES[BEST]["capped_recall@50"])
    assert SIDES[BEST]["recall@20[head]"]["high"] < 0 < SIDES[BEST]["recall@20[torso]"]["low"]


def test_the_steps_towards_ease():
    steps = {
        name: one["minus ease"]["ndcg@100"] for name, one in newest("held-out-ideas_latest-small")["ideas"].items()
    }
    assert steps["two tables"]["high"] < 0 and holds_zero(steps["and batches of 256"])
    gains = {after: steps[after]["mean"] - steps[before]["mean"] for before, after in pairwise(list(steps)[3:10])}
    largest = sorted(gains, key=lambda name: -gains[name])[:2]
    assert largest == ["one table", "and no mask of known positives"]
    assert gains["and the corrected loss"] < 0 > steps["of this, with two tables and a linear map"]["high"]


# --- Published splits -------------------------------------------------------------------------------------------------

SETS = ("gowalla", "electronic")
TOWER = "history tower, d 64"


def on_test(data, side):
    row = newest(f"public-{data}")["test"][side]
    return row["recall@20"]["mean"], row["ndcg@20"]["mean"]


def published(data, model):
    (one,) = [one for one in PUBLISHED[data] if one.model == model]
    return one.recall, one.ndcg


def test_the_plain_tower_beside_the_best_published_of_its_size():
    (recall, ndcg), best = on_test("gowalla", TOWER), published("gowalla", "MF + BSL, d 64")
    assert recall >= best[0] and -0.003 < ndcg - best[1] < 0
    recall, ndcg = on_test("electronic", TOWER)
    assert recall > max(one.recall for one in PUBLISHED["electronic"])
    assert ndcg > max(one.ndcg for one in PUBLISHED["electronic"])


@pytest.mark.parametrize("data", SETS)
def test_without_log_q_it_is_below_every_published_model(data):
    without, recalls = on_test(data, f"{TOWER}, without log q")[0], [one.recall for one in PUBLISHED[data]]
    assert without < min(recalls)
    assert on_test(data, TOWER)[0] - without > max(recalls) - min(recalls)


def test_ease_agrees_with_the_published_one_and_is_above_all_published_models_on_electronics():
    for ours, theirs in zip(on_test("gowalla", "ease"), published("gowalla", "EASE"), strict=True):
        assert abs(ours - theirs) <= 1.5e-4
    assert on_test("electronic", "ease")[1] > max(one.ndcg for one in PUBLISHED["electronic"])


@pytest.mark.parametrize("data", SETS)
def test_neighbours_add_a_little(data):
    assert 0 < on_test(data, "history tower and neighbours, d 64")[1] - on_test(data, TOWER)[1] < 0.002


def test_more_dimensions_win_on_validation_by_far_and_on_test_in_recall_only():
    tuned = {side: one["chosen"]["ndcg@20"] for side, one in newest("public-gowalla")["tuned"].items()}
    assert tuned["history tower, any d"] - tuned[TOWER] > 0.005
    (recall, ndcg), (few_recall, few_ndcg) = on_test("gowalla", "history tower, any d"), on_test("gowalla", TOWER)
    assert recall > few_recall and ndcg < few_ndcg
    assert all(
        a > b + 0.003
        for a, b in zip(on_test("electronic", "history tower, any d"), on_test("electronic", TOWER), strict=True)
    )


@pytest.mark.parametrize("data", SETS)
def test_every_side_of_a_published_split_had_at_most_twelve_settings_and_towers_three_seeds(data):
    table = newest(f"public-{data}")
    assert all(len(one["tried"]) <= 12 for one in table["tuned"].values())
    assert all(len(row["recall@20"]["seeds"]) == 3 for side, row in table["test"].items() if "tower" in side)


# --- Speed ------------------------------------------------------------------------------------------------------------


def test_at_4096_a_step_with_everything_on_is_faster_than_the_bare_loop():
    steps = newest("speed-step")
    assert steps["4096"]["everything on"]["of_bare"] > 1 > steps["1024"]["everything on"]["of_bare"]


def test_the_profile_of_a_step_says_the_loss_dominates_at_large_batches_only():
    shares = newest("loss-profile")
    of_matmuls = {size: one["aten::mm"] + one["aten::addmm_"] for size, one in shares.items()}
    assert of_matmuls["8192"] > 0.5 > 0.2 > of_matmuls["1024"]
