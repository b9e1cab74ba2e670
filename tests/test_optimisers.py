"""Lazy Adam beside torch's own, and which parameter is moved by what."""

import pytest
import torch
from torch import nn

from twotower_lib import recipe
from twotower_lib.optimisers import LazyAdam

SMALL = ("data=toy", "model.dim=8", "train.batch_size=128", "train.lazy_tables=true")


def moved(make, sparse, steps, all_rows=False):
    """A table after steps on drawn rows, some of them twice in a step; the learning rate changes on the way."""
    generator = torch.Generator().manual_seed(0)
    table = nn.Embedding(50, 4, sparse=sparse)
    with torch.no_grad():
        table.weight.copy_(torch.randn(50, 4, generator=generator))
    optimiser = make(table.parameters())
    for step in range(steps):
        rows = torch.randint(0, 20, (30,), generator=generator)
        rows = torch.arange(50) if all_rows else rows
        optimiser.zero_grad()
        (table(rows) * torch.randn(len(rows), 4, generator=generator)).sum().backward()
        optimiser.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimiser.step()
    return table.weight.detach()


def lazy(parameters):
    return LazyAdam(parameters, lr=0.1)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_it_is_the_sparse_adam_of_torch(steps):
    torch.testing.assert_close(moved(lazy, True, steps), moved(torch.optim.SparseAdam, True, steps))


def test_where_all_rows_are_met_it_is_adam():
    """But for the place where eps is added, which a gradient near 0 shows."""
    expected = moved(torch.optim.Adam, False, 10, True)
    torch.testing.assert_close(moved(lazy, True, 10, True), expected, atol=1e-4, rtol=1e-3)


def test_rows_that_are_not_met_stay():
    """Where Adam goes on moving them: row 0 has a gradient in the first of three steps only."""
    for make, sparse, stays in ((lazy, True, True), (torch.optim.Adam, False, False)):
        table = nn.Embedding(2, 1, sparse=sparse)
        optimiser, seen = make(table.parameters()), []
        for row in (0, 1, 1):
            optimiser.zero_grad()
            table(torch.tensor([row])).sum().backward()
            optimiser.step()
            seen.append(table.weight[0].item())
        assert (seen[1:] == [seen[0]] * 2) == stays


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model=id",),
        ("model.tied=true",),
        ("model.user=[id,history]", "model.id_dropout=0.5"),
        ("model.pooling=attention",),
        ("model.pooling=recency", "history.mode=before", "split.protocol=last"),
        ("model.learn_temperature=true", "loss.form=corrected"),
    ],
    ids=lambda overrides: " ".join(overrides) or "default",
)
def test_tables_are_lazy_and_all_else_is_not(overrides):
    chosen = recipe.compose([*SMALL, *overrides])
    prepared = recipe.prepare(chosen)
    phase = recipe.begin(chosen, prepared, prepared.split, 1)
    before = {name: one.detach().clone() for name, one in phase.towers.named_parameters() if one.requires_grad}
    for step, batch in zip(range(2), phase.batches.epoch(0), strict=False):
        phase.step(batch, step)
    tables = {id(one.weight) for one in phase.towers.modules() if isinstance(one, nn.Embedding)}
    for name, one in phase.towers.named_parameters():
        if name in before:
            assert one.grad.is_sparse == (id(one) in tables), name
            assert not torch.equal(one, before[name]), name
    lazily = phase.optimisers[0]
    assert isinstance(lazily, LazyAdam) and {id(one) for one in lazily.param_groups[0]["params"]} == tables
