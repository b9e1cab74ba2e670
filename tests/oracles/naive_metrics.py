"""Metrics by their definitions, one query at a time, in plain Python: nothing of the library, no NumPy."""

import math


def ranked(scores, seen):
    """Item rows without the seen ones: score down, then item up."""
    return sorted(set(range(len(scores))) - set(seen), key=lambda item: (-scores[item], item))


def naive_metrics(candidates, held_out, k):
    """Every metric of one query.

    Args:
        candidates: all items that may be recommended, best first.
        held_out: the items that are asked for, at least one.
        k: how long the list is.
    """
    held_out = set(held_out)
    shown = candidates[:k]
    ranks = [rank for rank, item in enumerate(shown, 1) if item in held_out]
    best_possible = min(k, len(held_out))
    gain = sum(1 / math.log2(rank + 1) for rank in ranks)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, best_possible + 1))
    precisions = [sum(one <= rank for one in ranks) / rank for rank in ranks]
    return {
        f"recall@{k}": len(ranks) / len(held_out),
        f"capped_recall@{k}": len(ranks) / best_possible,
        f"precision@{k}": len(ranks) / k,
        f"hit_rate@{k}": 1.0 if ranks else 0.0,
        f"mrr@{k}": 1 / ranks[0] if ranks else 0.0,
        f"ndcg@{k}": gain / ideal,
        f"map@{k}": sum(precisions) / best_possible,
    }


def naive_popularity(shown, known_pairs, n_users):
    """Mean over the items shown of the share of users who met the item."""
    shares = [sum(item == one for _, item in known_pairs) / n_users for one in shown]
    return sum(shares) / len(shares) if shares else 0.0


def naive_slice_recall(candidates, held_out, k, members):
    """Recall over the held-out items that belong to `members`; None where there is none."""
    wanted = set(held_out) & set(members)
    return len(wanted & set(candidates[:k])) / len(wanted) if wanted else None


def naive_slices(counts):
    """Three sets of items, each reaching one more third of the interactions, most popular first; unmet items last."""
    slices, before, total = ([], [], []), 0, sum(counts)
    for item in sorted(range(len(counts)), key=lambda item: (-counts[item], item)):
        third = 0 if 3 * before < total else 1 if 3 * before < 2 * total else 2
        slices[third if counts[item] else 2].append(item)
        before += counts[item]
    return slices
