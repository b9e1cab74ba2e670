"""The README's sentences, held against the stored results."""

import sys
from itertools import combinations, pairwise
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


def test_tables_that_start_small_change_nothing_there():
    small = SIDES[f"{BEST}, tables that start small"]
    assert abs(small["ndcg@100"]["mean"] - SIDES[BEST]["ndcg@100"]["mean"]) < 0.0005


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

SETS = ("gowalla", "yelp2018", "electronic")
TOWER = "history tower, d 64"
LARGE = "history tower, any d"


def on_test(data, side):
    row = newest(f"public-{data}")["test"][side]
    return row["recall@20"]["mean"], row["ndcg@20"]["mean"]


def on_validation(data, side):
    return newest(f"public-{data}")["tuned"][side]["chosen"]["ndcg@20"]


def published(data, model):
    (one,) = [one for one in PUBLISHED[data] if one.model == model]
    return one.recall, one.ndcg


def best_published(data):
    return max(one.recall for one in PUBLISHED[data]), max(one.ndcg for one in PUBLISHED[data])


def both_above(ours, theirs):
    return all(one > other for one, other in zip(ours, theirs, strict=True))


def test_the_plain_tower_beside_the_best_published_of_its_size():
    (recall, ndcg), best = on_test("gowalla", TOWER), published("gowalla", "MF + BSL, d 64")
    assert recall >= best[0] and -0.003 < ndcg - best[1] < 0
    assert both_above(on_test("yelp2018", TOWER), published("yelp2018", "MF + BSL, d 64"))
    assert both_above(on_test("electronic", TOWER), best_published("electronic"))


def test_with_more_dimensions_it_is_above_or_second():
    assert both_above(on_test("yelp2018", LARGE), best_published("yelp2018"))
    assert sum(one.recall > on_test("gowalla", LARGE)[0] for one in PUBLISHED["gowalla"]) == 1


@pytest.mark.parametrize("data", SETS)
def test_without_log_q_it_is_below_every_published_model(data):
    without, recalls = on_test(data, f"{TOWER}, without log q")[0], [one.recall for one in PUBLISHED[data]]
    assert without < min(recalls)
    assert on_test(data, TOWER)[0] - without > max(recalls) - min(recalls)


def test_ease_agrees_with_the_published_one_and_is_above_all_published_models_on_electronics():
    for data, away in (("gowalla", 1e-4), ("yelp2018", 3e-4)):
        for ours, theirs in zip(on_test(data, "ease"), published(data, "EASE"), strict=True):
            assert abs(round(ours, 4) - theirs) <= away + 1e-9
    assert on_test("electronic", "ease")[1] > best_published("electronic")[1]


@pytest.mark.parametrize("data", SETS)
def test_neighbours_add_a_little(data):
    assert 0 < on_test(data, "history tower and neighbours, d 64")[1] - on_test(data, TOWER)[1] < 0.002


@pytest.mark.parametrize("data", SETS)
def test_every_side_of_a_published_split_had_at_most_twelve_settings_and_towers_three_seeds(data):
    table = newest(f"public-{data}")
    assert all(len(one["tried"]) <= 12 for one in table["tuned"].values())
    assert all(len(row["recall@20"]["seeds"]) == 3 for side, row in table["test"].items() if "tower" in side)


def test_which_test_parts_were_drawn():
    drifts = {data: newest(f"public-{data}")["nature"] for data in SETS}
    assert all(abs(one["drift of a random test part"] - 1) < 0.02 for one in drifts.values())
    assert drifts["gowalla"]["drift"] > 1.7 and drifts["yelp2018"]["drift"] > 4 and drifts["electronic"]["drift"] < 1.05
    shares = [one["share"] for one in drifts["yelp2018"]["test share by place"]]
    assert (round(shares[0], 2), round(shares[-1], 2)) == (0.12, 0.31)


def test_validation_of_yelp2018_ranks_the_sides_as_test_does():
    """But for sides that lie within .0005 of each other on both."""
    sides = [side for side in newest("public-yelp2018")["test"] if "tower" in side or side == "ease"]
    for one, other in combinations(sides, 2):
        on_valid = on_validation("yelp2018", one) - on_validation("yelp2018", other)
        tested = on_test("yelp2018", one)[1] - on_test("yelp2018", other)[1]
        assert on_valid * tested > 0 or max(abs(on_valid), abs(tested)) < 0.0005, (one, other)


def test_validation_of_gowalla_promises_what_test_does_not_keep():
    assert on_validation("gowalla", "ease") > on_validation("gowalla", TOWER)
    assert round(on_test("gowalla", "ease")[1] - on_test("gowalla", TOWER)[1], 3) == -0.010
    assert round(on_validation("gowalla", LARGE) - on_validation("gowalla", TOWER), 3) == 0.007
    added = [one - few for one, few in zip(on_test("gowalla", LARGE), on_test("gowalla", TOWER), strict=True)]
    assert [round(one, 4) for one in added] == [0.0015, -0.0009]


def test_the_settings_that_yelp2018_chose_on_gowalla():
    own, borrowed = ([on_test("gowalla", side + of) for side in (TOWER, LARGE)] for of in ("", ", chosen on yelp2018"))
    assert both_above(own[0], borrowed[0]) and both_above(borrowed[1], own[1])
    for side, figures in ((TOWER, (0.1861, 0.1560)), (LARGE, (0.1904, 0.1564))):
        assert tuple(round(one, 4) for one in on_test("gowalla", f"{side}, chosen on yelp2018")) == figures


def test_the_order_is_worth_more_than_all_else_on_yelp2018():
    few, many = (on_test("yelp2018", f"history tower in order, {size}") for size in ("d 64", "any d"))
    assert both_above(few, best_published("yelp2018")) and both_above(few, on_test("yelp2018", LARGE))
    assert both_above(many, few)


IDEA_SETS = ("gowalla", "yelp2018")


def added(data, idea):
    """What an idea adds in NDCG@20, seed by seed."""
    tried = newest(f"public-{data}")["ideas"]
    plain = tried["the d 64 tower"]["ndcg@20"]
    return [one - base for one, base in zip(tried[idea]["ndcg@20"], plain, strict=True)]


def mean_added(data, idea):
    return sum(added(data, idea)) / len(added(data, idea))


def test_the_ideas_that_help():
    ideas = newest("public-yelp2018")["ideas"]
    assert max(ideas, key=lambda idea: mean_added("yelp2018", idea)) == "the history in order, by recency"
    for data in IDEA_SETS:
        gains = [mean_added(data, f"{dim} dimensions") for dim in (256, 128)]
        assert gains[0] > gains[1] > mean_added(data, "an item's neighbours beside its id") > 0
        assert mean_added(data, "two towers of 64 side by side") > 0


@pytest.mark.parametrize("data", IDEA_SETS)
def test_the_ideas_that_do_not_help(data):
    unimportant = ("the classic loss", "the positive left out of the sum (BSL)", "attention over the history")
    unimportant += ("16,384 uniform negatives beside the batch", "batches of 4,096", "one table for history and items")
    unimportant += ("weight decay .05", "averaged weights", "tables that start at the usual size")
    assert all(abs(mean_added(data, idea)) < 0.0012 for idea in unimportant)
    harmful = ("a learned temperature", "embedding dropout .2", "id and history", "the classic loss, 1.2 x log q")
    needed = ("no item bias", "known positives stay negatives")
    assert all(max(added(data, idea)) < -0.0004 for idea in (*harmful, *needed))
    assert min(added(data, "id and history, half of the ids dropped")) > max(added(data, "id and history"))
    assert mean_added(data, "a learned temperature") == min(map(lambda idea: mean_added(data, idea), harmful))


# --- Speed ------------------------------------------------------------------------------------------------------------


def test_at_4096_a_step_with_everything_on_is_faster_than_the_bare_loop():
    steps = newest("speed-step")
    assert steps["4096"]["everything on"]["of_bare"] > 1 > steps["1024"]["everything on"]["of_bare"]


def test_the_profile_of_a_step_says_the_loss_dominates_at_large_batches_only():
    shares = newest("loss-profile")
    of_matmuls = {size: one["aten::mm"] + one["aten::addmm_"] for size, one in shares.items()}
    assert of_matmuls["8192"] > 0.5 > 0.2 > of_matmuls["1024"]
