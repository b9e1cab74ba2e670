"""Item vectors that can be searched: exact, or approximate and faster, behind one contract (`ranking.Index`).

What leaves a tower is what is stored here, and the metric is the inner product: a normalised tower makes it the
cosine, and a learned item bias is one more dimension. An index that measures the Euclidean distance ranks such vectors
wrongly without any error, so the metric is kept with the index and checked when it is loaded.

`ExactIndex` is our own, `FaissIndex` is FAISS in one of five kinds (`ann.py`). All score in float64 what they
have found, and order it so, ties by row: those that are exact answer with the same rows. Of one that is not,
`recall_against_exact` tells how much it finds.

A row is a place in the catalogue and stays one: what is added gets the next rows, what is deleted leaves its row empty.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from twotower_lib import ann
from twotower_lib.ann import FLAT, IndexSettings, Selection
from twotower_lib.errors import ArtifactError, SettingError, ShapeError
from twotower_lib.ranking import NOTHING, Index, Ragged, Recommendations, Rows, blocks
from twotower_lib.topk import (
    best_cells,
    check_request,
    check_rows,
    inner_products,
    longest_norm,
    no_answer,
    place_in_row,
    rank_rows,
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
"""Where a larger share of what may be found would be fetched, it is searched exactly, which is then no slower."""

Mask = NDArray[np.bool_]
"""A truth value for each row of the catalogue."""


@dataclass(frozen=True)
class Bytes:
    """What an index costs in memory."""

    searched: int
    """Vectors, codes, lists, graph: what queries run through."""
    scoring: int
    """Vectors from which only candidates are scored again."""


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
        self.vectors = checked(vectors, "item vectors")
        self.longest = longest_norm(self.vectors)
        check_request(0, self.n_items, 1, None)

    @property
    def n_items(self) -> int:
        """How many vectors are stored."""
        return len(self.vectors)

    def search(
        self, vectors: NDArray[np.float32], k: int, exclude: Ragged | None = None, allowed: Mask | None = None
    ) -> Recommendations:
        """The k items of largest inner product with each vector, without those in its list of `exclude`.

        Args:
            vectors: float32 of shape (queries, dim).
            k: how long the lists are, 1 or more.
            exclude: for each query the item rows that must not appear.
            allowed: the rows that may appear at all; none: every row.

        Raises:
            ShapeError: the vectors are of another shape or type, or hold a number that is not finite.
        """
        queries = checked(vectors, "query vectors", self.vectors.shape[1])
        if allowed is None:
            return rank_vectors(queries, self.vectors, k, exclude, self.longest)
        rows = np.flatnonzero(_fitting(allowed, self.n_items))
        return rank_rows(queries, self.vectors, rows, k, exclude, self.longest)


class Rescored:
    """Whatever finds candidates: the best of them by float64, without what is excluded, deleted or not allowed."""

    metric: str = METRIC
    is_exact: bool
    longest: float
    _vectors: torch.Tensor
    _there: Selection | None = None

    def reach(self, wanted: int, share: float) -> int:
        """How many items are looked at closely where so many are wanted of this share of the catalogue."""
        raise NotImplementedError

    def fetch(
        self, vectors: NDArray[np.float32], wanted: int, room: int, widening: int, chosen: Selection | None
    ) -> tuple[NDArray[np.float32], Rows]:
        """The scores and items of the candidates; see `ann.fetch`."""
        raise NotImplementedError

    @property
    def n_items(self) -> int:
        """How many rows there are, those of deleted items included."""
        return len(self._vectors)

    @property
    def n_deleted(self) -> int:
        """How many rows are empty. Their memory comes back with the next build, which is due when they are many."""
        return 0 if self._there is None else self.n_items - len(self._there.rows)

    def delete(self, rows: Rows) -> None:
        """Let these items appear in no answer any more. Their rows stay empty and are never given to others.

        No kind is built anew: each search passes the rows over that are marked so, in the graph of an hnsw too, where
        they go on to lead the way to others.

        Raises:
            ShapeError: there is no such row.
        """
        check_rows(np.asarray(rows), self.n_items, "deleted")
        there = np.ones(self.n_items, dtype=bool) if self._there is None else self._there.mask.copy()
        there[rows] = False
        self._there = Selection(there)

    def search(
        self, vectors: NDArray[np.float32], k: int, exclude: Ragged | None = None, allowed: Mask | None = None
    ) -> Recommendations:
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
            allowed: the rows that may appear at all; none: every row that is not deleted.

        Raises:
            ShapeError: the vectors are of another shape or type, or hold a number that is not finite.
        """
        queries = checked(vectors, "query vectors", self._vectors.shape[1])
        check_request(len(queries), self.n_items, k, exclude)
        seen = Ragged.empty(len(queries)) if exclude is None else exclude
        error, answers = rounding(queries, self.longest), no_answer(len(queries), k)
        work = _Search(self, queries, k, seen, error, answers, self._chosen(allowed))
        room = _room(seen.lengths)
        for start, stop in blocks(len(queries), QUERIES):
            for needed in np.unique(room[start:stop]):
                work.answer(start + np.flatnonzero(room[start:stop] == needed), int(needed))
        return work.answers

    def _chosen(self, allowed: Mask | None) -> Selection | None:
        if allowed is None:
            return self._there
        mask = _fitting(allowed, self.n_items)
        return Selection(mask if self._there is None else mask & self._there.mask)


class FaissIndex(Rescored):
    """Search by FAISS; what it finds is scored again in float64.

    Args:
        vectors: float32 of shape (items, dim); row i is item i.
        settings: the kind of index. Equal vectors and settings give equal indexes.

    Raises:
        ShapeError: the vectors are not a finite float32 matrix with at least one row.
    """

    _shared: bool = False

    def __init__(self, vectors: NDArray[np.float32], settings: IndexSettings = FLAT) -> None:
        items = checked(vectors, "item vectors")
        check_request(0, len(items), 1, None)
        self._hold(ann.build(items.numpy(), settings))

    def _hold(self, index: Any, there: Mask | None = None) -> None:
        self.index = index
        self.settings = ann.settings_of(index)
        self.is_exact = self.settings.kind == "flat"
        # Mostly not copied: the memory of the index itself, gone with it, so nobody else may hold these vectors.
        self._vectors = checked(ann.vectors_in(index), "item vectors")
        self.longest = longest_norm(self._vectors)
        self._there = None if there is None else Selection(there)
        check_request(0, self.n_items, 1, None)

    @property
    def bytes(self) -> Bytes:
        """What it costs in memory; of an ivf a copy of the vectors too, from which its answers are scored."""
        whole, vectors = len(faiss.serialize_index(self.index)), self._vectors.nbytes
        if self.settings.kind in ann.CODED:
            return Bytes(whole - vectors, vectors)
        return Bytes(whole, vectors if self.settings.kind == "ivf" else 0)

    def trying(self, **effort: Any) -> FaissIndex:
        """The same index with another `ef_search`, `probes` or `rerank`.

        It shares the memory of this one, so nothing can be added to either from now on.

        Raises:
            SettingError: what is named is built into the index, or out of range.
        """
        if built := effort.keys() - {"ef_search", "probes", "rerank"}:
            raise SettingError(f"another {', '.join(sorted(built))} for an index that stands", "a new index")
        self._shared = True
        other = copy.copy(self)
        other.settings = replace(self.settings, **effort)
        return other

    def add(self, vectors: NDArray[np.float32]) -> Rows:
        """Append items without a new build; centroids and codes stay those of the items that were there before.

        Args:
            vectors: float32 of shape (new items, dim).

        Returns:
            the rows of the new items, the next ones of the catalogue.

        Raises:
            ShapeError: the vectors are of another shape or type, or hold a number that is not finite.
            SettingError: the memory is shared with an index that `trying` made.
        """
        if self._shared:
            raise SettingError(
                "adding to an index whose memory another shares", "an index of its own", "load or build it"
            )
        new, before = checked(vectors, "item vectors", self._vectors.shape[1]), self.n_items
        self.index.add(new.numpy())
        in_lists = self.settings.kind == "ivf"
        self._vectors = torch.cat([self._vectors, new]) if in_lists else torch.from_numpy(ann.vectors_in(self.index))
        self.longest = max(self.longest, longest_norm(new))
        if self._there is not None:
            self._there = Selection(np.append(self._there.mask, np.ones(len(new), dtype=bool)))
        return np.arange(before, self.n_items)

    def reach(self, wanted: int, share: float) -> int:
        """How many items are looked at closely where so many are wanted of this share of the catalogue."""
        return self.settings.reach(wanted, share)

    def fetch(
        self, vectors: NDArray[np.float32], wanted: int, room: int, widening: int, chosen: Selection | None
    ) -> tuple[NDArray[np.float32], Rows]:
        """The scores and items of the candidates; see `ann.fetch`."""
        return ann.fetch(self.index, self.settings, vectors, wanted, room, widening, chosen)

    def save(self, path: Path) -> None:
        """Write the index to a file and read it back.

        Raises:
            OSError: the disk is full or the place cannot be written.
            ArtifactError: what was read back is not what was written.
        """
        ann.set_effort(self.index, self.settings)
        whole = self.index if self._there is None else _naming(self.index, self._there.mask)
        # faiss.write_index reports nothing when a small file does not fit on the disk; Python does.
        data = faiss.serialize_index(whole).tobytes()
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
        index, there = _named(index)
        _check_metric(index, metric)
        if not ann.kind_of(index):
            kinds = ", ".join(one.__name__ for one in ann.CLASSES.values())
            needed = f"one of {kinds}; the last two before their vectors, in an IndexRefine"
            raise ArtifactError(f"{path} holds a {type(index).__name__}", needed)
        loaded = cls.__new__(cls)
        loaded._hold(index, there)
        return loaded


@dataclass(frozen=True)
class _Search:
    """One call of `Rescored.search`."""

    index: Rescored
    queries: torch.Tensor
    k: int
    seen: Ragged
    error: NDArray[np.float64]
    answers: Recommendations
    chosen: Selection | None

    def answer(self, asked: Rows, room: int) -> None:
        """Write the answers of the queries `asked`, each of which excludes up to `room` items."""
        wanted, share = self.k + MARGIN, 1.0 if self.chosen is None else self.chosen.share
        for widening in WIDENINGS:
            reach = self.index.reach(widening * wanted, share) + room
            if not len(asked) or reach > FETCHED_SHARE * share * self.index.n_items:
                break
            vectors = self._vectors_of(asked).numpy()
            found = self.index.fetch(vectors, wanted, room, widening, self.chosen)
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
        queries, vectors, seen = self._vectors_of(asked), self.index._vectors, self.seen.take(asked)
        if self.chosen is None:
            found = rank_vectors(queries, vectors, self.k, seen, self.index.longest)
        else:
            found = rank_rows(queries, vectors, self.chosen.rows, self.k, seen, self.index.longest)
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
    return recall_of(index.search(queries, k, exclude), exact.search(queries, k, exclude))


def recall_of(answers: Recommendations, exact: Recommendations) -> float:
    """Of the items in exact answers the share that other answers to the same queries hold, in whatever place."""
    found, true = answers.items, exact.items
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


def _naming(index: Any, there: Mask) -> Any:
    """An index for the file, in a shell that calls what is deleted -1, as FAISS calls what it does not find."""
    shell = faiss.IndexIDMap(faiss.IndexFlatIP(index.d))
    shell.index, shell.ntotal = index, index.ntotal
    faiss.copy_array_to_vector(np.where(there, np.arange(len(there)), NOTHING), shell.id_map)
    return shell


def _named(index: Any) -> tuple[Any, Mask | None]:
    """An index from a file without its shell, and the rows that are not deleted."""
    if not isinstance(index, faiss.IndexIDMap):
        return index, None
    names = faiss.vector_to_array(index.id_map)
    there = names != NOTHING
    if (names[there] != np.flatnonzero(there)).any():
        raise ArtifactError("an index whose items have other numbers than their rows", "a file that `save` wrote")
    inside: Any = faiss.downcast_index(index.index)
    index.own_fields, inside.thisown = False, True  # the memory is no longer the shell's to free
    return inside, there


def _fitting(allowed: Mask, n_items: int) -> Mask:
    if allowed.dtype != bool or allowed.shape != (n_items,):
        raise ShapeError(f"allowed rows {allowed.dtype} of shape {allowed.shape}", f"bool of shape ({n_items},)")
    return allowed


def _check_metric(index: faiss.Index, metric: str) -> None:
    came = METRICS.get(index.metric_type, f"metric {index.metric_type} of FAISS")
    if came != metric:
        raise ArtifactError(
            f"an index that measures {came}",
            f"{metric}: the towers were trained for it, and another metric ranks their vectors wrongly",
            "export the bundle again",
        )


def checked(vectors: NDArray[np.float32], what: str, dim: int | None = None) -> torch.Tensor:
    """The vectors as a tensor, not copied, or a `ShapeError`."""
    needed = f"a float32 matrix (rows, {'dim' if dim is None else dim})"
    if vectors.dtype != np.float32 or vectors.ndim != 2 or dim not in (None, vectors.shape[1]):
        raise ShapeError(f"{what} {vectors.dtype} of shape {vectors.shape}", needed)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ShapeError(f"{what} with a number that is not finite, first in row {row}", needed + " of finite numbers")
    return torch.from_numpy(np.ascontiguousarray(vectors))
