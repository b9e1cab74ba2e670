"""Two-tower retrieval from a raw file to an answered query, in the order in which a recommendation travels.

The modules, lowest layer first; each may import only from those above it in this list:

    errors      the tree of exceptions: what came, what was needed, what to do
    storage     a folder is written whole or not at all, and verified before it is parsed
    seeding     generators made from a seed and a name
    settings    YAML files and overrides -> frozen records of settings
    sources     the registry of data sets: name -> verified files
    formats     files of published data sets -> tables
    own_files   a person's own files -> tables, every fault reported
    ranking     the contracts Recommender and Index, queries and recommendations
    optimisers  AdamW, and a lazy Adam for large tables
    losses      the in-batch softmax in small steps: temperature, log q, masks
    data        tables -> Interactions and Catalogue; ids <-> rows
    split       Interactions -> Split(train, valid, test), a function a protocol
    features    rows -> codes: ids, history, categories
    topk        scores -> the exact top k
    ann         settings -> an index of FAISS: flat, hnsw, ivf, pq, ivfpq
    metrics     hits and held-out items -> recall, MRR, NDCG, one value a query
    batches     who meets whom, and the log q of this sampler
    towers      user tower, item tower, temperature
    protocols   a split -> who is asked, knowing what, and what only the judge knows
    leaks       what a model knew, and showed, that came after the question
    evaluation  recommendations and held-out items -> Report
    index       item vectors -> nearest neighbours, exact or with FAISS
    baselines   random, popularity, item-kNN, EASE, iALS
    diagnostics  what a run says of itself: gradients, scores, geometry, the collapse alarm
    filters     only some items may be shown: before the search or after it, and what that leaves short
    index_tuning  which index, and how hard it should try, measured on real queries
    scann_index   ScaNN behind the contract of the other indexes, where it is installed
    retriever   towers, features and index as one Recommender
    plots       pictures that say in words what they show
    bundle      the exported artifact, and back to a Retriever
    training    the loop, checkpoints, resume
    recipe      all settings, and the straight line: prepare, train, evaluate, export
    explorer    one or two bundles beside each other, in a notebook
    exercises   tasks that check themselves, with hints; a file a chapter
    sweep       a grid of settings -> a run for each combination, and one table
    serving     a bundle over HTTP: recommendations, similar items, health, metrics
    cli         the commands

The public names load when they are first used, so that `import twotower_lib` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twotower_lib.batches import Batches
    from twotower_lib.bundle import Bundle
    from twotower_lib.data import DataSettings, load
    from twotower_lib.evaluation import evaluate
    from twotower_lib.losses import in_batch_softmax
    from twotower_lib.protocols import questions
    from twotower_lib.ranking import Queries, Recommendations
    from twotower_lib.recipe import Recipe, compose
    from twotower_lib.retriever import Retriever
    from twotower_lib.seeding import seeded
    from twotower_lib.split import Split, SplitSettings
    from twotower_lib.towers import TowerSettings, TwoTower

_HOMES = {
    "seeded": "seeding",
    "load": "data",
    "DataSettings": "data",
    "Split": "split",
    "SplitSettings": "split",
    "Batches": "batches",
    "TwoTower": "towers",
    "TowerSettings": "towers",
    "in_batch_softmax": "losses",
    "Queries": "ranking",
    "Recommendations": "ranking",
    "questions": "protocols",
    "evaluate": "evaluation",
    "Retriever": "retriever",
    "Bundle": "bundle",
    "Recipe": "recipe",
    "compose": "recipe",
}

__all__ = [
    "seeded",
    "load",
    "DataSettings",
    "Split",
    "SplitSettings",
    "Batches",
    "TwoTower",
    "TowerSettings",
    "in_batch_softmax",
    "Queries",
    "Recommendations",
    "questions",
    "evaluate",
    "Retriever",
    "Bundle",
    "Recipe",
    "compose",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
