"""Which index, and how hard should it try? Measured on real queries, never taken from somebody else's table.

    tuned = tune(vectors, queries, target_recall=0.95, k=100)
    tuned.table      all that was tried: recall, queries a second, bytes
    tuned.best       the fastest settings that reach the target

Recall is that against exact search, in the same lists that users get; speed is processor time on one thread. A small
catalogue is often searched fastest by exact search, and then that is the answer.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from twotower_lib.ann import IndexSettings
from twotower_lib.errors import SettingError
from twotower_lib.index import ExactIndex, FaissIndex, recall_of
from twotower_lib.ranking import Index, Ragged

EFFORT = {"hnsw": ("ef_search",), "ivf": ("probes",), "pq": ("rerank",), "ivfpq": ("probes", "rerank")}
"""What can be changed in an index that stands."""

GRID = (
    IndexSettings(),
    *(IndexSettings(kind="hnsw", ef_search=width) for width in (16, 32, 64, 128, 256, 512)),
    *(IndexSettings(kind="ivf", probes=lists) for lists in (1, 2, 4, 8, 16, 32, 64, 128)),
    *(IndexSettings(kind="pq", rerank=times) for times in (1, 2, 4, 8, 16)),
    *(IndexSettings(kind="ivfpq", probes=lists) for lists in (1, 2, 4, 8, 16, 32, 64, 128)),
)
"""What is tried; inside a kind the effort rises."""


@dataclass(frozen=True)
class Tuned:
    """All that was tried, in the order of the grid, a row a setting; the first row is exact search."""

    target_recall: float
    table: pd.DataFrame

    @property
    def best(self) -> IndexSettings:
        """The fastest settings that reach the target.

        Raises:
            SettingError: none does.
        """
        tried = self.table.iloc[1:]
        good = tried[tried["recall"] >= self.target_recall]
        if good.empty:
            most = tried.sort_values("recall").iloc[-1]
            came = f"none of {len(tried)} settings reaches recall {self.target_recall}; the most is "
            raise SettingError(came + f"{most['recall']:.4f}, by {most['index']}", "a lower target, or more effort")
        best: IndexSettings = good.sort_values("queries_a_second").iloc[-1]["settings"]
        return best


def tune(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    target_recall: float,
    k: int,
    *,
    exclude: Ragged | None = None,
    grid: Iterable[IndexSettings] = GRID,
    repeats: int = 3,
) -> Tuned:
    """Try the settings of a grid on real queries.

    Settings that differ in their effort alone share one build. Of those, what comes after the first that reaches the
    target is not tried: more effort is slower.

    Args:
        vectors: the items, float32 of shape (items, dim).
        queries: real ones, float32 of shape (queries, dim), some hundreds.
        target_recall: the least recall@k against exact search, above 0, 1 at most.
        k: how long the lists are.
        exclude: for each query the item rows that must not appear.
        grid: what to try; inside a kind from little effort to much.
        repeats: how often each is timed; the median counts.

    Raises:
        SettingError: the target is no share, or the grid is empty.
    """
    if not 0 < target_recall <= 1:
        raise SettingError(f"target_recall = {target_recall}", "above 0, 1 at most")
    grid = list(grid)
    if not grid:
        raise SettingError("an empty grid", "one setting or more")
    exact = ExactIndex(vectors)
    true = exact.search(queries, k, exclude)
    pace = speed(exact, queries, k, exclude, repeats)
    rows: list[dict[str, Any]] = [
        dict(index="exact", recall=1.0, queries_a_second=pace, searched=vectors.nbytes, scoring=0, settings=None)
    ]
    for _, family in itertools.groupby(grid, key=lambda one: replace(one, ef_search=1, probes=1, rerank=1)):
        index: FaissIndex | None = None
        for settings in family:
            index = FaissIndex(vectors, settings) if index is None else _changed(index, settings)
            rows.append(_row(index, recall_of(index.search(queries, k, exclude), true)))
            rows[-1]["queries_a_second"] = speed(index, queries, k, exclude, repeats)
            if rows[-1]["recall"] >= target_recall:
                break
    return Tuned(target_recall, pd.DataFrame(rows).assign(x_exact=lambda table: table["queries_a_second"] / pace))


def _changed(index: FaissIndex, settings: IndexSettings) -> FaissIndex:
    return index.trying(**{name: getattr(settings, name) for name in EFFORT.get(settings.kind, ())})


def _row(index: FaissIndex, recall: float) -> dict[str, Any]:
    effort = (f"{name}={getattr(index.settings, name)}" for name in EFFORT.get(index.settings.kind, ()))
    cost, name = index.bytes, " ".join([index.settings.kind, *effort])
    return dict(index=name, recall=recall, searched=cost.searched, scoring=cost.scoring, settings=index.settings)


def speed(index: Index, queries: NDArray[np.float32], k: int, exclude: Ragged | None = None, repeats: int = 3) -> float:
    """Queries a second of processor time on one thread, all asked at once; the median of the repeats."""
    threads, taken = (torch.get_num_threads(), faiss.omp_get_max_threads()), []
    _use_threads(1, 1)
    try:
        for _ in range(repeats):
            began = time.process_time()
            index.search(queries, k, exclude)
            taken.append(time.process_time() - began)
    finally:
        _use_threads(*threads)
    return len(queries) / max(statistics.median(taken), 1e-9)


def _use_threads(of_torch: int, of_faiss: int) -> None:
    torch.set_num_threads(of_torch)
    faiss.omp_set_num_threads(of_faiss)
