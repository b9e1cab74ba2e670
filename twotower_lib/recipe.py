"""All settings as one record, and the straight line: prepare, train, evaluate, export, query.

    YAML and overrides -> Recipe -> prepare: Dataset, Split -> train: run folder -> evaluate: Report -> export: Bundle

Settings are the frozen records that stand beside what they set; their defaults are in the code. The files in
`configs/` hold only what differs from them, in three groups: `data`, `model` and `train`.
"""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from twotower_lib import bundle
from twotower_lib.baselines import BaselineSettings, fit_baseline
from twotower_lib.data import Dataset, DataSettings, load
from twotower_lib.errors import ArtifactError, SettingError, nearest
from twotower_lib.evaluation import KS, Measured, Questions, Report, evaluate, measure, questions
from twotower_lib.features import Features, HistorySettings, fit_features
from twotower_lib.retriever import exact_retriever
from twotower_lib.split import Part, Split, SplitSettings, items_of_users, split
from twotower_lib.storage import refuse_existing, write_text
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


# Settings: YAML and overrides -> Recipe ------------------------------------------------------------------------------


def compose(overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from the packaged configs and overrides such as `model=id` or `train.epochs=20`.

    Values of text settings are taken as they are, so that paths may hold `=`, spaces and commas.

    Raises:
        SettingError: an override is unknown (the nearest known one is named), has the wrong type, or is out of range.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    quoted = [_quoted(one) for one in overrides]
    ConfigStore.instance().store("schema", _schema())
    GlobalHydra.instance().clear()
    with (
        as_file(files("twotower_lib") / "configs") as folder,
        _clear_errors((HydraException,)),
        initialize_config_dir(str(folder), version_base="1.3"),
    ):
        return _recipe(hydra_compose("config", quoted))


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write all settings, defaults included, so that a later change of a default changes no old run."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(recipe)))


def load_recipe(path: Path) -> Recipe:
    """Read what `save_recipe` wrote."""
    with _clear_errors(()):
        return _recipe(OmegaConf.merge(_schema(), OmegaConf.load(path)))  # type: ignore[arg-type]


def _schema() -> DictConfig:
    """The dataclasses as a schema; a frozen class marks every node read-only, which would refuse any override."""
    schema: DictConfig = OmegaConf.structured(Recipe)
    _unlock(schema)
    return schema


def _unlock(node: DictConfig) -> None:
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _unlock(child)


def _recipe(composed: DictConfig) -> Recipe:
    recipe = OmegaConf.to_object(composed)
    assert isinstance(recipe, Recipe)
    return recipe


@contextmanager
def _clear_errors(kinds: tuple[type[BaseException], ...]) -> Iterator[None]:
    """Turn the errors of the configuration libraries into ours, and let ours through unwrapped."""
    try:
        yield
    except (OmegaConfBaseException, *kinds) as error:  # type: ignore[misc]
        for cause in _causes(error):
            if isinstance(cause, SettingError):
                raise cause from None
        first = str(list(_causes(error))[-1]).splitlines()[0]
        raise SettingError(first, "a value of the setting's type, or the name of a file in the group") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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


def _quoted(override: str) -> str:
    """The override in Hydra's grammar, with text values quoted."""
    name, is_given, value = override.partition("=")
    known = known_settings()
    if not is_given:
        raise SettingError(f"an override {override!r}", "name=value", nearest(name, [*known, *GROUPS]))
    if name in GROUPS:
        return override
    if name not in known:
        raise SettingError(f"no setting is called {name}", "a known name", nearest(name, [*known, *GROUPS, "out"]))
    if str in _kinds(known[name]) and value != "null":
        return f"{name}='{_escaped(value)}'"
    return override


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _escaped(value: str) -> str:
    """Text inside Hydra's single quotes: backslashes before a quote are doubled, a quote gets one."""
    escaped, pending = "", 0
    for letter in value:
        if letter == "'":
            escaped += "\\" * pending + "\\"
        pending = pending + 1 if letter == "\\" else 0
        escaped += letter
    return escaped + "\\" * pending


# The straight line ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The data of a recipe, divided."""

    dataset: Dataset
    split: Split

    def asked(self, part: Part) -> Questions:
        """The questions of one part."""
        return questions(self.split, part, self.dataset.sha256)


def prepare(recipe: Recipe) -> Prepared:
    """Fetch, read and split the data of a recipe."""
    dataset = load(recipe.data)
    return Prepared(dataset, split(dataset, recipe.split))


def train(
    recipe: Recipe, out: Path, force: bool = False, report: Callable[[Progress], None] = lambda progress: None
) -> bool:
    """Train a recipe into a new run folder.

    The folder is made only after the data was read and split, so that a fault of the data leaves none behind.

    Returns:
        True when the run is complete, False when a signal stopped it.

    Raises:
        OutputExistsError: the folder exists; with `force` a run that is there is replaced.
    """
    refuse_existing(out, force, RECIPE)
    prepared = prepare(recipe)
    run = _run(recipe, prepared, out, report)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_text(out / DATA, json.dumps({"sha256": prepared.dataset.sha256, "notes": prepared.dataset.notes}))
    save_recipe(recipe, out / RECIPE)
    return run.go()


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
    if not (out / RECIPE).is_file():
        raise ArtifactError(
            f"no run in {out}: it holds no {RECIPE}", "a folder that `twotower train` wrote", "check the path"
        )
    recipe = load_recipe(out / RECIPE)
    prepared = prepare(recipe)
    if prepared.dataset.sha256 != json.loads((out / DATA).read_text(encoding="utf-8"))["sha256"]:
        raise ArtifactError(f"the data of {out} has changed since it was trained", "the same events", "train a new run")
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
    with (out / EVALUATIONS).open("a", encoding="utf-8") as notes:
        notes.write(json.dumps({"part": part, "against": list(against), "metrics": report.measured.means}) + "\n")
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
    """Write the bundle of a complete run: the towers of `final`, and all that was known to them."""
    refuse_existing(path, force)
    recipe, prepared = open_run(out)
    towers, features = trained_towers(recipe, prepared, out, "test")
    known = prepared.split.known("test")
    facts: Mapping[str, Any] = {
        "data": {"name": prepared.dataset.name, "sha256": prepared.dataset.sha256},
        "protocol": prepared.split.protocol,
        "recipe": OmegaConf.to_container(OmegaConf.structured(recipe)),
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
