"""What a run says of itself: each measure against loops, and the alarm against collapses that are planted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from twotower_lib import diagnostics, recipe
from twotower_lib.diagnostics import (
    BINS,
    HIGHEST,
    LOWEST,
    Diagnosis,
    Side,
    alignment,
    diagnose,
    dimensions,
    fixed_sample,
    histogram,
    scalars,
    uniformity,
    with_gradients,
)
from twotower_lib.training import no_negatives

SMALL = ("data=toy", "model.dim=8", "train.batch_size=64", "train.warmup_steps=5")


def phase_of(*overrides):
    """A phase before its first step, on the toy data."""
    chosen = recipe.compose([*SMALL, *overrides])
    prepared = recipe.prepare(chosen)
    return recipe.begin(chosen, prepared, prepared.split, 3)


def diagnosed(phase, gradients=None, steps=1):
    sample = fixed_sample(phase.batches)
    return diagnose(phase.towers, sample, no_negatives(sample, phase.loss), gradients or {}, steps)


@pytest.fixture(scope="module")
def phase():
    """One that no test changes."""
    return phase_of()


def vectors(rows, dim, seed=0):
    return normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)))


def squared_distance(one, other):
    return math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True))


# The measures --------------------------------------------------------------------------------------------------------


def test_alignment_by_loops():
    users, items = vectors(7, 4, 0), vectors(7, 4, 1)
    distances = [squared_distance(u, v) for u, v in zip(users.tolist(), items.tolist(), strict=True)]
    np.testing.assert_allclose(alignment(users, items), math.fsum(distances) / 7, rtol=1e-6)
    assert alignment(users, users) == 0
    np.testing.assert_allclose(alignment(users, -users), 4, rtol=1e-6)


def test_uniformity_by_loops():
    rows = vectors(6, 3).tolist()
    pairs = [math.exp(-2 * squared_distance(rows[i], rows[j])) for i in range(6) for j in range(i)]
    assert len(pairs) == 15
    np.testing.assert_allclose(uniformity(torch.tensor(rows)), math.log(math.fsum(pairs) / 15), rtol=1e-5)


def test_uniformity_of_vectors_in_one_place_is_0():
    assert uniformity(torch.ones(5, 1)) == 0
    assert uniformity(torch.ones(1, 1)) == 0


def test_dimensions_by_loops():
    rows = vectors(9, 5).tolist()
    squares = [math.fsum(a * b for a, b in zip(one, other, strict=True)) ** 2 for one in rows for other in rows]
    np.testing.assert_allclose(dimensions(torch.tensor(rows)), 81 / math.fsum(squares), rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (torch.eye(4), 4),  # evenly spread: as many as coordinates
        (torch.cat([torch.eye(4)] * 3), 4),
        (torch.tensor([[0.6, 0.8], [-0.6, -0.8], [0.6, 0.8]]), 1),  # one line, in both directions
        (torch.cat([torch.eye(2), torch.zeros(3, 2)]), 2),  # vectors without a direction do not count
        (torch.zeros(3, 2), 0),
    ],
)
def test_dimensions_known_by_construction(rows, expected):
    np.testing.assert_allclose(dimensions(rows), expected, rtol=1e-6)


def test_vectors_spread_at_random_use_nearly_all_dimensions():
    # The mean squared cosine of different vectors is 1/16, of a vector with itself 1: 400 / (1 + 399/16) = 15.4.
    assert abs(dimensions(vectors(400, 16)) - 15.4) < 0.2


def test_the_histogram_is_that_of_numpy_with_the_ends_kept():
    scores = torch.cat([torch.randn(500, generator=torch.Generator().manual_seed(0)), torch.tensor([-9.0, 7.0])])
    expected, _ = np.histogram(scores.double().clip(LOWEST, HIGHEST).numpy(), BINS, (LOWEST, HIGHEST))
    assert histogram(scores) == expected.tolist()
    assert sum(histogram(scores)) == 502
    assert histogram(torch.tensor([-9.0, 7.0])) == [1, *[0] * (BINS - 2), 1]


def test_gradients_of_a_side_by_hand(phase):
    towers = phase_of().towers
    assert with_gradients({}, towers) == {"user sum": 0, "user max": 0, "item sum": 0, "item max": 0}
    for one in towers.user.parameters():
        one.grad = torch.zeros_like(one)
    next(towers.user.parameters()).grad[0, :2] = torch.tensor([3.0, 4.0])  # length 5
    towers.item.tables["id"].weight.grad = torch.zeros_like(towers.item.tables["id"].weight)
    towers.item.tables["id"].weight.grad[1, 0] = 5.0
    towers.bias.weight.grad = torch.zeros_like(towers.bias.weight)
    towers.bias.weight.grad[2] = 12.0  # with the table: sqrt(25 + 144) = 13
    once = with_gradients({}, towers)
    assert once == {"user sum": 5, "user max": 5, "item sum": 13, "item max": 13}
    towers.bias.weight.grad.zero_()
    assert with_gradients(once, towers) == {"user sum": 10, "user max": 5, "item sum": 18, "item max": 13}


# The diagnosis -------------------------------------------------------------------------------------------------------


def test_the_sample_is_the_first_events_of_the_run():
    few, one, again = (fixed_sample(phase_of(f"train.batch_size={size}").batches) for size in (64, 600, 600))
    assert len(few) == 64 and len(one) == diagnostics.SAMPLE
    assert torch.equal(one.items, again.items) and torch.equal(one.items[:64], few.items)
    assert torch.equal(one.user["history"].values, again.user["history"].values)


@pytest.mark.parametrize("known_positives", ["true", "false"])
@pytest.mark.parametrize("same_item", ["true", "false"])
def test_scores_and_masks_by_loops(known_positives, same_item):
    phase = phase_of(f"loss.known_positives={known_positives}", f"loss.same_item={same_item}")
    sample, found = fixed_sample(phase.batches), diagnosed(phase)
    phase.towers.eval()
    users, items = phase.towers.embed_users(sample.user).tolist(), phase.towers.embed_items(sample.item).tolist()
    known = [set(sample.known_item[sample.known_row == row].tolist()) for row in range(64)]
    ids, positives, negatives, masked = sample.items.tolist(), [], [], 0
    for row in range(64):
        for column in range(64):
            score = math.fsum(a * b for a, b in zip(users[row], items[column], strict=True))
            again = ids[row] == ids[column]
            if row == column:
                positives.append(score)
            elif (again and same_item == "true") or (ids[column] in known[row] and not again and known[row]):
                masked += 1
            else:
                negatives.append(score)
    np.testing.assert_allclose(found.masked, masked / (64 * 63), rtol=1e-12)
    assert found.positives == histogram(torch.tensor(positives))
    assert sum(found.negatives) == len(negatives) == 64 * 63 - masked
    assert np.abs(np.array(found.negatives) - histogram(torch.tensor(negatives))).sum() <= 4  # at the edge of a bin


def test_lengths_are_those_before_the_normalisation_and_items_count_once():
    phase = phase_of("model.dropout=0.5")
    sample = fixed_sample(phase.batches)
    with torch.no_grad():
        phase.towers.item.tables["id"].weight[int(sample.item["id"].values[0])] *= 1000
    found = diagnosed(phase)
    codes = sorted(set(sample.item["id"].values.tolist()))
    rows = phase.towers.item.tables["id"].weight.detach()[codes]
    lengths = rows.norm(dim=1)
    assert lengths.max() > 10
    expected = (lengths.mean(), lengths.min(), lengths.max())
    np.testing.assert_allclose((found.item.norm, found.item.norm_min, found.item.norm_max), expected, rtol=1e-6)
    np.testing.assert_allclose(found.item.uniformity, uniformity(normalize(rows)), rtol=1e-5)
    np.testing.assert_allclose(found.item.dimensions, dimensions(normalize(rows)), rtol=1e-5)


def test_gradients_are_means_and_maxima_of_the_steps(phase):
    gradients = {"user sum": 6.0, "user max": 4.0, "item sum": 1.5, "item max": 1.0}
    found = diagnosed(phase, gradients, steps=3)
    assert (found.user.gradient, found.user.gradient_max) == (2, 4)
    assert (found.item.gradient, found.item.gradient_max) == (0.5, 1)


def test_a_diagnosis_disturbs_nothing():
    phase = phase_of("model.dropout=0.5")
    for training in (True, False):
        phase.towers.train(training)
        torch.manual_seed(3)
        before, weights = torch.get_rng_state(), {k: v.clone() for k, v in phase.towers.state_dict().items()}
        found = diagnosed(phase)
        assert torch.equal(torch.get_rng_state(), before) and phase.towers.training is training
        assert all(torch.equal(v, weights[k]) for k, v in phase.towers.state_dict().items())
        assert all(one.grad is None for one in phase.towers.parameters())
        assert diagnosed(phase) == found  # dropout is off


def test_every_value_of_the_smallest_batch_is_finite():
    phase = phase_of("train.batch_size=2")
    phase.step(next(phase.batches.epoch(0)), 0)
    found = diagnosed(phase, with_gradients({}, phase.towers))
    assert all(math.isfinite(value) for value in scalars(found).values())
    assert (sum(found.positives), sum(found.negatives)) == (2, 2 - round(2 * found.masked))
    assert found.alarm == ""


def test_the_scalars_are_all_single_numbers_of_the_record(phase):
    numbers = {one.name for one in dataclasses.fields(Diagnosis)} - {"user", "item", "positives", "negatives", "alarm"}
    sides = {f"{side} {one.name}" for side in ("user", "item") for one in dataclasses.fields(Side)}
    assert scalars(diagnosed(phase)).keys() == numbers | sides


# The alarm -----------------------------------------------------------------------------------------------------------


def collapsed(phase, weight, direction):
    """A table in which all rows lie on one line."""
    rows = torch.linspace(0.5, 1.5, len(weight))[:, None]
    with torch.no_grad():
        weight.copy_(direction * rows + 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return phase


def test_all_items_in_one_place_raise_the_alarm():
    phase = phase_of()
    found = diagnosed(collapsed(phase, phase.towers.item.tables["id"].weight, torch.ones(8)))
    assert found.item.dimensions < 1.01 < found.user.dimensions
    assert found.alarm == (
        "Collapse: the item embeddings use 1.00 of 8 dimensions, so all items look alike. "
        "Check that the loss has negatives, that the inputs differ, and the learning rate."
    )


def test_both_sides_in_one_place_raise_two_alarms():
    phase = phase_of("model.tied=true")
    alarm = diagnosed(collapsed(phase, phase.towers.item.tables["id"].weight, torch.ones(8))).alarm
    assert "the user embeddings" in alarm and "the item embeddings" in alarm


def test_the_threshold_is_the_one_that_is_written_down(monkeypatch, phase):
    found = diagnosed(phase)
    less, more = sorted([found.user.dimensions, found.item.dimensions])
    monkeypatch.setattr(diagnostics, "COLLAPSED", less)
    assert diagnosed(phase).alarm == "" and less < more
    monkeypatch.setattr(diagnostics, "COLLAPSED", less * 1.001)
    assert diagnosed(phase).alarm.count("Collapse: ") == 1


def test_one_dimension_is_no_collapse():
    assert diagnosed(phase_of("model.dim=1")).alarm == ""


@pytest.mark.parametrize("overrides", [(), ("model=id",), ("model.tied=true",), ("model.normalise=false",)], ids=str)
def test_a_healthy_run_is_silent(overrides):
    phase, number = phase_of(*overrides), 0
    for epoch in range(3):
        for batch in phase.batches.epoch(epoch):
            phase.step(batch, number)
            number += 1
        assert diagnosed(phase).alarm == ""


def test_a_loss_without_negatives_raises_the_alarm():
    """Positives alone are nearest when everything lies in one place."""
    phase = phase_of("model.item_bias=false")
    optimiser = torch.optim.Adam(phase.towers.parameters(), lr=0.05)
    for epoch in range(30):
        for batch in phase.batches.epoch(epoch):
            pairs = phase.towers.embed_users(batch.user) * phase.towers.embed_items(batch.item)
            optimiser.zero_grad()
            (1 - pairs.sum(dim=1)).mean().backward()
            optimiser.step()
    assert "Collapse" in diagnosed(phase).alarm
