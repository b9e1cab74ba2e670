"""Hits and held-out items -> metrics: each is a function of a hit matrix that returns one value a query, never a mean.

A hit matrix says which of the first k recommended items, best first, are held out for their query; beside it stands
how many items each query has held out. Means and their intervals are taken in `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from twotower_lib.ranking import Ragged

Hits = Bool[np.ndarray, "queries k"]
Counts = Int[np.ndarray, " queries"]
Values = Float[np.ndarray, " queries"]


def recall(hits: Hits, held_out: Counts) -> Values:
    """Hits among the first k / held-out items. It cannot reach 1 where more than k items are held out."""
    return hits.sum(1) / held_out


def capped_recall(hits: Hits, held_out: Counts) -> Values:
    """Hits among the first k / min(k, held-out items), the "recall" of Liang et al. 2018 (Mult-VAE), section 4.2."""
    return hits.sum(1) / np.minimum(held_out, hits.shape[1])


def precision(hits: Hits, held_out: Counts) -> Values:
    """Hits among the first k / k, also where fewer than k items were recommended."""
    return hits.sum(1) / hits.shape[1]


def hit_rate(hits: Hits, held_out: Counts) -> Values:
    """1 where at least one of the first k is a hit, else 0."""
    return hits.any(1).astype(float)


def mrr(hits: Hits, held_out: Counts) -> Values:
    """1 / rank of the first hit, 0 where none of the first k is one."""
    return hits.any(1) / (hits.argmax(1) + 1)


def ndcg(hits: Hits, held_out: Counts) -> Values:
    """Discounted gain, 1 / log2(rank + 1) a hit, over that of the best list of length k (Jarvelin, Kekalainen 2002)."""
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discount)[np.minimum(held_out, hits.shape[1]) - 1]
    return hits @ discount / ideal


def mean_average_precision(hits: Hits, held_out: Counts) -> Values:
    """Mean over min(k, held-out items) of the precision at each hit."""
    ranks = np.arange(1, hits.shape[1] + 1)
    at_hits = (hits * np.cumsum(hits, axis=1) / ranks).sum(1)
    return at_hits / np.minimum(held_out, hits.shape[1])


METRICS: dict[str, Callable[[Hits, Counts], Values]] = {
    "recall": recall,
    "capped_recall": capped_recall,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
    "ndcg": ndcg,
    "map": mean_average_precision,
}


def hit_matrix(recommended: Int[np.ndarray, "queries k"], held_out: Ragged) -> Hits:
    """Which recommended items are among the held-out items of their query.

    >>> hit_matrix(np.array([[4, 5, -1]]), Ragged.of([[5, 9]]))
    array([[False,  True, False]])
    """
    # One number for each pair of query and item; an empty place gets a number that no pair has.
    width = 1 + max(recommended.max(initial=0), held_out.values.max(initial=0))
    wanted = held_out.owners * width + held_out.values
    given = np.where(recommended >= 0, np.arange(len(recommended))[:, None] * width + recommended, -1)
    return np.isin(given, wanted)
