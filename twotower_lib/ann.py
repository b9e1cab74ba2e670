"""Settings -> an index of FAISS, and back: three kinds, all by inner product (Douze et al. 2024, The Faiss library).

    flat    every query meets every item; exact
    hnsw    a graph of neighbours, walked towards the query (Malkov, Yashunin 2018, arXiv:1603.09320)
    ivf     items in lists around centroids; only the lists closest to the query are read (Sivic, Zisserman 2003)

The two that are approximate were made for vectors of equal length, where the largest inner product is the smallest
distance. Where lengths differ they miss more, and only a measurement tells how much (`index.recall_against_exact`).
`index.py` puts all three behind the contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from twotower_lib.errors import SettingError, nearest
from twotower_lib.ranking import Rows, blocks

CLASSES = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSWFlat, "ivf": faiss.IndexIVFFlat}

POINTS_A_LIST = 39
"""Items that k-means should have for each centroid, by the advice of FAISS."""

UNTIL_BLAS = 16
"""Queries that FAISS compares one by one; for many it calls BLAS, whose rounding depends on their number."""


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """A kind of FAISS index, and how hard it tries.

    `ef_search` and `probes` trade speed for recall; they are kept in the file of the index.
    """

    kind: str = "flat"
    """flat, hnsw or ivf."""
    links: int = 16
    """hnsw: neighbours that an item is given in the graph, M of the paper; twice as many in the lowest layer."""
    ef_construction: int = 100
    """hnsw: items kept in view while the neighbours of a new one are looked for."""
    ef_search: int = 64
    """hnsw: items kept in view while an answer is looked for; k + 16 at least."""
    lists: int | None = None
    """ivf: lists; null: 4 sqrt(items), but no more than leaves 39 items for each, at least one."""
    probes: int = 16
    """ivf: lists read for an answer."""

    def __post_init__(self) -> None:
        if self.kind not in CLASSES:
            raise SettingError(f"index.kind = {self.kind}", ", ".join(CLASSES), nearest(self.kind, CLASSES))
        for name, least in (("links", 2), ("ef_construction", 1), ("ef_search", 1), ("lists", 1), ("probes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"index.{name} = {value}", f"{least} or more")

    def lists_of(self, n_items: int) -> int:
        """How many lists so many items are put into."""
        by_rule = min(int(4 * math.sqrt(n_items)), n_items // POINTS_A_LIST)
        return max(1, min(by_rule if self.lists is None else self.lists, n_items))


FLAT = IndexSettings()


def flat(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """The vectors and nothing else."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def hnsw(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """A hierarchical navigable small world.

    It takes the inner product for its closeness, which is no distance when lengths differ; that works where they
    differ a little (Morozov, Babenko 2018, Non-metric Similarity Graphs for Maximum Inner Product Search). The exact
    reduction to unit vectors by one more dimension (Bachrach et al. 2014) is not made here.
    """
    index = faiss.IndexHNSWFlat(vectors.shape[1], settings.links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = settings.ef_construction
    index.hnsw.efSearch = settings.ef_search
    index.add(vectors)
    return index


def ivf(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """Lists around the centroids of k-means.

    FAISS scales centroids to length 1 by default where it measures the inner product; a centroid that keeps its
    length says how long the items of its list are, so fewer lists have to be read when lengths differ.
    """
    dim, lists = vectors.shape[1], settings.lists_of(len(vectors))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = False
    index.cp.seed = 1234
    index.cp.min_points_per_centroid = 1  # fewer are no reason for a warning: small catalogues are allowed
    index.nprobe = settings.probes
    index.train(vectors)
    index.add(vectors)
    return index


BUILDERS: dict[str, Callable[[NDArray[np.float32], IndexSettings], Any]] = {"flat": flat, "hnsw": hnsw, "ivf": ivf}


def build(vectors: NDArray[np.float32], settings: IndexSettings) -> Any:
    """An index of FAISS over the vectors; equal vectors and settings give equal indexes, on any number of threads."""
    return BUILDERS[settings.kind](vectors, settings)


def kind_of(index: Any) -> str:
    """The kind of an index of FAISS; empty if it is none of ours."""
    return next((kind for kind, one in CLASSES.items() if isinstance(index, one)), "")


def settings_of(index: Any) -> IndexSettings:
    """The settings that an index of FAISS was built with and is searched with, read from the index itself."""
    if isinstance(index, faiss.IndexHNSWFlat):
        graph: Any = index.hnsw
        sizes = {"ef_construction": graph.efConstruction, "ef_search": graph.efSearch}
        return IndexSettings(kind="hnsw", links=graph.nb_neighbors(1), **sizes)
    if isinstance(index, faiss.IndexIVFFlat):
        return IndexSettings(kind="ivf", lists=index.nlist, probes=index.nprobe)
    return FLAT


def vectors_in(index: Any) -> NDArray[np.float32]:
    """The vectors of an index: a view of its memory, gone with it, but a copy where they lie in lists."""
    if kind_of(index) == "ivf":
        return index.reconstruct_n(0, index.ntotal)
    store: Any = faiss.downcast_index(index.storage) if kind_of(index) == "hnsw" else index
    return np.asarray(faiss.rev_swig_ptr(store.get_xb(), store.ntotal * store.d)).reshape(store.ntotal, store.d)


def fetch(
    index: Any, settings: IndexSettings, vectors: NDArray[np.float32], wanted: int, room: int, widening: int
) -> tuple[NDArray[np.float32], Rows]:
    """The scores and items that FAISS finds, item -1 where it finds nothing, of shape (queries, fetched).

    Each query is searched in the same way whatever the others are.

    Args:
        index: of FAISS.
        settings: how hard it tries.
        vectors: the queries.
        wanted: items that are wanted.
        room: items to fetch beyond those wanted, because so many may be excluded. They cost the search nothing of its
            effort: an hnsw keeps so many more items in view, an ivf reads as many more lists as they would fill.
        widening: by what everything but the room is multiplied.
    """
    wanted *= widening
    if settings.kind == "flat":
        return index.search(vectors, wanted + room)
    if settings.kind == "hnsw":
        width = max(widening * settings.ef_search, wanted) + room
        in_view = faiss.SearchParametersHNSW(efSearch=width)  # type: ignore[attr-defined]
        return index.search(vectors, wanted + room, params=in_view)
    filled = index.ntotal / index.nlist
    probes = max(widening * settings.probes, math.ceil(wanted / filled)) + math.ceil(room / filled)
    read = faiss.SearchParametersIVF(nprobe=min(probes, index.nlist))  # type: ignore[call-arg]
    few = [vectors[start:stop] for start, stop in blocks(len(vectors), UNTIL_BLAS)]
    scores, items = zip(*(index.search(one, wanted + room, params=read) for one in few), strict=True)
    return np.concatenate(scores), np.concatenate(items)
