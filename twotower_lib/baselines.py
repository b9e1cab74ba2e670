"""Strong and simple recommenders that need no towers: what every model is compared with.

    random      uniform scores: the line of chance
    popularity  how many users met the item
    item-knn    cosine similarity to the items of the history (Sarwar et al. 2001; Deshpande & Karypis 2004)
    ease        a linear item-item model in closed form (Steck 2019)
    ials        matrix factorisation by alternating least squares (Hu et al. 2008; Rendle et al. 2021)

Each is fitted on the interactions of the train part and reads the *history* of a query as a set of item rows, never
the user's row, so a person without an id gets the same answer as a user with that history. Where a model has nothing
to say (item-knn, ease and ials with an empty history) all scores are 0 and the order is that of the rows.

The public names are the settings, the functions `fit_*`, and `fit_baseline`, which knows them by name (`BASELINES`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from twotower_lib.data import Interactions, Rows
from twotower_lib.errors import SettingError, ShapeError, nearest, need
from twotower_lib.ranking import Queries, Ragged, Recommendations, Recommender, blocks
from twotower_lib.seeding import child, torch_child
from twotower_lib.topk import rank_scores

EASE_FLOAT64_ITEMS = 5_000
"""Catalogues up to this size are inverted in float64 (200 MB); a larger one in float32."""

SOLVED_TOGETHER = 256
"""Rows of a factor matrix whose normal equations are held at once (8 MB at 64 factors)."""


class _Scored:
    """A recommender that gives every item of the catalogue a score."""

    is_exact: bool = True

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def score(self, queries: Queries, out: Tensor) -> None:
        """Fill `out`, float32 of shape (queries, items), with the scores of all items."""
        raise NotImplementedError

    def recommend(self, queries: Queries, k: int, exclude: Ragged | None = None) -> Recommendations:
        """The k best items for each query, without those in its list of `exclude`."""
        check_history(queries, self.n_items)

        def score_block(start: int, stop: int, out: Tensor) -> None:
            self.score(queries.slice(start, stop), out)

        return rank_scores(score_block, len(queries), self.n_items, k, exclude)


def user_item_matrix(train: Interactions) -> csr_matrix:
    """1.0 where a user met an item; sparse, float64, shape (users, items)."""
    ones = np.ones(len(train.user))
    return csr_matrix((ones, (train.user, train.item)), shape=(train.n_users, train.n_items))


def check_history(queries: Queries, n_items: int) -> None:
    """Refuse a history with a row that the catalogue does not have."""
    rows = queries.history.values
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_items:
        raise ShapeError(f"histories with rows from {rows.min()} to {rows.max()}", f"item rows from 0 to {n_items - 1}")


def history_matrix(queries: Queries, n_items: int) -> csr_matrix:
    """1.0 for every item in the history of a query, however often it stands there; shape (queries, items)."""
    history = queries.history
    ones = np.ones(len(history.values))
    # Copies, because SciPy sorts the arrays of a matrix in place.
    matrix = csr_matrix((ones, history.values.copy(), history.offsets.copy()), shape=(len(queries), n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


# --- random -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """How scores are drawn."""

    seed: int = 0

    def __post_init__(self) -> None:
        need(self.seed >= 0, "seed", self.seed, "0 or larger")


class Random(_Scored):
    """Uniform scores, a function of the seed and of the history alone.

    So a batch answers as its queries do one by one, and whoever asks twice gets the same list. Queries with the same
    history, the empty one above all, share one list.
    """

    def __init__(self, n_items: int, seed: int) -> None:
        super().__init__(n_items)
        self.seed = seed

    def score(self, queries: Queries, out: Tensor) -> None:
        """Fill `out` with draws from [0, 1)."""
        histories = history_matrix(queries, self.n_items)
        for scores, start, stop in zip(out.numpy(), histories.indptr[:-1], histories.indptr[1:], strict=True):
            # The length comes first because trailing zeros do not change a seed: [] and [0] would draw the same.
            numbers = (stop - start, *histories.indices[start:stop])
            generator = child(self.seed, "random", *map(int, numbers))
            generator.random(dtype=np.float32, out=scores)


def fit_random(train: Interactions, settings: RandomSettings) -> Random:
    """The line of chance; of the interactions it takes the size of the catalogue only."""
    return Random(train.n_items, settings.seed)


# --- popularity -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PopularitySettings:
    """Nothing to set."""


class Popularity(_Scored):
    """The same scores for every query: how many users met each item."""

    def __init__(self, counts: Rows) -> None:
        super().__init__(len(counts))
        self.counts = torch.from_numpy(counts.astype(np.float32))

    def score(self, queries: Queries, out: Tensor) -> None:
        """Fill `out` with the counts."""
        out.copy_(self.counts.expand_as(out))


def fit_popularity(train: Interactions, settings: PopularitySettings) -> Popularity:
    """Count the interactions of every item."""
    return Popularity(train.item_counts)


# --- item-knn ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ItemKNNSettings:
    """Which neighbours an item has."""

    neighbours: int = 100
    """How many of the items most similar to it add to the score of an item."""
    shrink: float = 10.0
    """Added to the denominator of the cosine; pulls similarities that rest on few users towards 0."""

    def __post_init__(self) -> None:
        need(self.neighbours >= 1, "neighbours", self.neighbours, "1 or more")
        need(self.shrink >= 0, "shrink", self.shrink, "0 or larger")


class ItemKNN(_Scored):
    """The sum of the similarities of an item to those items of the history that are among its neighbours.

    Args:
        weights: sparse of shape (items, items); entry (i, j) is what item i in a history adds to the score of j.
    """

    def __init__(self, weights: csr_matrix) -> None:
        super().__init__(weights.shape[0])
        self.weights = weights

    def score(self, queries: Queries, out: Tensor) -> None:
        """Fill `out` with the sums, made in float64."""
        sums = history_matrix(queries, self.n_items) @ self.weights
        out.copy_(torch.from_numpy(sums.toarray()))


def fit_item_knn(train: Interactions, settings: ItemKNNSettings) -> ItemKNN:
    """Cosine similarities of the columns of the user-item matrix, exact, the best neighbours of each item kept.

    With n_ij the users who met both items and n_i those who met i, s_ij = n_ij / (sqrt(n_i n_j) + shrink) (Sarwar et
    al. 2001, section 3.1.1, on binary data). The neighbours of j are those i of largest s_ij, ties by row, without j
    itself, and only they add to the score of j (Sarwar et al. 2001, section 3.2.1, as a sum: Deshpande & Karypis 2004).
    """
    met = user_item_matrix(train)
    met_by_item = met.T.tocsr()
    norms = np.sqrt(train.item_counts)

    def score_block(start: int, stop: int, out: Tensor) -> None:
        together = (met_by_item[start:stop] @ met).toarray()
        # Items that no user met have 0 users in common with all; the 1 keeps 0 / 0 away.
        together /= np.outer(norms[start:stop], norms) + settings.shrink + (together == 0)
        out.copy_(torch.from_numpy(together))

    itself = Ragged(np.arange(train.n_items), np.arange(train.n_items + 1))
    n_neighbours = min(settings.neighbours, train.n_items)
    nearest = rank_scores(score_block, train.n_items, train.n_items, n_neighbours, itself)
    item, place = np.nonzero(nearest.scores > 0)
    values = nearest.scores[item, place].astype(np.float64)
    return ItemKNN(csr_matrix((values, (nearest.items[item, place], item)), shape=(train.n_items, train.n_items)))


# --- ease -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EASESettings:
    """How strongly the item-item weights are pulled towards 0."""

    regularisation: float = 300.0
    """Lambda: added to the diagonal of the Gram matrix."""

    def __post_init__(self) -> None:
        need(self.regularisation > 0, "regularisation", self.regularisation, "above 0")


class EASE(_Scored):
    """The sum of the rows of the weight matrix that belong to the history.

    Args:
        weights: float32 of shape (items, items); entry (i, j) is what item i in a history adds to the score of j.
    """

    def __init__(self, weights: NDArray[np.float32]) -> None:
        super().__init__(len(weights))
        self.weights = weights

    def score(self, queries: Queries, out: Tensor) -> None:
        """Fill `out` with the sums."""
        histories = history_matrix(queries, self.n_items).astype(np.float32)
        out.copy_(torch.from_numpy(histories @ self.weights))


def fit_ease(train: Interactions, settings: EASESettings, device: str = "cpu") -> EASE:
    """Solve min over B of ||X - X B||^2 + lambda ||B||^2 with a diagonal of 0 (Steck 2019, eq. 8).

    With P = (X'X + lambda I)^-1 it is B = I - P diagMat(1 / diag P), so off the diagonal B_ij = -P_ij / P_jj. Needs
    memory for two matrices of items x items, and time of the order of items^3: for catalogues up to about 10,000, on a
    GPU (`device`, where the matrix is inverted) up to about 50,000.
    """
    met = user_item_matrix(train)
    small = train.n_items <= EASE_FLOAT64_ITEMS
    gram = torch.from_numpy((met.T @ met).astype(np.float64 if small else np.float32).toarray()).to(device)
    gram.diagonal().add_(settings.regularisation)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram), out=gram)
    weights = inverse.div_(-inverse.diagonal().clone())
    weights.fill_diagonal_(0.0)
    # SciPy copies a dense factor at every product unless its rows are contiguous.
    return EASE(weights.float().contiguous().cpu().numpy())


# --- ials -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class IALSSettings:
    """The factorisation and how it is fitted (the names of Rendle et al. 2021)."""

    factors: int = 64
    """Length of an embedding."""
    alpha0: float = 0.2
    """Weight of the squared score of every cell of the user-item matrix, met or not."""
    regularisation: float = 0.014
    """Lambda."""
    nu: float = 1.0
    """Exponent of the frequency that scales lambda; 0 pulls all embeddings equally."""
    deviation: float = 0.1
    """Embeddings are drawn from a normal distribution of this standard deviation over sqrt(factors)."""
    epochs: int = 8
    """How often both sides are solved."""
    seed: int = 0

    def __post_init__(self) -> None:
        need(self.factors >= 1, "factors", self.factors, "1 or more")
        need(self.alpha0 > 0, "alpha0", self.alpha0, "above 0")
        need(self.regularisation > 0, "regularisation", self.regularisation, "above 0")
        need(self.nu >= 0, "nu", self.nu, "0 or larger")
        need(self.deviation > 0, "deviation", self.deviation, "above 0")
        need(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        need(self.seed >= 0, "seed", self.seed, "0 or larger")


class IALS(_Scored):
    """Inner products of item embeddings with a query embedding that is solved for from the history.

    Args:
        vectors: the item embeddings, float64 of shape (items, factors).
        settings: what the model was fitted with.
    """

    def __init__(self, vectors: Float64[Tensor, "items factors"], settings: IALSSettings) -> None:
        super().__init__(len(vectors))
        self.vectors, self.settings = vectors, settings

    def embed(self, queries: Queries) -> Float64[Tensor, "queries factors"]:
        """The query embeddings: the users' side of the objective solved for these histories; 0 for an empty one."""
        histories = history_matrix(queries, self.n_items)
        met = Ragged(histories.indices.astype(np.int64), histories.indptr.astype(np.int64))
        return solve_side(met, self.vectors, self.settings)

    def score(self, queries: Queries, out: Tensor) -> None:
        """Fill `out` with the inner products, made in float64."""
        out.copy_(self.embed(queries) @ self.vectors.T)


def fit_ials(train: Interactions, settings: IALSSettings) -> IALS:
    """Minimise the objective of Rendle et al. 2021 (eq. 1-4) by turns over users' embeddings w and items' h.

        sum over the met pairs (w_u . h_i - 1)^2 + alpha0 sum over all u, i (w_u . h_i)^2
        + lambda (sum over u (|I_u| + alpha0 |I|)^nu ||w_u||^2 + sum over i (|U_i| + alpha0 |U|)^nu ||h_i||^2)

    where I_u are the items of user u among |I| items and U_i the users of item i among |U| users. The items' side is
    solved last; the users' side is solved again for every query from its history.
    """
    of_users = Ragged.grouped(train.user, train.item, train.n_users)
    of_items = Ragged.grouped(train.item, train.user, train.n_items)
    generator = torch_child(settings.seed, "ials")
    scale = settings.deviation / settings.factors**0.5
    vectors = torch.randn(train.n_items, settings.factors, generator=generator, dtype=torch.float64) * scale
    for _ in range(settings.epochs):
        users = solve_side(of_users, vectors, settings)
        vectors = solve_side(of_items, users, settings)
    return IALS(vectors, settings)


def solve_side(
    met: Ragged, others: Float64[Tensor, "others factors"], settings: IALSSettings
) -> Float64[Tensor, "ours factors"]:
    """The embeddings of one side that minimise the objective while those of the other side stay (its normal equations).

    For one row with the met others M: (sum over M h h' + alpha0 H'H + lambda (|M| + alpha0 |H|)^nu I) w = sum over M h.

    Args:
        met: for each row of our side the rows of the other side that it met.
        others: the embeddings of the other side.
        settings: alpha0, regularisation, nu.
    """
    everyone = settings.alpha0 * others.T @ others
    weight = torch.from_numpy(met.lengths).double() + settings.alpha0 * len(others)
    pull = settings.regularisation * weight**settings.nu
    solved = torch.empty(len(met), others.shape[1], dtype=torch.float64)
    for start, stop in blocks(len(met), SOLVED_TOGETHER):
        left = everyone.repeat(stop - start, 1, 1)
        right = torch.zeros(stop - start, others.shape[1], 1, dtype=torch.float64)
        left.diagonal(dim1=1, dim2=2).add_(pull[start:stop, None])
        for place in range(stop - start):
            chosen = others.index_select(0, torch.from_numpy(met[start + place]))
            left[place].addmm_(chosen.T, chosen)
            right[place, :, 0] = chosen.sum(0)
        solved[start:stop] = torch.cholesky_solve(right, torch.linalg.cholesky(left)).squeeze(2)
    return solved


# --- all --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """The settings of all baselines."""

    random: RandomSettings = field(default_factory=RandomSettings)
    popularity: PopularitySettings = field(default_factory=PopularitySettings)
    item_knn: ItemKNNSettings = field(default_factory=ItemKNNSettings)
    ease: EASESettings = field(default_factory=EASESettings)
    ials: IALSSettings = field(default_factory=IALSSettings)


BASELINES: dict[str, Callable[[Interactions, BaselineSettings], Recommender]] = {
    "random": lambda train, settings: fit_random(train, settings.random),
    "popularity": lambda train, settings: fit_popularity(train, settings.popularity),
    "item-knn": lambda train, settings: fit_item_knn(train, settings.item_knn),
    "ease": lambda train, settings: fit_ease(train, settings.ease),
    "ials": lambda train, settings: fit_ials(train, settings.ials),
}


def fit_baseline(name: str, train: Interactions, settings: BaselineSettings) -> Recommender:
    """Fit the baseline of this name.

    Raises:
        SettingError: there is no such baseline; the nearest name is given.
    """
    if name not in BASELINES:
        raise SettingError(f"no baseline is called {name}", f"one of {', '.join(BASELINES)}", nearest(name, BASELINES))
    return BASELINES[name](train, settings)
