"""Settings from files and overrides: what survives, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower_lib import recipe, settings
from twotower_lib.data import DataSettings
from twotower_lib.errors import ArtifactError, SettingError
from twotower_lib.features import HistorySettings
from twotower_lib.recipe import Recipe, compose
from twotower_lib.sources import SOURCES
from twotower_lib.towers import HeadSettings, TowerSettings
from twotower_lib.training import TrainSettings

CONFIGS = Path(recipe.__file__).parent / "configs"
ODD = [
    "a=b",
    "two words",
    "a,b",
    "it's",
    'say "hi"',
    "[a]",
    "{a: b}",
    "(a)",
    "C:\\new\\",
    "\\'",
    "'",
    "gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}er \N{ROCKET}",
    "${x}",
    "\\${x}",
    "true",
    "007",
    "1e3",
    " padded ",
    "#",
    "a: b",
    "- a",
    "~",
    "*",
    "%",
    "@",
]
"""Texts that mean something to YAML, OmegaConf, Hydra or a shell."""


def own(path: object) -> tuple[str, ...]:
    return ("data=csv", f"data.interactions={path}")


# YAML and overrides -> Recipe ----------------------------------------------------------------------------------------


def test_nothing_given_is_the_recipe_of_the_results_table():
    assert compose() == Recipe()
    assert compose().data.source == "ml-100k"


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("data=toy", Recipe(data=DataSettings(source="toy"))),
        ("model=id", Recipe(model=TowerSettings(user=("id",), user_head=HeadSettings(depth=0)))),
        ("model=categories", Recipe(model=TowerSettings(item=("id", "categories")))),
        ("train=short", Recipe(train=TrainSettings(epochs=3, patience=0))),
        ("train=laptop", Recipe()),
        ("train.epochs=20", Recipe(train=TrainSettings(epochs=20))),
        ("train.learning_rate=1e-3", Recipe(train=TrainSettings(learning_rate=0.001))),
        ("train.learning_rate=1", Recipe(train=TrainSettings(learning_rate=1.0))),
        ("train.refit=false", Recipe(train=TrainSettings(refit=False))),
        ("train.device=cuda:0", Recipe(train=TrainSettings(device="cuda:0"))),
        ("data.min_rating=4", Recipe(data=DataSettings(min_rating=4.0))),
        ("data.min_rating=null", Recipe()),
        ("model.user=[id,history]", Recipe(model=TowerSettings(user=("id", "history")))),
        ("model.user=[id, history]", Recipe(model=TowerSettings(user=("id", "history")))),
        ("model.item_head.layer_norm=true", Recipe(model=TowerSettings(item_head=HeadSettings(layer_norm=True)))),
        ("history.mode=set", Recipe(history=HistorySettings(mode="set"))),
        ("seed=3", Recipe(seed=3)),
    ],
)
def test_an_override_changes_its_setting_and_nothing_else(override, changed):
    assert compose([override]) == changed


def test_single_settings_beat_their_group_whatever_the_order_and_the_last_one_counts():
    expected = Recipe(train=TrainSettings(epochs=9, patience=0))
    assert compose(["train=short", "train.epochs=9"]) == expected
    assert compose(["train.epochs=9", "train=short"]) == expected
    assert compose(["train.epochs=8", "train=laptop", "train=short", "train.epochs=9"]) == expected


def test_composing_leaves_nothing_behind():
    compose(["data=toy", "train.epochs=9"])
    assert compose() == Recipe()


@pytest.mark.parametrize("text", ODD)
def test_text_comes_through_as_it_is(text, tmp_path):
    composed = compose([*own(text), f"data.columns.title={text}", f"data.items=/x/{text}.csv"])
    assert composed.data.interactions == composed.data.columns.title == text
    assert composed.data.items == f"/x/{text}.csv"
    settings.save(composed, tmp_path / "recipe.yaml")
    assert settings.load(Recipe, tmp_path / "recipe.yaml") == composed


@hypothesis.settings(max_examples=15)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text != "null"))
def test_any_text_comes_through_as_it_is(text):
    assert compose([*own(text)]).data.interactions == text


def test_null_is_nothing_where_a_setting_may_be_without_and_a_word_elsewhere():
    composed = compose([*own("a.csv"), "data.test=null", "data.columns.title=null"])
    assert composed.data.test is None
    assert composed.data.columns.title == "null"


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("data=toy", "model=id", "train=short", "seed=5", "loss.log_q=0.5", "data.min_rating=null"),
        ("data=csv", "data.interactions=a b.csv", "data.columns.time=when", "data.separator=;"),
        ("model.user=[history,categories]", "model.item=[categories]", "model.item_bias=false"),
        ("baselines.ials.factors=8", "split.protocol=time", "split.test=0.25"),
    ],
    ids=str,
)
def test_a_saved_recipe_comes_back_equal(overrides, tmp_path):
    composed = compose(overrides)
    settings.save(composed, tmp_path / "recipe.yaml")
    assert settings.load(Recipe, tmp_path / "recipe.yaml") == composed
    assert isinstance(settings.load(Recipe, tmp_path / "recipe.yaml").model.user, tuple)


def test_a_saved_recipe_holds_every_setting(tmp_path):
    """So that a default that changes later changes no old run."""
    settings.save(Recipe(), tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    found = re.findall(r"^ *(\w+):", text, re.M)
    assert len(settings.known_settings(Recipe)) > 60
    assert {name.rpartition(".")[2] for name in settings.known_settings(Recipe)} <= set(found)


@pytest.mark.parametrize("line", ["trein: {epochs: 3}", "train: {epochs: many}", "seed: []"])
def test_a_file_that_holds_something_else(line, tmp_path):
    (tmp_path / "recipe.yaml").write_text(line + "\n")
    with pytest.raises(ArtifactError, match=r"recipe\.yaml holds no settings of ours: (trein|train\.epochs|seed): "):
        settings.load(Recipe, tmp_path / "recipe.yaml")


def test_every_config_file_composes_and_holds_only_what_differs():
    files = sorted(path.relative_to(CONFIGS) for path in CONFIGS.glob("*/*.yaml"))
    assert [path.parent.name for path in files] == ["data"] * len(SOURCES) + ["model"] * 3 + ["train"] * 2
    needed = {"csv": ("data.interactions=x",)}
    for path in files:
        group, name = path.parent.name, path.stem
        made = getattr(compose([f"{group}={name}", *needed.get(name, ())]), group)
        plain = getattr(compose(needed.get(name, ()) and ["data=csv", *needed[name]]), group)
        differing = {key for key, value in vars(made).items() if value != getattr(plain, key)}
        written = set(re.findall(r"^(\w+):", (CONFIGS / path).read_text(), re.M))
        assert written == differing | ({"source"} if name in ("csv", "ml-100k") else set()), path


def test_the_groups_are_the_folders():
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == set(recipe.GROUPS)


# A record and overrides, without files -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """A record inside another."""

    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise SettingError(f"part.rate = {self.rate}", "0 or more")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What is overridden."""

    word: str | None = "w"
    on: bool = False
    part: Part = field(default_factory=Part)


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ([], Whole(word="before", part=Part(limit=3))),
        (["on=true", "word=after"], Whole(word="after", on=True, part=Part(limit=3))),
        (["part.limit=null", "word=null"], Whole(word=None, part=Part())),
        (["part.rate=1", "part.rate=2"], Whole(word="before", part=Part(rate=2.0, limit=3))),
        (["part.names=[x,y]"], Whole(word="before", part=Part(names=("x", "y"), limit=3))),
        (["word=${x} = 'y'"], Whole(word="${x} = 'y'", part=Part(limit=3))),
    ],
)
def test_a_record_is_overridden_and_keeps_the_rest(overrides, changed):
    before = Whole(word="before", part=Part(limit=3))
    after = settings.overridden(before, overrides)
    assert after == changed
    assert isinstance(after.part.names, tuple) and isinstance(after.part.rate, float)
    assert before == Whole(word="before", part=Part(limit=3))


def test_text_that_a_record_holds_already_is_kept_as_it_is():
    assert settings.overridden(Whole(word="${x}"), ["on=true"]) == Whole(word="${x}", on=True)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("part.rat=1", "no setting is called part.rat\nneeded: a known name\nto do: did you mean part.rate?"),
        (
            "out=x",
            "no setting is called out\nneeded: a known name\nto do: known: on, part.limit, part.names, part.rate, w",
        ),
        ("part.rate", "part.rate without a value\nneeded: part.rate=VALUE"),
        ("part.rate=fast", "part.rate = fast\nneeded: a number"),
        ("part.limit=2.5", "part.limit = 2.5\nneeded: a whole number or null"),
        ("on=perhaps", "on = perhaps\nneeded: true or false"),
        ("part.rate=-1", "part.rate = -1.0\nneeded: 0 or more"),
        ("part=x", "no setting is called part"),
    ],
)
def test_a_wrong_override_of_a_record(override, said):
    with pytest.raises(SettingError) as caught:
        settings.overridden(Whole(), [override])
    assert said in str(caught.value)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=3", "no setting is called train.epoch\nneeded: a known name\nto do: did you mean train.epochs?"),
        ("modle=id", "no setting is called modle\nneeded: a known name\nto do: did you mean model?"),
        ("+train.epochs=3", "no setting is called +train.epochs\nneeded: a known name\nto do: did you mean train.epo"),
        ("~train.epochs", "no setting is called ~train.epochs"),
        ("train.epochs", "train.epochs without a value\nneeded: train.epochs=VALUE"),
        ("train", "train without a value\nneeded: train=VALUE"),
        ("data=ml100k", "data = ml100k\nneeded: one of csv, electronic, go"),
        ("data=ml100k", "to do: did you mean ml-100k?"),
        ("model=histroy", "to do: did you mean history?"),
        ("train=", "train = \nneeded: one of laptop, short"),
        ("model={dim: 3}", "model = {dim: 3}\nneeded: one of"),
        ("train.epochs=many", "train.epochs = many\nneeded: a whole number"),
        ("train.epochs=2.5", "train.epochs = 2.5\nneeded: a whole number"),
        ("train.epochs=", "train.epochs = \nneeded: a whole number"),
        ("train.epochs=1,2", "train.epochs = 1,2\nneeded: a whole number"),
        ("train.epochs=null", "train.epochs = null\nneeded: a whole number"),
        ("train.epochs=${x}", "train.epochs = ${x}\nneeded: a whole number"),
        ("train.epochs=???", "train.epochs = ???\nneeded: a whole number"),
        ("train.epochs=[1", "train.epochs = [1\nneeded: a whole number"),
        ("train.learning_rate=fast", "train.learning_rate = fast\nneeded: a number"),
        ("train.refit=perhaps", "train.refit = perhaps\nneeded: true or false"),
        ("data.min_rating=high", "data.min_rating = high\nneeded: a number or null"),
        ("model.user=history", "model.user = history\nneeded: a list such as [id,history]"),
        ("model.user=[histroy]", "model.user has a feature histroy"),
        ("model.dim=0", "model.dim = 0\nneeded: 1 or more"),
        ("train.epochs=0", "train.epochs = 0\nneeded: 1 or more"),
        ("split.test=1", "split.test = 1.0\nneeded: a share"),
        ("seed=-1", "seed = -1\nneeded: 0 or more"),
        ("data.source=tooy", 'data.source = "tooy"'),
    ],
)
def test_a_wrong_override(override, said):
    with pytest.raises(SettingError) as caught:
        compose([override])
    text = str(caught.value)
    assert said in text
    assert len(text.splitlines()) <= 3
    assert "hydra" not in text.lower() and "omegaconf" not in text.lower()
    assert "+" not in text.replace(override.partition("=")[0], "")  # never Hydra's advice


@pytest.mark.parametrize(
    "name", [name for name, kind in settings.known_settings(Recipe).items() if kind in (int, float, bool)]
)
def test_every_number_and_switch_refuses_a_word(name):
    with pytest.raises(SettingError, match=rf"{re.escape(name)} = word\nneeded: (a whole number|a number|true or f)"):
        compose([f"{name}=word"])
