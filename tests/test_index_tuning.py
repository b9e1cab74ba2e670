"""Tuning: which settings are tried, what is written of them, and which is the best."""

import time

import faiss
import numpy as np
import pandas as pd
import pytest
import torch

from tests.oracles.naive_ranking import naive_products, naive_top_k
from twotower_lib import index_tuning
from twotower_lib.errors import SettingError
from twotower_lib.index import FaissIndex, IndexSettings
from twotower_lib.index_tuning import EFFORT, GRID, Tuned, speed, tune
from twotower_lib.ranking import Ragged


def normal(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


VECTORS, QUERIES = normal(2000, 12), normal(40, 12, seed=1)
LISTS = tuple(IndexSettings(kind="ivf", lists=40, probes=probes) for probes in (1, 4, 12, 40))
CODES = tuple(IndexSettings(kind="pq", code=3, rerank=times) for times in (1, 4, 12))


@pytest.fixture
def paces(monkeypatch):
    """Speeds that do not depend on the machine: an effort of 1 answers 1,000 queries a second, of 2 it is 500."""

    def pace(index, queries, k, exclude=None, repeats=3):
        if not isinstance(index, FaissIndex):
            return 50.0
        return 1000.0 / getattr(index.settings, EFFORT.get(index.settings.kind, ("links",))[0])

    monkeypatch.setattr(index_tuning, "speed", pace)


def recall_by_hand(settings, k, exclude=None):
    true, _ = naive_top_k(naive_products(QUERIES, VECTORS), k, exclude)
    found = FaissIndex(VECTORS, settings).search(QUERIES, k, exclude).items
    return np.mean([len(set(one) & set(other)) / k for one, other in zip(found, true, strict=True)])


def test_each_kind_is_tried_until_it_reaches_the_target_and_the_fastest_is_best(paces):
    recalls = {one: recall_by_hand(one, 10) for one in LISTS + CODES}
    target = recalls[LISTS[2]]
    assert recalls[LISTS[1]] < target < 1
    tuned = tune(VECTORS, QUERIES, target, 10, grid=LISTS + CODES)
    reach = next(place for place, one in enumerate(CODES) if recalls[one] >= target)
    assert tuned.table["settings"].tolist() == [None, *LISTS[:3], *CODES[: reach + 1]]
    for row in tuned.table.iloc[1:].itertuples():
        assert row.recall == pytest.approx(recalls[row.settings])
    fastest = max((LISTS[2], CODES[reach]), key=lambda one: 1000 / (one.probes if one.kind == "ivf" else one.rerank))
    assert tuned.best == fastest


def test_the_best_is_the_fastest_of_those_that_reach_the_target():
    """Exact search, the first row, is faster than all and no setting; the fastest of all misses the target."""
    tried = {"settings": [None, *LISTS], "recall": [1.0, 0.5, 0.9, 0.95, 1.0], "queries_a_second": [99, 80, 30, 40, 20]}
    assert Tuned(0.9, pd.DataFrame(tried)).best == LISTS[2]


def test_the_table_by_hand(paces):
    table = tune(VECTORS, QUERIES, 1.0, 10, grid=(LISTS[0], CODES[1])).table
    assert table["index"].tolist() == ["exact", "ivf probes=1", "pq rerank=4"]
    assert table["queries_a_second"].tolist() == [50, 1000, 250]
    assert table["x_exact"].tolist() == [1, 20, 5]
    assert table["scoring"].tolist() == [0, VECTORS.nbytes, VECTORS.nbytes]
    costs = [FaissIndex(VECTORS, one).bytes.searched for one in (LISTS[0], CODES[1])]
    assert table["searched"].tolist() == [VECTORS.nbytes, *costs]


def test_lists_that_users_get_are_those_that_are_judged(paces):
    """With exclusions, which change the answers and their recall."""
    exclude = Ragged.of(np.random.default_rng(4).integers(0, 2000, (40, 500)))
    with_them, without = recall_by_hand(LISTS[0], 10, exclude), recall_by_hand(LISTS[0], 10)
    assert with_them != without
    table = tune(VECTORS, QUERIES, 1.0, 10, exclude=exclude, grid=LISTS[:1]).table
    assert table["recall"][1] == pytest.approx(with_them)


def test_settings_that_differ_in_their_effort_alone_share_one_build(paces, monkeypatch):
    built, build = [], index_tuning.FaissIndex.__init__

    def counted(self, vectors, settings):
        built.append(settings)
        build(self, vectors, settings)

    monkeypatch.setattr(index_tuning.FaissIndex, "__init__", counted)
    other = IndexSettings(kind="ivf", lists=20, probes=1)
    tune(VECTORS, QUERIES, 1.0, 10, grid=(*LISTS[:3], other, *CODES[:2]))
    assert built == [LISTS[0], other, CODES[0]]


def test_a_target_that_nothing_reaches_is_told(paces):
    tuned = tune(VECTORS, QUERIES, 1.0, 10, grid=LISTS[:2])
    most = recall_by_hand(LISTS[1], 10)
    said = rf"none of 2 settings reaches recall 1.0; the most is {most:.4f}, by ivf probes=4\nneeded: a lower target"
    with pytest.raises(SettingError, match=said):
        _ = tuned.best


def test_an_empty_grid():
    with pytest.raises(SettingError, match="an empty grid\nneeded: one setting or more"):
        tune(normal(10, 4), normal(2, 4), target_recall=0.9, k=3, grid=())


@pytest.mark.parametrize("target", [0.0, -1.0, 1.01])
def test_a_target_that_is_no_share(target):
    with pytest.raises(SettingError, match=rf"target_recall = {target}\nneeded: above 0, 1 at most"):
        tune(VECTORS, QUERIES, target, 10, grid=())


def test_the_grid_knows_every_kind_and_rises_inside_it():
    kinds = [one.kind for one in GRID]
    assert list(dict.fromkeys(kinds)) == ["flat", "hnsw", "ivf", "pq", "ivfpq"]
    for kind, (first, *_) in EFFORT.items():
        efforts = [getattr(one, first) for one in GRID if one.kind == kind]
        assert efforts == sorted(set(efforts)) and len(efforts) > 3


def test_exact_search_is_the_answer_where_the_target_is_all():
    """Not with made-up speeds: the whole way, with clocks."""
    tuned = tune(VECTORS, QUERIES, 1.0, 10, grid=(GRID[0], LISTS[0]), repeats=1)
    assert tuned.best == IndexSettings()
    assert (tuned.table["queries_a_second"] > 0).all()


# Speed ----------------------------------------------------------------------------------------------------------------


class Slow:
    """An index that takes these seconds, one after the other, by a clock of its own; it notes the threads."""

    metric, is_exact, n_items = "inner_product", True, 9

    def __init__(self, seconds):
        self.seconds, self.now, self.threads = list(seconds), 0.0, []

    def search(self, vectors, k, exclude=None):
        self.threads.append(threads_now())
        seconds = self.seconds.pop(0)
        if seconds < 0:
            raise RuntimeError
        self.now += seconds


@pytest.fixture
def some_threads():
    """Those of torch and of FAISS: 2 and 3 where each has an OpenMP of its own; one number where they share it."""
    before = threads_now()
    index_tuning._use_threads(2, 3)
    some = threads_now()
    assert min(some) > 1
    yield some
    index_tuning._use_threads(*before)


def threads_now():
    return torch.get_num_threads(), faiss.omp_get_max_threads()


def test_speed_is_the_median_on_one_thread(monkeypatch, some_threads):
    """40 queries in 2, 9 and 4 seconds: 10 a second."""
    index = Slow([2, 9, 4])
    monkeypatch.setattr(time, "process_time", lambda: index.now)
    assert speed(index, QUERIES, 10, repeats=3) == 10
    assert index.threads == [(1, 1)] * 3
    assert threads_now() == some_threads


def test_the_threads_come_back_though_a_search_fails(some_threads):
    with pytest.raises(RuntimeError):
        speed(Slow([-1]), QUERIES, 10)
    assert threads_now() == some_threads
