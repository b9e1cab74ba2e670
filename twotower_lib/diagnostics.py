"""What a training run says of itself after every epoch: five things to plot, and one alarm.

    loss            beside that of equal logits, ln(candidates) (`training.Progress`)
    gradient        its norm, a side: 0 for a tower that nothing reaches
    scores          of positives and of negatives, as counts in fixed bins
    geometry        lengths before the normalisation, alignment, uniformity, dimensions in use
    metrics         on validation, beside chance and popularity (`training.Progress`)

All but the gradient are measured at the end of an epoch on one fixed sample of train events, without dropout, so that
two epochs differ only by what was learned between them. Nothing here draws from a generator of its own or changes one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from twotower_lib.batches import Batch, Batches
from twotower_lib.towers import SHORTEST, TwoTower

SAMPLE = 512
"""Events of the fixed sample; fewer where a batch is smaller."""

LOWEST, HIGHEST, BINS = -2.0, 2.0, 40
"""Of the score histograms; scores beyond the ends count in the outer bins. A cosine with a small bias lies inside."""

COLLAPSED = 1.1
"""Dimensions in use below which the alarm is raised.

Vectors on one line use 1, evenly spread ones almost as many as they have coordinates. 1.1 stands for a mean squared
cosine of 0.91: from one embedding to another it is about 18 degrees, or as little to its opposite.
"""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One tower."""

    gradient: float
    """Norm of its gradient, mean over the steps of the epoch."""
    gradient_max: float
    norm: float
    """Length of what its head gives before the normalisation, mean over the sample."""
    norm_min: float
    norm_max: float
    uniformity: float
    dimensions: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is known of an epoch beside loss and metrics; users are those of the sample's rows, items its distinct ones.

    The two sides come first: in a line of the log, `}}` then stands at its end only.
    """

    user: Side
    item: Side
    masked: float
    """Share of a row's other candidates that are no negatives."""
    alignment: float
    positives: list[int]
    """How many scores fall into each bin."""
    negatives: list[int]
    alarm: str
    """Empty, or what has collapsed and what to do."""


# The measures --------------------------------------------------------------------------------------------------------


def alignment(users: Float[Tensor, "batch dim"], items: Float[Tensor, "batch dim"]) -> float:
    """Mean squared distance of the two vectors of a positive pair, both of length 1; from 0 (equal) to 4 (opposite).

    Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", section 4.1, with alpha = 2.

    >>> alignment(torch.eye(2), torch.eye(2).flip(0))
    2.0
    """
    return (users - items).square().sum(dim=1).mean().item()


def uniformity(vectors: Float[Tensor, "count dim"]) -> float:
    """Log of the mean over pairs of exp(-2 * squared distance): 0 where all vectors are equal, lower when spread out.

    Vectors have length 1. Wang and Isola 2020, section 4.1, with t = 2. A single vector gives 0.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))  # squared distance 4
    -8.0
    """
    if len(vectors) < 2:
        return 0.0
    return torch.pdist(vectors).square().mul(-2).exp().mean().log().item()


def dimensions(vectors: Float[Tensor, "count dim"]) -> float:
    """How many dimensions vectors of length 1 use: 1 / the mean squared cosine of two of them, itself counted.

    It is the participation ratio of the eigenvalues of V'V, (their sum)^2 / the sum of their squares: 1 where all lie
    on one line, at most the smaller of count and dim. Vectors of length 0 are left out; 0 where no other is.

    >>> dimensions(torch.eye(3)), dimensions(torch.ones(5, 1))
    (3.0, 1.0)
    """
    there = vectors[vectors.norm(dim=1) > SHORTEST].double()
    return len(there) ** 2 / (there.T @ there).square().sum().item() if len(there) else 0.0


def histogram(scores: Float[Tensor, " count"]) -> list[int]:
    """How many scores fall into each of the fixed bins."""
    return [int(count) for count in torch.histc(scores.double().clamp(LOWEST, HIGHEST), BINS, LOWEST, HIGHEST)]


def with_gradients(so_far: Mapping[str, float], towers: TwoTower) -> dict[str, float]:
    """Sum and maximum of each side's gradient norm, with the step that was just made.

    The item bias belongs to the item side; a table that both share counts on both.
    """
    items = [*towers.item.parameters(), *([] if towers.bias is None else towers.bias.parameters())]
    found = {}
    for side, parameters in (("user", [*towers.user.parameters()]), ("item", items)):
        norm = math.hypot(*(one.grad.norm().item() for one in parameters if one.grad is not None))
        found[f"{side} sum"] = so_far.get(f"{side} sum", 0.0) + norm
        found[f"{side} max"] = max(so_far.get(f"{side} max", 0.0), norm)
    return found


# The diagnosis -------------------------------------------------------------------------------------------------------


def fixed_sample(batches: Batches) -> Batch:
    """The first events of the first epoch, always the same, without extra negatives."""
    few = copy.copy(batches)
    few.batch_size, few.uniform_negatives = min(SAMPLE, batches.batch_size), 0
    return next(few.epoch(0))


@torch.no_grad()
def diagnose(
    towers: TwoTower,
    sample: Batch,
    drop: Bool[Tensor, "batch batch"] | None,
    gradients: Mapping[str, float],
    steps: int,
) -> Diagnosis:
    """The towers on the fixed sample, and the gradients of an epoch.

    Args:
        towers: left in the mode they were in.
        sample: on the towers' device.
        drop: True where a candidate is no negative; the diagonal is False.
        gradients: what `with_gradients` gave after the last of the steps.
        steps: steps of the epoch.
    """
    was_training = towers.training
    towers.eval()
    scores = towers.embed_users(sample.user) @ towers.embed_items(sample.item).T
    users, items = towers.user(sample.user), towers.item(sample.item)
    towers.train(was_training)
    no_negative = torch.eye(len(sample), dtype=torch.bool, device=scores.device)
    if drop is not None:
        no_negative |= drop
    distinct = np.unique(sample.items.cpu().numpy(), return_index=True)[1]
    sides = {"user": users, "item": items[torch.from_numpy(distinct).to(items.device)]}
    user, item = (_side(vectors, name, gradients, steps) for name, vectors in sides.items())
    return Diagnosis(
        user=user,
        item=item,
        masked=(no_negative.sum().item() / len(sample) - 1) / (len(sample) - 1),
        alignment=alignment(_unit(users), _unit(items)),
        positives=histogram(scores.diagonal()),
        negatives=histogram(scores[~no_negative]),
        alarm=" ".join(filter(None, (_alarm(name, vectors) for name, vectors in sides.items()))),
    )


def scalars(diagnosis: Diagnosis) -> dict[str, float]:
    """Its single numbers by name, those of a side as `user norm`."""
    sides = {
        f"{side} {name}": value for side in ("user", "item") for name, value in vars(getattr(diagnosis, side)).items()
    }
    return {**sides, "masked": diagnosis.masked, "alignment": diagnosis.alignment}


def _unit(vectors: Tensor) -> Tensor:
    return normalize(vectors, dim=1, eps=SHORTEST)


def _side(vectors: Tensor, name: str, gradients: Mapping[str, float], steps: int) -> Side:
    lengths, unit = vectors.norm(dim=1), _unit(vectors)
    return Side(
        gradient=gradients.get(f"{name} sum", 0.0) / steps,
        gradient_max=gradients.get(f"{name} max", 0.0),
        norm=lengths.mean().item(),
        norm_min=lengths.min().item(),
        norm_max=lengths.max().item(),
        uniformity=uniformity(unit),
        dimensions=dimensions(unit),
    )


def _alarm(name: str, vectors: Tensor) -> str:
    """Silent for one coordinate or two vectors, which say nothing."""
    used = dimensions(_unit(vectors))
    if min(vectors.shape[1], len(vectors) - 1) < 2 or used >= COLLAPSED:
        return ""
    return (
        f"Collapse: the {name} embeddings use {used:.2f} of {vectors.shape[1]} dimensions, so all {name}s look alike. "
        "Check that the loss has negatives, that the inputs differ, and the learning rate."
    )
