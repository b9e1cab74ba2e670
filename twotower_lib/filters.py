"""Only some items may be shown: in stock, for children, in this language. The same filter, before or after the search.

Before: the index is told which rows are allowed and looks for the best of those (`index.search(..., allowed=mask)`).
The lists are full wherever there are enough such items, and a small selection is searched exactly.

After: the index is searched for more than k items, and what is not allowed is dropped. It works with every index and
any rule, also one that is known only when the items are. But nobody knows how much is enough: where too little is left,
a list stays short, and `under_filled` counts such lists. They are the first thing to watch in a service that does so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twotower_lib.errors import ShapeError
from twotower_lib.ranking import NOTHING, Index, Ragged, Recommendations


def filter_after(
    index: Index,
    vectors: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.bool_],
    *,
    fetched: int,
    exclude: Ragged | None = None,
) -> Recommendations:
    """The allowed ones of the best items, k of them at most.

    Args:
        index: any.
        vectors: the queries, float32 of shape (queries, dim).
        k: how long the lists are.
        allowed: a truth value for each row of the catalogue.
        fetched: items that are searched for, k or more.
        exclude: for each query the item rows that must not appear.

    Raises:
        ShapeError: `fetched` is below k, or there is not one truth value for each row.
    """
    if fetched < k or allowed.shape != (index.n_items,):
        came = f"{fetched} items fetched for k = {k}, and {allowed.shape} truth values"
        raise ShapeError(came, f"k items or more, and a truth value for each of {index.n_items} rows")
    found = index.search(vectors, fetched, exclude)
    good = (found.items != NOTHING) & allowed[found.items]
    first = (~good).argsort(axis=1, kind="stable")[:, :k]
    items, scores, good = (np.take_along_axis(one, first, axis=1) for one in (found.items, found.scores, good))
    return Recommendations(np.where(good, items, NOTHING), np.where(good, scores, -np.inf).astype(np.float32))


def under_filled(answers: Recommendations) -> int:
    """How many lists hold fewer items than they have places."""
    return int((answers.items == NOTHING).any(axis=1).sum())
