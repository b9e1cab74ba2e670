"""The kinds of FAISS index: their settings, how they are built, and how hard they try."""

import subprocess
import sys
from dataclasses import replace

import faiss
import numpy as np
import pytest

from twotower_lib.ann import (
    BUILDERS,
    CLASSES,
    IndexSettings,
    Selection,
    build,
    kind_of,
    parts,
    settings_of,
    vectors_in,
)
from twotower_lib.errors import SettingError
from twotower_lib.index import ExactIndex, FaissIndex, recall_against_exact

KINDS = tuple(CLASSES)


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


def biased(rows, dim, spread, seed):
    """Unit vectors with an item bias as one more dimension, as a normalised tower with a bias has them."""
    vectors = normal(rows, dim, seed)
    bias = spread * normal(rows, 1, seed + 1)
    return np.concatenate([vectors / np.linalg.norm(vectors, axis=1, keepdims=True), bias], axis=1)


def asking(vectors):
    """The same with the constant 1 of the user side in place of the bias."""
    return np.concatenate([vectors[:, :-1], np.ones((len(vectors), 1), np.float32)], axis=1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "hnws"}, "index.kind = hnws\nneeded: flat, hnsw, ivf, pq, ivfpq\nto do: did you mean hnsw?"),
        ({"links": 1}, "index.links = 1\nneeded: 2 or more"),
        ({"ef_construction": 0}, "index.ef_construction = 0\nneeded: 1 or more"),
        ({"ef_search": 0}, "index.ef_search = 0\nneeded: 1 or more"),
        ({"lists": 0}, "index.lists = 0\nneeded: 1 or more"),
        ({"probes": -3}, "index.probes = -3\nneeded: 1 or more"),
        ({"code": 0}, "index.code = 0\nneeded: 1 or more"),
        ({"rerank": 0}, "index.rerank = 0\nneeded: 1 or more"),
    ],
)
def test_settings_that_are_refused(wrong, said):
    with pytest.raises(SettingError) as caught:
        IndexSettings(**wrong)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("items", "asked", "lists"),
    [
        *[(1, None, 1), (77, None, 1), (78, None, 2), (1682, None, 43), (10_000, None, 256), (10**6, None, 4000)],
        *[(100, 30, 30), (20, 30, 20)],
    ],
)
def test_lists_by_the_size_of_the_catalogue(items, asked, lists):
    """4 sqrt(n), of which each gets 39 items at least: 1682 // 39 = 43, 10,000 // 39 = 256, 4 sqrt(10^6) = 4,000."""
    assert IndexSettings(lists=asked).lists_of(items) == lists


@pytest.mark.parametrize(("dim", "asked", "code"), [(64, None, 32), (7, None, 4), (1, None, 1), (8, 3, 3), (8, 20, 8)])
def test_bytes_of_a_code_by_the_length_of_the_vectors(dim, asked, code):
    """A byte for two dimensions, and never more bytes than dimensions."""
    assert IndexSettings(code=asked).code_of(dim) == code


def test_every_kind_is_built_and_recognised():
    assert BUILDERS.keys() == CLASSES.keys()
    for kind in KINDS:
        index = build(normal(300, 8), IndexSettings(kind=kind))
        assert kind_of(index) == settings_of(index).kind == kind
        np.testing.assert_array_equal(vectors_in(index), normal(300, 8))
    assert kind_of(faiss.IndexLSH(8, 8)) == kind_of(faiss.IndexPQ(8, 4, 8)) == ""


def test_settings_are_read_from_the_index_itself():
    graph = IndexSettings(kind="hnsw", links=7, ef_construction=33, ef_search=21)
    assert settings_of(build(normal(300, 8), graph)) == graph
    lists = IndexSettings(kind="ivf", lists=9, probes=4)
    assert settings_of(build(normal(300, 8), lists)) == lists
    assert settings_of(build(normal(300, 8), IndexSettings(kind="ivf"))).lists == 7  # 300 // 39
    for coded in (IndexSettings(kind="pq", code=3, rerank=5), replace(lists, kind="ivfpq", code=3, rerank=6)):
        assert settings_of(build(normal(300, 8), coded)) == coded


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_give_equal_bytes_whatever_the_threads(kind):
    made = []
    before = faiss.omp_get_max_threads()
    for threads in (1, 4, before):
        faiss.omp_set_num_threads(threads)
        made.append(faiss.serialize_index(build(normal(3000, 24), IndexSettings(kind=kind))).tobytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("items", [1, 2, 5, 60])
def test_a_tiny_catalogue_is_built_without_a_word(items):
    """FAISS warns on standard error, in C++, where k-means has fewer than 39 items for a centroid."""
    code = (
        "import numpy as np; from twotower_lib.index import FaissIndex, IndexSettings as S\n"
        f"vectors = np.random.default_rng(0).standard_normal(({items}, 4), dtype=np.float32)\n"
        "coded = S(kind='pq'), S(kind='ivfpq')\n"
        "for settings in (S(kind='ivf'), S(kind='ivf', lists=50), S(kind='hnsw'), S(), *coded):\n"
        "    print(FaissIndex(vectors, settings).search(vectors[:1], 1).items.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(1, 1)\n" * 6, "")


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("hnsw", {"ef_search": 1, "links": 4}, {"ef_search": 200, "links": 4}),
        ("ivf", {"probes": 1}, {"probes": 60}),
        ("pq", {"code": 2, "rerank": 1}, {"code": 2, "rerank": 30}),
        ("ivfpq", {"probes": 1}, {"probes": 60}),
    ],
)
def test_more_effort_finds_more(kind, low, high):
    vectors, queries = normal(4000, 16), normal(200, 16, seed=1)
    little, much = (
        recall_against_exact(FaissIndex(vectors, IndexSettings(kind=kind, **one)), ExactIndex(vectors), queries, 10)
        for one in (low, high)
    )
    assert little < 0.8 < 0.95 < much


def test_lists_keep_the_lengths_of_their_items():
    """With centroids of length 1, the default of FAISS, only half is found: the bias of the items is lost to them."""
    vectors = biased(6000, 16, 0.4, seed=0)
    queries = asking(biased(200, 16, 0.4, seed=5))
    index = FaissIndex(vectors, IndexSettings(kind="ivf", lists=100, probes=4))
    assert recall_against_exact(index, ExactIndex(vectors), queries, 10) > 0.65


@pytest.mark.parametrize("dim", [16, 15])
def test_a_pq_answers_with_the_best_of_its_candidates(dim):
    """By hand: 3 (k + 16) items of largest product with the decoded vectors, of which the k best by the true ones."""
    vectors, queries, k = normal(1000, dim), normal(20, dim, seed=1), 5
    index = FaissIndex(vectors, IndexSettings(kind="pq", code=2, rerank=3))
    decoded = parts(index.index)[0].reconstruct_n(0, 1000)
    assert decoded.shape == (1000, 16) and not np.allclose(decoded[:, :dim], vectors)
    candidates = np.argsort(-(queries @ decoded[:, :dim].T), axis=1)[:, : 3 * (k + 16)]
    products = np.take_along_axis(queries @ vectors.T, candidates, axis=1)
    best = np.take_along_axis(candidates, np.argsort(-products, axis=1)[:, :k], axis=1)
    np.testing.assert_array_equal(index.search(queries, k).items, best)
    assert recall_against_exact(index, ExactIndex(vectors), queries, k) < 1


def test_a_selection_in_all_its_forms():
    selection = Selection(np.array([False, True, True, False] * 5))
    np.testing.assert_array_equal(selection.rows, [1, 2, 5, 6, 9, 10, 13, 14, 17, 18])
    assert selection.share == 0.5
    assert [selection.selector.is_member(row) for row in range(20)] == selection.mask.tolist()


@pytest.mark.parametrize(
    ("settings", "reach"),
    [
        (IndexSettings(), (10, 10)),
        (IndexSettings(kind="hnsw", ef_search=64), (10, 640)),
        (IndexSettings(kind="ivf"), (10, 10)),
        (IndexSettings(kind="pq", rerank=3), (30, 30)),
        (IndexSettings(kind="ivfpq", rerank=3), (30, 30)),
    ],
)
def test_items_looked_at_closely_of_all_and_of_a_tenth(settings, reach):
    assert (settings.reach(10), settings.reach(10, share=0.1)) == reach


@pytest.mark.parametrize(("kind", "of_faiss"), [("ivf", faiss.IndexIVFFlat), ("ivfpq", faiss.IndexIVFPQ)])
def test_lists_are_chosen_for_few_queries_at_a_time(monkeypatch, kind, of_faiss):
    """So few that FAISS leaves BLAS alone. Whether its rounding shows in an answer depends on the processor."""
    index, asked, search = FaissIndex(normal(2000, 256), IndexSettings(kind=kind, lists=20)), [], of_faiss.search

    def counted(met, queries, *more, **named):
        asked.append(len(queries))
        return search(met, queries, *more, **named)

    monkeypatch.setattr(of_faiss, "search", counted)
    index.search(normal(1000, 256, seed=1), 5)
    assert sum(asked) >= 1000 and max(asked) < 20
    assert max(asked) * 256 < faiss.cvar.distance_compute_blas_threshold < 1000 * 256
