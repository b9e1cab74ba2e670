"""Ranking by the definition: sort everything, take the first k. NumPy only, and nothing of the library."""

import numpy as np


def naive_top_k(scores, k, exclude=None):
    """Items and scores of the k best of each row: score down, then item up; -1 and -inf where none is left.

    Args:
        scores: float64 (queries, items); -inf marks an item that is not there.
        k: how long the lists are.
        exclude: for each query the items that must not appear.
    """
    scores = np.array(scores, dtype=np.float64)
    for query, items in enumerate(exclude or []):
        scores[query, list(items)] = -np.inf
    top_items = np.full((len(scores), k), -1)
    top_scores = np.full((len(scores), k), -np.inf)
    for query, row in enumerate(scores):
        ranked = [item for item in np.lexsort((np.arange(len(row)), -row)) if row[item] > -np.inf][:k]
        top_items[query, : len(ranked)] = ranked
        top_scores[query, : len(ranked)] = row[ranked]
    return top_items, top_scores


def naive_products(queries, items):
    """Inner products in float64, one term after the other."""
    products = np.zeros((len(queries), len(items)))
    for dimension in range(queries.shape[1]):
        products += np.outer(queries[:, dimension].astype(np.float64), items[:, dimension].astype(np.float64))
    return products
