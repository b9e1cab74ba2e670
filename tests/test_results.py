"""Which stored result is read: the newest by date, of exactly this theme."""

import json

import pytest

from twotower_lib.errors import ArtifactError
from twotower_lib.exercises.results import FOLDER, newest, result


@pytest.fixture
def checkout(tmp_path):
    """Two machines and two dates; by the names alone, 16-cores would come first and 2-cores last."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for theme, machine, date in [
        ("speed-step", "2-cores", "2026-11-24"),
        ("speed-step", "16-cores", "2026-11-30"),
        ("speed-step", "2-cores", "2026-11-25"),
        ("speed-step_all", "8-cores", "2026-12-01"),
        ("quality_ml-100k", "H100", "2026-11-23"),
    ]:
        (folder / f"{theme}_{machine}_{date}.json").write_text(json.dumps([theme, machine, date]))
    (folder / "quickstart_2-cores_2026-11-25.txt").write_text("NDCG")
    return tmp_path


def test_the_newest_by_date_whatever_the_machine(checkout):
    assert result("speed-step", checkout / FOLDER) == ["speed-step", "16-cores", "2026-11-30"]
    assert newest("quickstart", checkout / FOLDER).read_text() == "NDCG"


def test_a_theme_is_the_whole_name_up_to_the_machine(checkout):
    assert result("speed-step_all", checkout / FOLDER)[1] == "8-cores"
    assert result("quality_ml-100k", checkout / FOLDER)[2] == "2026-11-23"
    for theme in ("quality", "speed", "step"):
        with pytest.raises(ArtifactError, match=f"no result of {theme}\n"):
            result(theme, checkout / FOLDER)


@pytest.mark.parametrize("inside", [".", "notebooks", "notebooks/exercises"])
def test_a_notebook_finds_the_checkout_around_it(checkout, monkeypatch, inside):
    (checkout / inside).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(checkout / inside)
    assert result("speed-step")[1] == "16-cores"


def test_outside_a_checkout_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        result("towers")
    assert str(caught.value) == (
        "no result of towers\n"
        "needed: a file towers_<machine>_<date> under benchmarks/results\n"
        "to do: run the command that makes it; CONTRIBUTING.md lists them"
    )
