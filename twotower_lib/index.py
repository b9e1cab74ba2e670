"""Item vectors that can be searched: two indexes behind one contract (`ranking.Index`).

What leaves a tower is what is stored here, and the metric is the inner product: a normalised tower makes it the
cosine, and a learned item bias is one more dimension. An index that measures the Euclidean distance ranks such vectors
wrongly without any error, so the metric is kept with the index and checked when it is loaded.

`ExactIndex` is our own, `FaissIndex` is FAISS (Douze et al. 2024, The Faiss library). Both answer with the exact order
of the inner products in float64, ties by row, so that they answer with the same rows.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from twotower_lib.errors import ArtifactError, ShapeError
from twotower_lib.ranking import NOTHING, Ragged, Recommendations, Rows, blocks
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
    """Search by a flat index of FAISS, which compares every query with every item; scored again in float64.

    Args:
        vectors: float32 of shape (items, dim); row i is item i.

    Raises:
        ShapeError: the vectors are not a finite float32 matrix with at least one row.
    """

    metric: str = METRIC
    is_exact: bool = True

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        checked = _checked(vectors, "item vectors")
        index = faiss.IndexFlatIP(checked.shape[1])
        index.add(checked.numpy())
        self._hold(index)

    def _hold(self, index: faiss.IndexFlat) -> None:
        self.index = index
        # Not copied: the memory of the index itself, gone with it, so nobody else may hold these vectors.
        inside = np.asarray(faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d))
        self._vectors = _checked(inside.reshape(index.ntotal, index.d), "item vectors")
        self.longest = longest_norm(self._vectors)
        check_request(0, self.n_items, 1, None)

    @property
    def n_items(self) -> int:
        """How many vectors are stored."""
        return int(self.index.ntotal)

    def search(self, vectors: NDArray[np.float32], k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k items of largest inner product with each vector, without those in its list of `exclude`.

        As many items are fetched as may be excluded, and `MARGIN` more; four times as many for the queries where that
        was not enough to be sure of the order.

        Args:
            vectors: float32 of shape (queries, dim).
            k: how long the lists are, 1 or more.
            exclude: for each query the item rows that must not appear.

        Raises:
            ShapeError: the vectors are of another shape or type, or hold a number that is not finite.
        """
        queries = _checked(vectors, "query vectors", self._vectors.shape[1])
        check_request(len(queries), self.n_items, k, exclude)
        error = rounding(queries, self.longest)
        seen = Ragged.empty(len(queries)) if exclude is None else exclude
        answer = no_answer(len(queries), k)
        for start, stop in blocks(len(queries), QUERIES):
            asked = np.arange(start, stop)
            fetch = k + MARGIN + int(seen.lengths[asked].max())
            while len(asked):
                fetch = min(fetch, self.n_items)
                asked = asked[~self._answer(queries, asked, fetch, seen, error, answer)]
                fetch *= 4
        return answer

    def _answer(
        self,
        queries: torch.Tensor,
        asked: Rows,
        fetch: int,
        seen: Ragged,
        error: NDArray[np.float64],
        answer: Recommendations,
    ) -> NDArray[np.bool_]:
        """Write the answers of the queries `asked` from so many fetched items; which of them are final."""
        k = answer.items.shape[1]
        scores, items = self.index.search(queries[torch.from_numpy(asked)].numpy(), fetch)
        query, place = np.nonzero((items != NOTHING) & ~_excluded(items, seen.take(asked), self.n_items))
        item = items[query, place]
        exact = inner_products(queries, self._vectors, asked[query], item)
        best = best_cells(query, item, exact, k)
        query, item, exact = query[best], item[best], exact[best]
        last = np.full(len(asked), -np.inf)
        place = place_in_row(query)
        last[query[place == k - 1]] = exact[place == k - 1]
        answer.items[asked[query], place], answer.scores[asked[query], place] = item, exact
        # What was not fetched scores at most as much as the last one that was, give or take the rounding.
        beyond = scores[:, -1].astype(np.float64) + error[asked]
        return (last > beyond) | (fetch == self.n_items)

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
        if not isinstance(index, faiss.IndexFlat):
            raise ArtifactError(f"{path} holds a {type(index).__name__}", "a flat index (IndexFlatIP)")
        loaded = cls.__new__(cls)
        loaded._hold(index)
        return loaded


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
