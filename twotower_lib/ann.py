"""Settings -> an index of FAISS, and back: five kinds, all by inner product (Douze et al. 2024, The Faiss library).

    flat    every query meets every item; exact
    hnsw    a graph of neighbours, walked towards the query (Malkov, Yashunin 2018, arXiv:1603.09320)
    ivf     items in lists around centroids; only the lists closest to the query are read (Sivic, Zisserman 2003)
    pq      every query meets every item, but as a short code (Jégou, Douze, Schmid 2011, doi:10.1109/TPAMI.2010.57)
    ivfpq   codes in lists

A code is coarse: it finds candidates, and their vectors decide. So both coded kinds keep the vectors behind the codes
in the same index (`IndexRefine`). The codes are what every query runs through; of the vectors it touches only those
of its candidates.

All but flat were made for vectors of equal length, where the largest inner product is the smallest distance. Where
lengths differ they miss more, and only a measurement tells how much (`index.recall_against_exact`). `index.py` puts
all five behind the contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from twotower_lib.errors import need, need_known
from twotower_lib.ranking import NOTHING, Rows, blocks

CLASSES = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSWFlat, "ivf": faiss.IndexIVFFlat}
CLASSES |= {"pq": faiss.IndexPQ, "ivfpq": faiss.IndexIVFPQ}

CODED = ("pq", "ivfpq")
"""The kinds that find candidates by codes and score them by their vectors."""

POINTS_A_LIST = 39
"""Items that k-means should have for each centroid, by the advice of FAISS."""

BITS = 8
"""Of one part of a code: 256 centroids, one byte."""

UNTIL_BLAS = 16
"""Queries that FAISS compares one by one; for many, 20 in old versions and 128,000 / dim in new ones, it calls BLAS,
whose rounding depends on their number."""

SEED = 1234

LEAST = {"links": 2, "ef_construction": 1, "ef_search": 1, "lists": 1, "probes": 1, "code": 1, "rerank": 1}
"""The smallest value of each setting."""


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """A kind of FAISS index, and how hard it tries.

    `ef_search`, `probes` and `rerank` trade speed for recall; they are kept in the file of the index.
    """

    kind: str = "flat"
    """flat, hnsw, ivf, pq or ivfpq."""
    links: int = 16
    """hnsw: neighbours that an item is given in the graph, M of the paper; twice as many in the lowest layer."""
    ef_construction: int = 100
    """hnsw: items kept in view while the neighbours of a new one are looked for."""
    ef_search: int = 64
    """hnsw: items kept in view while an answer is looked for; k + 16 at least."""
    lists: int | None = None
    """ivf, ivfpq: lists; null: 4 sqrt(items), but no more than leaves 39 items for each, at least one."""
    probes: int = 16
    """ivf, ivfpq: lists read for an answer."""
    code: int | None = None
    """pq, ivfpq: bytes of an item's code; null: one for two dimensions, an eighth of the vector."""
    rerank: int = 4
    """pq, ivfpq: candidates scored by their vectors for each item that is wanted."""

    def __post_init__(self) -> None:
        need_known("index.kind", self.kind, CLASSES)
        for name, least in LEAST.items():
            value = getattr(self, name)
            need(value is None or value >= least, f"index.{name}", value, f"{least} or more")

    def lists_of(self, n_items: int) -> int:
        """How many lists so many items are put into."""
        by_rule = min(int(4 * math.sqrt(n_items)), n_items // POINTS_A_LIST)
        return max(1, min(by_rule if self.lists is None else self.lists, n_items))

    def code_of(self, dim: int) -> int:
        """Bytes of the code of a vector of this length."""
        return min(math.ceil(dim / 2) if self.code is None else self.code, dim)

    def reach(self, wanted: int, share: float = 1.0) -> int:
        """How many items are looked at closely where so many are wanted of this share of the catalogue."""
        if self.kind == "hnsw" and share < 1:
            return math.ceil(max(self.ef_search, wanted) / max(share, 1e-9))
        return wanted * self.rerank if self.kind in CODED else wanted


FLAT = IndexSettings()


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows that may be found, in the forms that a search needs; a truth value for each row."""

    mask: NDArray[np.bool_]

    @cached_property
    def rows(self) -> Rows:
        """Their numbers, upwards."""
        return np.flatnonzero(self.mask)

    @cached_property
    def share(self) -> float:
        """How much of the catalogue they are."""
        return len(self.rows) / len(self.mask)

    @cached_property
    def selector(self) -> Any:
        """For FAISS, which looks at one bit for each item that it meets."""
        make: Any = faiss.IDSelectorBitmap
        return make(np.packbits(self.mask, bitorder="little"))


# Building -------------------------------------------------------------------------------------------------------------


def flat(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """The vectors and nothing else."""
    return faiss.IndexFlatIP(vectors.shape[1])


def hnsw(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """A hierarchical navigable small world.

    It takes the inner product for its closeness, which is no distance when lengths differ; that works where they
    differ a little (Morozov, Babenko 2018, Non-metric Similarity Graphs for Maximum Inner Product Search). The exact
    reduction to unit vectors by one more dimension (Bachrach et al. 2014) is not made here.
    """
    index = faiss.IndexHNSWFlat(vectors.shape[1], settings.links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = settings.ef_construction
    return index


def ivf(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """Lists around the centroids of k-means.

    FAISS scales centroids to length 1 by default where it measures the inner product; a centroid that keeps its
    length says how long the items of its list are, so fewer lists have to be read when lengths differ.
    """
    dim, lists = vectors.shape[1], settings.lists_of(len(vectors))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    _cluster(index.cp)
    return index


def pq(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """A code for each item: the vector is cut into parts, and a byte names the centroid nearest to each part."""
    code = settings.code_of(vectors.shape[1])
    codes = faiss.IndexPQ(_width(vectors, code), code, BITS, faiss.METRIC_INNER_PRODUCT)
    return _before_vectors(codes, vectors)


def ivfpq(vectors: NDArray[np.float32], settings: IndexSettings) -> faiss.Index:
    """Lists as in `ivf`; the code is that of an item's difference from the centroid of its list."""
    code, lists = settings.code_of(vectors.shape[1]), settings.lists_of(len(vectors))
    width = _width(vectors, code)
    codes = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, lists, code, BITS, faiss.METRIC_INNER_PRODUCT)
    _cluster(codes.cp)
    return _before_vectors(codes, vectors)


def _width(vectors: NDArray[np.float32], code: int) -> int:
    """The length of a vector, filled up with zeros so that all parts are equally long."""
    return math.ceil(vectors.shape[1] / code) * code


def _before_vectors(codes: Any, vectors: NDArray[np.float32]) -> Any:
    dim = vectors.shape[1]
    codes.pq.cp.min_points_per_centroid = 1
    padding: Any = faiss.RemapDimensionsTransform
    padded = faiss.IndexPreTransform(padding(dim, codes.d, False), codes)
    return faiss.IndexRefine(padded, faiss.IndexFlatIP(dim))


def _cluster(settings: Any) -> None:
    settings.spherical = False
    settings.seed = SEED
    settings.min_points_per_centroid = 1  # fewer are no reason for a warning: small catalogues are allowed


BUILDERS: dict[str, Callable[[NDArray[np.float32], IndexSettings], Any]]
BUILDERS = {"flat": flat, "hnsw": hnsw, "ivf": ivf, "pq": pq, "ivfpq": ivfpq}


def build(vectors: NDArray[np.float32], settings: IndexSettings) -> Any:
    """An index of FAISS over the vectors; equal vectors and settings give equal indexes, on any number of threads."""
    index = BUILDERS[settings.kind](vectors, settings)
    # k-means refuses fewer points than centroids; of a small catalogue it gets every item more than once.
    index.train(np.resize(vectors, (max(len(vectors), 2**BITS), vectors.shape[1])))
    index.add(vectors)
    set_effort(index, settings)
    return index


# Reading --------------------------------------------------------------------------------------------------------------


def parts(index: Any) -> tuple[Any, Any]:
    """Of an index of FAISS what a query meets first, and what holds the vectors."""
    if isinstance(index, faiss.IndexRefine):
        met = faiss.downcast_index(index.base_index)
        met = faiss.downcast_index(met.index) if isinstance(met, faiss.IndexPreTransform) else met
        return met, faiss.downcast_index(index.refine_index)
    return index, faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSWFlat) else index


def kind_of(index: Any) -> str:
    """The kind of an index of FAISS; empty if it is none of ours."""
    met, store = parts(index)
    if not isinstance(store, faiss.IndexFlat | faiss.IndexIVFFlat):
        return ""
    return next((kind for kind, one in CLASSES.items() if isinstance(met, one)), "")


def settings_of(index: Any) -> IndexSettings:
    """The settings that an index of FAISS was built with and is searched with, read from the index itself."""
    (met, _), kind, found = parts(index), kind_of(index), {}
    if kind == "hnsw":
        found = {"links": met.hnsw.nb_neighbors(1), "ef_construction": met.hnsw.efConstruction}
        found |= {"ef_search": met.hnsw.efSearch}
    if kind in ("ivf", "ivfpq"):
        found |= {"lists": met.nlist, "probes": met.nprobe}
    if kind in CODED:
        found |= {"code": met.pq.M, "rerank": round(index.k_factor)}
    return IndexSettings(kind=kind, **found)


def set_effort(index: Any, settings: IndexSettings) -> None:
    """Write into an index of FAISS how hard it is to try, so that its file tells it."""
    met, _ = parts(index)
    if settings.kind == "hnsw":
        met.hnsw.efSearch = settings.ef_search
    if settings.kind in ("ivf", "ivfpq"):
        met.nprobe = settings.probes
    if settings.kind in CODED:
        index.k_factor = settings.rerank


def vectors_in(index: Any) -> NDArray[np.float32]:
    """The vectors of an index: a view of its memory, gone with it, but a copy where they lie in lists."""
    _, store = parts(index)
    if isinstance(store, faiss.IndexIVFFlat):
        return store.reconstruct_n(0, store.ntotal)
    return np.asarray(faiss.rev_swig_ptr(store.get_xb(), store.ntotal * store.d)).reshape(store.ntotal, store.d)


# Searching ------------------------------------------------------------------------------------------------------------


def fetch(
    index: Any,
    settings: IndexSettings,
    vectors: NDArray[np.float32],
    wanted: int,
    room: int,
    widening: int,
    chosen: Selection | None = None,
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
        chosen: the only rows to find. Where they are a tenth of the catalogue, an hnsw keeps ten times as many items
            in view and an ivf reads ten times as many lists: the best of a few lie farther apart. A pq cannot be told,
            so it fetches ten times as many and drops the others.
    """
    met, _ = parts(index)
    share = 1.0 if chosen is None else chosen.share
    selector = None if chosen is None else chosen.selector
    fetched = settings.reach(wanted * widening) + room
    if settings.kind == "flat":
        among = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        return met.search(vectors, fetched, params=among)
    if settings.kind == "hnsw":
        width = math.ceil(max(widening * settings.ef_search, wanted * widening) / share) + room
        in_view = faiss.SearchParametersHNSW(efSearch=width, sel=selector)  # type: ignore[attr-defined]
        return met.search(vectors, fetched, params=in_view)
    padded = np.pad(vectors, ((0, 0), (0, met.d - vectors.shape[1])))
    if settings.kind == "pq":
        return of_these(chosen, *met.search(padded, min(math.ceil(fetched / share), met.ntotal)))
    filled = met.ntotal / met.nlist
    probes = math.ceil(max(widening * settings.probes, wanted * widening / filled) / share) + math.ceil(room / filled)
    read = faiss.SearchParametersIVF(nprobe=min(probes, met.nlist), sel=selector)  # type: ignore[call-arg]
    few = [padded[start:stop] for start, stop in blocks(len(padded), UNTIL_BLAS)]
    scores, items = zip(*(met.search(one, fetched, params=read) for one in few), strict=True)
    return np.concatenate(scores), np.concatenate(items)


def of_these(chosen: Selection | None, scores: NDArray[np.float32], items: Rows) -> tuple[NDArray[np.float32], Rows]:
    """What a search found that could not be told what is chosen: any other item becomes `NOTHING`."""
    return scores, items if chosen is None else np.where(chosen.mask[items], items, NOTHING)
