"""What only the FAISS index has: a file, a search that widens; recall; and what the indexes cost in memory."""

import subprocess
import sys
import textwrap
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.oracles.naive_ranking import naive_products, naive_top_k
from twotower_lib import ann
from twotower_lib.errors import ArtifactError, SettingError, ShapeError
from twotower_lib.index import METRIC, ExactIndex, FaissIndex, IndexSettings, recall_against_exact, recall_of
from twotower_lib.ranking import NOTHING, Ragged, Recommendations

FULL, NOWHERE = Path("/dev/full"), Path("/dev/null")
"""Devices of Linux: every write to the one fails as on a full disk; the other swallows what is written."""


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


KINDS = {
    "flat": IndexSettings(),
    "hnsw": IndexSettings(kind="hnsw", links=5, ef_construction=30, ef_search=3),
    "ivf": IndexSettings(kind="ivf", lists=40, probes=3),
    "pq": IndexSettings(kind="pq", code=4, rerank=1),
    "ivfpq": IndexSettings(kind="ivfpq", lists=40, probes=3, code=4, rerank=1),
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
    met, store = ann.parts(read)
    for inside in (met, store, getattr(met, "quantizer", met)):
        assert inside.metric_type == faiss.METRIC_INNER_PRODUCT


# The search widens ----------------------------------------------------------------------------------------------------


class Stingy:
    """FAISS, but it finds only the first few of what was asked for; what it was asked is written down."""

    def __init__(self, finds):
        self.finds, self.asked, self.real = finds, [], ann.fetch

    def __call__(self, index, settings, vectors, wanted, room, widening, chosen=None):
        self.asked.append((len(vectors), wanted + room, widening))
        scores, items = self.real(index, settings, vectors, wanted, room, widening, chosen)
        items[:, self.finds * widening :] = NOTHING
        return scores, items


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize(("finds", "rounds"), [(10, 1), (3, 2), (1, 3), (0, 3)])
def test_the_search_widens_until_k_are_found_and_is_exact_in_the_end(monkeypatch, kind, finds, rounds):
    """26 are fetched, then 4 times as many, then 16 times. Whoever finds none of them is searched exactly."""
    vectors, queries = normal(3000, 4), normal(7, 4, seed=1)
    index, stingy = FaissIndex(vectors, IndexSettings(kind=kind, probes=1000, ef_search=1000)), Stingy(finds)
    monkeypatch.setattr(ann, "fetch", stingy)
    answer = index.search(queries, 10)
    assert stingy.asked == [(7, 26, 1), (7, 26, 4), (7, 26, 16)][:rounds]
    np.testing.assert_array_equal(answer.items, ExactIndex(vectors).search(queries, 10).items)


def test_a_query_is_searched_as_widely_as_its_own_exclusions_ask_for(monkeypatch):
    """k + 16 = 21 and the next power of two: none, 4 for 3 and for 4 items, 128 for 100."""
    stingy = Stingy(10**6)
    monkeypatch.setattr(ann, "fetch", stingy)
    exclude = Ragged.of([range(3), [], range(100), range(4), []])
    FaissIndex(normal(3000, 4)).search(normal(5, 4, seed=1), 5, exclude)
    assert stingy.asked == [(2, 21, 1), (2, 25, 1), (1, 149, 1)]


def test_nothing_is_fetched_where_it_would_be_a_large_share_of_the_catalogue(monkeypatch):
    monkeypatch.setattr(ann, "fetch", None)
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


# Only allowed rows ----------------------------------------------------------------------------------------------------


def best_of(vectors, queries, k, allowed, exclude=None):
    """The oracle: what may not appear scores -inf."""
    products = np.where(allowed, naive_products(queries, vectors), -np.inf)
    items, scores = naive_top_k(products, k, exclude)
    return Recommendations(items, scores.astype(np.float32))


@pytest.fixture(params=["exact", *KINDS])
def hard(request):
    """An index of each kind that tries hard, and what it was built over."""
    effort = dict(ef_search=200, probes=30, rerank=10)

    def build(vectors):
        if request.param == "exact":
            return ExactIndex(vectors)
        return FaissIndex(vectors, IndexSettings(kind=request.param, **effort))

    return build


@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.5, 0.9, 1.0])
def test_only_allowed_rows_are_found_and_the_best_of_them(hard, share):
    """A small selection is searched exactly, by every kind; 1 of 500 leaves fewer than k."""
    vectors, queries = normal(3000, 8), normal(30, 8, seed=1)
    allowed = np.random.default_rng(2).permutation(3000) < share * 3000
    exclude = Ragged.of(np.random.default_rng(3).integers(0, 3000, (30, 40)))
    index = hard(vectors)
    answer = index.search(queries, 7, exclude, allowed)
    true = best_of(vectors, queries, 7, allowed, exclude)
    np.testing.assert_array_equal(answer.items == NOTHING, true.items == NOTHING)
    assert allowed[answer.items[answer.items != NOTHING]].all()
    if index.is_exact or share < 0.1:
        np.testing.assert_array_equal(answer.items, true.items)
        np.testing.assert_allclose(answer.scores, true.scores, rtol=1e-6)
    else:
        assert recall_of(answer, true) > 0.9


def test_half_of_the_rows_are_searched_by_the_index_and_not_exactly(settings, monkeypatch):
    stingy = Stingy(10**6)
    monkeypatch.setattr(ann, "fetch", stingy)
    allowed = np.arange(3000) % 2 == 0
    FaissIndex(normal(3000, 8), settings).search(normal(3, 8, seed=1), 5, allowed=allowed)
    assert stingy.asked[0] == (3, 21, 1)


@pytest.mark.parametrize("allowed", [np.ones(49, dtype=bool), np.ones((1, 50), dtype=bool)])
def test_truth_values_that_do_not_fit_the_catalogue(hard, allowed):
    with pytest.raises(ShapeError, match=r"allowed rows \w+ of shape .*\nneeded: bool of shape \(50,\)"):
        hard(normal(50, 4)).search(normal(1, 4), 2, allowed=allowed)


# Adding and deleting --------------------------------------------------------------------------------------------------


class Catalogue:
    """What should be in an index after changes, kept by hand: a row an item ever added, and which are still there."""

    def __init__(self, vectors):
        self.vectors, self.there = vectors, np.ones(len(vectors), dtype=bool)

    def add(self, vectors):
        self.vectors = np.concatenate([self.vectors, vectors])
        self.there = np.append(self.there, [True] * len(vectors))

    def delete(self, rows):
        self.there[rows] = False

    def best(self, queries, k):
        return best_of(self.vectors, queries, k, self.there)


def changed(settings, rounds=3):
    """An index of 1,500 items after rounds of 200 adds and 150 deletes of old and new items, and what it should hold.

    The first items of each round are the first of the catalogue again: ties between old and new rows.
    """
    vectors, rng = normal(1500, 8), np.random.default_rng(5)
    index, kept = FaissIndex(vectors, settings), Catalogue(vectors)
    for number in range(rounds):
        new = np.concatenate([vectors[:20], normal(180, 8, seed=10 + number)])
        np.testing.assert_array_equal(index.add(new), len(kept.there) + np.arange(200))
        kept.add(new)
        gone = rng.choice(np.flatnonzero(kept.there), 150, replace=False)
        index.delete(gone)
        kept.delete(gone)
    return index, kept


@pytest.mark.parametrize("kind", KINDS)
def test_recall_after_adds_and_deletes(kind):
    index, kept = changed(IndexSettings(kind=kind, ef_search=200, probes=30, rerank=10))
    queries = np.concatenate([normal(40, 8, seed=1), kept.vectors[:20]])
    answer, true = index.search(queries, 9), kept.best(queries, 9)
    assert (index.n_items, index.n_deleted) == (2100, 450)
    assert kept.there[answer.items].all(), "what is deleted is not found"
    assert recall_of(answer, true) > 0.95
    exact = np.take_along_axis(naive_products(queries, kept.vectors), answer.items, axis=1)
    np.testing.assert_allclose(answer.scores, exact, rtol=1e-6)
    if kind == "flat":
        np.testing.assert_array_equal(answer.items, true.items)


def test_deleted_rows_are_never_searched_and_stay_so_beside_a_filter(settings):
    index, kept = changed(settings)
    allowed = np.arange(2100) % 3 != 0
    answer = index.search(normal(20, 8, seed=1), 9, allowed=allowed)
    assert (kept.there & allowed)[answer.items].all() and (answer.items != NOTHING).all()


def test_an_index_of_which_everything_is_deleted_finds_nothing(settings):
    index = FaissIndex(normal(500, 8), settings)
    index.delete(np.arange(500))
    assert (index.search(normal(3, 8), 4).items == NOTHING).all()
    assert index.add(normal(1, 8)).tolist() == [500]
    np.testing.assert_array_equal(index.search(normal(1, 8), 2).items, [[500, NOTHING]])


def test_a_file_keeps_what_was_added_and_deleted(settings, tmp_path):
    (index, kept), path, queries = changed(settings), tmp_path / "items.faiss", normal(30, 8, seed=1)
    index.save(path)
    loaded = FaissIndex.load(path)
    assert (loaded.n_items, loaded.n_deleted) == (2100, 450)
    assert loaded.settings == settings
    before = index.search(queries, 9).items
    del index
    np.testing.assert_array_equal(loaded.search(queries, 9).items, before)
    assert loaded.add(normal(5, 8, seed=2)).tolist() == [2100, 2101, 2102, 2103, 2104]
    loaded.delete(np.array([2101]))
    loaded.save(path)
    again = FaissIndex.load(path)
    assert (again.n_items, again.n_deleted) == (2105, 451)
    found = again.search(normal(5, 8, seed=2), 2000).items  # so many that it is exact
    there = np.append(kept.there, [True, False, True, True, True])
    np.testing.assert_array_equal(np.sort(found, axis=1)[:, -1654:], [np.flatnonzero(there)] * 5)


def test_a_file_read_by_faiss_alone_does_not_name_what_is_deleted(settings, tmp_path):
    index, kept = changed(settings)
    index.save(tmp_path / "items.faiss")
    _, items = faiss.read_index(str(tmp_path / "items.faiss")).search(normal(30, 8, seed=1), 9)
    assert (items == NOTHING).any() and kept.there[items[items != NOTHING]].all()


def test_refuses_a_file_whose_items_have_other_numbers(tmp_path):
    index = faiss.IndexIDMap(faiss.IndexFlatIP(4))
    index.add_with_ids(normal(3, 4), np.array([0, 2, 1]))
    faiss.write_index(index, str(tmp_path / "items.faiss"))
    with pytest.raises(ArtifactError, match="other numbers than their rows"):
        FaissIndex.load(tmp_path / "items.faiss")


def test_changes_that_are_refused():
    index = FaissIndex(normal(50, 4))
    with pytest.raises(ShapeError, match=r"item vectors float32 of shape \(2, 5\)\nneeded: .*\(rows, 4\)"):
        index.add(normal(2, 5))
    for row in (-1, 50):
        with pytest.raises(ShapeError, match=rf"deleted rows from .*{row}.*\nneeded: rows from 0 to 49"):
            index.delete(np.array([3, row]))
    assert (index.n_items, index.n_deleted) == (50, 0)


# The same index, trying harder ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivfpq", "pq"])
def test_another_effort_is_that_of_an_index_built_so(kind):
    effort, (vectors, queries) = dict(ef_search=40, probes=9, rerank=3), (normal(2000, 16), normal(30, 16, seed=1))
    little = FaissIndex(vectors, KINDS[kind])
    before = little.search(queries, 9).items
    much, built = little.trying(**effort), FaissIndex(vectors, IndexSettings(**vars(KINDS[kind]) | effort))
    np.testing.assert_array_equal(much.search(queries, 9).items, built.search(queries, 9).items)
    np.testing.assert_array_equal(little.search(queries, 9).items, before)
    assert (much.search(queries, 9).items != before).any()


def test_nothing_is_added_to_memory_that_two_indexes_share():
    """FAISS may move the vectors when it adds some, and the other index would go on reading where they were."""
    one = FaissIndex(normal(50, 4))
    for index in (one.trying(probes=3), one):
        with pytest.raises(SettingError, match="adding to an index whose memory another shares\nneeded: an index of"):
            index.add(normal(2, 4))


def test_what_is_built_in_cannot_be_tried():
    with pytest.raises(SettingError, match="another links, lists for an index that stands\nneeded: a new index"):
        FaissIndex(normal(50, 4)).trying(lists=3, links=9, probes=1)
    with pytest.raises(SettingError, match=r"index\.probes = 0"):
        FaissIndex(normal(50, 4)).trying(probes=0)


# Bytes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "searched", "scoring"),
    [
        ("flat", 4 * 2000 * 16, 0),
        ("hnsw", 4 * 2000 * 16 + 4 * 2000 * 2 * 5 + (4 + 8) * 2000, 0),
        ("ivf", 4 * 2000 * 16 + 8 * 2000 + 4 * 40 * 16, 4 * 2000 * 16),
        ("pq", 4 * 2000 + 4 * 256 * 16, 4 * 2000 * 16),
        ("ivfpq", (4 + 8) * 2000 + 4 * 40 * 16 + 4 * 256 * 16, 4 * 2000 * 16),
    ],
)
def test_bytes_by_hand(kind, searched, scoring):
    """Vectors and centroids of 4 bytes a number, row numbers of 8, codes of 4 bytes, 10 neighbours of 4 bytes with the
    layer and the offset of each item in an hnsw, whose upper layers come on top."""
    found = FaissIndex(normal(2000, 16), KINDS[kind]).bytes
    assert found.scoring == scoring
    assert searched <= found.searched < searched + (60_000 if kind == "hnsw" else 1500)


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
    needed = "one of IndexFlat, IndexHNSWFlat, IndexIVFFlat, IndexPQ, IndexIVFPQ; the last two before their vectors"
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
