"""Search on a GPU, and training that is judged there: what lets a grid over a public benchmark take minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from twotower_lib.evaluation import Measured, measure
from twotower_lib.features import Codes, Features
from twotower_lib.protocols import Questions
from twotower_lib.ranking import Ragged, Recommendations, blocks
from twotower_lib.retriever import Retriever
from twotower_lib.towers import TwoTower, embed_catalogue
from twotower_lib.training import Phase

BLOCK = 2048
"""Queries that are scored at once: 340 MB at 41,000 items."""


class DeviceIndex:
    """All scores in float32 on a device, the largest kept; near-ties may fall in another order than in float64.

    To choose settings: what is reported is asked of `ExactIndex`.
    """

    is_exact = True

    def __init__(self, items: np.ndarray, device: str) -> None:
        self.items, self.device = torch.from_numpy(items).to(device), device
        self.n_items, self.dim = items.shape

    def search(self, queries: np.ndarray, k: int, exclude: Ragged | None = None) -> Recommendations:
        found = [self._block(queries[i:j], k, exclude and exclude.slice(i, j)) for i, j in blocks(len(queries), BLOCK)]
        items, scores = zip(*found, strict=True)
        return Recommendations(np.concatenate(items), np.concatenate(scores))

    def _block(self, queries: np.ndarray, k: int, exclude: Ragged | None) -> tuple[np.ndarray, np.ndarray]:
        scores = torch.from_numpy(queries).to(self.device) @ self.items.T
        if exclude is not None:
            row, item = (torch.from_numpy(one).to(self.device) for one in (exclude.owners, exclude.values))
            scores[row, item] = -torch.inf
        best = scores.topk(k)
        return best.indices.cpu().numpy(), best.values.cpu().numpy()


def asked_on_device(towers: Any, features: Features, asked: Questions, k: int) -> Measured:
    """What towers reach as they are now."""
    index = DeviceIndex(embed_catalogue(towers, features), str(towers.log_scale.device))
    return measure(Retriever(towers, features, index), asked, [k])


def epochs(phase: Phase, after_step: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Train to the end of the schedule; the number of epochs that are done, after each."""
    step = 0
    for epoch in range(phase.epochs):
        for batch in phase.batches.epoch(epoch):
            phase.step(batch, step)
            after_step()
            step += 1
        yield epoch + 1


class SideBySide(nn.Module):
    """Towers that were trained apart, as one pair: their vectors one behind the other, so that scores are added up."""

    def __init__(self, *towers: TwoTower) -> None:
        super().__init__()
        self.towers, self.settings, self.log_scale = nn.ModuleList(towers), towers[0].settings, towers[0].log_scale

    def embed_users(self, inputs: Mapping[str, Codes]) -> Tensor:
        return torch.cat([towers.embed_users(inputs) for towers in self.towers], dim=1)

    def embed_items(self, inputs: Mapping[str, Codes]) -> Tensor:
        return torch.cat([towers.embed_items(inputs) for towers in self.towers], dim=1)


def curve(
    phase: Phase, asked: Questions, k: int, every: int = 1, decay: float | None = None, beside: Sequence[Phase] = ()
) -> Iterator[tuple[int, Measured]]:
    """Train, and every so many epochs and at the end say how many are done and what is reached.

    With a decay it is the exponential average of the weights over the steps that is asked, and not the last ones; with
    further phases beside the first, all of them side by side.
    """
    average = None if decay is None else AveragedModel(phase.towers, multi_avg_fn=get_ema_multi_avg_fn(decay))
    towers = phase.towers if average is None else average.module
    if beside:
        towers = SideBySide(phase.towers, *(one.towers for one in beside))
    after_step = (lambda: None) if average is None else (lambda: average.update_parameters(phase.towers))
    for done, *_ in zip(epochs(phase, after_step), *map(epochs, beside), strict=True):
        if done % every == 0 or done == phase.epochs:
            yield done, asked_on_device(towers, phase.features, asked, k)
