"""Hits and held-out items -> metrics: each is a function of a hit matrix that returns one value a query, never a mean.

A hit matrix says which of the first k recommended items, best first, are held out for their query; beside it stands
how many items each query has held out. Means and their intervals are taken in `evaluation.py`.

The last part is a warning. A *sampled* metric ranks the held-out item among some drawn negatives only. Where two models
are compared it can turn their order around; rank the whole catalogue instead, as everything above does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from twotower_lib.errors import SettingError
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


# Sampled metrics, as a warning ---------------------------------------------------------------------------------------

Ranks = Int[np.ndarray, " queries"]


def sampled_ranks(ranks: Ranks, candidates: Ranks | int, negatives: int, generator: np.random.Generator) -> Ranks:
    """The rank of each held-out item among `negatives` others, drawn without repetition from all others.

    Of the `candidates` - 1 others rank - 1 stand above the held-out item, so those above it in a sample are a
    hypergeometric draw. Do not compare models by what follows from it: a metric of the sampled rank is not the metric
    of the true rank, nor do two models keep their order (Krichene & Rendle 2020).

    Args:
        ranks: true ranks, the best is 1, each of one held-out item among itself and items that are no positives.
        candidates: how many items were ranked, the held-out one included.
        negatives: how many are drawn.
        generator: draws them.

    Raises:
        SettingError: a rank is not among the candidates, or there are fewer others than are to be drawn.
    """
    if np.any(ranks < 1) or np.any(ranks > candidates):
        raise SettingError(f"ranks from {np.min(ranks)} to {np.max(ranks)}", "ranks from 1 to the number of candidates")
    _check_sample(int(np.min(candidates)), negatives)
    return 1 + generator.hypergeometric(ranks - 1, candidates - ranks, negatives)


def sampled_rank_chances(candidates: int, negatives: int) -> Float[np.ndarray, "ranks sampled_ranks"]:
    """The chance of each sampled rank, a column, given each true rank, a row: hypergeometric, as in `sampled_ranks`.

    Krichene & Rendle 2020 draw with repetition, where it is binomial with the chance (rank - 1) / (candidates - 1); for
    few negatives of many the two are close. Takes memory for candidates x negatives numbers.

    >>> sampled_rank_chances(candidates=3, negatives=1)
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])

    Raises:
        SettingError: there are fewer others than are to be drawn.
    """
    _check_sample(candidates, negatives)
    above, drawn = np.arange(candidates)[:, None], np.arange(negatives + 1)
    below = candidates - 1 - above
    possible = (drawn <= above) & (negatives - drawn <= below)
    log_factorial = np.append(0.0, np.log(np.arange(1, candidates)).cumsum())

    def log_choices(n: Any, k: Any) -> Any:
        return log_factorial[n] - log_factorial[k] - log_factorial[n - k]

    ways = log_choices(above, np.minimum(drawn, above)) + log_choices(below, np.clip(negatives - drawn, 0, below))
    return np.where(possible, np.exp(ways - log_choices(candidates - 1, negatives)), 0.0)


def corrected_metric(
    of_rank: Float[np.ndarray, " ranks"], negatives: int, variance_weight: float
) -> Float[np.ndarray, " sampled_ranks"]:
    """What to count for each sampled rank, so that its mean comes near the mean of the metric of the true rank.

    With A the chances of `sampled_rank_chances`, M the metric of the true rank and g the weight of the variance it is
    the x that minimises the sum, over all true ranks, of squared bias (E[x | rank] - M)^2 plus g times the variance
    Var[x | rank] (Krichene & Rendle 2020, corrected metrics, with all ranks equally likely beforehand):

        ((1 - g) A'A + g diag(column sums of A)) x = A' M

    It is right on average only as far as the bias that is left allows, and only where the negatives are drawn evenly
    from all that are no positives. A small g leaves less bias and more variance: single values may lie far outside of
    what the metric can be. For estimates where no whole catalogue can be ranked; not to compare models.

    Args:
        of_rank: the metric of each true rank from 1 to the number of candidates, for one held-out item.
        negatives: how many were drawn.
        variance_weight: g, above 0, because bias alone leaves x to the rounding, and up to 1, the mean squared error.

    Raises:
        SettingError: the weight is out of range, or there are fewer others than are to be drawn.
    """
    if not 0 < variance_weight <= 1:
        raise SettingError(f"variance_weight = {variance_weight}", "a number above 0 and up to 1")
    chances = sampled_rank_chances(len(of_rank), negatives)
    left = (1 - variance_weight) * chances.T @ chances + variance_weight * np.diag(chances.sum(0))
    return np.linalg.solve(left, chances.T @ of_rank)


def _check_sample(candidates: int, negatives: int) -> None:
    if not 1 <= negatives < candidates:
        raise SettingError(f"{negatives} negatives of {candidates} candidates", "at least one, and fewer than those")
