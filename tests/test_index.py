"""What only the FAISS index has: a file, with the metric in it; and what the indexes cost in memory."""

import subprocess
import sys
import textwrap
from pathlib import Path

import faiss
import numpy as np
import pytest

from twotower_lib.errors import ArtifactError
from twotower_lib.index import FaissIndex

FULL, NOWHERE = Path("/dev/full"), Path("/dev/null")
"""Devices of Linux: every write to the one fails as on a full disk; the other swallows what is written."""


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "items.faiss"
    FaissIndex(normal(50, 4)).save(path)
    return path


def test_a_loaded_index_answers_as_the_saved_one(saved):
    queries = normal(6, 4, seed=1)
    one, other = FaissIndex(normal(50, 4)).search(queries, 9), FaissIndex.load(saved).search(queries, 9)
    np.testing.assert_array_equal(other.items, one.items)
    np.testing.assert_array_equal(other.scores, one.scores)


def test_a_loaded_index_declares_what_it_is(saved):
    index = FaissIndex.load(saved, "inner_product")
    assert (index.metric, index.is_exact, index.n_items) == ("inner_product", True, 50)


def test_the_file_is_one_of_faiss(saved):
    assert faiss.read_index(str(saved)).metric_type == faiss.METRIC_INNER_PRODUCT


def test_refuses_a_file_that_measures_the_distance(tmp_path):
    path = tmp_path / "l2.faiss"
    index = faiss.IndexFlatL2(4)
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
    path = tmp_path / "hnsw.faiss"
    index = faiss.IndexHNSWFlat(4, 8, faiss.METRIC_INNER_PRODUCT)
    index.add(normal(5, 4))
    faiss.write_index(index, str(path))
    with pytest.raises(ArtifactError, match="holds a IndexHNSWFlat\nneeded: a flat index"):
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


@pytest.mark.parametrize("build", ["ExactIndex", "FaissIndex"])
def test_memory_stays_under_200_mb_whatever_the_catalogue(build):
    """All scores at once would be 2.4 GB."""
    run(f"""
        import resource, numpy as np
        from twotower_lib.index import ExactIndex, FaissIndex
        from twotower_lib.ranking import Ragged
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        vectors = np.random.default_rng(0).standard_normal((300_000, 8), dtype=np.float32)
        index = {build}(vectors)
        index.search(vectors[:1], 1)
        before = peak()
        index.search(vectors[:2000], 20, Ragged.of([[row] for row in range(2000)]))
        assert peak() - before < 200, f"{{peak() - before:.0f}} MB"
        """)


def run(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
