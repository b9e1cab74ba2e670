"""ScaNN behind the contract of the other indexes.

It has lists, and codes whose error is small where an inner product is large (Guo et al. 2020, Accelerating Large-Scale
Inference with Anisotropic Vector Quantization, arXiv:1908.10396). It is an extra, because its wheels are for Linux
alone: `pip install 'twotower[scann]'`. Two builds over the same vectors may differ.
"""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from twotower_lib.ann import Selection, of_these
from twotower_lib.errors import SettingError
from twotower_lib.index import Rescored, checked
from twotower_lib.ranking import NOTHING, Rows
from twotower_lib.topk import check_request, longest_norm

LEAST_ITEMS = 1000
"""Of a smaller catalogue ScaNN can't learn its codes; it is searched exactly, which is no slower there."""

PART = 2
"""Dimensions of one part of a code, half a byte, by the advice of ScaNN."""

THRESHOLD = 0.2
"""Share of the length above which an inner product counts as large, by the advice of ScaNN."""


class ScannIndex(Rescored):
    """Search by ScaNN; what it finds is scored again in float64.

    Args:
        vectors: float32 of shape (items, dim); row i is item i.
        leaves: lists; none: 4 sqrt(items).
        probes: lists read for an answer.
        rerank: candidates scored by their vectors for each item that is wanted.

    Raises:
        SettingError: ScaNN is not installed.
        ShapeError: the vectors are not a finite float32 matrix with at least one row.
    """

    is_exact = False

    def __init__(
        self, vectors: NDArray[np.float32], leaves: int | None = None, probes: int = 32, rerank: int = 4
    ) -> None:
        try:
            library = import_module("scann").scann_ops_pybind
        except ImportError as error:
            needed, todo = "the extra scann, which is for Linux", "pip install 'twotower[scann]'"
            raise SettingError("an index of ScaNN without ScaNN", needed, todo) from error
        self._vectors, self.probes, self.rerank = checked(vectors, "item vectors"), probes, rerank
        check_request(0, self.n_items, 1, None)
        self.longest = longest_norm(self._vectors)
        if self.n_items >= LEAST_ITEMS:
            builder = library.builder(self._vectors.numpy(), 1, "dot_product")
            self.leaves = leaves or int(4 * math.sqrt(self.n_items))
            builder = builder.tree(self.leaves, probes)
            self.searcher = builder.score_ah(PART, anisotropic_quantization_threshold=THRESHOLD).build()

    def reach(self, wanted: int, share: float) -> int:
        """How many items are looked at closely where so many are wanted of this share of the catalogue."""
        return wanted * self.rerank if self.n_items >= LEAST_ITEMS else self.n_items

    def fetch(
        self, vectors: NDArray[np.float32], wanted: int, room: int, widening: int, chosen: Selection | None
    ) -> tuple[NDArray[np.float32], Rows]:
        """The scores and items of the candidates; see `ann.fetch`. What is not chosen is dropped afterwards.

        ScaNN is asked one query after the other: in a batch it scores the lists with other rounding, and the same query
        then gets other candidates than alone.
        """
        share = 1.0 if chosen is None else chosen.share
        fetched = math.ceil((self.reach(wanted * widening, 1.0) + room) / share)
        lists = math.ceil((self.probes * widening + room * self.leaves / self.n_items) / share)
        items = np.full((len(vectors), fetched), NOTHING)
        scores = np.full(items.shape, -np.inf, dtype=np.float32)
        for row, query in enumerate(vectors):
            found, values = self.searcher.search(query, final_num_neighbors=fetched, leaves_to_search=lists)
            items[row, : len(found)], scores[row, : len(found)] = found, values
        return of_these(chosen, scores, items)
