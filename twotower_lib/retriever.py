"""Towers + features + index = one `Recommender`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twotower_lib.data import Rows
from twotower_lib.errors import UnknownIdError
from twotower_lib.features import Features
from twotower_lib.index import ExactIndex
from twotower_lib.ranking import Index, Queries, Ragged, Recommendations
from twotower_lib.towers import TwoTower, embed_catalogue, embed_queries, embed_rows, query_parts


@dataclass(frozen=True)
class Contributions:
    """Where the scores of some items for one query come from: each score is the sum of its row over all three."""

    history: Rows
    """The item rows of the history that the user tower reads."""
    of_history: NDArray[np.float64]
    """What each of them adds to each score, of shape (items, history)."""
    of_bias: NDArray[np.float64]
    """What the item's own bias adds, of shape (items)."""
    of_rest: NDArray[np.float64]
    """What other features of the user add, of shape (items)."""

    @property
    def scores(self) -> NDArray[np.float64]:
        """The sums."""
        return self.of_history.sum(axis=1) + self.of_bias + self.of_rest


@dataclass(frozen=True)
class Retriever:
    """Embeds a query, searches the index, answers with item rows."""

    towers: TwoTower
    features: Features
    index: Index

    @property
    def n_items(self) -> int:
        """Items in the index."""
        return self.index.n_items

    @property
    def is_exact(self) -> bool:
        """Whether the index is."""
        return self.index.is_exact

    def recommend(self, queries: Queries, k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k items with the largest inner product with each query embedding, without the excluded ones."""
        return self.index.search(embed_queries(self.towers, self.features, queries), k, exclude)

    def similar(self, items: Rows, k: int) -> Recommendations:
        """The k items closest to each item: inner products of embeddings; biases and the item itself are left out.

        Raises:
            UnknownIdError: an item has no embedding, because nothing that its tower reads was met in training.
        """
        vectors = embed_rows(self.towers, self.features, items)
        if self.towers.bias is not None:
            vectors[:, -1] = 0.0
        if not vectors.any(axis=1).all():
            raise UnknownIdError("an item of which training knew nothing", "an item that somebody met before the split")
        return self.index.search(vectors, k, Ragged.of([[item] for item in items]))

    def contributions(self, query: Queries, items: Rows) -> Contributions:
        """How the scores of these items add up, for one query to a user tower that averages a history.

        Raises:
            SettingError: the embedding of this user tower is not a sum over the history.
        """
        history, parts = query_parts(self.towers, self.features, query)
        vectors = embed_rows(self.towers, self.features, items).astype(np.float64)
        has_bias = self.towers.bias is not None
        bias = vectors[:, -1] if has_bias else np.zeros(len(items))
        products = (vectors[:, :-1] if has_bias else vectors) @ parts.T
        return Contributions(history, products[:, :-1], bias, products[:, -1])


def exact_retriever(towers: TwoTower, features: Features) -> Retriever:
    """A retriever that embeds the catalogue now and searches it exactly."""
    return Retriever(towers, features, ExactIndex(embed_catalogue(towers, features)))
