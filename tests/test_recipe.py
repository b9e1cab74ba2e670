"""All settings as one record, and the straight line: what survives, what is refused, and what is left behind."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from twotower_lib import recipe, settings
from twotower_lib.bundle import load
from twotower_lib.data import DataSettings
from twotower_lib.errors import ArtifactError, DataError, OutputExistsError, TwoTowerError
from twotower_lib.index import IndexSettings
from twotower_lib.recipe import Recipe, compose
from twotower_lib.sources import SOURCES
from twotower_lib.training import load_state

CONFIGS = Path(recipe.__file__).parent / "configs"
SMALL = ("data=toy", "model.dim=8", "train.epochs=1")


def own(path: object) -> tuple[str, ...]:
    return ("data=csv", f"data.interactions={path}")


# The straight line ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run that no test changes."""
    folder = tmp_path_factory.mktemp("recipe") / "run"
    assert recipe.train(compose(SMALL), folder)
    return folder


@pytest.fixture
def mine(run, tmp_path):
    """A copy of the run."""
    return shutil.copytree(run, tmp_path / "run")


CLICKS = "user,item,time\n" + "".join(f"u{n % 9},i{n % 14},{n}\n" for n in range(120))


def written(path, text=CLICKS):
    path.write_text(text)
    return path


def test_a_run_folder_holds_its_settings_and_its_data(run):
    assert settings.load(Recipe, run / "recipe.yaml") == compose(SMALL)
    noted = json.loads((run / "data.json").read_text())
    fingerprint = recipe.prepare(compose(SMALL)).fingerprint
    assert noted == {"sha256": SOURCES["toy"].sha256, "notes": [], "fingerprint": fingerprint}
    assert {path.name for path in run.iterdir()} == {"recipe.yaml", "data.json", "log.jsonl", "last", "best", "final"}


def test_towers_of_a_part_never_saw_it(run):
    chosen, prepared = recipe.open_run(run)
    valid, known = recipe.trained_towers(chosen, prepared, run, "valid")
    test, more = recipe.trained_towers(chosen, prepared, run, "test")
    for towers, name in ((valid, "best"), (test, "final")):
        saved = load_state(run / name)["towers"]
        assert all((towers.state_dict()[key] == saved[key]).all() for key in saved)
    assert (known.item_codes > 0).sum() <= (more.item_codes > 0).sum()


def test_without_a_refit_test_is_asked_of_the_best(tmp_path):
    recipe.train(compose([*SMALL, "train.refit=false"]), tmp_path / "run")
    chosen, prepared = recipe.open_run(tmp_path / "run")
    towers, _ = recipe.trained_towers(chosen, prepared, tmp_path / "run", "test")
    saved = load_state(tmp_path / "run" / "best")["towers"]
    assert all((towers.state_dict()[key] == saved[key]).all() for key in saved)
    assert recipe.evaluate_run(tmp_path / "run", part="test").asked.part == "test"
    recipe.export(tmp_path / "run", tmp_path / "bundle")


def test_every_evaluation_is_noted(mine):
    first = recipe.evaluate_run(mine)
    second = recipe.evaluate_run(mine, ["item-knn", "popularity"], "test", [5], moments=True)
    text = (mine / "evaluations.jsonl").read_text()
    assert "NaN" not in text  # which is no JSON
    notes = [json.loads(line) for line in text.splitlines()]
    assert [(note["part"], note["against"]) for note in notes] == [("valid", []), ("test", ["item-knn", "popularity"])]
    assert [note["asked"] for note in notes] == ["each user once", "point in time"]
    for note, report in zip(notes, (first, second), strict=True):
        known = {name: mean for name, mean in report.measured.means.items() if not math.isnan(mean)}
        assert {name: mean for name, mean in note["metrics"].items() if mean is not None} == known
    assert list(first.references) == ["chance", "popularity"]
    assert list(second.references) == ["chance", "popularity", "item-knn"]
    assert {re.sub(r".*@(\d+).*", r"\1", name) for name in second.metrics} == {"5"}


def test_what_validation_chose_by_is_what_is_reported(run, mine):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = max(line["metrics"]["ndcg@20"] for line in lines if line["phase"] == "choose")
    assert recipe.evaluate_run(mine).measured.means["ndcg@20"] == best


@pytest.mark.parametrize("change", ["an event more", "another order", "another time", "another category"])
def test_data_that_changed_is_noticed(tmp_path, change):
    clicks, items = written(tmp_path / "clicks.csv"), written(tmp_path / "items.csv", "item,categories\ni1,a|b\n")
    columns = ("data.columns.time=time", f"data.items={items}")
    recipe.train(compose([*own(clicks), *columns, *SMALL[1:]]), tmp_path / "run")
    recipe.evaluate_run(tmp_path / "run")
    if change == "an event more":
        written(clicks, clicks.read_text() + "u1,i99,999\n")
    elif change in ("another order", "another time"):  # the newest event becomes the oldest, or newer still
        written(clicks, clicks.read_text().replace("i5,117\n", "i5,0\n" if change == "another order" else "i5,999\n"))
    else:
        written(items, "item,categories\ni1,a|c\n")
    for act in (recipe.evaluate_run, recipe.resume, lambda run: recipe.export(run, tmp_path / "bundle")):
        with pytest.raises(ArtifactError, match=r"the data of .*run has changed since it was trained"):
            act(tmp_path / "run")
    assert not (tmp_path / "bundle").exists()


def test_data_written_in_another_order_is_the_same_data(tmp_path):
    path = written(tmp_path / "clicks.csv")
    recipe.train(compose([*own(path), "data.columns.time=time", *SMALL[1:]]), tmp_path / "run")
    header, *lines = path.read_text().splitlines()
    written(path, "\n".join([header, *reversed(lines)]) + "\n")
    assert recipe.resume(tmp_path / "run")


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "something else"])
def test_no_run(tmp_path, there):
    if there != "nothing":
        (tmp_path / "run").mkdir()
    if there == "something else":
        (tmp_path / "run" / "a.txt").touch()
    for act in (recipe.evaluate_run, recipe.resume, lambda run: recipe.export(run, tmp_path / "bundle")):
        with pytest.raises(ArtifactError, match=r"no run in .*run: it holds no recipe\.yaml"):
            act(tmp_path / "run")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("state", ["stopped", "before the first checkpoint"])
def test_an_incomplete_run_is_neither_judged_nor_exported(mine, tmp_path, state, monkeypatch):
    if state == "stopped":
        position = replace(recipe_position(mine), done=False)
        saved = load_state(mine / "last")
        monkeypatch.setattr(recipe, "load_state", lambda folder: {**saved, "position": vars(position)})
    else:
        shutil.rmtree(mine / "last")
    for act in (recipe.evaluate_run, lambda run: recipe.export(run, tmp_path / "bundle")):
        with pytest.raises(ArtifactError, match=r"run is not complete\nneeded: .*\nto do: twotower resume .*run$"):
            act(mine)
    assert not (tmp_path / "bundle").exists()
    assert not (mine / "evaluations.jsonl").exists()


def recipe_position(run):
    from twotower_lib.training import Position

    return Position(**load_state(run / "last")["position"])


# What is never overwritten, and what is left behind -------------------------------------------------------------------


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_is_there_is_refused(mine):
    before = contents(mine)
    with pytest.raises(OutputExistsError, match=r"run exists already\nneeded: .*\nto do: .* --force"):
        recipe.train(compose(SMALL), mine)
    assert contents(mine) == before


def test_force_replaces_a_run(mine):
    (mine / "evaluations.jsonl").touch()
    assert recipe.train(compose([*SMALL, "seed=9"]), mine, force=True)
    assert settings.load(Recipe, mine / "recipe.yaml").seed == 9
    assert not (mine / "evaluations.jsonl").exists()
    assert [path.name for path in mine.parent.iterdir()] == ["run"]


def test_an_export_takes_the_settings_of_its_index(run, tmp_path):
    chosen = IndexSettings(kind="hnsw", links=8, ef_construction=20, ef_search=5)
    recipe.export(run, tmp_path / "bundle", index=chosen)
    assert load(tmp_path / "bundle").retriever.index.settings == chosen
    recipe.export(run, tmp_path / "bundle", force=True)
    assert load(tmp_path / "bundle").retriever.index.settings == recipe.ExportSettings().index == IndexSettings()


def test_a_bundle_that_is_there_is_refused_and_replaced_by_force(run, tmp_path):
    recipe.export(run, tmp_path / "bundle")
    before = contents(tmp_path / "bundle")
    with pytest.raises(OutputExistsError, match="bundle exists already"):
        recipe.export(run, tmp_path / "bundle")
    assert contents(tmp_path / "bundle") == before
    recipe.export(run, tmp_path / "bundle", force=True)
    assert contents(tmp_path / "bundle") == before  # the same bytes again


@pytest.mark.parametrize("what", ["a folder of a person's own", "an empty folder", "a file"])
@pytest.mark.parametrize("command", ["train", "export"])
def test_force_never_touches_what_is_not_ours(run, tmp_path, what, command):
    path = tmp_path / "mine"
    if what == "a file":
        path.write_text("text")
    else:
        path.mkdir()
    if what == "a folder of a person's own":
        (path / "thesis.tex").write_text("years of work")
    before = path.read_text() if path.is_file() else contents(path)
    with pytest.raises(OutputExistsError, match="was not written by this program"):
        recipe.train(compose(SMALL), path, force=True) if command == "train" else recipe.export(run, path, force=True)
    assert (path.read_text() if path.is_file() else contents(path)) == before


def test_a_run_is_no_bundle_and_a_bundle_no_run_to_force(mine, tmp_path):
    recipe.export(mine, tmp_path / "bundle")
    for act in (
        lambda: recipe.export(mine, mine, force=True),
        lambda: recipe.train(compose(SMALL), tmp_path / "bundle", force=True),
    ):
        with pytest.raises(OutputExistsError, match="was not written by this program"):
            act()


BAD = {
    "no file": own("nowhere.csv"),
    "history before without times": ("data=toy", "split.protocol=random", "history.mode=before"),
    "a device that is not there": (*SMALL, "train.device=cuda:99"),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("overrides", BAD.values(), ids=BAD.keys())
def test_no_folder_is_left_when_something_is_wrong(overrides, force, tmp_path):
    chosen = compose(overrides)
    if "history.mode=before" in overrides:
        path = written(tmp_path / "clicks.csv")
        chosen = replace(chosen, data=DataSettings(source="csv", interactions=str(path)))
    with pytest.raises(TwoTowerError):
        recipe.train(chosen, tmp_path / "deep" / "run", force)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["clicks.csv"])


def test_a_run_is_kept_when_what_should_replace_it_is_wrong(mine):
    before = contents(mine)
    with pytest.raises(DataError):
        recipe.train(compose(own("nowhere.csv")), mine, force=True)
    assert contents(mine) == before


def test_a_run_appears_with_all_its_settings_at_once(tmp_path, monkeypatch):
    """Whatever kills it in between, no folder is left that could be neither resumed nor replaced."""

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    monkeypatch.setattr(settings, "save", killed)
    with pytest.raises(Killed):
        recipe.train(compose(SMALL), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
