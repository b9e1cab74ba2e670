"""What is compared on the published splits: the sides with their grids, and the ideas that were tried.

At most 12 settings a side. Where the grids stand was found by a wider look at validation, with one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from unittest import mock

import torch
from given import IN_ORDER
from sides import Point, of_ease, of_item_knn, plain
from torch import Tensor

from twotower_lib import training
from twotower_lib.baselines import BaselineSettings
from twotower_lib.data import DataSettings
from twotower_lib.features import HistorySettings
from twotower_lib.losses import correct_drawn, known_positives_mask, same_item_mask, scale, scores
from twotower_lib.recipe import Recipe
from twotower_lib.settings import overridden
from twotower_lib.towers import HeadSettings, TowerSettings
from twotower_lib.training import LossSettings, TrainSettings

SETS = ("gowalla", "yelp2018", "electronic")
LARGE = TrainSettings(epochs=20, batch_size=16_384, warmup_steps=50, patience=0)
SMALL = TrainSettings(epochs=16, batch_size=2048, warmup_steps=50, patience=0)
CORRECTED = LossSettings(form="corrected")
WITHOUT = LossSettings(log_q=0.0)
NEIGHBOURS = ("id", "categories")
"""An item tower that reads an item's id, and as its categories the items most similar to it in train."""
IDS = {"user": ("id",), "user_head": HeadSettings(depth=0)}
ORDER_LENGTH = 100
"""Events that are read of a history in order."""


def towers(
    data: str,
    temperature: float,
    learning_rate: float,
    loss: LossSettings = CORRECTED,
    drop: float = 0.2,
    in_order: bool = False,
    **model: Any,
) -> Recipe:
    """One setting; `drop` is the history's dropout. In order, a history is what came before, the newest weighs most."""
    history = HistorySettings(dropout=drop)
    if in_order:
        history, model = replace(history, mode="before", length=ORDER_LENGTH), {"pooling": "recency", **model}
    return Recipe(
        data=DataSettings(source=data),
        history=history,
        model=TowerSettings(**{"temperature": temperature, "init_scale": 0.05, **model}),
        loss=loss,
        train=replace(SMALL if data == "electronic" else LARGE, learning_rate=learning_rate),
    )


@dataclass(frozen=True)
class Range:
    """Where the grids of a data set stand."""

    temperatures: tuple[float, ...]
    without: tuple[float, ...]
    """Temperatures without log q."""
    rates: tuple[float, float]
    wide: int
    """Dimensions of the larger towers, which try the first two temperatures."""
    dropouts: tuple[float, ...] = (0.0,)
    ease: tuple[int, ...] = (100, 200, 400)


RANGES = {
    "gowalla": Range((0.08, 0.1, 0.12), (0.05, 0.07, 0.1, 0.15), (0.006, 0.012), 512),
    "yelp2018": Range((0.1, 0.13, 0.16), (0.1, 0.15, 0.2, 0.3), (0.006, 0.012), 512, ease=(100, 200, 400, 800)),
    "electronic": Range(
        (0.15, 0.2, 0.25), (0.15, 0.25, 0.4, 0.6), (0.004, 0.008), 256, (0.0, 0.2), ease=(100, 200, 400, 800)
    ),
}


def grids(data: str) -> dict[str, list[Point | Recipe]]:
    """The settings of each side."""
    at = RANGES[data]
    rate, slower = at.rates[0], smaller(at.rates[0], at.wide)
    small = list(product(at.temperatures, (0.2, 0.5), at.dropouts))
    large = list(product(at.temperatures[:2], (0.2, 0.5)))
    made: dict[str, list[Point | Recipe]] = {}
    if data in IN_ORDER:
        made |= {
            "history tower in order, any d": [
                towers(data, temperature, slower, drop=drop, in_order=True, dim=at.wide) for temperature, drop in large
            ],
            "history tower in order, d 64": [
                towers(data, temperature, rate, drop=drop, in_order=True, pooling=pooling)
                for temperature, drop, pooling in product(at.temperatures, (0.2, 0.5), ("recency", "mean"))
            ],
        }
    made |= {
        "history tower and neighbours, any d": [
            towers(data, temperature, slower, drop=drop, dim=at.wide, item=NEIGHBOURS) for temperature, drop in large
        ],
        "history tower, any d": [
            towers(data, temperature, slower, drop=drop, dim=at.wide) for temperature, drop in large
        ],
        "history tower and neighbours, d 64": [
            towers(data, temperature, rate, drop=drop, item=NEIGHBOURS, dropout=dropout)
            for temperature, drop, dropout in small
        ],
        "history tower, d 64": [
            towers(data, temperature, rate, drop=drop, dropout=dropout) for temperature, drop, dropout in small
        ],
        "history tower, d 64, without log q": [
            towers(data, temperature, rate, WITHOUT, drop) for temperature, drop in product(at.without, (0.2, 0.5))
        ],
        "id towers, d 64": [
            towers(data, temperature, one, **IDS) for temperature, one in product(at.temperatures, at.rates)
        ],
        "ease": [Point("ease", of_ease(float(one))) for one in at.ease],
        "item-knn": [
            Point("item-knn", of_item_knn(neighbours, shrink))
            for neighbours, shrink in product((20, 50, 100, 200), (0.0, 10.0, 50.0))
        ],
        "popularity": [Point("popularity", BaselineSettings())],
        "random": [Point("random", BaselineSettings())],
    }
    return made


def smaller(rate: float, dim: int) -> float:
    """A learning rate for more dimensions than 64."""
    return rate * (64 / dim) ** 0.33


def told(settings: Point | Recipe) -> dict[str, Any]:
    """What a grid changes, as JSON values."""
    if isinstance(settings, Point):
        return plain(settings)
    order = {"pooling": settings.model.pooling} if settings.history.mode == "before" else {}
    return {
        "dim": settings.model.dim,
        "temperature": settings.model.temperature,
        "dropout": settings.model.dropout,
        "history_dropout": settings.history.dropout,
        "learning_rate": round(settings.train.learning_rate, 5),
        "batch_size": settings.train.batch_size,
        "loss": settings.loss.form if settings.loss.log_q else "without log q",
        **order,
    }


# Ideas: single changes of one tower ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Idea:
    """What is changed."""

    changes: tuple[str, ...] = ()
    decay: float | None = None
    """Of an average of the weights over steps, which is asked in place of the last ones."""
    side_by_side: int = 1
    """Towers that are trained apart, with other seeds, and whose vectors are put one behind the other."""
    loss: Callable[..., Tensor] | None = None
    """In place of the loss of training."""
    sets: tuple[str, ...] = ("gowalla", "yelp2018")


def of_idea(data: str, idea: Idea) -> Recipe:
    """An idea as a recipe."""
    base = towers(data, {"gowalla": 0.1, "yelp2018": 0.13}[data], 0.006)
    return overridden(base, idea.changes) if idea.changes else base


def without_its_positive(
    user: Tensor, item: Tensor, *, temperature: Tensor, log_q: Tensor, candidates: Tensor, known: Any, **_: Any
) -> Tensor:
    """The corrected loss whose row sums leave out the positive, as BSL (Wu et al. 2024) does, in one whole table.

    BSL divides the positive by a temperature of its own, t1, and the sum is raised to t2 / t1; with one positive a row
    that is a constant factor of this loss, which Adam takes no notice of.
    """
    same = same_item_mask(candidates, len(user))
    logits = correct_drawn(scores(scale(user, temperature), item), log_q, same)
    positive = logits.diagonal()
    dropped = (same | known_positives_mask(candidates, *known, len(user))).fill_diagonal_(True)
    return (logits.masked_fill(dropped, -torch.inf).logsumexp(1) - positive).mean()


@contextmanager
def lossy(idea: Idea) -> Iterator[None]:
    """Training with the loss of an idea."""
    with mock.patch.object(training, "blocked_softmax", idea.loss or training.blocked_softmax):
        yield


PLAIN = Idea()
IDEAS = {
    "the d 64 tower": PLAIN,
    "the classic loss": Idea(("loss.form=classic",)),
    "the classic loss, 1.2 x log q": Idea(("loss.form=classic", "loss.log_q=1.2")),
    "known positives stay negatives": Idea(("loss.known_positives=false",)),
    "the positive left out of the sum (BSL)": Idea(loss=without_its_positive),
    "no item bias": Idea(("model.item_bias=false",)),
    "16,384 uniform negatives beside the batch": Idea(("train.uniform_negatives=16384",)),
    "batches of 4,096": Idea(("train.batch_size=4096", "train.learning_rate=0.003")),
    "a learned temperature": Idea(("model.learn_temperature=true",)),
    "half of the history dropped": Idea(("history.dropout=0.5",)),
    "histories of 20": Idea(("history.length=20",)),
    "attention over the history": Idea(("model.pooling=attention",)),
    "id and history": Idea(("model.user=[id,history]",)),
    "id and history, half of the ids dropped": Idea(("model.user=[id,history]", "model.id_dropout=0.5")),
    "an item's neighbours beside its id": Idea(("model.item=[id,categories]",)),
    "one table for history and items": Idea(("model.tied=true",)),
    "embedding dropout .2": Idea(("model.dropout=0.2",)),
    "weight decay .05": Idea(("train.weight_decay=0.05",)),
    "tables that start at the usual size": Idea(("model.init_scale=0.3",)),
    "averaged weights": Idea(decay=0.98),
    "128 dimensions": Idea(("model.dim=128", "train.learning_rate=0.005")),
    "two towers of 64 side by side": Idea(side_by_side=2),
    "256 dimensions": Idea(("model.dim=256", "train.learning_rate=0.004")),
    "four towers of 64 side by side": Idea(side_by_side=4, sets=("gowalla",)),
    "the history in order, by recency": Idea(
        ("history.mode=before", "history.length=100", "model.pooling=recency"), sets=IN_ORDER
    ),
}
"""Each changes the first."""
