"""The loss by its definition: loops over Python floats, and nothing of the library."""

import math

import numpy as np


def naive_loss(user, item, temperature, *, log_q=None, strength=1.0, items=None, same_item=False, known=None) -> float:
    """The mean over rows of -log(weight of the positive / weights of all candidates that count).

    A candidate's weight is exp(score / temperature) / q^strength.

    Args:
        user: a vector a row.
        item: a vector a candidate; row i's positive is candidate i.
        temperature: a number.
        log_q: a number a candidate.
        strength: exponent of q.
        items: the item of each candidate, where a mask is used.
        same_item: whether other candidates that are the row's own item are left out.
        known: for each row the set of items that its user likes; other candidates that are one of them are left out.
    """
    losses = []
    for row, u in enumerate(user):
        weights = {}
        for column, v in enumerate(item):
            if column != row:
                own = items is not None and items[column] == items[row]
                if own and same_item:
                    continue
                if not own and known is not None and items[column] in known[row]:
                    continue
            score = sum(float(a) * float(b) for a, b in zip(u, v, strict=True))
            weights[column] = math.exp(score / temperature)
            if log_q is not None:
                weights[column] /= math.exp(float(log_q[column])) ** strength
        losses.append(-math.log(weights[row] / math.fsum(weights.values())))
    return math.fsum(losses) / len(losses)


def naive_full_loss(user, item, positives, temperature) -> float:
    """The mean over rows of -log(exp of the positive / sum over the catalogue of exp)."""
    losses = []
    for u, positive in zip(user, positives, strict=True):
        weights = [math.exp(sum(float(a) * float(b) for a, b in zip(u, v, strict=True)) / temperature) for v in item]
        losses.append(-math.log(weights[positive] / math.fsum(weights)))
    return math.fsum(losses) / len(losses)


def naive_corrected_loss(user, item, temperature, *, log_q, items, known=None) -> float:
    """The mean over rows of -log(exp of the positive / (exp of the positive + an estimate of all others)).

    Columns that hold another item than the row's positive p are draws from q(j) / (1 - q(p)). The estimate is the mean
    over them of exp(score / temperature) / (q(j) / (1 - q(p))), in which a draw that `known` names for the row counts
    as 0.
    """
    losses = []
    for row, u in enumerate(user):
        draws, own = [], 0.0
        for column, v in enumerate(item):
            weight = math.exp(sum(float(a) * float(b) for a, b in zip(u, v, strict=True)) / temperature)
            if column == row:
                own = weight
            elif items[column] != items[row]:
                is_known = known is not None and items[column] in known[row]
                chance = math.exp(float(log_q[column])) / (1 - math.exp(float(log_q[row])))
                draws.append(0.0 if is_known else weight / chance)
        others = math.fsum(draws) / len(draws) if draws else 0.0
        losses.append(-math.log(own / (own + others)))
    return math.fsum(losses) / len(losses)


def finite_differences(function, point, step=1e-5):
    """The gradient of a function of one array, by central differences."""
    point = np.array(point, dtype=np.float64)
    gradient = np.zeros_like(point)
    for place in np.ndindex(*point.shape):
        ahead, behind = point.copy(), point.copy()
        ahead[place] += step
        behind[place] -= step
        gradient[place] = (function(ahead) - function(behind)) / (2 * step)
    return gradient
