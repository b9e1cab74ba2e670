"""What is compared on MovieLens 100K, the grid that each side is tuned on, and how a setting is trained.

A side is a baseline or a two-tower. Every side has a grid of 12 settings, written out here; of a two-tower the number
of epochs is chosen too, of iALS it is fixed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from on_device import epochs

from twotower_lib.baselines import BaselineSettings, EASESettings, IALSSettings, ItemKNNSettings, fit_baseline
from twotower_lib.evaluation import Measured, difference, intervals, measure
from twotower_lib.exercises.results import result
from twotower_lib.features import HistorySettings
from twotower_lib.protocols import Questions
from twotower_lib.recipe import Prepared, Recipe, begin
from twotower_lib.retriever import exact_retriever
from twotower_lib.split import Split, SplitSettings
from twotower_lib.towers import HeadSettings, TowerSettings
from twotower_lib.training import LossSettings, Phase, TrainSettings

RESULTS = Path(__file__).parent / "results"
PROTOCOLS = ("random", "last")
CHOSEN_BY = "ndcg@20"
K = 20
SHOWN = ("recall@20", "ndcg@20")


@dataclass(frozen=True)
class Point:
    """A baseline, its settings, and how many of the latest known items it is asked with (all by default)."""

    baseline: str
    settings: BaselineSettings
    last: int | None = None


def of_item_knn(neighbours: int, shrink: float) -> BaselineSettings:
    return BaselineSettings(item_knn=ItemKNNSettings(neighbours=neighbours, shrink=shrink))


def of_ease(regularisation: float) -> BaselineSettings:
    return BaselineSettings(ease=EASESettings(regularisation=regularisation))


def of_ials(alpha0: float, regularisation: float) -> BaselineSettings:
    return BaselineSettings(ials=IALSSettings(alpha0=alpha0, regularisation=regularisation))


BASELINE_GRIDS: dict[str, list[Point]] = {
    "item-knn": [
        Point("item-knn", of_item_knn(neighbours, shrink))
        for neighbours, shrink in product((50, 100, 200, 400), (0.0, 10.0, 50.0))
    ],
    "ease": [
        Point("ease", of_ease(float(regularisation)))
        for regularisation in (50, 75, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000)
    ],
    "ials": [
        Point("ials", of_ials(alpha0, regularisation))
        for alpha0, regularisation in product((0.2, 0.6, 1.8), (0.0025, 0.005, 0.01, 0.02))
    ],
}
RECENT_GRIDS: dict[str, list[Point]] = {
    "item-knn, recent": [
        Point("item-knn", of_item_knn(neighbours, 10.0), last)
        for neighbours, last in product((50, 100, 200, 400), (5, 10, 20))
    ],
    "ease, recent": [
        Point("ease", of_ease(regularisation), last)
        for regularisation, last in product((200.0, 400.0, 700.0, 1000.0), (5, 10, 20))
    ],
    "ials, recent": [
        Point("ials", of_ials(alpha0, 0.0025), last) for alpha0, last in product((0.6, 1.8, 3.0, 5.0), (5, 10, 20))
    ],
}
"""The same baselines asked with the latest known items only, for a split in time."""


@dataclass(frozen=True)
class TowerSide:
    """A two-tower and the temperatures of its grid; each meets three pairs of learning rate and dropout."""

    model: TowerSettings = field(default_factory=TowerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    temperatures: tuple[float, ...] = (0.1, 0.15, 0.2, 0.3)
    epochs: int = 6
    protocols: tuple[str, ...] = PROTOCOLS

    def grid(self) -> list[Recipe]:
        """12 recipes."""
        return [
            Recipe(
                model=replace(self.model, temperature=temperature, dropout=dropout),
                loss=self.loss,
                history=self.history,
                train=TrainSettings(epochs=self.epochs, learning_rate=learning_rate),
            )
            for temperature, (learning_rate, dropout) in product(
                self.temperatures, ((0.005, 0.0), (0.01, 0.0), (0.01, 0.3))
            )
        ]


TOWER_SIDES = {
    "id towers": TowerSide(model=TowerSettings(user=("id",), user_head=HeadSettings()), epochs=12),
    "history tower": TowerSide(),
    "history as a set": TowerSide(history=HistorySettings(mode="set"), protocols=("last",)),
    "history tower, as on the public splits": TowerSide(
        model=TowerSettings(init_scale=0.05), loss=LossSettings(form="corrected")
    ),
    "without log q": TowerSide(loss=LossSettings(log_q=0.0), temperatures=(0.2, 0.4, 0.8, 1.6)),
    "without the same-item mask": TowerSide(loss=LossSettings(same_item=False)),
    "without the known-positives mask": TowerSide(loss=LossSettings(known_positives=False)),
    "without the item bias": TowerSide(model=TowerSettings(item_bias=False)),
}


def baseline_grids(protocol: str) -> dict[str, list[Point]]:
    """The baselines that are compared under a protocol."""
    return {**BASELINE_GRIDS, **RECENT_GRIDS} if protocol == "last" else BASELINE_GRIDS


def sides_of(protocol: str) -> list[str]:
    """What is compared under a protocol; on a random split the history is read as a set anyway."""
    return [*baseline_grids(protocol), *(name for name, side in TOWER_SIDES.items() if protocol in side.protocols)]


def splitting(protocol: str) -> Recipe:
    """The recipe that only says how the data is divided."""
    return Recipe(split=SplitSettings(protocol=protocol))


def measured_baseline(point: Point, asked: Questions) -> Measured:
    """A baseline fitted on what is known, asked."""
    if point.last is not None:
        latest = asked.queries.history.last(point.last)
        asked = replace(asked, queries=replace(asked.queries, history=latest))
    return measure(fit_baseline(point.baseline, asked.known, point.settings), asked, [K])


def measured_towers(phase: Phase, asked: Questions) -> Measured:
    """Towers as they are now, asked."""
    return measure(exact_retriever(phase.towers, phase.features), asked, [K])


def trained(recipe: Recipe, prepared: Prepared, split: Split, n_epochs: int, asked: Questions | None = None) -> Any:
    """Train for so many epochs; returns the phase, and what was measured after each epoch where `asked` is given."""
    phase, curve = begin(recipe, prepared, split, n_epochs), []
    for _ in epochs(phase):
        if asked is not None:
            curve.append(measured_towers(phase, asked).means)
    return phase, curve


def mean_of(seeds: list[Measured]) -> Measured:
    """The mean of the tables of several seeds, query by query."""
    table = sum((one.table for one in seeds[1:]), seeds[0].table) / len(seeds)
    return Measured(table.astype({"user": seeds[0].table["user"].dtype}), {}, seeds[0].asked)


def judged_row(seeds: list[Measured], against: dict[str, Measured]) -> dict[str, Any]:
    """What a side reached over its seeds, and how far it is from others."""
    one, made = mean_of(seeds), dict[str, Any]()
    ours = intervals(one.table[["user", *SHOWN]])
    for name in SHOWN:
        values = [seed.means[name] for seed in seeds]
        made[name] = {**ours[name].as_dict(), "spread": max(values) - min(values), "seeds": values}
    made["differences"] = {
        other: {name: value.as_dict() for name, value in difference(one, theirs).items() if name in SHOWN}
        for other, theirs in against.items()
    }
    return made


def plain(one: Point | Recipe) -> dict[str, Any]:
    """What the grid of a side changes, as JSON values."""
    if isinstance(one, Point):
        settings = asdict(one.settings)[one.baseline.replace("-", "_")]
        return settings if one.last is None else {**settings, "last": one.last}
    return {
        "temperature": one.model.temperature,
        "dropout": one.model.dropout,
        "learning_rate": one.train.learning_rate,
    }


def tuned(data: str) -> dict[str, Any]:
    """The newest result of `benchmarks/tune` for a data set."""
    return newest(f"tuning_{data}")


def newest(theme: str) -> dict[str, Any]:
    """The newest result of a theme."""
    return dict(result(theme, RESULTS))
