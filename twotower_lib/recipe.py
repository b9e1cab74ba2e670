"""All settings as one record, and the straight line: prepare, train, evaluate, export, query.

    YAML and overrides -> Recipe -> prepare: Dataset, Split -> train: run folder -> evaluate: Report -> export: Bundle

Settings are the frozen records that stand beside what they set; their defaults are in the code. The files in
`configs/` hold only what differs from them, in three groups: `data`, `model` and `train`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from twotower_lib import bundle
from twotower_lib.baselines import BaselineSettings, fit_baseline
from twotower_lib.data import Dataset, DataSettings, load
from twotower_lib.errors import ArtifactError, SettingError, nearest
from twotower_lib.evaluation import KS, Measured, Questions, Report, evaluate, measure, questions
from twotower_lib.features import Features, HistorySettings, fit_features
from twotower_lib.retriever import exact_retriever
from twotower_lib.split import Part, Split, SplitSettings, items_of_users, split
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


# Settings: YAML and overrides -> Recipe ------------------------------------------------------------------------------


def compose(overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from the packaged configs and overrides such as `model=id` or `train.epochs=20`; the last one counts.

    Values of text settings are taken as they are, so that paths may hold `=`, spaces, commas and quotes.

    Raises:
        SettingError: an override is unknown (the nearest known one is named), has the wrong type, or is out of range.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    given = dict(_named(one) for one in overrides)
    texts = {name: value for name, value in given.items() if _is_text(name)}
    ConfigStore.instance().store("schema", _schema())
    GlobalHydra.instance().clear()
    with (
        as_file(files("twotower_lib") / "configs") as folder,
        initialize_config_dir(str(folder), version_base="1.3"),
    ):
        composed = hydra_compose("config", [f"{name}={value}" for name, value in given.items() if name not in texts])
    plain = OmegaConf.to_container(composed, resolve=True)
    for name, value in texts.items():
        _put(plain, name, value)
    return _record(Recipe, plain)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write all settings, defaults included, so that a later change of a default changes no old run."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(recipe)))


def load_recipe(path: Path) -> Recipe:
    """Read what `save_recipe` wrote.

    Raises:
        ArtifactError: the file holds something else.
    """
    try:
        merged = OmegaConf.merge(_schema(), OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError) as error:
        reason = f"{error.full_key}: {error.msg}" if isinstance(error, OmegaConfBaseException) else str(error)
        came = f"{path} holds no settings of ours: {reason}"
        raise ArtifactError(came.splitlines()[0], "the file as `twotower train` wrote it") from error
    return _record(Recipe, OmegaConf.to_container(merged, resolve=False))


def _schema() -> Any:
    """The dataclasses as a schema; a frozen class marks every node read-only, which would refuse any override."""
    schema = OmegaConf.structured(Recipe)
    _unlock(schema)
    return schema


def _unlock(node: Any) -> None:
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _unlock(child)


def _record(kind: Any, plain: Any) -> Any:
    """Plain dicts and lists as the records of settings."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _record(hints[name], value) for name, value in plain.items()})  # type: ignore[operator]
    return tuple(plain) if isinstance(plain, list) else plain


def _put(plain: Any, name: str, value: str) -> None:
    """Set one text in nested dicts; `null` is none where a setting may be without."""
    *groups, last = name.split(".")
    for group in groups:
        plain = plain[group]
    plain[last] = None if value == "null" and NoneType in _kinds(known_settings()[name]) else value


def known_settings(record: Any = Recipe, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name, with its type."""
    hints = get_type_hints(record)
    known: dict[str, Any] = {}
    for one in fields(record):
        kind = hints[one.name]
        if is_dataclass(kind):
            known |= known_settings(kind, f"{prefix}{one.name}.")
        else:
            known[prefix + one.name] = kind
    return known


def _named(override: str) -> tuple[str, str]:
    """Name and value of an override whose name is known, and whose value fits."""
    name, is_given, value = override.partition("=")
    known = known_settings()
    if name not in known and name not in GROUPS:
        raise SettingError(f"no setting is called {name}", "a known name", nearest(name, [*known, *GROUPS, "out"]))
    if not is_given:
        raise SettingError(f"{name} without a value", f"{name}=VALUE")
    if name in GROUPS:
        _check_option(name, value)
    elif not _is_text(name) and not _fits(name, value):
        raise SettingError(f"{name} = {value}", _in_words(known[name]))
    return name, value


def _check_option(group: str, value: str) -> None:
    folder = files("twotower_lib") / "configs" / group
    options = sorted(one.name.removesuffix(".yaml") for one in folder.iterdir())
    if value not in options:
        raise SettingError(f"{group} = {value}", f"one of {', '.join(options)}", nearest(value, options))


def _fits(name: str, value: str) -> bool:
    """Whether Hydra reads this value as one of the setting's type."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    schema = _schema()
    try:
        OmegaConf.update(schema, name, OverridesParser.create().parse_override(f"{name}={value}").value())
        OmegaConf.select(schema, name, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError):
        return False
    return True


def _is_text(name: str) -> bool:
    return str in _kinds(known_settings().get(name))


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _in_words(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return " or ".join(words.get(one, "a list such as [id,history]") for one in _kinds(kind))


# The straight line ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The data of a recipe, divided."""

    dataset: Dataset
    split: Split

    def asked(self, part: Part) -> Questions:
        """The questions of one part."""
        return questions(self.split, part, self.dataset.sha256)

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
        save_recipe(recipe, work / RECIPE)
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
    recipe = load_recipe(out / RECIPE)
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


def evaluate_run(out: Path, against: Sequence[str] = (), part: Part = "valid", ks: Sequence[int] = KS) -> Report:
    """Judge a run on one part, beside chance, popularity and the baselines named in `against`.

    Baselines are fitted on what is known when the part is asked. Every evaluation is noted in the run's folder, so
    that a test part that was asked twice can be seen.
    """
    recipe, prepared = open_run(out)
    asked = prepared.asked(part)
    towers, features = trained_towers(recipe, prepared, out, part)
    references = measured_references(recipe, asked, against, ks)
    report = evaluate(exact_retriever(towers, features), asked, references, ks)
    means = {name: None if math.isnan(mean) else mean for name, mean in report.measured.means.items()}
    with (out / EVALUATIONS).open("a", encoding="utf-8") as notes:
        notes.write(json.dumps({"part": part, "against": list(against), "metrics": means}) + "\n")
    return report


def measured_references(
    recipe: Recipe, asked: Questions, against: Sequence[str], ks: Sequence[int]
) -> dict[str, Measured]:
    """Chance, popularity and further baselines, each fitted on what is known and asked the same questions."""
    names = {**REFERENCES, **{name: name for name in against if name not in REFERENCES}}
    return {
        shown: measure(fit_baseline(name, asked.known, recipe.baselines), asked, ks) for shown, name in names.items()
    }


def export(out: Path, path: Path, force: bool = False) -> None:
    """Write the bundle of a complete run: the towers of `final` (of `best` without a refit), and all that is known."""
    refuse_existing(path, force)
    recipe, prepared = open_run(out)
    towers, features = trained_towers(recipe, prepared, out, "test")
    known = prepared.split.known("test")
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
        items_of_users(known),
        facts,
        force,
    )
