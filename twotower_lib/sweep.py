"""A grid of settings, trained as ordinary runs and compared on validation.

    grid.yaml and overrides -> a Trial for each combination -> a run each -> a table, the best first

A grid is a YAML file with a list of values for each setting, dotted names and groups as in overrides:

    model: [id, history]
    train.learning_rate: [0.003, 0.01]

Every fault of a grid is told before anything is trained. What decides which questions are asked is the same in all
runs of a sweep, because results are compared only where the questions are the same. The folder of a sweep holds

    sweep.json      all settings of every run, written first: by it a changed grid is known
    <settings>/     a run each, such as `model=id,loss.log_q=0`
    table.csv       the table, once all runs are complete
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from twotower_lib import recipe, settings
from twotower_lib.errors import OutputExistsError, SettingError, nearest
from twotower_lib.recipe import Recipe
from twotower_lib.storage import refuse_existing, write_text
from twotower_lib.training import Progress, load_state

SWEEP = "sweep.json"
TABLE = "table.csv"
SAME_QUESTIONS = re.compile(r"(data|split)(\..*)?|train\.metric")
"""Settings that decide what is asked: one value for the whole sweep."""


@dataclass(frozen=True)
class Trial:
    """One combination: the settings of the grid as overrides write them, and the whole recipe."""

    settings: Mapping[str, str]
    recipe: Recipe

    @property
    def name(self) -> str:
        """The folder of its run: its settings, without what a file name should not hold."""
        return re.sub(r"[^\w.,=+-]", "-", ",".join(_overrides(self.settings)))


def trials(grid: Path, overrides: Sequence[str] = ()) -> list[Trial]:
    """The product of the lists of a grid, in the order of the file; the last setting changes fastest.

    Args:
        grid: a YAML file, see above.
        overrides: settings that all runs share, such as `train.epochs=20`.

    Raises:
        SettingError: the grid has faults; the text lists them.
    """
    lists, made = _read(grid), []
    faults = [fault for name, values in lists.items() for fault in _faults(name, values, overrides)]
    tried = {name: dict.fromkeys(map(_text, values)) for name, values in lists.items() if _may_vary(name, values)}
    for texts in product(*tried.values()):
        given = dict(zip(tried, texts, strict=True))
        try:
            made.append(Trial(given, recipe.compose([*overrides, *_overrides(given)])))
        except SettingError as error:
            faults.append("; ".join(filter(None, (error.came, f"needed: {error.needed}", error.do))))
    if faults:
        raise _grid_error(grid, faults)
    return made


def sweep(
    trials: Sequence[Trial],
    out: Path,
    force: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    begun: Callable[[Trial], None] = lambda trial: None,
) -> pd.DataFrame | None:
    """Train every trial, or go on with a sweep: complete runs are kept, a stopped one is resumed.

    Args:
        trials: what the function of that name gave.
        out: the folder of the sweep.
        force: take a changed grid; of the runs that are there those which it shares are kept.
        report: called after every epoch.
        begun: called with each trial before its run is trained, resumed or passed by.

    Returns:
        A row a run, the best first: its settings, `best epoch`, the validation metric of that epoch under its name,
        and `run`, its folder. None when a signal stopped a run.

    Raises:
        OutputExistsError: the folder holds something else, or the runs of another grid.
        TwoTowerError: a run cannot begin; told before any is trained.
    """
    _claim(trials, out, force)
    for trial in trials:
        begun(trial)
        if not _train(trial, out / trial.name, force, report):
            return None
    table = _table(trials, out)
    write_text(out / TABLE, table.to_csv(index=False))
    return table


# Reading a grid ------------------------------------------------------------------------------------------------------


def _read(grid: Path) -> dict[str, Any]:
    try:
        found = OmegaConf.to_container(OmegaConf.load(grid), resolve=False)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise _grid_error(grid, [" ".join(str(error).split())]) from error
    if not isinstance(found, dict) or not found:
        raise _grid_error(grid, ["it names no setting"])
    return {str(name): values for name, values in found.items()}


def _may_vary(name: str, values: Any) -> bool:
    return name in _known() and not SAME_QUESTIONS.fullmatch(name) and isinstance(values, list) and bool(values)


def _known() -> set[str]:
    return {*recipe.GROUPS, *settings.known_settings(Recipe)}


def _faults(name: str, values: Any, overrides: Sequence[str]) -> Iterator[str]:
    """What is wrong with a setting and its list, whatever the others are."""
    if SAME_QUESTIONS.fullmatch(name):
        yield f"{name} decides what is asked, which must be the same in all runs; give it beside the grid"
    elif name not in _known():
        yield f"no setting is called {name}; {nearest(name, _known())}"
    if any(one.partition("=")[0] == name for one in overrides):
        yield f"{name} is in the grid and beside it"
    if not isinstance(values, list) or not values:
        yield f"{name} = {_text(values)}; needed: a list of one value or more"
    elif twice := [value for place, value in enumerate(values) if value in values[:place]]:
        yield f"{name} holds {', '.join(map(_text, twice))} twice"


def _text(value: Any) -> str:
    """A value as an override writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else str(value)


def _overrides(given: Mapping[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in given.items()]


def _grid_error(grid: Path, faults: Sequence[str]) -> SettingError:
    told = "".join(f"\n  {fault}" for fault in dict.fromkeys(faults))
    return SettingError(f"the grid {grid}:{told}", "a list of values a setting, such as loss.log_q: [0, 1]")


# The runs ------------------------------------------------------------------------------------------------------------


def _claim(trials: Sequence[Trial], out: Path, force: bool) -> None:
    """The folder is new and gets its `sweep.json`, or is the folder of these very runs."""
    planned = json.dumps({trial.name: asdict(trial.recipe) for trial in trials}, indent=1)
    is_there = (out / SWEEP).is_file()
    if is_there and (out / SWEEP).read_text(encoding="utf-8") == planned:
        return
    if is_there and not force:
        needed = "the same grid with the same settings beside it, or another name"
        raise OutputExistsError(f"{out} holds other runs", needed, "add --force: runs that both have are kept")
    refuse_existing(out, force, SWEEP)
    prepared = recipe.prepare(trials[0].recipe)
    for trial in trials:  # whether each can begin: data, features, device
        recipe.begin(trial.recipe, prepared, prepared.split, trial.recipe.train.epochs)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SWEEP, planned)


def _train(trial: Trial, run: Path, force: bool, report: Callable[[Progress], None]) -> bool:
    """Train the run or go on with it; whether it is complete."""
    if (run / recipe.RECIPE).is_file() and settings.load(Recipe, run / recipe.RECIPE) == trial.recipe:
        return recipe.resume(run, report)
    return recipe.train(trial.recipe, run, force, report)


def _table(trials: Sequence[Trial], out: Path) -> pd.DataFrame:
    rows, metric = [], trials[0].recipe.train.metric
    for trial in trials:
        found = load_state(out / trial.name / "last")["position"]
        measured = {"best epoch": found["best_epoch"], metric: found["best"], "run": str(out / trial.name)}
        rows.append({**trial.settings, **measured})
    return pd.DataFrame(rows).sort_values(metric, ascending=False, kind="stable", ignore_index=True)
