"""Item vectors that can be searched: exact, or approximate and faster, behind one contract (`ranking.Index`).

What leaves a tower is what is stored here, and the metric is the inner product: a normalised tower makes it the
cosine, and a learned item bias is one more dimension. An index that measures the Euclidean distance ranks such vectors
wrongly without any error, so the metric is kept with the index and checked when it is loaded.

`ExactIndex` is our own, `FaissIndex` is FAISS in one of three kinds (`ann.py`). All score in float64 what they
have found, and order it so, ties by row: those that are exact answer with the same rows. Of one that is not,
`recall_against_exact` tells how much it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from twotower_lib.ann import CLASSES, FLAT, IndexSettings, build, fetch, kind_of, settings_of, vectors_in
from twotower_lib.errors import ArtifactError, ShapeError
from twotower_lib.ranking import NOTHING, Index, Ragged, Recommendations, Rows, blocks
from twotower_lib.topk import (
    best_cells,
    check_request,
    inner_products,
    longest_norm,
    no_answer,
    place_in_row,
    rank_vectors,
    rounding,
)

METRIC = "inner_product"
"""The metric of every tower here."""

METRICS = {faiss.METRIC_INNER_PRODUCT: METRIC, faiss.METRIC_L2: "l2"}
"""Our words for the metrics of FAISS."""

MARGIN = 16
"""Items fetched beyond those wanted, because float32 may order close scores wrongly."""

QUERIES = 1024
"""Queries searched together."""

WIDENINGS = (1, 4, 16)
"""By what the search is widened while answers are not final; after the last one the rest is searched exactly."""

FETCHED_SHARE = 0.25
"""Where a larger share of the catalogue would be fetched, it is searched exactly, which is then no slower."""


class ExactIndex:
    """Exact search by our own tiled matrix product (`rank_vectors`).

    Args:
        vectors: float32 of shape (items, dim); row i is item i.

    Raises:
        ShapeError: the vectors are not a finite float32 matrix with at least one row.
    """

    metric: str = METRIC
    is_exact: bool = True

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = _checked(vectors, "item vectors")
        self.longest = longest_norm(self.vectors)
        check_request(0, self.n_items, 1, None)

    @property
    def n_items(self) -> int:
        """How many vectors are stored."""
        return len(self.vectors)

    def search(self, vectors: NDArray[np.float32], k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k items of largest inner product with each vector, without those in its list of `exclude`.

        Args:
            vectors: float32 of shape (queries, dim).
            k: how long the lists are, 1 or more.
            exclude: for each query the item rows that must not appear.

        Raises:
            ShapeError: the vectors are of another shape or type, or hold a number that is not finite.
        """
        queries = _checked(vectors, "query vectors", self.vectors.shape[1])
        return rank_vectors(queries, self.vectors, k, exclude, self.longest)


class FaissIndex:
    """Search by FAISS; what it finds is scored again in float64.

    Args:
        vectors: float32 of shape (items, dim); row i is item i.
        settings: the kind of index. Equal vectors and settings give equal indexes.

    Raises:
        ShapeError: the vectors are not a finite float32 matrix with at least one row.
    """

    metric: str = METRIC
    is_exact: bool

    def __init__(self, vectors: NDArray[np.float32], settings: IndexSettings = FLAT) -> None:
        checked = _checked(vectors, "item vectors")
        check_request(0, len(checked), 1, None)
        self._hold(build(checked.numpy(), settings))

    def _hold(self, index: Any) -> None:
        self.index = index
        self.settings = settings_of(index)
        self.is_exact = self.settings.kind == "flat"
        # Mostly not copied: the memory of the index itself, gone with it, so nobody else may hold these vectors.
        self._vectors = _checked(vectors_in(index), "item vectors")
        self.longest = longest_norm(self._vectors)
        check_request(0, self.n_items, 1, None)

    @property
    def n_items(self) -> int:
        """How many vectors are stored."""
        return int(self.index.ntotal)

    def search(self, vectors: NDArray[np.float32], k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k items of largest inner product with each vector, without those in its list of `exclude`.

        As many items are fetched as may be excluded, and `MARGIN` more, and the search is widened for the queries whose
        answer is not final: in an exact index while rounding may hide an item, in an approximate one while fewer than k
        are found. What is still open then, or would fetch a large share of the catalogue, is searched exactly. So a
        list is only filled up where fewer than k items are left. How hard a query is searched depends on that query
        alone: a batch gives what its queries give one by one.

        Args:
            vectors: float32 of shape (queries, dim).
            k: how long the lists are, 1 or more.
            exclude: for each query the item rows that must not appear.

        Raises:
            ShapeError: the vectors are of another shape or type, or hold a number that is not finite.
        """
        queries = _checked(vectors, "query vectors", self._vectors.shape[1])
        check_request(len(queries), self.n_items, k, exclude)
        seen = Ragged.empty(len(queries)) if exclude is None else exclude
        work = _Search(self, queries, k, seen, rounding(queries, self.longest), no_answer(len(queries), k))
        room = _room(seen.lengths)
        for start, stop in blocks(len(queries), QUERIES):
            for needed in np.unique(room[start:stop]):
                work.answer(start + np.flatnonzero(room[start:stop] == needed), int(needed))
        return work.answers

    def save(self, path: Path) -> None:
        """Write the index to a file and read it back.

        Raises:
            OSError: the disk is full or the place cannot be written.
            ArtifactError: what was read back is not what was written.
        """
        # faiss.write_index reports nothing when a small file does not fit on the disk; Python does.
        data = faiss.serialize_index(self.index).tobytes()
        path.write_bytes(data)
        if path.read_bytes() != data:
            raise ArtifactError(f"{path} reads back differently", "the bytes that were written", "check the disk")

    @classmethod
    def load(cls, path: Path, metric: str = METRIC) -> FaissIndex:
        """The index in a file that `save` wrote.

        Args:
            path: the file.
            metric: the metric of the towers whose vectors it holds.

        Raises:
            ArtifactError: the file is missing or damaged, of another kind, or of another metric.
        """
        try:
            index = faiss.deserialize_index(np.frombuffer(path.read_bytes(), dtype=np.uint8))
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
            raise ArtifactError(f"{path} cannot be read as an index: {reason}", "a file that `save` wrote") from error
        _check_metric(index, metric)
        if not kind_of(index):
            kinds = ", ".join(one.__name__ for one in CLASSES.values())
            raise ArtifactError(f"{path} holds a {type(index).__name__}", f"one of {kinds}")
        loaded = cls.__new__(cls)
        loaded._hold(index)
        return loaded


@dataclass(frozen=True)
class _Search:
    """One call of `FaissIndex.search`."""

    index: FaissIndex
    queries: torch.Tensor
    k: int
    seen: Ragged
    error: NDArray[np.float64]
    answers: Recommendations

    def answer(self, asked: Rows, room: int) -> None:
        """Write the answers of the queries `asked`, each of which excludes up to `room` items."""
        wanted = self.k + MARGIN
        for widening in WIDENINGS:
            if not len(asked) or widening * wanted + room > FETCHED_SHARE * self.index.n_items:
                break
            vectors = self._vectors_of(asked).numpy()
            found = fetch(self.index.index, self.index.settings, vectors, wanted, room, widening)
            asked = asked[~self._write(asked, *found)]
        if len(asked):
            self._write_exact(asked)

    def _vectors_of(self, asked: Rows) -> torch.Tensor:
        return self.queries[torch.from_numpy(asked)]

    def _write(self, asked: Rows, scores: NDArray[np.float32], items: Rows) -> NDArray[np.bool_]:
        """Write the best of what was fetched; which answers are final."""
        index, k = self.index, self.k
        query, place = np.nonzero((items != NOTHING) & ~_excluded(items, self.seen.take(asked), index.n_items))
        item = items[query, place]
        exact = inner_products(self.queries, index._vectors, asked[query], item)
        best = best_cells(query, item, exact, k)
        query, item, exact = query[best], item[best], exact[best]
        last = np.full(len(asked), -np.inf)
        place = place_in_row(query)
        last[query[place == k - 1]] = exact[place == k - 1]
        self.answers.items[asked[query], place], self.answers.scores[asked[query], place] = item, exact
        # What an exact index did not fetch scores at most as much as the last it did, give or take the rounding.
        return last > (scores[:, -1].astype(np.float64) + self.error[asked] if index.is_exact else -np.inf)

    def _write_exact(self, asked: Rows) -> None:
        vectors, longest = self.index._vectors, self.index.longest
        found = rank_vectors(self._vectors_of(asked), vectors, self.k, self.seen.take(asked), longest)
        self.answers.items[asked], self.answers.scores[asked] = found.items, found.scores


def recall_against_exact(
    index: Index, exact: Index, queries: NDArray[np.float32], k: int, exclude: Ragged | None = None
) -> float:
    """Recall@k of an index: of the k best items of each query, found by exact search, the share that it finds too.

    Queries count by their items: one to which fewer than k items are left weighs less.

    Args:
        index: what is measured.
        exact: exact search over the same vectors.
        queries: float32 of shape (queries, dim), 1 query or more.
        k: how long the lists are.
        exclude: for each query the item rows that must not appear.
    """
    true = exact.search(queries, k, exclude).items
    found = index.search(queries, k, exclude).items
    is_item = true != NOTHING
    hits = (true[:, :, None] == found[:, None, :]).any(2) & is_item
    return float(hits.sum() / is_item.sum())


def _room(excluded: Rows) -> Rows:
    """How many items to fetch for so many excluded ones: the next power of two, so that few sizes are searched.

    >>> _room(np.array([0, 1, 3, 100]))
    array([  0,   1,   4, 128])
    """
    rounded = 2 ** np.ceil(np.log2(np.maximum(excluded, 1))).astype(np.int64)
    return np.where(excluded > 0, rounded, 0)


def _excluded(items: Rows, seen: Ragged, n_items: int) -> NDArray[np.bool_]:
    """Which of the items (queries, fetched) are in the list of their query."""
    cells = np.arange(len(items))[:, None] * n_items + items
    return np.isin(cells, seen.owners * n_items + seen.values)


def _check_metric(index: faiss.Index, metric: str) -> None:
    came = METRICS.get(index.metric_type, f"metric {index.metric_type} of FAISS")
    if came != metric:
        raise ArtifactError(
            f"an index that measures {came}",
            f"{metric}: the towers were trained for it, and another metric ranks their vectors wrongly",
            "export the bundle again",
        )


def _checked(vectors: NDArray[np.float32], what: str, dim: int | None = None) -> torch.Tensor:
    """The vectors as a tensor, not copied, or a `ShapeError`."""
    needed = f"a float32 matrix (rows, {'dim' if dim is None else dim})"
    if vectors.dtype != np.float32 or vectors.ndim != 2 or dim not in (None, vectors.shape[1]):
        raise ShapeError(f"{what} {vectors.dtype} of shape {vectors.shape}", needed)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ShapeError(f"{what} with a number that is not finite, first in row {row}", needed + " of finite numbers")
    return torch.from_numpy(np.ascontiguousarray(vectors))
