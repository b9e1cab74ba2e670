"""All settings as one record, and the straight line: prepare, train, evaluate, export, query.

    YAML and overrides -> Recipe -> prepare: Dataset, Split -> train: run folder -> evaluate: Report -> export: Bundle

The files in `configs/` hold only what differs from the defaults in the code, in three groups: `data`, `model` and
`train`. How files and overrides become a record is in `settings.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from twotower_lib import bundle, settings
from twotower_lib.baselines import BaselineSettings, fit_baseline
from twotower_lib.data import Dataset, DataSettings, load
from twotower_lib.errors import ArtifactError, SettingError
from twotower_lib.evaluation import KS, Measured, Report, evaluate, measure
from twotower_lib.features import Features, HistorySettings, fit_features
from twotower_lib.index import FLAT, IndexSettings
from twotower_lib.protocols import Questions, point_in_time, questions
from twotower_lib.retriever import exact_retriever
from twotower_lib.split import Part, Split, SplitSettings, split
from twotower_lib.storage import finish_replacing, new_folder, refuse_existing, write_text
from twotower_lib.towers import TowerSettings, TwoTower
from twotower_lib.training import LossSettings, Phase, Progress, Run, TrainSettings, load_state, load_towers

GROUPS = ("data", "model", "train")
RECIPE = "recipe.yaml"
DATA = "data.json"
EVALUATIONS = "evaluations.jsonl"
REFERENCES = {"chance": "random", "popularity": "popularity"}
"""The references of every report, and the baselines that stand for them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run: two runs of one recipe give the same numbers."""

    data: DataSettings = field(default_factory=DataSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    model: TowerSettings = field(default_factory=TowerSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    baselines: BaselineSettings = field(default_factory=BaselineSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingError(f"seed = {self.seed}", "0 or more")


def compose(overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from the packaged configs and overrides such as `model=id` or `train.epochs=20`; the last one counts.

    Raises:
        SettingError: an override is unknown (the nearest known one is named), has the wrong type, or is out of range.
    """
    return settings.composed(Recipe, GROUPS, overrides)


@dataclass(frozen=True)
class Prepared:
    """The data of a recipe, divided."""

    dataset: Dataset
    split: Split

    def asked(self, part: Part, moments: bool = False) -> Questions:
        """The questions of one part: each user once, or with `moments` point in time."""
        return (point_in_time if moments else questions)(self.split, part, self.dataset.sha256)

    @property
    def fingerprint(self) -> str:
        """A hash of all that a model is trained on and asked: events with times, parts, names, categories."""
        events, catalogue, people = self.split.events, self.dataset.catalogue, self.dataset.people
        named = (catalogue.items.names, catalogue.categories, people.users.names, sorted(people.attributes.items()))
        digest = hashlib.sha256(repr(named).encode())
        for column in (events.user, events.item, events.time, self.split.part):
            digest.update(b"" if column is None else column.tobytes())
        return digest.hexdigest()


def prepare(recipe: Recipe) -> Prepared:
    """Fetch, read and split the data of a recipe, and give torch as many threads as the recipe wants."""
    torch.set_num_threads(recipe.train.threads)
    dataset = load(recipe.data)
    return Prepared(dataset, split(dataset, recipe.split))


def train(
    recipe: Recipe, out: Path, force: bool = False, report: Callable[[Progress], None] = lambda progress: None
) -> bool:
    """Train a recipe into a new run folder.

    The folder is made, at once with all settings in it, only after the data was read and split and a first phase was
    built: a fault of the data or of the settings leaves none behind.

    Returns:
        True when the run is complete, False when a signal stopped it.

    Raises:
        OutputExistsError: the folder exists; with `force` a run that is there is replaced.
    """
    refuse_existing(out, force, RECIPE)
    prepared = prepare(recipe)
    begin(recipe, prepared, prepared.split, recipe.train.epochs)
    with new_folder(out, force, RECIPE) as work:
        noted = {"sha256": prepared.dataset.sha256, "notes": prepared.dataset.notes}
        write_text(work / DATA, json.dumps({**noted, "fingerprint": prepared.fingerprint}))
        settings.save(recipe, work / RECIPE)
    return _run(recipe, prepared, out, report).go()


def resume(out: Path, report: Callable[[Progress], None] = lambda progress: None) -> bool:
    """Go on with a run from its last checkpoint; a complete run is left as it is.

    Returns:
        True when the run is complete, False when a signal stopped it again.

    Raises:
        ArtifactError: there is no run, or its data has changed.
    """
    recipe, prepared = open_run(out)
    return _run(recipe, prepared, out, report).go()


def _run(recipe: Recipe, prepared: Prepared, out: Path, report: Callable[[Progress], None]) -> Run:
    return Run(out, partial(begin, recipe, prepared), prepared.split, recipe.train, report)


def begin(recipe: Recipe, prepared: Prepared, split: Split, epochs: int) -> Phase:
    """Features, towers, optimiser and batches for the train part of a split, before the first step."""
    return Phase(
        split,
        _features(recipe, prepared, split),
        history=recipe.history,
        towers=recipe.model,
        loss=recipe.loss,
        train=recipe.train,
        epochs=epochs,
        seed=recipe.seed,
    )


def _features(recipe: Recipe, prepared: Prepared, split: Split) -> Features:
    dataset = prepared.dataset
    return fit_features(split.train, dataset.catalogue, dataset.people, recipe.history, split.protocol)


def open_run(out: Path) -> tuple[Recipe, Prepared]:
    """The recipe of a run, and its data as it was.

    Raises:
        ArtifactError: there is no run in this folder, or its data has changed since.
    """
    finish_replacing(out)
    if not (out / RECIPE).is_file():
        raise ArtifactError(
            f"no run in {out}: it holds no {RECIPE}", "a folder that `twotower train` wrote", "check the path"
        )
    recipe = settings.load(Recipe, out / RECIPE)
    prepared = prepare(recipe)
    if prepared.fingerprint != json.loads((out / DATA).read_text(encoding="utf-8"))["fingerprint"]:
        raise ArtifactError(
            f"the data of {out} has changed since it was trained", "the same events and categories", "train a new run"
        )
    return recipe, prepared


def trained_towers(recipe: Recipe, prepared: Prepared, out: Path, part: Part) -> tuple[TwoTower, Features]:
    """The towers that may be asked about a part: those of `best` never saw validation, those of `final` did.

    Raises:
        ArtifactError: the run is not complete.
    """
    if not (out / "last").exists() or not load_state(out / "last")["position"]["done"]:
        raise ArtifactError(f"the run in {out} is not complete", "a complete run", f"twotower resume {out}")
    is_refitted = part == "test" and recipe.train.refit
    features = _features(recipe, prepared, prepared.split.refit() if is_refitted else prepared.split)
    return load_towers(out / ("final" if is_refitted else "best"), features, recipe.model), features


def evaluate_run(
    out: Path, against: Sequence[str] = (), part: Part = "valid", ks: Sequence[int] = KS, moments: bool = False
) -> Report:
    """Judge a run on one part, beside chance, popularity and the baselines named in `against`.

    Baselines are fitted on what is known when the part is asked. Every evaluation is noted in the run's folder, so
    that a test part that was asked twice can be seen.
    """
    recipe, prepared = open_run(out)
    asked = prepared.asked(part, moments)
    towers, features = trained_towers(recipe, prepared, out, part)
    references = measured_references(recipe, asked, against, ks)
    report = evaluate(exact_retriever(towers, features), asked, references, ks)
    means = {name: None if math.isnan(mean) else mean for name, mean in report.measured.means.items()}
    with (out / EVALUATIONS).open("a", encoding="utf-8") as notes:
        notes.write(json.dumps({"part": part, "asked": asked.way, "against": list(against), "metrics": means}) + "\n")
    return report


def measured_references(
    recipe: Recipe, asked: Questions, against: Sequence[str], ks: Sequence[int]
) -> dict[str, Measured]:
    """Chance, popularity and further baselines, each fitted on what is known and asked the same questions."""
    names = {**REFERENCES, **{name: name for name in against if name not in REFERENCES}}
    return {
        shown: measure(fit_baseline(name, asked.known, recipe.baselines), asked, ks) for shown, name in names.items()
    }


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What an export may choose."""

    index: IndexSettings = FLAT


def export(out: Path, path: Path, force: bool = False, index: IndexSettings = FLAT) -> None:
    """Write the bundle of a complete run: the towers of `final` (of `best` without a refit), and all that is known."""
    refuse_existing(path, force)
    recipe, prepared = open_run(out)
    towers, features = trained_towers(recipe, prepared, out, "test")
    facts: Mapping[str, Any] = {
        "data": {"name": prepared.dataset.name, "sha256": prepared.dataset.sha256},
        "protocol": prepared.split.protocol,
        "recipe": asdict(recipe),
    }
    bundle.save(
        path,
        towers,
        features,
        prepared.dataset.catalogue,
        prepared.dataset.people.users,
        prepared.split.seen("test"),
        facts,
        force,
        index,
    )
