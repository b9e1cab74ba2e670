"""The softmax loss over the catalogue, and its estimates from the items of a batch, in the order of the derivation.

The model is p(item | user) = exp(l(user, item)) / sum over the catalogue of exp(l(user, .)), and the loss is the mean
of -log p over the observed pairs: `full_softmax`. The sum over the catalogue is too long for a large one, so it is
estimated from the items of the batch:

1. `scores`        s = <user, item>, every user of the batch against every item of it;
2. `scale`         l = s / T, the logit (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
                   Discrimination", eq. 2; T is the temperature);
3. `correct`       l - log q: items come into a batch as often as they are popular, so each is weighted by 1 / q, the
                   inverse of its chance to be drawn (Bengio and Senecal 2008; Yi et al. 2019, "Sampling-Bias-Corrected
                   Neural Modeling for Large Corpus Item Recommendations", display after eq. 3). It belongs on the final
                   logit, after the temperature;
4. `same_item_mask`, `known_positives_mask`, `apply_mask`   a column that is no negative for a row leaves its sum;
5. `softmax_loss`  the mean of -log softmax at the row's own positive.

`in_batch_softmax` is the whole. It corrects the positive as though it had been drawn, too; `corrected_log_q_softmax`
does not. Both are written to be read, and hold the whole table of batch x candidates several times over;
`blocked_softmax` is either of them for a batch of any size, and what training uses.

A batch has one row a user and one column a candidate; the positive of row i is column i, and columns beyond the rows
are extra negatives. Nothing here knows a model, draws a number or keeps a state: the file can be copied out as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twotower_lib.errors import ShapeError

BLOCK_BYTES, BLOCK_BYTES_GPU = 2**24, 2**30
"""Size of the one block of logits that `blocked_softmax` holds: near the caches of a CPU, many rows on a GPU."""


def scores(user: Float[Tensor, "batch dim"], item: Float[Tensor, "cand dim"]) -> Float[Tensor, "batch cand"]:
    """Inner product of every user embedding with every item embedding.

    Raises:
        ShapeError: the two differ in their dimension, or there are fewer candidates than rows.

    >>> scores(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    tensor([[1., 0.],
            [2., 2.]])
    """
    _check_sides(user, item)
    return user @ item.T


def _check_sides(user: Tensor, item: Tensor) -> None:
    if user.shape[1] != item.shape[1] or len(item) < len(user):
        raise ShapeError(
            f"user embeddings {tuple(user.shape)}, item embeddings {tuple(item.shape)}",
            "the same dimension on both sides, and at least one candidate a row: row i's positive is candidate i",
        )


def scale(values: Float[Tensor, "*shape"], temperature: float | Float[Tensor, ""]) -> Float[Tensor, "*shape"]:
    """Divide by the temperature T: scores become logits.

    A score is linear in the user embedding, so dividing that one instead gives the same logits with far fewer
    divisions; `in_batch_softmax` does so.

    Raises:
        ShapeError: T is a number that is not positive.

    >>> scale(torch.tensor([[0.5, 1.0]]), 0.5)
    tensor([[1., 2.]])
    """
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ShapeError(f"temperature = {temperature}", "a temperature above 0")
    return values / temperature


def correct(
    logits: Float[Tensor, "batch cand"], log_q: Float[Tensor, " cand"], strength: float = 1.0
) -> Float[Tensor, "batch cand"]:
    """Subtract strength * log q from each column.

    `log_q` is the natural logarithm of the chance that the sampler *in use* puts this candidate into a column: for
    in-batch negatives the item's share of the train rows. The correction follows the temperature; the other way round
    it would be multiplied by 1 / T. A constant added to log q changes no softmax.

    Args:
        logits: scores already divided by the temperature.
        log_q: one value a column; an item drawn twice is two columns.
        strength: 1 is the derived correction, 0 none.

    >>> correct(torch.tensor([[0.0, 0.0]]), torch.tensor([0.5, 0.25]).log())
    tensor([[0.6931, 1.3863]])
    """
    if log_q.shape != logits.shape[1:]:
        raise ShapeError(f"log q of shape {tuple(log_q.shape)}", f"one value for each of {logits.shape[1]} candidates")
    return logits - strength * log_q


def same_item_mask(candidates: Int[Tensor, " cand"], n_rows: int | None = None) -> Bool[Tensor, "batch cand"]:
    """True where a column holds the row's own positive item once more: it is no negative.

    The diagonal, the positive itself, is False.

    Args:
        candidates: the item of each column; the first `n_rows` of them are the positives of the rows.
        n_rows: rows of the batch; all columns by default.

    >>> same_item_mask(torch.tensor([7, 8, 7])).int()
    tensor([[0, 0, 1],
            [0, 0, 0],
            [1, 0, 0]], dtype=torch.int32)
    """
    positives = candidates if n_rows is None else candidates[:n_rows]
    return (positives[:, None] == candidates[None, :]).fill_diagonal_(False)


def known_positives_mask(
    candidates: Int[Tensor, " cand"],
    known_row: Int[Tensor, " known"],
    known_item: Int[Tensor, " known"],
    n_rows: int | None = None,
) -> Bool[Tensor, "batch cand"]:
    """True where a column holds another item that the row's user is known to like: it is no negative either.

    The row's own positive item is left to `same_item_mask`, even where it is among the known ones.

    Args:
        candidates: the item of each column, numbers from 0.
        known_row: for each known pair the row of the batch it belongs to.
        known_item: for each known pair its item.
        n_rows: rows of the batch; all columns by default.

    >>> known_positives_mask(torch.tensor([7, 8]), torch.tensor([0, 0, 1]), torch.tensor([7, 8, 9])).int()
    tensor([[0, 1],
            [0, 0]], dtype=torch.int32)
    """
    n_rows = len(candidates) if n_rows is None else n_rows
    distinct, column = candidates.unique(return_inverse=True)
    # Where each item stands among the distinct candidates; items outside the batch share one place at the end.
    width = len(distinct) + 1
    place = candidates.new_full((int(torch.cat([candidates, known_item]).max()) + 1,), width - 1)
    place[distinct] = torch.arange(width - 1, device=candidates.device)
    table = torch.zeros((n_rows, width), dtype=torch.bool, device=candidates.device)
    table.view(-1).index_fill_(0, known_row * width + place[known_item], True)
    table[torch.arange(n_rows), column[:n_rows]] = False
    return table.index_select(1, column)


def apply_mask(logits: Float[Tensor, "batch cand"], drop: Bool[Tensor, "batch cand"]) -> Float[Tensor, "batch cand"]:
    """Minus infinity where `drop` is True, so that these columns leave the row's sum.

    Raises:
        ShapeError: the shapes differ, or the mask would drop a row's own positive.

    >>> apply_mask(torch.zeros(1, 2), torch.tensor([[False, True]]))
    tensor([[0., -inf]])
    """
    if drop.shape != logits.shape:
        raise ShapeError(f"a mask of shape {tuple(drop.shape)}", f"the shape of the logits, {tuple(logits.shape)}")
    if drop.diagonal().any():
        row = int(drop.diagonal().nonzero()[0])
        raise ShapeError(f"a mask that drops the positive of row {row}", "False on the diagonal")
    return logits.masked_fill(drop, -torch.inf)


def softmax_loss(logits: Float[Tensor, "batch cand"]) -> Float[Tensor, ""]:
    """The mean over rows of -log softmax at the diagonal, in nats.

    Equal logits give ln(cand), the chance line of a curve of this loss; corrections and masks move it a little.

    >>> softmax_loss(torch.zeros(2, 2))
    tensor(0.6931)
    """
    return nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def full_softmax(
    user: Float[Tensor, "batch dim"],
    item: Float[Tensor, "items dim"],
    positives: Int[Tensor, " batch"],
    *,
    temperature: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """The softmax loss over the whole catalogue: nothing is sampled, so nothing is corrected or masked.

    This is the truth that the in-batch losses estimate; its cost grows with the catalogue.

    Args:
        user: user embeddings.
        item: item embeddings of the whole catalogue, each once.
        positives: for each row the place of its positive in `item`.
        temperature: T, divides the scores.

    Returns:
        The mean loss of a row in nats; equal scores give ln(items).

    Raises:
        ShapeError: the two sides differ in their dimension, or a positive is not in the catalogue.

    >>> full_softmax(torch.zeros(1, 2), torch.eye(2), torch.tensor([0]), temperature=0.5)
    tensor(0.6931)
    """
    outside = (positives < 0) | (positives >= len(item))
    if user.shape[1] != item.shape[1] or outside.any():
        came = f"user embeddings {tuple(user.shape)}, item embeddings {tuple(item.shape)}"
        raise ShapeError(
            f"{came}, {int(outside.sum())} positives outside the catalogue",
            "the same dimension on both sides, and positives from 0 to the number of items - 1",
        )
    return nn.functional.cross_entropy(scale(user, temperature) @ item.T, positives)


def in_batch_softmax(
    user: Float[Tensor, "batch dim"],
    item: Float[Tensor, "cand dim"],
    *,
    temperature: float | Float[Tensor, ""],
    log_q: Float[Tensor, " cand"] | None = None,
    log_q_strength: float = 1.0,
    drop: Bool[Tensor, "batch cand"] | None = None,
) -> Float[Tensor, ""]:
    """The in-batch softmax loss (InfoNCE), each correction switched on by giving its tensor.

    Args:
        user: user embeddings.
        item: item embeddings of the candidates; row i's positive is candidate i.
        temperature: T, divides the scores.
        log_q: log of each candidate's chance to be drawn, see `correct`.
        log_q_strength: 1 is the derived correction.
        drop: columns that are no negatives for a row, see the two masks; combine them with `|`.

    Returns:
        The mean loss of a row in nats.

    >>> two = torch.eye(2)
    >>> in_batch_softmax(two, two, temperature=0.5)  # -log(e^2 / (e^2 + e^0))
    tensor(0.1269)
    """
    logits = scores(scale(user, temperature), item)  # <u / T, v> = <u, v> / T
    if log_q is not None:
        logits = correct(logits, log_q, log_q_strength)
    if drop is not None:
        logits = apply_mask(logits, drop)
    return softmax_loss(logits)


def correct_drawn(
    logits: Float[Tensor, "batch cand"], log_q: Float[Tensor, " cand"], same_item: Bool[Tensor, "batch cand"]
) -> Float[Tensor, "batch cand"]:
    """Subtract log q from the columns that were drawn, but not from the positive, which was given.

    Unlike `correct`, which treats the positive as drawn, this sets it on the scale of the others' sum. The n columns
    of a row that do not hold its positive p are draws from q(j) / (1 - q(p)), so the mean over them of
    exp(l_j) (1 - q(p)) / q(j) estimates the sum of exp(l) over the rest of the catalogue. Instead of subtracting
    ln(n / (1 - q(p))) from all of them this adds it to the positive, which a softmax cannot tell apart. A constant
    added to log q does change the loss: q must sum to 1 over the catalogue.

    Args:
        logits: scores already divided by the temperature.
        log_q: one value a column.
        same_item: which columns hold the row's positive once more, see `same_item_mask`.

    >>> none = torch.zeros(1, 3, dtype=torch.bool)
    >>> correct_drawn(torch.zeros(1, 3), torch.tensor([0.5, 0.25, 0.25]).log(), none)  # ln(2 / (1 - 1/2)) = ln 4
    tensor([[1.3863, 1.3863, 1.3863]])
    """
    corrected = correct(logits, log_q)
    drawn = (~same_item).sum(dim=1).to(log_q) - 1  # without the positive itself
    rest = torch.log1p(-log_q[: len(logits)].exp())
    # A row without draws has only its positive, to which anything but ln 0 may be added.
    given = logits.diagonal() + drawn.clamp(min=1).log() - rest
    return corrected.diagonal_scatter(given)


def corrected_log_q_softmax(
    user: Float[Tensor, "batch dim"],
    item: Float[Tensor, "cand dim"],
    *,
    temperature: float | Float[Tensor, ""],
    log_q: Float[Tensor, " cand"],
    candidates: Int[Tensor, " cand"],
    drop: Bool[Tensor, "batch cand"] | None = None,
) -> Float[Tensor, ""]:
    """The in-batch softmax loss whose positive is not corrected by log q, because it was given and not drawn.

    `in_batch_softmax` weighs the positive by 1 / q(p), as if the sampler had drawn it once; here it weighs
    n / (1 - q(p)), as `correct_drawn` explains, and its repetitions are always masked. The bias falls as 1 / n. So does
    that of `in_batch_softmax` as long as the repetitions stay, for they bring the positive's weight to the same scale;
    with them masked the two agree where n q(p) = 1 - q(p) only, and a bias remains however large the batch.

    Derivation (Khrylchenko et al. 2025, "Correcting the LogQ Correction", arXiv 2507.09331). With P the full softmax,

        grad -log P(p) = -grad l_p + sum over the catalogue of P(j) grad l_j
                       = (1 - P(p)) (-grad l_p + sum over j other than p of P(j) / (1 - P(p)) grad l_j)

    The last sum is a mean over the items other than p, and importance sampling from q makes it the softmax of
    l_j - log q(j) over the drawn columns. The paper estimates 1 - P(p) from the same columns and gives it to each row
    as a weight without gradient. Multiplied out, the sum over the drawn columns cancels, and what is left is the
    gradient of this loss: -log softmax at the positive supplies the weight by itself, and its value estimates that of
    `full_softmax`.

    Args:
        user: user embeddings.
        item: item embeddings of the candidates; row i's positive is candidate i.
        temperature: T, divides the scores.
        log_q: log of each candidate's chance to be drawn; a share of the whole catalogue.
        candidates: the item of each column.
        drop: further columns that are no negatives for a row, such as `known_positives_mask`; the estimate is then
            that of the full softmax without these items.

    Returns:
        The mean loss of a row in nats; equal scores give about ln(items), whatever the batch.

    >>> even = torch.tensor([1 / 3, 1 / 3, 1 / 3]).log()
    >>> corrected_log_q_softmax(torch.ones(1, 1), torch.ones(3, 1), temperature=1.0, log_q=even,
    ...                         candidates=torch.arange(3))  # ln 3
    tensor(1.0986)
    """
    same_item = same_item_mask(candidates, len(user))
    logits = correct_drawn(scores(scale(user, temperature), item), log_q, same_item)
    return softmax_loss(apply_mask(logits, same_item if drop is None else same_item | drop))


def blocked_softmax(
    user: Float[Tensor, "batch dim"],
    item: Float[Tensor, "cand dim"],
    *,
    temperature: float | Float[Tensor, ""],
    log_q: Float[Tensor, " cand"],
    candidates: Int[Tensor, " cand"],
    log_q_strength: float = 1.0,
    corrected: bool = False,
    same_item: bool = False,
    known: tuple[Int[Tensor, " known"], Int[Tensor, " known"]] | None = None,
) -> Float[Tensor, ""]:
    """`in_batch_softmax` or `corrected_log_q_softmax`, a block of rows at a time: never a table of batch x candidates.

    A row needs nothing of the others, so its logits are made, used for loss and gradients, and overwritten (as in Dao
    et al. 2022, "FlashAttention", and Wijmans et al. 2025, "Cut Your Losses in Large-Vocabulary Language Models").
    With E_ij = exp(l_ij - l_ii), 0 where a mask drops it, and S_i the sum of its row,

        loss        = mean over i of ln S_i
        grad of u_i = (sum over j of E_ij v_j / S_i - v_i) / batch
        grad of v_j = (sum over i of E_ij u_i / S_i - u_j) / batch        without the last u_j beyond the rows

    A block is one matmul for E, two for the gradients, and little between: -log q is one more dimension of the items,
    -l_ii one of the users. Where a logit may lie so far above the positive that its exponential overflows, as
    |u_i| max |v_j| tells beforehand, the row's largest is taken off first.

    A GPU multiplies half precisions as they come and sums them in float32; a CPU calculates in float32.

    Args:
        user: user embeddings.
        item: item embeddings of the candidates; row i's positive is candidate i.
        temperature: T, divides the scores.
        log_q: log of each candidate's chance to be drawn, see `correct`; it gets no gradient.
        candidates: the item of each column, numbers from 0.
        log_q_strength: 1 is the derived correction, 0 none.
        corrected: whether the positive was given and not drawn, see `corrected_log_q_softmax`, which has a strength of
            1 and masks the same item.
        same_item: whether to drop what `same_item_mask` does.
        known: to drop what `known_positives_mask` does, for each known pair its row and its item, sorted by row.

    Returns:
        The mean loss of a row in nats.

    Raises:
        ShapeError: the two sides do not fit each other, or the known pairs are not sorted by row.

    >>> two, q = torch.eye(2), torch.tensor([0.5, 0.5])
    >>> blocked_softmax(two, two, temperature=0.5, log_q=q.log(), candidates=torch.tensor([7, 8]))  # as above
    tensor(0.1269)
    """
    _check_sides(user, item)
    column = -log_q_strength * log_q
    order = candidates.argsort(stable=True)  # so the columns of an item lie side by side
    distinct, group, count = candidates[order].unique_consecutive(return_inverse=True, return_counts=True)
    place = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
    own, given = group[place[: len(user)]], column[: len(user)]
    if corrected:  # as in `correct_drawn`
        drawn = (len(item) - count[own]).clamp(min=1)
        given = drawn.to(log_q).log() - torch.log1p(-log_q[: len(user)].exp())
    pairs = []
    if same_item or corrected:
        repeated = (count[own] > 1).nonzero().flatten()
        pairs.append((repeated, own[repeated]))
    if known is not None:
        pairs.append(_known_groups(known, distinct, own))
    layout = order, place, [(count, *pair) for pair in pairs]
    loss: Tensor = _Blocked.apply(scale(user, temperature), item, column, given, layout)
    return loss


def _known_groups(known: tuple[Tensor, Tensor], distinct: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs whose item is among the distinct candidates and not the row's own: their rows, their items' places."""
    row, item = known
    if (row[1:] < row[:-1]).any():
        raise ShapeError("known positives in any order", "pairs sorted by row")
    place = distinct.new_full((int(torch.cat([distinct[-1:], item]).max()) + 1,), -1)
    place[distinct] = torch.arange(len(distinct), device=distinct.device)
    there = place.index_select(0, item)
    kept = ((there >= 0) & (there != own.index_select(0, row))).nonzero().flatten()
    return row.index_select(0, kept), there.index_select(0, kept)


def _dropped_cells(
    starts: list[int], n_cand: int, count: Tensor, row: Tensor, group: Tensor
) -> Iterator[Int[Tensor, " cells"]]:
    """For each block of rows the places in it where a row meets a column of a group that it is not to see.

    Args:
        starts: first row of each block, and at the end the number of rows.
        n_cand: columns, group after group.
        count: columns of each group.
        row: row of each pair of a row and a group, in ascending order.
        group: group of each pair.
    """
    begin = count.cumsum(0) - count
    cut = torch.searchsorted(row, row.new_tensor(starts))
    # How many cells a block has is asked for all blocks together: every such question makes a GPU wait.
    sizes = nn.functional.pad(count.index_select(0, group).cumsum_(0), (1, 0)).index_select(0, cut).diff()

    def cells(start: int, pairs: tuple[int, int], size: int) -> Tensor:
        here = slice(*pairs)
        many = count.index_select(0, group[here])
        first = begin.index_select(0, group[here]).add_(row[here] - start, alpha=n_cand)
        # From one cell to the next it is a step of 1 within a pair, and a jump to the next pair.
        jump = first.clone()
        jump[1:] -= (first + many)[:-1] - 1
        return row.new_ones(size).index_copy_(0, many.cumsum(0) - many, jump).cumsum_(0)

    return map(cells, starts, pairwise(cut.tolist()), sizes.tolist())


class _Blocked(torch.autograd.Function):
    """Loss and gradients of `blocked_softmax`, its corrections turned into what is added to logits.

    Args of `forward`: users divided by the temperature, items, what is added to each column, what is added to each
    row's positive instead; and, together, the order of the columns in a block, the place of each in it, and for each
    mask the last arguments of `_dropped_cells`.
    """

    @staticmethod
    def forward(ctx: Any, user: Tensor, item: Tensor, added: Tensor, given: Tensor, layout: Any) -> Tensor:
        order, place, masks = layout
        (n, dim), n_cand, exact = user.shape, len(item), torch.promote_types(user.dtype, torch.float32)
        held = user.dtype if user.is_cuda else exact
        to_exact: Any = {} if held == exact else {"out_dtype": exact}
        user, item, eights = user.to(held), item.to(held), 8 if user.is_cuda else 1
        if dim % eights:  # a GPU multiplies fastest where a dimension is a multiple of 8
            user, item = (nn.functional.pad(one, (0, -dim % eights)) for one in (user, item))
        positive = torch.linalg.vecdot(user.to(exact), item[:n].to(exact)) + given
        highest = user.norm(dim=1, dtype=exact) * item.norm(dim=1, dtype=exact).max() + added.max()
        is_safe = bool((highest - positive < -0.7 * math.log(torch.finfo(held).tiny)).all())
        shift, none = positive.to(held)[:, None], -(user.shape[1] + 2) % eights
        rows = torch.cat([user, torch.ones_like(shift), -shift, user.new_zeros(n, none)], dim=1)
        items, added = item.index_select(0, order), added.index_select(0, order).to(held)
        columns = torch.cat([items.T, added[None], items.new_ones(1, n_cand), items.new_zeros(none, n_cand)])

        height = max(1, (BLOCK_BYTES_GPU if user.is_cuda else BLOCK_BYTES) // (n_cand * rows.element_size()))
        starts = [*range(0, n, height), n]
        dropped = [_dropped_cells(starts, n_cand, *mask) for mask in masks]
        buffer = rows.new_empty(min(height, n) * n_cand)
        own = positive - shift[:, 0]  # the logit of the positive beside the others of its row
        peak, total = torch.zeros_like(own), torch.empty_like(own)
        user_gradient, item_gradient = (torch.zeros_like(one, dtype=exact) for one in (user, item))
        for start, stop in pairwise(starts):
            here, block = slice(start, stop), buffer[: (stop - start) * n_cand].view(-1, n_cand)
            torch.mm(rows[here], columns, out=block)
            cells = [next(mask) for mask in dropped]
            if not is_safe:
                for some in cells:
                    block.view(-1).index_fill_(0, some, -torch.inf)
                peak[here] = torch.maximum(block.amax(1), own[here])
                block.sub_(peak[here, None])
            block.exp_()
            for some in cells:
                block.view(-1).index_fill_(0, some, 0)
            block.scatter_(1, place[here, None], (own[here] - peak[here]).exp_().to(held)[:, None])
            if user.is_cuda:  # a pass over the block costs more there: the sums come from the ones among the columns
                product = torch.mm(block, columns.T, **to_exact)
                total[here] = product[:, items.shape[1] + 1]
            else:
                product, total[here] = torch.mm(block, items), block.sum(1)
            user_gradient[here] = product[:, : items.shape[1]] / total[here, None]
            weighted = (user[here] / total[here, None]).to(held)
            if to_exact:
                item_gradient += torch.mm(block.T, weighted, **to_exact)
            else:
                item_gradient.addmm_(block.T, weighted)
        item_gradient = item_gradient.index_select(0, place)
        user_gradient -= item[:n]
        item_gradient[:n] -= user
        ctx.save_for_backward(user_gradient.div_(n)[:, :dim], item_gradient.div_(n)[:, :dim])
        return (total.log_() + peak - own).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        user_gradient, item_gradient = ctx.saved_tensors
        return gradient * user_gradient, gradient * item_gradient, None, None, None
