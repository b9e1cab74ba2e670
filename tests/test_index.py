"""What only the FAISS index has: a file, a search that widens; recall; and what the indexes cost in memory."""

import subprocess
import sys
import textwrap
from pathlib import Path

import faiss
import numpy as np
import pytest

import twotower_lib.index as module
from twotower_lib.errors import ArtifactError
from twotower_lib.index import METRIC, ExactIndex, FaissIndex, IndexSettings, recall_against_exact
from twotower_lib.ranking import NOTHING, Ragged, Recommendations

FULL, NOWHERE = Path("/dev/full"), Path("/dev/null")
"""Devices of Linux: every write to the one fails as on a full disk; the other swallows what is written."""


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


KINDS = {
    "flat": IndexSettings(),
    "hnsw": IndexSettings(kind="hnsw", links=5, ef_construction=30, ef_search=3),
    "ivf": IndexSettings(kind="ivf", lists=40, probes=3),
}


@pytest.fixture(params=KINDS)
def settings(request):
    return KINDS[request.param]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "items.faiss"
    FaissIndex(normal(50, 4)).save(path)
    return path


def test_a_loaded_index_is_the_saved_one(settings, tmp_path):
    """With so little effort an approximate one misses items, and other ones with other settings."""
    vectors, queries, path = normal(2000, 16), normal(60, 16, seed=1), tmp_path / "items.faiss"
    index = FaissIndex(vectors, settings)
    index.save(path)
    loaded = FaissIndex.load(path, "inner_product")
    assert (loaded.metric, loaded.n_items) == ("inner_product", 2000)
    assert loaded.settings == index.settings == settings
    assert loaded.is_exact is index.is_exact is (settings.kind == "flat")
    one, other = index.search(queries, 9), loaded.search(queries, 9)
    np.testing.assert_array_equal(other.items, one.items)
    np.testing.assert_array_equal(other.scores, one.scores)
    assert (recall_against_exact(index, ExactIndex(vectors), queries, 9) == 1) is index.is_exact


def test_the_file_is_one_of_faiss(settings, tmp_path):
    FaissIndex(normal(50, 4), settings).save(tmp_path / "items.faiss")
    read = faiss.read_index(str(tmp_path / "items.faiss"))
    assert read.metric_type == faiss.METRIC_INNER_PRODUCT
    inside = read.quantizer if settings.kind == "ivf" else getattr(read, "storage", read)
    assert inside.metric_type == faiss.METRIC_INNER_PRODUCT


# The search widens ----------------------------------------------------------------------------------------------------


class Stingy:
    """FAISS, but it finds only the first few of what was asked for; what it was asked is written down."""

    def __init__(self, finds):
        self.finds, self.asked, self.real = finds, [], module.fetch

    def __call__(self, index, settings, vectors, wanted, room, widening):
        self.asked.append((len(vectors), wanted + room, widening))
        scores, items = self.real(index, settings, vectors, wanted, room, widening)
        items[:, self.finds * widening :] = NOTHING
        return scores, items


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize(("finds", "rounds"), [(10, 1), (3, 2), (1, 3), (0, 3)])
def test_the_search_widens_until_k_are_found_and_is_exact_in_the_end(monkeypatch, kind, finds, rounds):
    """26 are fetched, then 4 times as many, then 16 times. Whoever finds none of them is searched exactly."""
    vectors, queries = normal(3000, 4), normal(7, 4, seed=1)
    index, stingy = FaissIndex(vectors, IndexSettings(kind=kind, probes=1000, ef_search=1000)), Stingy(finds)
    monkeypatch.setattr(module, "fetch", stingy)
    answer = index.search(queries, 10)
    assert stingy.asked == [(7, 26, 1), (7, 26, 4), (7, 26, 16)][:rounds]
    np.testing.assert_array_equal(answer.items, ExactIndex(vectors).search(queries, 10).items)


def test_a_query_is_searched_as_widely_as_its_own_exclusions_ask_for(monkeypatch):
    """k + 16 = 21 and the next power of two: none, 4 for 3 and for 4 items, 128 for 100."""
    stingy = Stingy(10**6)
    monkeypatch.setattr(module, "fetch", stingy)
    exclude = Ragged.of([range(3), [], range(100), range(4), []])
    FaissIndex(normal(3000, 4)).search(normal(5, 4, seed=1), 5, exclude)
    assert stingy.asked == [(2, 21, 1), (2, 25, 1), (1, 149, 1)]


def test_nothing_is_fetched_where_it_would_be_a_large_share_of_the_catalogue(monkeypatch):
    monkeypatch.setattr(module, "fetch", None)
    vectors, queries = normal(103, 4), normal(5, 4, seed=1)  # 10 + 16 > 103 / 4
    answer = FaissIndex(vectors, KINDS["hnsw"]).search(queries, 10)
    np.testing.assert_array_equal(answer.items, ExactIndex(vectors).search(queries, 10).items)


class Fixed:
    """An index that answers with these items."""

    metric, is_exact, n_items = METRIC, False, 9

    def __init__(self, items):
        self.items = np.array(items)

    def search(self, vectors, k, exclude=None):
        return Recommendations(self.items, np.zeros(self.items.shape, dtype=np.float32))


def test_recall_counted_by_hand():
    """Of 3 and 1 true items 2 and 0 are found, in whatever place: 2 of 4. What fills up a list is no item."""
    true, found = Fixed([[1, 2, 3], [4, -1, -1]]), Fixed([[3, 7, 2], [5, 6, -1]])
    assert recall_against_exact(found, true, normal(2, 4), 3) == 2 / 4


# Files that are refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [lambda: faiss.IndexFlatL2(4), lambda: faiss.IndexHNSWFlat(4, 8)])
def test_refuses_a_file_that_measures_the_distance(tmp_path, build):
    path = tmp_path / "l2.faiss"
    index = build()
    index.add(normal(5, 4))
    faiss.write_index(index, str(path))
    with pytest.raises(
        ArtifactError, match="an index that measures l2\nneeded: inner_product: the towers were trained"
    ):
        FaissIndex.load(path)


def test_refuses_a_file_of_another_metric_than_the_towers(saved):
    with pytest.raises(ArtifactError, match="an index that measures inner_product\nneeded: l2"):
        FaissIndex.load(saved, metric="l2")


def test_refuses_a_kind_of_index_it_cannot_read(tmp_path):
    path = tmp_path / "lsh.faiss"
    index = faiss.index_factory(4, "SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(normal(5, 4))
    faiss.write_index(index, str(path))
    needed = "one of IndexFlat, IndexHNSWFlat, IndexIVFFlat"
    with pytest.raises(ArtifactError, match=f"holds a IndexScalarQuantizer\nneeded: {needed}"):
        FaissIndex.load(path)


@pytest.mark.parametrize("length", [0, 3, 40, -1])
def test_refuses_a_truncated_file(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(ArtifactError, match=r"items.faiss cannot be read as an index: "):
        FaissIndex.load(saved)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"No such file"):
        FaissIndex.load(tmp_path / "items.faiss")


def test_a_full_disk_is_noticed():
    with pytest.raises(OSError, match="No space left"):
        FaissIndex(normal(50, 4)).save(FULL)


def test_a_file_that_reads_back_differently_is_noticed():
    with pytest.raises(ArtifactError, match="reads back differently"):
        FaissIndex(normal(50, 4)).save(NOWHERE)


# Beside torch, and in memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imports", ["import torch, faiss", "import faiss, torch"])
def test_torch_and_faiss_live_in_one_process_whatever_the_order(imports):
    run(f"""
        {imports}
        import numpy as np
        from twotower_lib.index import ExactIndex, FaissIndex
        vectors = np.random.default_rng(0).standard_normal((3000, 32), dtype=np.float32)
        torch.randn(300, 300) @ torch.randn(300, 300)
        one, other = (build(vectors).search(vectors[:200], 10) for build in (ExactIndex, FaissIndex))
        torch.randn(300, 300) @ torch.randn(300, 300)
        assert (one.items == other.items).all() and (one.items[:, 0] == np.arange(200)).mean() > 0.9
        """)


@pytest.mark.parametrize(
    "build",
    ["ExactIndex(vectors)", "FaissIndex(vectors)", "FaissIndex(vectors, IndexSettings(kind='ivf', lists=100))"],
)
def test_memory_stays_under_200_mb_whatever_the_catalogue(build):
    """All scores at once would be 2.4 GB."""
    run(f"""
        import resource, numpy as np
        from twotower_lib.index import ExactIndex, FaissIndex, IndexSettings
        from twotower_lib.ranking import Ragged
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        vectors = np.random.default_rng(0).standard_normal((300_000, 8), dtype=np.float32)
        index = {build}
        index.search(vectors[:1], 1)
        before = peak()
        index.search(vectors[:2000], 20, Ragged.of([[row] for row in range(2000)]))
        assert peak() - before < 200, f"{{peak() - before:.0f}} MB"
        """)


def run(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
