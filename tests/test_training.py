"""The loop: what one step does, when it stops, what it leaves, and that a stopped run loses nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import threading
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.toy_losses import FILE, RECIPES, losses
from tests.oracles.naive_loss import naive_corrected_loss, naive_loss
from twotower_lib import recipe, training
from twotower_lib.diagnostics import diagnose, fixed_sample, with_gradients
from twotower_lib.errors import ArtifactError, SettingError
from twotower_lib.losses import corrected_log_q_softmax, in_batch_softmax
from twotower_lib.metrics import METRICS
from twotower_lib.training import (
    LossSettings,
    Run,
    TrainSettings,
    asked_to_stop,
    batch_loss,
    learning_rate_at,
    load_state,
    load_towers,
    no_negatives,
)

pytest_plugins = ["tests.commands"]

SMALL = ("data=toy", "model.dim=8", "train.batch_size=128", "train.warmup_steps=5", "train.epochs=3")
"""Five steps an epoch."""
EVERY_DRAW = (*SMALL[:-1], "train.epochs=5", "train.patience=2", "model.dropout=0.2", "history.dropout=0.3")
"""A run that draws dropout from torch's global generator, too."""
PLAIN = (
    *("model.normalise=false", "model.init_scale=1e-3"),
    *("loss.log_q=0", "loss.same_item=false", "loss.known_positives=false"),
)
"""Scores that start at 0, and a loss without corrections."""
OFTEN = (*EVERY_DRAW, "train.checkpoint_steps=3")


def trained(folder, *overrides, **settings):
    """A run in a new folder."""
    assert recipe.train(recipe.compose(overrides), folder, **settings)
    return folder


def phase_of(*overrides, refit=False, epochs=None):
    """A phase before its first step."""
    chosen = recipe.compose(overrides)
    prepared = recipe.prepare(chosen)
    split = prepared.split.refit() if refit else prepared.split
    return recipe.begin(chosen, prepared, split, epochs or chosen.train.epochs)


def walked(phase, epochs):
    """The loop in its plainest form."""
    number = 0
    for epoch in range(epochs):
        for batch in phase.batches.epoch(epoch):
            phase.step(batch, number)
            number += 1
    return phase.towers.state_dict()


def weights(run, name):
    return load_state(run / name)["towers"]


def log(run):
    """The lines of the log without the speed, which no two runs share."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(line.pop("pairs_a_second") > 0 for line in lines)
    return lines


def same(one, other):
    """Equal to the last bit, in nested dicts and lists of tensors and plain values."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_run(one, other):
    """Two runs that cannot be told apart but by the clock."""
    for name in ("last", "best", "final"):
        assert same(load_state(one / name), load_state(other / name)), name
    assert log(one) == log(other)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run that no test changes."""
    return trained(tmp_path_factory.mktemp("training") / "run", *EVERY_DRAW)


@pytest.fixture(scope="module")
def uninterrupted(twotower, tmp_path_factory):
    """A whole run by the command line, with its seconds."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    twotower.good("sources")  # by now everything is imported
    start = time.perf_counter()
    twotower.good("train", *OFTEN, f"out={folder}")
    return folder, time.perf_counter() - start


# One step ------------------------------------------------------------------------------------------------------------


def test_the_learning_rate_by_hand():
    settings = TrainSettings(learning_rate=0.8, warmup_steps=4)
    rates = [learning_rate_at(step, 12, settings) for step in range(13)]
    # Four equal steps up; then half a cosine over 8 steps: all of it, half of it after 4, nothing after 8.
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 0.8])
    np.testing.assert_allclose(rates[8], 0.4)
    np.testing.assert_allclose(rates[6], 0.4 * (1 + math.sqrt(0.5)))  # cos(pi / 4)
    np.testing.assert_allclose(rates[12], 0, atol=1e-12)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_the_warm_up_is_at_most_half_of_a_short_run():
    settings = TrainSettings(learning_rate=0.9, warmup_steps=50)
    np.testing.assert_allclose([learning_rate_at(step, 6, settings) for step in range(4)], [0.3, 0.6, 0.9, 0.9])
    assert learning_rate_at(0, 1, settings) == 0.9


def test_without_a_warm_up_the_first_step_is_at_the_peak():
    assert learning_rate_at(0, 10, TrainSettings(learning_rate=0.5, warmup_steps=0)) == 0.5


@pytest.mark.parametrize("lazy", [False, True])
def test_the_optimisers_get_the_learning_rate_of_their_step(lazy):
    phase = phase_of(*SMALL, f"train.lazy_tables={lazy}")
    batch = next(phase.batches.epoch(0))
    for number in (0, 7, 11):
        phase.step(batch, number)
        expected = learning_rate_at(number, 15, phase.train)
        groups = [group for optimiser in phase.optimisers for group in optimiser.param_groups]
        assert [group["lr"] for group in groups] == [expected] * (1 + lazy)
    assert phase.total_steps == 15


def test_equal_scores_cost_the_chance_loss():
    """Without corrections, a model that cannot tell items apart pays ln(batch)."""
    phase = phase_of(*SMALL, *PLAIN)
    loss = batch_loss(phase.towers, next(phase.batches.epoch(0)), phase.loss)
    np.testing.assert_allclose(loss.item(), math.log(128), rtol=1e-6)


@pytest.mark.parametrize("same_item", [False, True])
@pytest.mark.parametrize("known_positives", [False, True])
@pytest.mark.parametrize("log_q", [0.0, 0.7])
def test_each_correction_is_switched_on_by_its_setting(same_item, known_positives, log_q):
    phase = phase_of(*SMALL, "train.batch_size=24", f"loss.known_positives={str(known_positives).lower()}")
    phase.towers.eval()
    batch, towers = next(phase.batches.epoch(0)), phase.towers
    settings = LossSettings(log_q=log_q, same_item=same_item, known_positives=known_positives)
    likes = [set(batch.known_item[batch.known_row == row].tolist()) for row in range(len(batch))]
    expected = naive_loss(
        towers.embed_users(batch.user).tolist(),
        towers.embed_items(batch.item).tolist(),
        0.15,
        log_q=batch.log_q.tolist(),
        strength=log_q,
        items=batch.items.tolist(),
        same_item=same_item,
        known=likes if known_positives else None,
    )
    np.testing.assert_allclose(batch_loss(towers, batch, settings).item(), expected, rtol=1e-5)
    items, drop = batch.items.tolist(), no_negatives(batch, settings)
    dropped = [
        [
            row != column and (same_item if one == own else known_positives and one in likes[row])
            for column, one in enumerate(items)
        ]
        for row, own in enumerate(items)
    ]
    assert drop is None or drop.tolist() == dropped
    assert (drop is None) == (not same_item and not known_positives)


@pytest.mark.parametrize("known_positives", [False, True])
def test_the_corrected_form_is_switched_on_by_its_setting(known_positives):
    switches = ("loss.form=corrected", f"loss.known_positives={str(known_positives).lower()}")
    phase = phase_of(*SMALL, "train.batch_size=24", *switches)
    phase.towers.eval()
    batch, towers = next(phase.batches.epoch(0)), phase.towers
    likes = [set(batch.known_item[batch.known_row == row].tolist()) for row in range(len(batch))]
    expected = naive_corrected_loss(
        towers.embed_users(batch.user).tolist(),
        towers.embed_items(batch.item).tolist(),
        0.15,
        log_q=batch.log_q.tolist(),
        items=batch.items.tolist(),
        known=likes if known_positives else None,
    )
    np.testing.assert_allclose(batch_loss(towers, batch, phase.loss).item(), expected, rtol=1e-5)


def test_equal_scores_cost_the_corrected_form_the_log_of_the_catalogue():
    """Whatever the batch: its value estimates the full softmax."""
    phase = phase_of(*SMALL, *PLAIN[:2], "loss.form=corrected", "loss.known_positives=false")
    losses = [batch_loss(phase.towers, batch, phase.loss).item() for batch in phase.batches.epoch(0)]
    warm = np.count_nonzero(phase.batches.train.item_counts)
    assert abs(np.mean(losses) - math.log(warm)) < 0.2 < abs(math.log(128) - math.log(warm))


def test_a_fixed_temperature_is_not_trained():
    fixed, learned = phase_of(*SMALL), phase_of(*SMALL, "model.learn_temperature=true")
    before = fixed.towers.temperature.item()
    walked(fixed, 1), walked(learned, 1)
    assert fixed.towers.temperature.item() == before
    assert learned.towers.temperature.item() != before


DEEP = (
    *("model.user=[id, history]", "model.item=[id, categories]", "model.id_dropout=0.3", "model.dropout=0.2"),
    *("model.user_head.depth=3", "model.user_head.width=64", "model.user_head.dropout=0.3"),
    *("model.item_head.depth=2", "model.item_head.layer_norm=true", "model.learn_temperature=true"),
)
"""Towers that draw dropout in every place that they have."""


def loss_and_gradients(phase, chunk):
    """Of the first batch in double precision, from one seed, and by their names the gradients of all parameters."""
    towers, batch = phase.towers.double(), next(phase.batches.epoch(0))
    towers.zero_grad()
    torch.manual_seed(1)
    loss = batch_loss(towers, batch, phase.loss, embed_chunk=chunk)
    loss.backward()
    return {"loss": loss.detach(), **{name: one.grad.clone() for name, one in towers.named_parameters()}}


@pytest.mark.parametrize("chunk", [1, 50, 128, 1000])  # 50: the last of three chunks has 28 events
def test_embedding_in_chunks_changes_no_gradient(chunk):
    phase = phase_of(*SMALL, *DEEP)
    phase.towers.eval()
    found, expected = loss_and_gradients(phase, chunk), loss_and_gradients(phase, 0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_chunks_that_are_computed_anew_draw_the_same_dropout(monkeypatch):
    """With the chunks of the same step kept as they are, for comparison: their dropout comes in the same order."""
    phase = phase_of(*SMALL, *DEEP)
    found = loss_and_gradients(phase, 50)
    monkeypatch.setattr(training, "checkpoint", lambda embed, *inputs, use_reentrant: embed(*inputs))
    torch.testing.assert_close(found, loss_and_gradients(phase, 50), rtol=1e-10, atol=1e-12)
    phase.towers.eval()
    assert not torch.isclose(found["loss"], loss_and_gradients(phase, 50)["loss"])  # so there was dropout


def test_nothing_between_is_kept_of_chunks():
    """Of depth 3 and width 64 the forward pass keeps more for the backward pass than all embeddings have entries."""
    phase, kept = phase_of(*SMALL, *DEEP), {}
    batch = next(phase.batches.epoch(0))
    for chunk in (0, 16):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, s=sizes: s.append(one.numel()) or one, lambda one: one
        ):
            loss_of = batch_loss(phase.towers, batch, phase.loss, embed_chunk=chunk)
        kept[chunk] = sum(sizes)
        loss_of.backward()
    assert kept[16] < 4 * 2 * 128 * 9 < kept[0] / 5  # vectors of both sides, 8 + 1 wide, and their gradients


def test_a_run_in_chunks_trains(tmp_path):
    found = log(trained(tmp_path / "run", *SMALL, "train.embed_chunk=50"))
    expected = log(trained(tmp_path / "whole", *SMALL))
    np.testing.assert_allclose([line["loss"] for line in found], [line["loss"] for line in expected], rtol=1e-5)


def by_the_plain_functions(phase, batch):
    """Loss and gradients of the batch, as `loss_and_gradients` gives them, from the table of all its cells."""
    towers = phase.towers.double()
    towers.zero_grad()
    torch.manual_seed(1)
    user, item = towers.embed_users(batch.user), towers.embed_items(batch.item)
    options = {"temperature": towers.temperature, "log_q": batch.log_q, "drop": no_negatives(batch, phase.loss)}
    if phase.loss.form == "corrected":
        loss = corrected_log_q_softmax(user, item, candidates=batch.items, **options)
    else:
        loss = in_batch_softmax(user, item, **options)
    loss.backward()
    return {"loss": loss.detach(), **{name: one.grad.clone() for name, one in towers.named_parameters()}}


@pytest.mark.parametrize("chunk", [0, 50, 128, 1000])  # 128: the items' second chunk has the 30 drawn ones
@pytest.mark.parametrize("form", ["classic", "corrected"])
def test_uniform_negatives_reach_the_loss(form, chunk):
    """Each of the 30 columns is a negative of every row that does not know its item."""
    phase = phase_of(*SMALL, *DEEP, f"loss.form={form}", "train.uniform_negatives=30")
    phase.towers.eval()
    phase.batches.log_q = phase.batches.log_q.double()
    batch = next(phase.batches.epoch(0))
    assert (len(batch), len(batch.items)) == (128, 158)
    torch.testing.assert_close(
        loss_and_gradients(phase, chunk), by_the_plain_functions(phase, batch), rtol=1e-10, atol=1e-12
    )
    known = [set(batch.known_item[batch.known_row == row].tolist()) for row in range(128)]
    assert any(known)
    expected = torch.tensor([[item in known[row] for item in batch.items[128:].tolist()] for row in range(128)])
    assert torch.equal(no_negatives(batch, phase.loss)[:, 128:], expected)


def test_a_step_counts_the_uniform_negatives():
    """Equal scores without corrections cost the log of all columns."""
    phase = phase_of(*SMALL, *PLAIN, "model.init_scale=1e-9", "train.uniform_negatives=30")
    assert phase.step(next(phase.batches.epoch(0)), 0) == pytest.approx(math.log(158), abs=1e-5)


def test_a_run_with_uniform_negatives_and_chunks(tmp_path):
    lines = log(trained(tmp_path / "run", *SMALL, "train.uniform_negatives=30", "train.embed_chunk=50"))
    assert {line["chance_loss"] for line in lines} == {math.log(158)}
    losses_of_choose = [line["loss"] for line in lines if line["phase"] == "choose"]
    assert losses_of_choose[-1] < losses_of_choose[0]


def test_the_fixed_sample_has_no_extra_negatives():
    sample = fixed_sample(phase_of(*SMALL, "train.uniform_negatives=30").batches)
    assert len(sample) == len(sample.items) == 128
    assert torch.equal(sample.items, fixed_sample(phase_of(*SMALL).batches).items)


def test_the_gradient_norm_of_lazy_tables_is_that_of_dense_ones():
    found = {}
    for lazy in (False, True):
        phase = phase_of(*SMALL, f"train.lazy_tables={lazy}")
        phase.step(next(phase.batches.epoch(0)), 0)
        found[lazy] = with_gradients({}, phase.towers)
    assert found[True] == pytest.approx(found[False], rel=1e-5)


# The whole run -------------------------------------------------------------------------------------------------------


def test_the_loss_starts_at_its_chance_line_and_falls(tmp_path):
    lines = log(trained(tmp_path / "run", *SMALL, *PLAIN, "train.learning_rate=0.05", "train.patience=0"))
    assert len(lines) > 3
    for phase in ("choose", "refit"):
        found = [line["loss"] for line in lines if line["phase"] == phase]
        assert found == sorted(found, reverse=True)
        assert math.log(128) - 0.2 < found[0] < math.log(128)
    assert lines[2]["loss"] < math.log(128) - 0.1


def test_a_line_an_epoch(run):
    lines = log(run)
    best = load_state(run / "best")["position"]["best_epoch"]
    chosen = [line for line in lines if line["phase"] == "choose"]
    assert [line["epoch"] for line in chosen] == list(range(1, len(chosen) + 1))
    assert [(line["phase"], line["epoch"]) for line in lines[len(chosen) :]] == [
        ("refit", epoch) for epoch in range(1, best + 1)
    ]
    assert {line["chance_loss"] for line in lines} == {math.log(128)}
    assert all(line["metrics"].keys() == {f"{name}@20" for name in METRICS} for line in chosen)
    assert all(line["metrics"] == {} for line in lines[len(chosen) :])


def test_what_is_reported_is_what_is_logged(tmp_path):
    told = []
    trained(tmp_path / "run", *SMALL, report=told.append)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [asdict(progress) for progress in told] == lines


def test_best_is_the_state_after_the_best_epoch(run):
    chosen = [line for line in log(run) if line["phase"] == "choose"]
    metrics = [line["metrics"]["ndcg@20"] for line in chosen]
    best = 1 + metrics.index(max(metrics))
    position = load_state(run / "best")["position"]
    assert (position["phase"], position["best_epoch"], position["best"]) == ("choose", best, max(metrics))
    assert same(weights(run, "best"), walked(phase_of(*EVERY_DRAW), best))


def test_final_is_trained_on_train_and_valid_for_as_many_epochs_as_were_best(run):
    best = load_state(run / "best")["position"]["best_epoch"]
    phase = phase_of(*EVERY_DRAW, refit=True, epochs=best)
    assert len(phase.batches.train) > len(phase_of(*EVERY_DRAW).batches.train)
    assert same(weights(run, "final"), walked(phase, best))
    assert same(weights(run, "final"), weights(run, "last"))


def test_without_a_refit_there_is_no_final(tmp_path):
    run = trained(tmp_path / "run", *SMALL, "train.refit=false")
    assert not (run / "final").exists()
    assert {line["phase"] for line in log(run)} == {"choose"}
    assert load_state(run / "last")["position"]["done"]


def test_equal_seeds_give_equal_weights_and_others_do_not(run, tmp_path):
    assert_same_run(run, trained(tmp_path / "again", *EVERY_DRAW))
    other = trained(tmp_path / "other", *EVERY_DRAW, "seed=1")
    assert not same(weights(run, "final"), weights(other, "final"))
    assert log(run) != log(other)


def test_what_was_drawn_before_changes_nothing(run, tmp_path):
    torch.manual_seed(7)
    np.random.seed(7)
    assert_same_run(run, trained(tmp_path / "run", *EVERY_DRAW))


def test_validating_disturbs_nothing(run):
    """The walk through the epochs asks nothing of validation, and ends with the same weights."""
    state = load_state(run / "best")
    assert same(state["towers"], walked(phase_of(*EVERY_DRAW), state["position"]["epoch"]))


@pytest.mark.parametrize("name", RECIPES)
def test_the_losses_are_the_committed_ones(name):
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    assert committed.keys() == RECIPES.keys()
    found = losses(RECIPES[name])
    for phase in ("choose", "refit"):
        np.testing.assert_allclose(found[phase], committed[name][phase], rtol=1e-5)


# When it stops -------------------------------------------------------------------------------------------------------


class Scripted(Run):
    """A run whose validation says what is written down."""

    script: tuple[float, ...] = ()

    def _validate(self, phase):
        return {"ndcg@20": self.script[phase_epochs(self)]}


def phase_epochs(run):
    return len(log(run.folder)) if (run.folder / "log.jsonl").exists() else 0


def scripted(folder, script, *overrides):
    """The (phase, epoch) of every line of a run with this validation metric."""
    chosen = recipe.compose([*SMALL, f"train.epochs={len(script)}", *overrides])
    prepared = recipe.prepare(chosen)
    folder.mkdir()
    run = Scripted(folder, partial(recipe.begin, chosen, prepared), prepared.split, chosen.train)
    run.script = script
    assert run.go()
    return [(line["phase"], line["epoch"]) for line in log(folder)]


@pytest.mark.parametrize(
    ("script", "patience", "epochs", "best"),
    [
        ((0.1, 0.3, 0.2, 0.3, 0.9), 2, 4, 2),  # as good is not better
        ((0.1, 0.3, 0.2, 0.4, 0.3), 2, 5, 4),  # one bad epoch is borne
        ((0.3, 0.2, 0.1, 0.1, 0.9), 0, 5, 5),  # 0 never stops
        ((0.3, 0.2, 0.9), 1, 2, 1),
        ((0.0, 0.0, 0.0), 3, 3, 1),  # nothing is better than the first
    ],
)
def test_patience(tmp_path, script, patience, epochs, best):
    lines = scripted(tmp_path / "run", script, f"train.patience={patience}")
    assert lines == [("choose", n) for n in range(1, epochs + 1)] + [("refit", n) for n in range(1, best + 1)]
    assert load_state(tmp_path / "run" / "best")["position"]["epoch"] == best


def test_the_learning_rate_of_the_refit_falls_to_0_at_its_own_end(tmp_path, monkeypatch):
    totals = []
    monkeypatch.setattr(
        training, "learning_rate_at", lambda step, total, settings: totals.append((step, total)) or 0.01
    )
    scripted(tmp_path / "run", (0.1, 0.3, 0.2), "train.patience=0")
    choose, refit = totals[:15], totals[15:]
    assert choose == [(step, 15) for step in range(15)]
    per_epoch = len(refit) // 2
    assert refit == [(step, 2 * per_epoch) for step in range(2 * per_epoch)]


# Signals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_second_acts_as_usual(number):
    acted = []
    before = signal.signal(number, lambda *_: acted.append("usual"))
    try:
        with asked_to_stop() as stop:
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set() and acted == []
            signal.raise_signal(number)
            assert acted == ["usual"]
        signal.raise_signal(number)
        assert acted == ["usual", "usual"]
    finally:
        signal.signal(number, before)


def test_the_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), asked_to_stop():
        assert signal.getsignal(signal.SIGINT) is not before
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def work():
        with asked_to_stop() as stop:
            found.append((stop.is_set(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGINT))]


@pytest.mark.parametrize(
    ("phase", "epoch"), [("choose", 1), ("choose", "last"), ("refit", 1), ("refit", "last")], ids=str
)
def test_stopped_after_an_epoch_and_resumed(run, tmp_path, phase, epoch):
    """Also in the moments between the phases, and between the last step and the end."""
    ends = {name: max(line["epoch"] for line in log(run) if line["phase"] == name) for name in ("choose", "refit")}
    wanted = (phase, ends[phase] if epoch == "last" else epoch)

    def stop(progress):
        if (progress.phase, progress.epoch) == wanted:
            signal.raise_signal(signal.SIGINT)

    chosen, folder = recipe.compose(EVERY_DRAW), tmp_path / "run"
    assert not recipe.train(chosen, folder, report=stop)
    assert log(folder) == log(run)[: len(log(folder))]
    assert (log(folder)[-1]["phase"], log(folder)[-1]["epoch"]) == wanted
    told = []
    assert recipe.resume(folder, told.append)
    assert [(one.phase, one.epoch) for one in told] == [
        (line["phase"], line["epoch"]) for line in log(run)[len(log(run)) - len(told) :]
    ]
    assert_same_run(run, folder)


@pytest.mark.parametrize(("phase", "step"), [("choose", 0), ("choose", 7), ("choose", 9), ("refit", 3), ("refit", 4)])
def test_stopped_in_the_middle_of_an_epoch_and_resumed(run, tmp_path, monkeypatch, phase, step):
    """Steps 4 and 9 are the last ones of their epoch."""
    assert_stopped_and_resumed(EVERY_DRAW, run, tmp_path / "run", monkeypatch, phase, step)


def test_stopped_and_resumed_with_lazy_tables(tmp_path, monkeypatch):
    overrides = (*EVERY_DRAW, "train.lazy_tables=true")
    run = trained(tmp_path / "whole", *overrides)
    assert_stopped_and_resumed(overrides, run, tmp_path / "run", monkeypatch, "choose", 7)


def assert_stopped_and_resumed(overrides, run, folder, monkeypatch, phase, step):
    """A run that a signal stops after this step of this phase, and that goes on, is the one that was not stopped."""
    original, begun = training.Phase.step, []

    def stepped(self, batch, number):
        loss = original(self, batch, number)
        begun.extend(["choose", "refit"][len(begun) : len(begun) + 1] if number == 0 else [])
        if (begun[-1], number) == (phase, step):
            signal.raise_signal(signal.SIGTERM)
        return loss

    with monkeypatch.context() as patched:
        patched.setattr(training.Phase, "step", stepped)
        assert not recipe.train(recipe.compose(overrides), folder)
    position = load_state(folder / "last")["position"]
    assert (position["phase"], position["epoch"], position["step"]) == (phase, (step + 1) // 5, (step + 1) % 5)
    assert recipe.resume(folder)
    assert_same_run(run, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number, twotower, uninterrupted, tmp_path):
    out = tmp_path / "run"
    stopped = twotower("train", *OFTEN, f"out={out}", signal=number, once=out / "last")
    assert stopped.code == 130
    assert stopped.err == f"stopped and saved; to go on: twotower resume {out}\n"
    assert not load_state(out / "last")["position"]["done"]
    resumed = twotower.good("resume", out)
    assert resumed.out.endswith(f"done: {out}\n")
    assert_same_run(uninterrupted[0], out)


# kill -9 -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_again_and_again_the_weights_are_those_of_an_uninterrupted_run(twotower, uninterrupted, tmp_path):
    """The first kill comes in the training command, the others in what resumes it; each at a random moment."""
    whole, seconds = uninterrupted
    moments, found = twotower.moments(seconds), []
    for number in range(40):
        out = tmp_path / str(number)
        command = ("train", *OFTEN, f"out={out}")
        while twotower.killed(*command, moments=moments):
            found.append(where(out))
            command = command if found[-1] == "nowhere" else ("resume", out)
        assert_same_run(whole, out)
        if len(found) - found.count("nowhere") >= 12 and {"choose", "refit"} <= set(found):
            break
    print({place: found.count(place) for place in found})
    assert {"choose", "refit"} <= set(found), found
    assert len(found) - found.count("nowhere") >= 12


def where(run):
    """Which phase the checkpoint of a killed run is in."""
    if not run.exists():
        return "nowhere"
    return load_state(run / "last")["position"]["phase"] if (run / "last").exists() else "no checkpoint yet"


@pytest.mark.slow
def test_a_real_process_killed_and_resumed(twotower, uninterrupted, tmp_path):
    """As above, but as a person starts it."""
    out = tmp_path / "run"
    with twotower.start("train", *OFTEN, f"out={out}") as process:
        while not (out / "last").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert twotower.real("resume", out).code == 0
    assert_same_run(uninterrupted[0], out)


def test_a_complete_run_is_left_as_it_is(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    told = []
    assert recipe.resume(out, told.append)
    assert told == []
    assert_same_run(run, out)


@pytest.mark.parametrize(
    "half",
    [
        '{"phase": "refit", "epoch": 2, "lo',
        '{"phase": "choose", "epoch": 1, "loss": 1.0, "metrics": {"ndcg@20": 0.5}',
        '{"phase": "refit", "epoch": 99, "loss": 1.0, "metrics": {}}\n',
    ],
    ids=["cut", "cut after a bracket", "after the last checkpoint"],
)
def test_lines_that_a_killed_run_wrote_too_many_are_dropped(run, tmp_path, half):
    out = shutil.copytree(run, tmp_path / "run")
    with (out / "log.jsonl").open("a") as file:
        file.write(half)
    assert recipe.resume(out)
    assert (out / "log.jsonl").read_text() == (run / "log.jsonl").read_text()


# Checkpoints and settings --------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_data_is_refused(run):
    phase = phase_of(*EVERY_DRAW, "model.dim=9")
    with pytest.raises(ArtifactError, match=r"best does not fit this data: size mismatch"):
        load_towers(run / "best", phase.features, phase.towers.settings)


def test_a_damaged_checkpoint_is_refused(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    content = bytearray((out / "last" / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "last" / "state.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"last/state\.pt is damaged"):
        recipe.resume(out)


def of_an_older_version(run):
    """The last checkpoint as it was written when a phase had one optimiser."""
    state = load_state(run / "last")
    state["optimiser"] = state.pop("optimisers")[0]
    training.save_state(run / "last", state)


def test_an_older_run_that_was_stopped_is_not_resumed(tmp_path, monkeypatch):
    stopped = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Run, "_is_patience_over", lambda self, position: signal.raise_signal(signal.SIGTERM))
        assert not recipe.train(recipe.compose(SMALL), stopped)
    of_an_older_version(stopped)
    with pytest.raises(ArtifactError) as caught:
        recipe.resume(stopped)
    assert str(caught.value) == (
        "a checkpoint of an older version\nneeded: a checkpoint that holds the state of every optimiser\n"
        "to do: resume it with that version, or train the run anew"
    )


def test_an_older_run_that_is_complete_is_left_as_it_is(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    of_an_older_version(out)
    assert recipe.resume(out)
    assert same(weights(out, "last"), weights(run, "last"))


def test_loaded_towers_do_not_drop_anything(run):
    phase = phase_of(*EVERY_DRAW)
    assert not load_towers(run / "best", phase.features, phase.towers.settings).training


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[(name, least - 1) for name, least in training.LEAST.items()],
        *[("learning_rate", value) for value in (0.0, -1.0, math.inf, math.nan)],
        *[("weight_decay", value) for value in (-1.0, math.inf, math.nan)],
    ],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(SettingError, match=rf"train\.{setting} = {value}"):
        TrainSettings(**{setting: value})


@pytest.mark.parametrize(
    "override",
    ["uniform_negatives=1.5", "embed_chunk=half", "uniform_negatives=null", "lazy_tables=2.5", "uniform_negatives=-1"],
)
def test_a_nonsensical_value_is_refused_by_its_name(override):
    name, _, value = override.partition("=")
    with pytest.raises(SettingError, match=rf"^train\.{name} = {re.escape(value)}\nneeded: "):
        recipe.compose([f"train.{override}"])


def test_lazy_tables_know_no_weight_decay():
    with pytest.raises(SettingError) as caught:
        TrainSettings(lazy_tables=True, weight_decay=0.1)
    assert str(caught.value) == (
        "train.lazy_tables = true, train.weight_decay = 0.1\nneeded: train.weight_decay = 0: lazy Adam has none"
    )


@pytest.mark.parametrize("metric", ["ndcg", "ndcg@", "ndcg@0", "ndcg@x", "gain@10", ""])
def test_an_unknown_metric(metric):
    with pytest.raises(SettingError, match=rf"train\.metric = {metric}\nneeded: a metric such as recall@20"):
        TrainSettings(metric=metric)


@pytest.mark.parametrize(("precision", "device"), [("bfloat16", "cpu"), ("float16", "cuda"), ("", "cpu")])
def test_a_precision_that_the_device_does_not_have(precision, device):
    with pytest.raises(SettingError) as caught:
        TrainSettings(precision=precision, device=device)
    assert str(caught.value) == (
        f"train.precision = {precision}, train.device = {device}\nneeded: float32, or bfloat16 on the device cuda"
    )


def test_bfloat16_is_near_float32():
    """As autocast on the CPU says; towers and loss keep their parameters and gradients in float32."""
    phase = phase_of(*SMALL, "model.user_head.depth=2", "model.learn_temperature=true")
    batch, found = next(phase.batches.epoch(0)), {}
    for precision in training.PRECISIONS:
        phase.towers.zero_grad()
        torch.manual_seed(1)
        loss = batch_loss(phase.towers, batch, phase.loss, precision=precision)
        loss.backward()
        found[precision] = loss.item()
        assert {one.grad.dtype for one in phase.towers.parameters()} == {torch.float32}
    assert 0 < abs(found["bfloat16"] - found["float32"]) < 0.01 * found["float32"]


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_a_strength_that_is_no_number(strength):
    with pytest.raises(SettingError, match="a finite strength"):
        LossSettings(log_q=strength)


def test_an_unknown_form():
    with pytest.raises(SettingError) as caught:
        LossSettings(form="corected")
    assert str(caught.value) == ("loss.form = corected\nneeded: classic or corrected\nto do: did you mean corrected?")


@pytest.mark.parametrize("settings", [{"log_q": 0.5}, {"same_item": False}])
def test_the_corrected_form_without_what_it_is_derived_from(settings):
    with pytest.raises(SettingError) as caught:
        LossSettings(form="corrected", **settings)
    log_q, same_item = settings.get("log_q", 1.0), str(settings.get("same_item", True)).lower()
    assert str(caught.value) == (
        f"loss.form = corrected, loss.log_q = {log_q}, loss.same_item = {same_item}\n"
        "needed: loss.log_q = 1 and loss.same_item = true, from which this form is derived"
    )


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_said_before_a_folder_is_made(tmp_path, device):
    with pytest.raises(SettingError, match=rf"train\.device = {device}: .*\nneeded: a device of this computer"):
        recipe.train(recipe.compose([*SMALL, f"train.device={device}"]), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_said_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"TensorBoard is not installed(.|\n)*pip install 'twotower"):
        recipe.train(recipe.compose([*SMALL, "train.tensorboard=true"]), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_log_too(tmp_path, monkeypatch):
    written = []
    torch_writer = pytest.importorskip("torch.utils.tensorboard", reason="the extra `tensorboard` is not installed")

    class Writer:
        def __init__(self, folder):
            self.folder = Path(folder)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def add_scalar(self, name, value, epoch):
            written.append((self.folder.relative_to(tmp_path / "run").as_posix(), name, value, epoch))

    monkeypatch.setattr(torch_writer, "SummaryWriter", Writer)
    run = trained(tmp_path / "run", *SMALL, "train.tensorboard=true")
    expected = []
    for line in log(run):
        folder, epoch = f"tensorboard/{line['phase']}", line["epoch"]
        told = line["diagnosis"]
        sides = {f"{side} {name}": value for side in ("user", "item") for name, value in told[side].items()}
        named = {"loss": line["loss"], "chance loss": line["chance_loss"], **sides}
        named |= {name: told[name] for name in ("masked", "alignment")} | line["metrics"]
        expected += [(folder, name, value, epoch) for name, value in named.items()]
    assert written == expected
    assert len({name for _, name, _, _ in written}) > 20


# What it says of itself ----------------------------------------------------------------------------------------------


def test_the_gradients_of_a_line_are_those_of_its_steps(run):
    phase, number, norms = phase_of(*EVERY_DRAW), 0, []
    for epoch in range(2):
        for batch in phase.batches.epoch(epoch):
            phase.step(batch, number)
            norms.append(math.sqrt(sum(one.grad.square().sum().item() for one in phase.towers.user.parameters())))
            number += 1
    found = log(run)[1]["diagnosis"]["user"]  # of the second epoch alone
    np.testing.assert_allclose(found["gradient"], sum(norms[5:]) / 5, rtol=1e-5)
    np.testing.assert_allclose(found["gradient_max"], max(norms[5:]), rtol=1e-5)


def test_the_diagnosis_of_a_line_is_that_of_the_towers_after_its_epoch(run):
    best = load_state(run / "best")["position"]["best_epoch"]
    phase = phase_of(*EVERY_DRAW)
    walked(phase, best)
    sample = fixed_sample(phase.batches)
    found = asdict(diagnose(phase.towers, sample, no_negatives(sample, phase.loss), {}, 1))
    line = log(run)[best - 1]["diagnosis"]
    for name in ("positives", "negatives", "masked", "alignment", "alarm"):
        assert line[name] == found[name]
    assert line["item"]["dimensions"] == found["item"]["dimensions"]


def test_two_brackets_in_a_row_end_a_line_of_the_log(run):
    """By them a line that a killed run left half is told."""
    for line in (run / "log.jsonl").read_text().splitlines():
        assert line.index("}}") == len(line) - 2


def test_a_diagnosis_changes_no_weight(run, tmp_path, monkeypatch):
    none = diagnose(phase_of(*SMALL).towers, fixed_sample(phase_of(*SMALL).batches), None, {}, 1)
    monkeypatch.setattr(training, "diagnose", lambda *_: none)
    without = trained(tmp_path / "run", *EVERY_DRAW)
    assert same(weights(run, "final"), weights(without, "final"))


def test_an_alarm_is_said_once_and_logged_each_time(tmp_path, monkeypatch, capsys):
    original = training.diagnose
    monkeypatch.setattr(training, "diagnose", lambda *given: replace(original(*given), alarm="Collapse: of the test."))
    lines = log(trained(tmp_path / "run", *SMALL, "train.patience=0"))
    assert [line["diagnosis"]["alarm"] for line in lines] == ["Collapse: of the test."] * len(lines) and len(lines) > 3
    told = capsys.readouterr()
    assert told.err.count("Collapse") == 1 and "choose epoch 1: Collapse: of the test.\n" in told.err
    assert "Collapse" not in told.out


def test_a_healthy_run_says_nothing(run):
    assert {line["diagnosis"]["alarm"] for line in log(run)} == {""}
