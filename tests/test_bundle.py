"""The exported artifact: it answers as the towers that were judged, and it is whole or refused."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
from safetensors.numpy import load_file

from twotower_lib import bundle, recipe, storage
from twotower_lib.bundle import BUNDLE, Bundle, Result, load
from twotower_lib.errors import ArtifactError, ExactnessError, UnknownIdError
from twotower_lib.evaluation import evaluate, measure
from twotower_lib.index import FaissIndex, IndexSettings
from twotower_lib.recipe import compose
from twotower_lib.retriever import exact_retriever

pytest_plugins = ["tests.commands"]

FILES = (
    "arrays.safetensors",
    "catalogue.json",
    "index.faiss",
    "manifest.json",
    "towers.safetensors",
    "vectors.safetensors",
)
SMALL = ("data=toy", "model.dim=8", "train.epochs=2", "train.batch_size=128")
KINDS = {
    "history": (),
    "id": ("model=id",),
    "categories, not normalised": ("model=categories", "model.normalise=false", "model.user=[id,history,categories]"),
    "tied, no bias, deep": ("model.tied=true", "model.item_bias=false", "model.user_head.depth=2"),
    "bias without ids, learned temperature": (
        *("model.item=[categories]", "model.learn_temperature=true", "split.protocol=random"),
    ),
}


def exported(folder, *overrides):
    """A run and its bundle."""
    assert recipe.train(compose([*SMALL, *overrides]), folder / "run")
    recipe.export(folder / "run", folder / "bundle")
    return folder / "run", folder / "bundle"


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def kind(request, tmp_path_factory):
    """A run of each kind, and its bundle."""
    return exported(tmp_path_factory.mktemp("bundle"), *request.param)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run and one bundle that no test changes."""
    return exported(tmp_path_factory.mktemp("made"))


@pytest.fixture
def mine(made, tmp_path):
    """A copy of the bundle."""
    return shutil.copytree(made[1], tmp_path / "bundle")


def offline(run):
    """What is judged: the towers of `final`, the questions of the test part."""
    chosen, prepared = recipe.open_run(run)
    towers, features = recipe.trained_towers(chosen, prepared, run, "test")
    return exact_retriever(towers, features), prepared


def test_a_path_may_be_a_text(made):
    """As a person types it in a notebook."""
    assert load(str(made[1])).facts == load(made[1]).facts


# What it answers -----------------------------------------------------------------------------------------------------


def test_the_report_of_the_towers_is_that_of_the_loaded_bundle(kind):
    """The circle closes: equal to the last digit, though one side searches by FAISS and the other by our own index."""
    run, path = kind
    retriever, prepared = offline(run)
    asked = prepared.asked("test")
    references = recipe.measured_references(compose(SMALL), asked, [], [5, 20])
    before = evaluate(retriever, asked, references, [5, 20])
    loaded = load(path).retriever
    after = evaluate(loaded, asked, references, [5, 20])
    assert isinstance(loaded.index, FaissIndex) and not isinstance(retriever.index, FaissIndex)
    assert before.measured.table.equals(after.measured.table)
    assert before.as_dict() == after.as_dict()
    assert before.measured.means["recall@20"] > 0.3


def test_every_answer_is_that_of_the_towers(kind):
    run, path = kind
    retriever, prepared = offline(run)
    asked = prepared.asked("test")
    here, there = (one.recommend(asked.queries, 40, asked.exclude) for one in (retriever, load(path).retriever))
    np.testing.assert_array_equal(here.items, there.items)
    np.testing.assert_array_equal(here.scores, there.scores)


def test_a_known_user_is_answered_without_what_they_know(made):
    run, path = made
    retriever, prepared = offline(run)
    loaded, dataset = load(path), prepared.dataset
    asked = prepared.asked("test")
    answer = retriever.recommend(asked.queries, 40, asked.exclude)
    for query in range(len(asked)):
        name = dataset.people.users[asked.queries.user[query]]
        results = loaded.for_user(name, 40)
        rows = [row for row in answer.items[query] if row >= 0]
        assert [one.item for one in results] == [dataset.catalogue.items[row] for row in rows]
        assert [one.title for one in results] == [dataset.catalogue.titles[row] for row in rows]
        assert [one.rank for one in results] == list(range(1, len(rows) + 1))
        np.testing.assert_allclose([one.score for one in results], answer.scores[query, : len(rows)], atol=1e-6)
        known = loaded.history_of(name)
        np.testing.assert_array_equal(known, asked.exclude[query])
        assert not {dataset.catalogue.items[row] for row in known} & {one.item for one in results}
        assert len(results) == 40 - len(known)


def test_a_history_is_answered_as_its_user_is_when_the_towers_know_no_ids(made):
    loaded = load(made[1])
    for name in loaded.users.names[:10]:
        items = [loaded.catalogue.items[row] for row in loaded.history_of(name)]
        assert loaded.for_history(items, 10) == loaded.for_user(name, 10)


def test_similar_items(made):
    found = load(made[1]).similar("f01", 100)
    assert len(found) == 39 and "f01" not in {one.item for one in found}
    assert isinstance(found[0], Result) and found[0].score >= found[1].score


def test_unknown_ids(made):
    loaded = load(made[1])
    with pytest.raises(UnknownIdError, match=r'user "p001" is not among the 60 users(.|\n)*did you mean p01\?'):
        loaded.for_user("p001", 3)
    for ask in (lambda: loaded.for_history(["f01", "F02"], 3), lambda: loaded.similar("F02", 3)):
        with pytest.raises(UnknownIdError, match=r'item "F02" is not among the 40 items(.|\n)*did you mean f02\?'):
            ask()
    with pytest.raises(UnknownIdError):
        loaded.history_of("nobody")


def test_what_comes_back_is_what_went_in(made):
    run, path = made
    _, prepared = offline(run)
    loaded = load(path)
    assert loaded.catalogue == prepared.dataset.catalogue
    assert loaded.users == prepared.dataset.people.users
    assert not loaded.retriever.towers.training
    np.testing.assert_array_equal(loaded.seen.values, prepared.split.seen("test").values)
    assert loaded.facts["data"] == {"name": "toy", "sha256": prepared.dataset.sha256}
    assert loaded.facts["protocol"] == "last"
    assert loaded.facts["metric"] == "inner_product"
    assert loaded.facts["recipe"]["train"]["epochs"] == 2
    assert loaded.facts["recipe"].keys() == vars(compose()).keys()


def test_the_vectors_are_those_of_the_index(made):
    vectors = load_file(made[1] / "vectors.safetensors")["items"]
    index = FaissIndex.load(made[1] / "index.faiss")  # its vectors live as long as it does
    np.testing.assert_array_equal(vectors, index._vectors.numpy())


def test_exporting_again_gives_the_same_bytes(made, tmp_path):
    recipe.export(made[0], tmp_path / "again")
    assert {path.name for path in made[1].iterdir()} == set(FILES)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (made[1] / name).read_bytes()


# An approximate index ------------------------------------------------------------------------------------------------

FEW_PROBES = IndexSettings(kind="ivf", lists=20, probes=1)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The bundles of one run over 2,000 made-up items, exact and approximate; each user knows 30 of a kind."""
    folder = tmp_path_factory.mktemp("wide")
    generator = np.random.default_rng(0)
    pairs = [(user, item) for user in range(1200) for item in generator.choice(200, 30, replace=False) * 10 + user % 10]
    (folder / "events.csv").write_text("\n".join(["user,item", *(f"u{user},i{item}" for user, item in pairs)]))
    own = ("data=csv", f"data.interactions={folder / 'events.csv'}", "split.protocol=random", "history.mode=set")
    assert recipe.train(compose([*own, "model.dim=16", "train.epochs=1", "train.patience=0"]), folder / "run")
    for kind, settings in (("flat", IndexSettings()), ("hnsw", IndexSettings(kind="hnsw")), ("ivf", FEW_PROBES)):
        recipe.export(folder / "run", folder / kind, index=settings)
    return folder


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_a_bundle_says_which_index_it_holds_and_answers_with_it(wide, kind):
    loaded = load(wide / kind)
    assert loaded.facts["index"] == vars(loaded.retriever.index.settings)
    assert loaded.facts["index"]["kind"] == kind
    assert loaded.retriever.is_exact is (kind == "flat")
    results, known = loaded.for_user("u7", 10), set(loaded.history_of("u7"))
    assert len(results) == 10 and len(known) > 20
    assert not known & set(loaded.catalogue.items.rows([one.item for one in results]))


def test_the_recall_of_an_index_is_that_of_its_answers(wide):
    """Against the answers of the bundle with the exact index, user by user; 1,000 of the 1,200 are asked."""
    exact, loaded = load(wide / "flat"), load(wide / "ivf")
    names = [exact.users[int(row)] for row in np.linspace(0, 1199, 1000).astype(int)]
    shared = [
        len({one.item for one in exact.for_user(name, 10)} & {one.item for one in loaded.for_user(name, 10)})
        for name in names
    ]
    assert loaded.index_recall(10) == pytest.approx(np.mean(shared) / 10)
    assert 0.1 < loaded.index_recall(10) < 0.99
    assert load(wide / "hnsw").index_recall(10) > 0.99
    assert exact.index_recall(10) == 1


def test_the_model_is_not_judged_by_an_approximate_index(wide):
    _, prepared = recipe.open_run(wide / "run")
    asked, retriever = prepared.asked("test"), load(wide / "ivf").retriever
    with pytest.raises(ExactnessError, match="an index that may miss items"):
        measure(retriever, asked, [10])
    assert measure(retriever, asked, [10], approximate=True).means["recall@10"] > 0


# What is refused -----------------------------------------------------------------------------------------------------


def places(size, number):
    """The first byte, the last one, and some between."""
    return sorted({0, size - 1, *random.Random(size).sample(range(size), number)})


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_is_noticed_and_its_file_named(mine, name):
    path = mine / name
    content = path.read_bytes()
    tried = places(len(content), 60 if name == "manifest.json" else 12)
    for number, place in enumerate(tried):
        flipped = bytearray(content)
        flipped[place] ^= 1 << number % 8
        path.write_bytes(flipped)
        with pytest.raises(ArtifactError) as caught:
            load(mine)
        assert str(caught.value).startswith(f"{path} is damaged: its bytes are not those that were written"), place
    path.write_bytes(content)
    assert isinstance(load(mine), Bundle)
    assert len(tried) > 10


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "longer"])
def test_a_file_that_is_not_whole_is_named(mine, name, damage):
    path = mine / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-1], "empty": b"", "longer": content + b"\n"}[damage])
    with pytest.raises(ArtifactError) as caught:
        load(mine)
    said = "is missing" if damage == "missing" else "is damaged"
    assert str(caught.value).startswith(f"{path} {said}")


def resealed(path: Path, **facts: object) -> None:
    """Write the manifest anew, as somebody would who changes a bundle on purpose."""
    manifest = storage._read_manifest(path)
    (path / "manifest.json").unlink()
    storage._write_manifest(path, BUNDLE, {**manifest["facts"], **facts})


def test_an_index_that_measures_the_distance_is_refused(mine):
    vectors = load_file(mine / "vectors.safetensors")["items"]
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(mine / "index.faiss"))
    resealed(mine)
    with pytest.raises(ArtifactError, match="an index that measures l2\nneeded: inner_product: the towers were"):
        load(mine)


def test_towers_of_another_metric_are_refused(mine):
    resealed(mine, metric="l2")
    with pytest.raises(ArtifactError, match="an index that measures inner_product\nneeded: l2"):
        load(mine)


def test_a_run_is_no_bundle(made):
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing"):
        load(made[0])
    with pytest.raises(ArtifactError, match="is a checkpoint of format 1\nneeded: a bundle of format 1"):
        load(made[0] / "final")


def test_a_failed_export_leaves_no_trace(made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(bundle, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        recipe.export(made[0], tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


# kill -9 -------------------------------------------------------------------------------------------------------------


def seed_of(path):
    """The seed of the run in a bundle that can be loaded and answers, or none where there is no bundle."""
    try:
        loaded = load(path)
    except ArtifactError as error:
        assert error.came == f"no folder {path}"
        return None
    assert len(loaded.for_user("p01", 5)) == len(loaded.for_history(["f01"], 5)) == 5
    return loaded.facts["recipe"]["seed"]


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
def test_killed_at_50_random_moments_a_bundle_is_whole_or_not_there(twotower, made, tmp_path, replaced):
    """With --force the old one or the new one is there."""
    out, other, found, kills, unfinished = tmp_path / "bundle", tmp_path / "other", [], 0, 0
    twotower.good("train", *SMALL, "seed=1", f"out={other}")
    start = time.perf_counter()
    twotower.good("export", made[0], out)
    moments = twotower.moments(time.perf_counter() - start)
    while kills < 50 and len(found) < 500:
        if not replaced:
            shutil.rmtree(out, ignore_errors=True)
        before, seed = seed_of(out), (len(found) + 1) % 2
        kills += twotower.killed("export", (made[0], other)[seed], out, "--force", moments=moments)
        unfinished += len([path for path in tmp_path.iterdir() if path.name.endswith(".tmp")])
        found.append(seed_of(out))
        assert found[-1] in {before, seed}
    print(f"{kills} kills of {len(found)} exports; {unfinished} of them while files were written")
    assert kills == 50 and unfinished >= 3
    assert set(found) == ({0, 1} if replaced else {None, 0, 1})
    twotower.good("export", other, out, "--force")
    assert seed_of(out) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "other"}  # nothing is left lying about


def test_json_of_the_catalogue_is_readable(made):
    names = json.loads((made[1] / "catalogue.json").read_text(encoding="utf-8"))
    assert (len(names["users"]), len(names["items"]), len(names["titles"])) == (60, 40, 40)
