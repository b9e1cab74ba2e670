"""What runs on a GPU gives what the CPU gives; skipped on a machine without one, as CI's."""

from dataclasses import fields

import pytest
import torch

from tests.test_losses import a_large_batch, by_blocks, whole_table, with_gradients
from twotower_lib import losses, recipe, training

GPU = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
SMALL = ("data=toy", "train.batch_size=64", "train.uniform_negatives=30")


def phase_on(device, *overrides):
    chosen = recipe.compose([*SMALL, f"train.device={device}", *overrides])
    prepared = recipe.prepare(chosen)
    return recipe.begin(chosen, prepared, prepared.split, epochs=1)


def moved(batch, dtype):
    user, item, log_q, items, (row, known) = batch
    return user.to(GPU, dtype), item.to(GPU, dtype), log_q.to(GPU), items.to(GPU), (row.to(GPU), known.to(GPU))


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("block_bytes", [2**30, 2**8])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_a_block_at_a_time_on_a_gpu_is_the_whole_table(corrected, block_bytes, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(losses, "BLOCK_BYTES_GPU", block_bytes)
    user, item, log_q, items, known = a_large_batch(3)
    expected = with_gradients(whole_table, user, item, 0.5, log_q, 1.0, items, True, known, corrected)
    user, item, log_q, items, known = moved(a_large_batch(3), dtype)
    options = (0.5, log_q.to(torch.promote_types(dtype, torch.float32)), 1.0, items, True, known, corrected)
    for one, other in zip(with_gradients(by_blocks, user, item, *options), expected, strict=True):
        assert (one.double().cpu() - other).abs().max() <= tolerance * other.abs().max()


def test_batches_are_the_same_on_both_devices():
    for one, other in zip(*(phase_on(device).batches.epoch(1) for device in ("cpu", GPU)), strict=True):
        for name in ("items", "log_q", "known_row", "known_item"):
            assert torch.equal(getattr(one, name), getattr(other, name).cpu()), name
        for side in ("user", "item"):
            for name, codes in getattr(one, side).items():
                for part in fields(codes):
                    here, there = (getattr(c, part.name) for c in (codes, getattr(other, side)[name]))
                    assert (here is None and there is None) or torch.equal(here, there.cpu()), (side, name, part.name)


def test_chunks_draw_the_same_dropout_again(monkeypatch):
    """Computed anew in the backward pass they give what they give when everything is kept."""
    found = []
    for keep in (False, True):
        if keep:
            monkeypatch.setattr(training, "checkpoint", lambda part, *inputs, **_: part(*inputs))
        phase = phase_on(GPU, "model.dropout=0.3")
        torch.manual_seed(5)
        loss = training.batch_loss(phase.towers, next(phase.batches.epoch(0)), phase.loss, embed_chunk=16)
        loss.backward()
        found.append([loss, *(one.grad for one in phase.towers.parameters() if one.grad is not None)])
    assert len(found[0]) > 3
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
