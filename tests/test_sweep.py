"""A grid of settings: what is refused, what is trained, what is kept, and what the table says."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest

from twotower_lib import recipe
from twotower_lib.errors import OutputExistsError, SettingError
from twotower_lib.settings import load
from twotower_lib.sweep import SWEEP, TABLE, sweep, trials
from twotower_lib.training import load_state

pytest_plugins = ["tests.commands"]

SMALL = ("data=toy", "model.dim=8", "train.epochs=2", "train.batch_size=128", "train.refit=false")
GRID = "model: [id]\nloss.log_q: [0, 0.5, 1]\n"
NAMES = [f"model=id,loss.log_q={strength}" for strength in ("0", "0.5", "1")]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def three(grid):
    """Its trials."""
    return trials(grid, SMALL)


@pytest.fixture(scope="module")
def swept(three, tmp_path_factory):
    """A complete sweep that no test changes, and its table."""
    out = tmp_path_factory.mktemp("sweep") / "a"
    return out, sweep(three, out)


def written(folder, text):
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def weights(run):
    """The towers of a complete run, and where it stands."""
    state = load_state(run / "last")
    return {name: value.tolist() for name, value in state["towers"].items()}, state["position"]


# Reading a grid ------------------------------------------------------------------------------------------------------


def test_the_product_in_the_order_of_the_file(tmp_path):
    made = trials(written(tmp_path, "model: [id, history]\ntrain.learning_rate: [0.003, 1e-2]"), SMALL)
    found = [(one.recipe.model.user, one.recipe.train.learning_rate) for one in made]
    assert found == [(("id",), 0.003), (("id",), 0.01), (("history",), 0.003), (("history",), 0.01)]
    assert made[1].name == "model=id,train.learning_rate=0.01"
    assert made[1].recipe == recipe.compose([*SMALL, "model=id", "train.learning_rate=0.01"])  # as a person types it


def test_every_kind_of_value_and_a_name_that_is_a_folder(tmp_path):
    text = "model.item_bias: [false]\nmodel.item: [[id], [id, categories]]\ntrain.device: ['cpu:0']\nseed: [7]\n"
    made = trials(written(tmp_path, text), SMALL)
    assert [one.recipe.model.item for one in made] == [("id",), ("id", "categories")]
    assert all(
        (one.recipe.model.item_bias, one.recipe.train.device, one.recipe.seed) == (False, "cpu:0", 7) for one in made
    )
    assert made[1].name == "model.item_bias=false,model.item=-id,categories-,train.device=cpu-0,seed=7"


BESIDE = ("data=toy", "model.dim=8")
FAULTS = {
    "train.learnin_rate: [0.1]": "no setting is called train.learnin_rate; did you mean train.learning_rate?",
    "train.epochs: []": "train.epochs = []; needed: a list of one value or more",
    "loss.log_q: 1": "loss.log_q = 1; needed: a list of one value or more",
    "train.warmup_steps: {low: 1}": "train.warmup_steps = {'low': 1}; needed: a list",
    "seed: [0, 1, 0]": "seed holds 0 twice",
    "train.batch_size: [many, 64]": "train.batch_size = many; needed: a whole number",
    "model: [id, histori]": "model = histori; needed: one of categories, history, id; did you mean history?",
    "train.patience: [-1]": "train.patience = -1; needed: 0 or more",
    "model.dim: [8, 16]": "model.dim is in the grid and beside it",
    "data.min_rating: [3, 4]": "data.min_rating decides what is asked",
    "split: [a]": "split decides what is asked",
    "split.test: [0.1, 0.2]": "split.test decides what is asked",
    "train.metric: [ndcg@20, recall@20]": "train.metric decides what is asked",
}


@pytest.mark.parametrize(("line", "said"), FAULTS.items(), ids=[line.partition(":")[0] for line in FAULTS])
def test_a_fault(tmp_path, line, said):
    with pytest.raises(SettingError) as refused:
        trials(written(tmp_path, line), BESIDE)
    assert said in str(refused.value)


def test_all_faults_are_told_at_once_and_each_once(tmp_path):
    lines = [line for line in FAULTS if not line.startswith("train.patience")]  # a record is made of known values only
    with pytest.raises(SettingError) as refused:
        trials(written(tmp_path, "\n".join(lines)), BESIDE)
    told = refused.value.came.splitlines()
    for line in lines:
        assert sum(FAULTS[line] in one for one in told) == 1, line
    assert len(told) == 1 + len(lines)


def test_a_combination_that_its_settings_refuse(tmp_path):
    text = "loss.form: [classic, corrected]\nloss.same_item: [true, false]\nseed: [0, 1]\n"
    with pytest.raises(SettingError) as refused:
        trials(written(tmp_path, text), SMALL)
    (_, told) = refused.value.came.splitlines()  # one of four combinations, for two seeds, told once
    assert told.strip().startswith("loss.form = corrected, loss.log_q = 1.0, loss.same_item = false; needed: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it names no setting"),
        ("- model", "it names no setting"),
        ("model: [id]\nmodel: [history]", "found duplicate key model"),
        ("model: [id", "line 1"),
        ("3", "Invalid loaded object type: int"),
    ],
)
def test_a_file_that_is_no_grid(tmp_path, text, said):
    with pytest.raises(SettingError, match=r"needed: a list of values a setting, such as loss\.log_q: \[0, 1\]") as no:
        trials(written(tmp_path, text))
    assert said in str(no.value)


def test_no_file(tmp_path):
    with pytest.raises(SettingError, match=r"No such file or directory: .*none\.yaml"):
        trials(tmp_path / "none.yaml")


# The runs ------------------------------------------------------------------------------------------------------------


def test_each_run_is_an_ordinary_one(three, swept, tmp_path):
    out, _ = swept
    assert sorted(one.name for one in out.iterdir()) == sorted([*NAMES, SWEEP, TABLE])
    one = three[2]
    assert recipe.train(one.recipe, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(out / one.name)


def test_complete_runs_are_not_trained_again(three, swept):
    out, table = swept
    told, passed, before = [], [], {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = sweep(three, out, report=told.append, begun=lambda one: passed.append(one.name))
    assert (told, passed) == ([], NAMES)
    assert again.equals(table)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_stopped_in_a_run_and_resumed(three, swept, tmp_path):
    """A signal after the first epoch of the second run; the rest is as if nothing had happened."""
    out, told = tmp_path / "a", []

    def report(progress):
        told.append(progress)
        if len([one for one in told if (one.phase, one.epoch) == ("choose", 1)]) == 2:
            signal.raise_signal(signal.SIGINT)

    assert sweep(three, out, report=report) is None
    assert [(out / name).exists() for name in NAMES] == [True, True, False]
    assert not load_state(out / NAMES[1] / "last")["position"]["done"] and not (out / TABLE).exists()
    resumed = []
    table = sweep(three, out, report=resumed.append)
    assert (resumed[0].phase, resumed[0].epoch) == ("choose", 2)  # of the second run; the first is complete
    assert all(weights(out / name) == weights(swept[0] / name) for name in NAMES)
    assert table.drop(columns="run").equals(swept[1].drop(columns="run"))


def test_a_changed_grid_is_refused(swept, tmp_path):
    out = shutil.copytree(swept[0], tmp_path / "a")
    changed = trials(written(tmp_path, GRID + "seed: [0]\n"), SMALL)
    with pytest.raises(OutputExistsError, match=r"a holds other runs\nneeded: the same grid .*\nto do: add --force"):
        sweep(changed, out)
    with pytest.raises(OutputExistsError, match="holds other runs"):
        sweep(trials(written(tmp_path, GRID), [*SMALL, "seed=1"]), out)


def test_force_takes_a_changed_grid_and_keeps_what_both_have(swept, tmp_path):
    out, begun = shutil.copytree(swept[0], tmp_path / "a"), []
    grid = written(tmp_path, "model: [id]\nloss.log_q: [0.5, 2]")
    table = sweep(trials(grid, SMALL), out, force=True, report=lambda one: begun.append(one.epoch))
    assert begun == [1, 2]  # only the strength 2 is new
    assert sorted(table["loss.log_q"]) == ["0.5", "2"]
    assert all((out / name).exists() for name in NAMES)  # nothing is deleted
    sweep(trials(grid, [*SMALL, "seed=1"]), out, force=True)
    assert [load(recipe.Recipe, out / name / recipe.RECIPE).seed for name in NAMES] == [0, 1, 0]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_ours(three, tmp_path, force):
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputExistsError, match="was not written by this program" if force else "exists already"):
        sweep(three, tmp_path / "mine", force)


def test_a_run_that_cannot_begin_is_told_before_any_is_trained(tmp_path):
    made = trials(written(tmp_path, "train.device: [cpu, 'cuda:99']"), SMALL)
    with pytest.raises(SettingError, match=r"train\.device = cuda:99"):
        sweep(made, tmp_path / "a")
    assert not (tmp_path / "a").exists()


# The table -----------------------------------------------------------------------------------------------------------


def test_the_table_says_what_validation_says(swept):
    out, table = swept
    assert list(table.columns) == ["model", "loss.log_q", "best epoch", "ndcg@20", "run"]
    assert sorted(table["run"]) == sorted(str(out / name) for name in NAMES)
    assert list(table["ndcg@20"]) == sorted(table["ndcg@20"], reverse=True)
    for row in table.to_dict("records"):
        assert row["run"] == str(out / f"model=id,loss.log_q={row['loss.log_q']}")
        log = [json.loads(line) for line in (Path(row["run"]) / "log.jsonl").read_text().splitlines()]
        best = max(log, key=lambda one: one["metrics"]["ndcg@20"])
        assert (row["best epoch"], row["ndcg@20"]) == (best["epoch"], best["metrics"]["ndcg@20"])
    assert not list(out.rglob(recipe.EVALUATIONS))  # the test part was asked by nobody


def test_the_table_as_a_file(swept):
    with open(swept[0] / TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == list(swept[1]["run"])
    assert [float(row["ndcg@20"]) for row in rows] == list(swept[1]["ndcg@20"])


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command(twotower, grid, swept, tmp_path):
    out = shutil.copytree(swept[0], tmp_path / "a b")
    text = twotower.good("sweep", grid, *SMALL, f"out={out}").out
    first = swept[1].iloc[0]
    lines = text.splitlines()
    assert lines[: len(NAMES)] == [f"run {name}" for name in NAMES]
    assert lines[4].split() == ["model", "loss.log_q", "best", "epoch", "ndcg@20", "run"]
    assert lines[5].split()[:4] == ["id", first["loss.log_q"], str(first["best epoch"]), f"{first['ndcg@20']:.4f}"]
    judged = f"twotower evaluate '{out / first['run'].rpartition('/')[2]}' part=test"
    assert lines[-1] == f"the first is best on validation; to judge it on the test part: {judged}"
    done = twotower.good("sweep", grid, *SMALL, f"out={out}", "--json").json
    assert done["next"] == judged and done["best"] == done["rows"][0]["run"]
    assert [row["ndcg@20"] for row in done["rows"]] == list(swept[1]["ndcg@20"])


def test_the_command_refuses_in_a_few_lines(twotower, grid, swept, tmp_path):
    done = twotower("sweep", grid, *SMALL)
    assert (done.code, done.out) == (2, "") and "twotower sweep without a folder" in done.err
    done = twotower("sweep", written(tmp_path, "modl: [id]\nseed: 3"), f"out={tmp_path / 'a'}")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 4)
    assert "did you mean model?" in done.err and "seed = 3" in done.err and not (tmp_path / "a").exists()
    done = twotower("sweep", grid, *SMALL, "seed=1", f"out={swept[0]}")
    assert (done.code, done.out) == (2, "") and "holds other runs" in done.err


def test_ctrl_c_stops_and_the_same_command_goes_on(twotower, grid, swept, tmp_path):
    out = tmp_path / "a"
    often = (*SMALL, "train.checkpoint_steps=1")  # so that the signal finds the run in its middle
    stopped = twotower("sweep", grid, *often, f"out={out}", signal=signal.SIGINT, once=out / NAMES[1] / "last")
    assert stopped.code == 130
    assert stopped.err == "stopped and saved; to go on: the same command again\n"
    assert not (out / TABLE).exists() and not (out / NAMES[2]).exists()
    twotower.good("sweep", grid, *often, f"out={out}")
    assert all(weights(out / name) == weights(swept[0] / name) for name in NAMES)


def test_killed_and_gone_on_with(twotower, grid, swept, tmp_path):
    out = tmp_path / "a"
    command = ("sweep", grid, *SMALL, f"out={out}")
    assert twotower(*command, signal=signal.SIGKILL, once=out / NAMES[1] / "last").code == -signal.SIGKILL
    table = twotower.good(*command, "--json").json["rows"]
    assert [row["ndcg@20"] for row in table] == list(swept[1]["ndcg@20"])
    assert all(weights(out / name) == weights(swept[0] / name) for name in NAMES)
