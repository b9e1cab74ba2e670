"""Training loops whose speed is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from twotower_lib.recipe import Prepared, Recipe, begin
from twotower_lib.towers import HeadSettings, TowerSettings
from twotower_lib.training import LossSettings

PAIRS = 20_480
"""Trained on in one turn, whatever the batch."""
DIM = 64
IDS = TowerSettings(user=("id",), user_head=HeadSettings(), item_bias=False)
NOTHING = LossSettings(log_q=0.0, same_item=False, known_positives=False)

MakeOptimiser = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def fused_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, fused=True)


class Bare(nn.Module):
    """Two tables and nothing else."""

    def __init__(self, n_users: int, n_items: int, sparse: bool = False) -> None:
        super().__init__()
        self.user, self.item = (nn.Embedding(n, DIM, sparse=sparse) for n in (n_users, n_items))

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        logits = self.user(users) @ self.item(items).T
        return nn.functional.cross_entropy(logits, torch.arange(len(users)))


def bare_loop(
    prepared: Prepared, size: int, make: MakeOptimiser = fused_adam, sparse: bool = False, pairs: int = PAIRS
) -> Callable[[], None]:
    """Index tensors, embeddings, matmul, cross-entropy, fused Adam: what a step cannot do without."""
    train = prepared.split.train
    users, items = torch.from_numpy(train.user), torch.from_numpy(train.item)
    model = Bare(train.n_users, train.n_items, sparse)
    optimiser = make(model.parameters())

    def work() -> None:
        order = torch.randperm(len(users))
        for step in range(pairs // size):
            chosen = order[step * size % (len(users) - size) :][:size]
            optimiser.zero_grad()
            model(users[chosen], items[chosen]).backward()
            optimiser.step()

    return work


class PerRow(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """One pair at a time, as tutorials write it."""

    def __init__(self, prepared: Prepared) -> None:
        self.user, self.item = prepared.split.train.user.tolist(), prepared.split.train.item.tolist()

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self.user[place]), torch.tensor(self.item[place])


def tutorial_loop(
    prepared: Prepared, size: int, make: MakeOptimiser = torch.optim.Adam, pairs: int = PAIRS
) -> Callable[[], None]:
    """A per-row Dataset behind a DataLoader, and the default Adam."""
    model = Bare(prepared.split.train.n_users, prepared.split.train.n_items)
    optimiser = make(model.parameters())
    loader = torch.utils.data.DataLoader(PerRow(prepared), batch_size=size, shuffle=True, drop_last=True)

    def work() -> None:
        done = 0
        while done < pairs // size:
            for users, items in loader:
                optimiser.zero_grad()
                model(users, items).backward()
                optimiser.step()
                done += 1
                if done == pairs // size:
                    break

    return work


def our_loop(
    prepared: Prepared,
    recipe: Recipe,
    size: int,
    steps: bool = True,
    make: MakeOptimiser | None = None,
    pairs: int = PAIRS,
) -> Callable[[], None]:
    """The library's own batches and steps; without `steps` only the batches. `make` stands in for its optimiser."""
    sized = replace(recipe, train=replace(recipe.train, batch_size=size))
    phase = begin(sized, prepared, prepared.split, epochs=1)
    if make is not None:
        phase.optimisers = [make(one for one in phase.towers.parameters() if one.requires_grad)]
    epoch = iter(range(10**6))

    def work() -> None:
        done = 0
        while done < pairs // size:
            for batch in phase.batches.epoch(next(epoch)):
                if steps:
                    phase.step(batch, 0)
                done += 1
                if done == pairs // size:
                    break

    return work
