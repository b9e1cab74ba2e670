"""The losses against arithmetic, naive loops, peers, finite differences, and the full softmax that they estimate."""

from __future__ import annotations

import itertools
import math
import sys
from functools import partial
from inspect import unwrap

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.utils._python_dispatch import TorchDispatchMode

from tests.oracles.naive_loss import finite_differences, naive_corrected_loss, naive_full_loss, naive_loss
from twotower_lib import losses
from twotower_lib.errors import ShapeError
from twotower_lib.losses import (
    apply_mask,
    blocked_softmax,
    correct,
    correct_drawn,
    corrected_log_q_softmax,
    full_softmax,
    in_batch_softmax,
    known_positives_mask,
    same_item_mask,
    scale,
    scores,
    softmax_loss,
)

USER = torch.eye(2, dtype=torch.float64)
ITEM = torch.tensor([[0.8, 0.4], [0.2, 0.6]], dtype=torch.float64)
HALF_AND_EIGHTH = torch.tensor([1 / 2, 1 / 8], dtype=torch.float64).log()


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


# --- Two rows, by hand ------------------------------------------------------------------------------------------------
#
# scores s:                 row 0: .8  .2      row 1: .4  .6
# logits s / T, T = .5:     row 0: 1.6 .4      row 1: .8  1.2
# q = 1/2, 1/8, so -log q = ln 2, 3 ln 2; the rare item gains 2 ln 2 on the popular one.


def test_two_rows_without_corrections():
    # row 0: ln(1 + e^(.4 - 1.6)) = ln(1 + e^-1.2)      row 1: ln(1 + e^(.8 - 1.2)) = ln(1 + e^-.4)
    expected = (math.log(1 + math.exp(-1.2)) + math.log(1 + math.exp(-0.4))) / 2
    close(in_batch_softmax(USER, ITEM, temperature=0.5), expected)


def test_two_rows_with_log_q():
    # row 0, negative rare:     ln(1 + e^(-1.2 + 2 ln 2)) = ln(1 + 4 e^-1.2)    = .790626
    # row 1, negative popular:  ln(1 + e^(-.4 - 2 ln 2))  = ln(1 + e^-.4 / 4)   = .154934
    expected = (math.log(1 + 4 * math.exp(-1.2)) + math.log(1 + math.exp(-0.4) / 4)) / 2
    assert expected == pytest.approx(0.472780, abs=1e-6)
    close(in_batch_softmax(USER, ITEM, temperature=0.5, log_q=HALF_AND_EIGHTH), expected)


@pytest.mark.parametrize(
    ("wrong", "difference_0", "difference_1"),
    [
        # (s - log q) / T: the correction is doubled by T = .5
        ("log q before the temperature", -1.2 + 4 * math.log(2), -0.4 - 4 * math.log(2)),
        # s * T - log q
        ("temperature multiplied", -0.3 + 2 * math.log(2), -0.1 - 2 * math.log(2)),
        # s / T + log q
        ("sign of log q", -1.2 - 2 * math.log(2), -0.4 + 2 * math.log(2)),
        # s / T - log2 q
        ("log to the base of 2", -1.2 + 2, -0.4 - 2),
        # s / T - q
        ("q without its log", -1.2 + 3 / 8, -0.4 - 3 / 8),
        # s / T - log q of the negatives only, the positive keeps its logit
        ("positive uncorrected", -1.2 + 3 * math.log(2), -0.4 + math.log(2)),
        ("no log q", -1.2, -0.4),
    ],
)
def test_the_number_by_hand_misses_every_wrong_order(wrong, difference_0, difference_1):
    """The loss of two rows is ln(1 + e^(logit of the negative - logit of the positive))."""
    right = in_batch_softmax(USER, ITEM, temperature=0.5, log_q=HALF_AND_EIGHTH).item()
    assert abs(right - (math.log1p(math.exp(difference_0)) + math.log1p(math.exp(difference_1))) / 2) > 0.005, wrong


def test_each_step_by_hand():
    close(scores(USER, ITEM), [[0.8, 0.2], [0.4, 0.6]])
    close(scale(scores(USER, ITEM), 0.5), [[1.6, 0.4], [0.8, 1.2]])
    close(scale(scores(USER, ITEM), torch.tensor(0.5)), [[1.6, 0.4], [0.8, 1.2]])
    # 1.6 + ln 2, .4 + 3 ln 2; .8 + ln 2, 1.2 + 3 ln 2
    logits = torch.tensor([[1.6, 0.4], [0.8, 1.2]], dtype=torch.float64)
    close(correct(logits, HALF_AND_EIGHTH), [[2.293147, 2.479442], [1.493147, 3.279442]], 1e-6)
    # half of it: 1.6 + ln 2 / 2, .4 + 1.5 ln 2
    close(correct(logits, HALF_AND_EIGHTH, 0.5)[0], [1.946574, 1.439721], 1e-6)
    close(correct(logits, HALF_AND_EIGHTH, 0.0), logits)


def test_equal_scores_cost_the_log_of_the_candidates():
    close(softmax_loss(torch.zeros(3, 7, dtype=torch.float64)), math.log(7))


# --- A naive double loop, every combination ---------------------------------------------------------------------------

ITEMS = torch.tensor([5, 2, 5, 0, 2, 5, 7, 2, 0])  # six rows, three candidates more; 5, 2 and 0 stand repeatedly
KNOWN = [{5, 2, 11}, {2}, set(), {0, 5, 7}, {2, 7}, {5, 0}]  # 11 is not in the batch; row 2 has none, not even its own


def a_batch(extra, seed=0):
    generator = torch.Generator().manual_seed(seed)
    user = torch.nn.functional.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64), dim=1)
    item = torch.nn.functional.normalize(torch.randn(6 + extra, 4, generator=generator, dtype=torch.float64), dim=1)
    log_q = torch.rand(6 + extra, generator=generator, dtype=torch.float64).log()
    return user, item, log_q, ITEMS[: 6 + extra]


def known_pairs(known):
    pairs = [(row, one) for row, items in enumerate(known) for one in sorted(items)]
    return torch.tensor([row for row, _ in pairs]), torch.tensor([one for _, one in pairs])


def drop_of(items, same_item, known):
    made = [same_item_mask(items, 6)] if same_item else []
    made += [known_positives_mask(items, *known_pairs(KNOWN), 6)] if known else []
    return torch.stack(made).any(0) if made else None


OPTIONS = list(
    itertools.product([1.0, 0.07], [None, 1.0, 0.5, 1.3], [False, True], [False, True], [0, 3])
)  # temperature, strength of log q, same-item mask, known-positives mask, extra candidates


@pytest.mark.parametrize(("temperature", "strength", "same_item", "known", "extra"), OPTIONS)
def test_equal_to_the_naive_loop(temperature, strength, same_item, known, extra):
    user, item, log_q, items = a_batch(extra)
    expected = naive_loss(
        user.tolist(),
        item.tolist(),
        temperature,
        log_q=None if strength is None else log_q.tolist(),
        strength=strength or 0.0,
        items=items.tolist(),
        same_item=same_item,
        known=KNOWN if known else None,
    )
    actual = in_batch_softmax(
        user,
        item,
        temperature=temperature,
        log_q=None if strength is None else log_q,
        log_q_strength=1.0 if strength is None else strength,
        drop=drop_of(items, same_item, known),
    )
    close(actual, expected)


def test_every_option_moves_the_loss():
    """So the comparison above compares something: no two of its combinations have the same loss."""
    found = set()
    for temperature, strength, same_item, known, extra in OPTIONS:
        user, item, log_q, items = a_batch(extra)
        loss = in_batch_softmax(
            user, item, temperature=temperature, log_q=log_q, log_q_strength=strength or 0.0,
            drop=drop_of(items, same_item, known),
        )  # fmt: skip
        found.add(round(loss.item(), 6))
    assert len(found) == len(OPTIONS) == 64


# --- Peers ------------------------------------------------------------------------------------------------------------


def test_equal_to_scipy_with_weights_one_over_q():
    user, item, log_q, _ = a_batch(3)
    logits = (user @ item.T / 0.2).numpy()
    q = log_q.exp().numpy()
    own = np.diagonal(logits) - np.log(q[:6])
    expected = np.mean(logsumexp(logits, b=1 / q[None, :], axis=1) - own)
    close(in_batch_softmax(user, item, temperature=0.2, log_q=log_q), expected)


def test_equal_to_torch_cross_entropy_over_the_columns_that_are_left():
    user, item, log_q, items = a_batch(3)
    drop = drop_of(items, True, True)
    each = []
    for row in range(6):
        kept = [row, *(column for column in range(9) if column != row and not drop[row, column])]
        logits = torch.stack([user[row] @ item[column] / 0.2 - log_q[column] for column in kept])
        each.append(torch.nn.functional.cross_entropy(logits[None], torch.tensor([0])))
    close(in_batch_softmax(user, item, temperature=0.2, log_q=log_q, drop=drop), torch.stack(each).mean())


# --- What must not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1.0, 1.3])
def test_a_constant_added_to_log_q_changes_nothing(strength):
    user, item, log_q, items = a_batch(3)
    drop = drop_of(items, True, True)
    one, other = (
        in_batch_softmax(user, item, temperature=0.1, log_q=q, log_q_strength=strength, drop=drop)
        for q in (log_q, log_q - 7.5)
    )
    close(one, other)


def test_equal_q_is_no_q():
    user, item, _, _ = a_batch(3)
    even = torch.full((9,), math.log(1 / 9), dtype=torch.float64)
    close(in_batch_softmax(user, item, temperature=0.1, log_q=even), in_batch_softmax(user, item, temperature=0.1))


def test_a_permuted_batch_changes_nothing():
    user, item, log_q, items = a_batch(3)
    rows, extra = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([8, 6, 7])
    columns = torch.cat([rows, extra])
    one = in_batch_softmax(user, item, temperature=0.1, log_q=log_q, drop=drop_of(items, True, True))
    known = known_positives_mask(items[columns], *known_pairs([KNOWN[row] for row in rows]), 6)
    drop = same_item_mask(items[columns], 6) | known
    other = in_batch_softmax(user[rows], item[columns], temperature=0.1, log_q=log_q[columns], drop=drop)
    close(one, other)


def test_a_dropped_column_is_a_column_that_is_not_there_whatever_its_score_and_q():
    user, item, log_q, _ = a_batch(0)
    item = torch.cat([item, torch.full((1, 4), 1e3, dtype=torch.float64)]).requires_grad_()
    log_q = torch.cat([log_q, torch.tensor([-torch.inf])])  # q = 0
    drop = torch.zeros(6, 7, dtype=torch.bool)
    drop[:, 6] = True
    loss = in_batch_softmax(user, item, temperature=0.1, log_q=log_q, drop=drop)
    close(loss, in_batch_softmax(user, item[:6], temperature=0.1, log_q=log_q[:6]))
    (gradient,) = torch.autograd.grad(loss, item)
    assert gradient[6].eq(0).all()
    assert gradient.isfinite().all()


def test_a_rare_negative_weighs_more_than_a_popular_one():
    """Its weight in the sum is 1 / q: a hundredth of the chance, a hundred times the pull."""
    item = torch.tensor([[0.0], [0.0], [0.0]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([1.0, 0.5, 0.005], dtype=torch.float64)
    loss = in_batch_softmax(torch.ones(1, 1, dtype=torch.float64), item, temperature=1.0, log_q=q.log())
    (pull,) = torch.autograd.grad(loss, item)
    assert (pull[2] / pull[1]).item() == pytest.approx(100)


# --- The full softmax -------------------------------------------------------------------------------------------------

CATALOGUE = torch.tensor([[0.8, 0.4], [0.2, 0.6], [-0.4, 0.0]], dtype=torch.float64)


def test_the_full_softmax_by_hand():
    # scores s:               row 0: .8 .2 -.4      row 1: .4 .6 0
    # logits s / T, T = .5:   row 0: 1.6 .4 -.8     row 1: .8 1.2 0
    # positive 1 of row 0:    ln(1 + e^1.2 + e^-1.2) = 1.530678
    # positive 1 of row 1:    ln(e^-.4 + 1 + e^-1.2) = .678802
    first = math.log(1 + math.exp(1.2) + math.exp(-1.2))
    second = math.log(math.exp(-0.4) + 1 + math.exp(-1.2))
    assert (first, second) == pytest.approx((1.530678, 0.678802), abs=1e-6)
    close(full_softmax(USER, CATALOGUE, torch.tensor([1, 1]), temperature=0.5), (first + second) / 2)


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_the_full_softmax_equals_the_naive_loop(temperature):
    user, item, _, _ = a_batch(3)
    positives = torch.tensor([8, 0, 0, 3, 7, 5])
    expected = naive_full_loss(user.tolist(), item.tolist(), positives.tolist(), temperature)
    close(full_softmax(user, item, positives, temperature=temperature), expected)


def test_the_gradient_of_the_full_softmax_is_probability_less_one_at_the_positive():
    user, item, _, _ = a_batch(3)
    positives, point = torch.tensor([8, 0, 0, 3, 7, 5]), item.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(full_softmax(user, point, positives, temperature=0.2), point)
    wanted = torch.nn.functional.one_hot(positives, 9)
    close(gradient, (torch.softmax(user @ item.T / 0.2, dim=1) - wanted).T @ user / 6 / 0.2)


def test_a_batch_that_holds_the_catalogue_once_is_the_full_softmax():
    user, item, _, _ = a_batch(0)
    close(in_batch_softmax(user, item, temperature=0.2), full_softmax(user, item, torch.arange(6), temperature=0.2))


def test_equal_scores_cost_the_log_of_the_catalogue():
    close(
        full_softmax(torch.zeros(2, 3), torch.ones(7, 3), torch.tensor([6, 0]), temperature=0.1).double(),
        math.log(7),
        1e-6,
    )


# --- The positive was given, not drawn --------------------------------------------------------------------------------


def test_the_corrected_form_by_hand():
    # items 0, 1, 2 with q = 1/2, 1/4, 1/4; columns 0, 1, 1, 2; T = 1, every logit 0 but that of the last column, ln 3.
    # row 0 (item 0): three draws from the rest, each of chance 1/2 there: (2 + 2 + 3 * 2) / 3 = 10/3; ln(1 + 10/3)
    # row 1 (item 1): two draws, of chances 2/3 and 1/3, for column 2 is its own: (3/2 + 3 * 3) / 2 = 21/4; ln(1 + 21/4)
    user = torch.ones(2, 1, dtype=torch.float64)
    item = torch.tensor([[0.0], [0.0], [0.0], [math.log(3)]], dtype=torch.float64)
    log_q = torch.tensor([1 / 2, 1 / 4, 1 / 4, 1 / 4], dtype=torch.float64).log()
    candidates = torch.tensor([0, 1, 1, 2])
    found = corrected_log_q_softmax(user, item, temperature=1.0, log_q=log_q, candidates=candidates)
    close(found, (math.log(13 / 3) + math.log(25 / 4)) / 2)
    # item 2 is known to be liked in row 0, so its draw counts as 0: (2 + 2 + 0) / 3 = 4/3
    drop = torch.tensor([[False, False, False, True], [False] * 4])
    found = corrected_log_q_softmax(user, item, temperature=1.0, log_q=log_q, candidates=candidates, drop=drop)
    close(found, (math.log(7 / 3) + math.log(25 / 4)) / 2)


def a_sampled_batch(extra):
    """A batch whose q is one value an item, as it is in training: 0, 2, 5 and 7 have .1, .4, .3, .05."""
    user, item, _, items = a_batch(extra)
    share = torch.zeros(8, dtype=torch.float64)
    share[[0, 2, 5, 7]] = torch.tensor([0.1, 0.4, 0.3, 0.05], dtype=torch.float64)
    return user, item, share.log()[items], items


def known_mask(items):
    return known_positives_mask(items, *known_pairs(KNOWN), 6)


@pytest.mark.parametrize("temperature", [1.0, 0.07])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("extra", [0, 3])
def test_the_corrected_form_equals_its_naive_loop(temperature, known, extra):
    user, item, log_q, items = a_sampled_batch(extra)
    expected = naive_corrected_loss(
        user.tolist(),
        item.tolist(),
        temperature,
        log_q=log_q.tolist(),
        items=items.tolist(),
        known=KNOWN if known else None,
    )
    drop = known_mask(items) if known else None
    found = corrected_log_q_softmax(user, item, temperature=temperature, log_q=log_q, candidates=items, drop=drop)
    close(found, expected)


def as_published(user, item, temperature, log_q, items, drop):
    """The paper's form: the softmax over the drawn columns alone, each row weighted by 1 - p, which has no gradient."""
    logits = user @ item.T / temperature
    own = logits.diagonal()
    same = items[: len(user), None] == items[None, :]
    of_others = log_q - torch.log1p(-log_q[: len(user)].exp())[:, None]
    drawn = (logits - of_others).masked_fill(same | drop, -torch.inf)
    with torch.no_grad():
        estimate = drawn.exp().sum(1) / (~same).sum(1)
        weight = 1 - own.exp() / (own.exp() + estimate)
    return (weight * (drawn.logsumexp(1) - own)).mean()


@pytest.mark.parametrize("known", [False, True])
def test_the_gradient_is_that_of_the_published_form_with_its_detached_weight(known):
    user, item, log_q, items = a_sampled_batch(3)
    drop = known_mask(items) & known
    points = [one.clone().requires_grad_() for one in (user, item, torch.tensor(0.3, dtype=torch.float64))]
    ours = corrected_log_q_softmax(
        points[0], points[1], temperature=points[2], log_q=log_q, candidates=items, drop=drop
    )
    published = as_published(*points, log_q, items, drop)
    for one, other in zip(torch.autograd.grad(ours, points), torch.autograd.grad(published, points), strict=True):
        close(one, other)


def test_the_gradient_of_the_corrected_form_equals_finite_differences_of_its_naive_loop():
    user, item, log_q, items = a_sampled_batch(3)
    options = {"log_q": log_q.tolist(), "items": items.tolist(), "known": KNOWN}
    point = item.clone().requires_grad_()
    loss = corrected_log_q_softmax(user, point, temperature=0.3, log_q=log_q, candidates=items, drop=known_mask(items))
    expected = finite_differences(lambda v: naive_corrected_loss(user.numpy(), v, 0.3, **options), item.numpy())
    close(torch.autograd.grad(loss, point)[0], expected, 1e-8)


def test_the_whole_catalogue_drawn_once_at_an_even_q_is_the_full_softmax():
    """Nothing is left to chance then: the loss and its gradient are those of the full softmax, to the last digit."""
    user, item, _, _ = a_batch(3)
    point = item.clone().requires_grad_()
    even = torch.full((9,), math.log(1 / 9), dtype=torch.float64)
    truth = full_softmax(user, point, torch.arange(6), temperature=0.2)
    found = corrected_log_q_softmax(user, point, temperature=0.2, log_q=even, candidates=torch.arange(9))
    close(found, truth)
    close(torch.autograd.grad(found, point)[0], torch.autograd.grad(truth, point)[0])


def test_the_corrected_form_needs_a_q_that_sums_to_one():
    """A constant added to log q weighs the positive against all others; the classic form cannot tell."""
    user, item, log_q, items = a_sampled_batch(3)
    one, other = (
        corrected_log_q_softmax(user, item, temperature=0.2, log_q=q, candidates=items) for q in (log_q, log_q - 1)
    )
    # Every other item seems e times as numerous, and less of it the positive's own: the loss rises by almost 1.
    assert 0.5 < other - one < 1.5


def test_each_draw_twice_changes_nothing():
    user, item, log_q, items = a_sampled_batch(3)
    once, twice = torch.tensor([0, 6, 7, 8]), torch.tensor([0, 6, 7, 8, 6, 7, 8])  # row 0, and its draws
    one, other = (
        corrected_log_q_softmax(user[:1], item[c], temperature=0.2, log_q=log_q[c], candidates=items[c])
        for c in (once, twice)
    )
    close(one, other)


def test_the_positive_drawn_again_changes_nothing():
    user, item, log_q, items = a_sampled_batch(3)
    again = torch.tensor([0, 6, 7, 8, 2, 5])  # columns 2 and 5 hold item 5, that of row 0
    few, more = (
        corrected_log_q_softmax(user[:1], item[c], temperature=0.2, log_q=log_q[c], candidates=items[c])
        for c in (again[:4], again)
    )
    close(few, more)


def test_a_permuted_batch_changes_nothing_in_the_corrected_form():
    user, item, log_q, items = a_sampled_batch(3)
    rows = torch.tensor([3, 0, 5, 1, 4, 2])
    columns = torch.cat([rows, torch.tensor([8, 6, 7])])
    one = corrected_log_q_softmax(user, item, temperature=0.1, log_q=log_q, candidates=items)
    other = corrected_log_q_softmax(
        user[rows], item[columns], temperature=0.1, log_q=log_q[columns], candidates=items[columns]
    )
    close(one, other)


def test_only_the_diagonal_differs_from_the_classic_correction():
    user, item, log_q, items = a_sampled_batch(3)
    logits = scores(user, item)
    moved = correct_drawn(logits, log_q, same_item_mask(items, 6)) - correct(logits, log_q)
    # row 0 holds item 5 (q = .3), as do columns 2 and 5: n = 9 - 3. It gets ln(6 / .7) in the place of -ln .3.
    close(moved[0, 0], math.log(6 / 0.7) + math.log(0.3))
    assert moved.masked_fill(torch.eye(6, 9, dtype=torch.bool), 0.0).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_very_cold_temperature_stays_finite_in_the_corrected_form(dtype):
    two, log_q = torch.eye(2, dtype=dtype), torch.tensor([0.5, 0.5], dtype=dtype).log()
    options = {"temperature": 0.01, "log_q": log_q, "candidates": torch.arange(2)}
    # one draw of chance 1/2 of which 1/2 is left: weight 1, so ln(1 + e^100) = 100, and the other way round 4e-44
    assert corrected_log_q_softmax(two, two.flip(0), **options).item() == pytest.approx(100)
    assert corrected_log_q_softmax(two, two, **options).item() == pytest.approx(0, abs=1e-30)


def test_a_row_without_negatives_costs_nothing_in_the_corrected_form():
    user, item, log_q, _ = a_sampled_batch(0)
    user.requires_grad_()
    same = torch.full((6,), 5)
    loss = corrected_log_q_softmax(user, item, temperature=0.1, log_q=log_q[:1].expand(6), candidates=same)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, user)
    assert gradient.eq(0).all()


# --- Gradients --------------------------------------------------------------------------------------------------------


def test_gradient_equals_finite_differences_of_the_naive_loop():
    user, item, log_q, items = a_batch(3)
    options = {"log_q": log_q.tolist(), "strength": 1.3, "items": items.tolist(), "same_item": True, "known": KNOWN}
    temperature = torch.tensor(0.3, dtype=torch.float64)
    points = [one.clone().requires_grad_() for one in (user, item, temperature)]
    in_batch_softmax(
        points[0], points[1], temperature=points[2], log_q=log_q, log_q_strength=1.3, drop=drop_of(items, True, True)
    ).backward()
    by_differences = [
        finite_differences(lambda u: naive_loss(u, item.numpy(), 0.3, **options), user.numpy()),
        finite_differences(lambda v: naive_loss(user.numpy(), v, 0.3, **options), item.numpy()),
        finite_differences(lambda t: naive_loss(user.numpy(), item.numpy(), float(t), **options), 0.3),
    ]
    for point, expected in zip(points, by_differences, strict=True):
        close(point.grad, expected, 1e-8)


@pytest.mark.parametrize(("same_item", "known"), [(False, False), (True, True)])
def test_gradcheck(same_item, known):
    user, item, log_q, items = a_batch(3)
    drop = drop_of(items, same_item, known)

    def loss(user, item, temperature, log_q):
        return in_batch_softmax(user, item, temperature=temperature, log_q=log_q, drop=drop)

    points = (user, item, torch.tensor(0.3, dtype=torch.float64), log_q)
    assert torch.autograd.gradcheck(loss, [point.clone().requires_grad_() for point in points])


# --- What it estimates ------------------------------------------------------------------------------------------------


def average_gradients(strengths, temperature, batch=256, draws=100):
    """The gradient over 40 items: of the full softmax, and averaged over batches for each strength of log q.

    Users and items are drawn independently, items in proportion to 1 / rank, so the full softmax has a gradient in
    closed form: for each user, the probability of each item less its share.
    """
    generator = torch.Generator().manual_seed(0)
    share = 1 / torch.arange(1, 41, dtype=torch.float64)
    share /= share.sum()
    user = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    item = (0.5 * torch.randn(40, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    probability = torch.softmax(user @ item.detach().T / temperature, dim=1)
    full = (probability - share).T @ user / 5 / temperature
    found = {strength: torch.zeros_like(full) for strength in strengths}
    for _ in range(draws):
        who = torch.randint(5, (batch,), generator=generator)
        what = torch.multinomial(share, batch, replacement=True, generator=generator)
        for strength, total in found.items():
            loss = in_batch_softmax(
                user[who], item[what], temperature=temperature, log_q=share.log()[what], log_q_strength=strength
            )
            total += torch.autograd.grad(loss, item)[0] / draws
    return full, found


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_q_makes_the_batch_an_estimate_of_the_full_softmax(temperature):
    full, found = average_gradients([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0], temperature)
    error = {strength: ((one - full).norm() / full.norm()).item() for strength, one in found.items()}
    assert error[1.0] == min(error.values()), error
    assert error[1.0] < error[0.0] / 4, error
    # The order: a correction before T = .5 is one of strength 2 after it.
    assert error[1.0] < error[2.0] / 2, error


def draws_forgotten(user, item, temperature, log_q, same):
    """The positive uncorrected, and the sum of the negatives in the place of their mean."""
    logits = scores(user, item) / temperature
    logits = correct(logits, log_q).diagonal_scatter(logits.diagonal())
    return softmax_loss(apply_mask(logits, same))


def test_only_the_derived_losses_tend_to_the_full_softmax():
    """Where people choose what the model rates highly, so that it matters what a loss makes of the positive.

    Also caught: the sign of log q, a log q before the temperature, and a sum without the number of draws, each of which
    a public library or a tutorial had.
    """
    generator = torch.Generator().manual_seed(0)
    user, item = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (10, 40))
    temperature, popular = 1.5, -torch.arange(1.0, 41, dtype=torch.float64).log()
    chance = torch.softmax(user @ item.T / temperature + popular, dim=1) / 10
    share, item = chance.sum(0), item.requires_grad_()
    probability = torch.softmax(user @ item.detach().T / temperature, dim=1)
    full = (probability / 10 - chance).T @ user / temperature

    def losses_of(who, what):
        u, v, log_q, same = user[who], item[what], share.log()[what], same_item_mask(what)
        classic = {"temperature": temperature, "log_q": log_q}
        yield "corrected", corrected_log_q_softmax(u, v, **classic, candidates=what)
        yield "classic", in_batch_softmax(u, v, **classic)
        yield "classic, masked", in_batch_softmax(u, v, **classic, drop=same)
        yield "none", in_batch_softmax(u, v, temperature=temperature)
        yield "+ log q", in_batch_softmax(u, v, **classic, log_q_strength=-1.0)
        yield "(s - log q) / T", softmax_loss(scale(correct(scores(u, v), log_q), temperature))
        yield "draws forgotten", draws_forgotten(u, v, temperature, log_q, same)

    error = {}
    for _ in range(60):
        drawn = torch.multinomial(chance.flatten(), 512, replacement=True, generator=generator)
        who, what = drawn // 40, drawn % 40
        exact = torch.autograd.grad(full_softmax(user[who], item, what, temperature=temperature), item)[0]
        for name, loss in losses_of(who, what):
            error[name] = error.get(name, 0) + (torch.autograd.grad(loss, item, retain_graph=True)[0] - exact) / 60
    error = {name: (total.norm() / full.norm()).item() for name, total in error.items()}
    assert max(error.pop("corrected"), error.pop("classic")) < 0.06, error
    assert min(error.values()) > 0.12, error
    assert len(error) == 5


# --- Extremes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_very_cold_temperature_stays_finite(dtype):
    """T = .01 makes logits of up to 100, and e^100 is more than float32 holds."""
    two = torch.eye(2, dtype=dtype)
    # every positive has the score 0, every negative 1: ln(1 + e^100) = 100
    assert in_batch_softmax(two, two.flip(0), temperature=0.01).item() == pytest.approx(100)
    # the other way round ln(1 + e^-100) = 4e-44
    assert in_batch_softmax(two, two, temperature=0.01).item() == pytest.approx(0, abs=1e-30)
    blocked = partial(blocked_softmax, temperature=0.01, candidates=torch.arange(2))
    assert blocked(two, two.flip(0), log_q=torch.zeros(2, dtype=dtype)).item() == pytest.approx(100)
    assert blocked(two, two, log_q=torch.zeros(2, dtype=dtype)).item() == pytest.approx(0, abs=1e-30)
    # row 0: ln(1 + e^100 q_0 / q_1), row 1 the reverse; q_0 = e^-20 q_1: 80 and 120
    log_q = torch.tensor([-20.0, 0.0], dtype=dtype)
    assert in_batch_softmax(two, two.flip(0), temperature=0.01, log_q=log_q).item() == pytest.approx(100)
    assert in_batch_softmax(two[:1], two.flip(0), temperature=0.01, log_q=log_q).item() == pytest.approx(80)
    assert blocked(two, two.flip(0), log_q=log_q).item() == pytest.approx(100)
    assert blocked(two[:1], two.flip(0), log_q=log_q).item() == pytest.approx(80)


def test_one_row_has_no_negative_and_costs_nothing():
    assert in_batch_softmax(torch.ones(1, 3), torch.ones(1, 3), temperature=0.1).item() == 0


def test_a_row_whose_negatives_are_all_masked_costs_nothing():
    user, item, log_q, _ = a_batch(0)
    user.requires_grad_()
    loss = in_batch_softmax(user, item, temperature=0.1, log_q=log_q, drop=~torch.eye(6, dtype=torch.bool))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, user)
    assert gradient.eq(0).all()


# --- A block at a time ------------------------------------------------------------------------------------------------


def a_large_batch(extra, length=1.0, dtype=torch.float64):
    """13 rows over 8 items with lists of known ones, some of items outside the batch, and vectors of this length."""
    generator = torch.Generator().manual_seed(extra)
    sides = torch.randn(26 + extra, 5, generator=generator, dtype=torch.float64)
    user, item = (length * torch.nn.functional.normalize(sides, dim=1)).to(dtype).split([13, 13 + extra])
    log_q = (-20 * torch.rand(13 + extra, generator=generator, dtype=torch.float64) - 0.01).to(dtype)
    items = torch.randint(0, 8, (13 + extra,), generator=generator)
    known = (
        torch.randint(0, 13, (40,), generator=generator).sort().values,
        torch.randint(0, 11, (40,), generator=generator),
    )
    return user, item, log_q, items, known


def whole_table(user, item, temperature, log_q, strength, items, same_item, known, corrected):
    """The same loss by the functions that hold the whole table, which naive loops are compared with above."""
    masks = [same_item_mask(items, len(user))] if same_item else []
    masks += [known_positives_mask(items, *known, len(user))] if known else []
    drop = torch.stack(masks).any(0) if masks else None
    if corrected:
        return corrected_log_q_softmax(user, item, temperature=temperature, log_q=log_q, candidates=items, drop=drop)
    return in_batch_softmax(user, item, temperature=temperature, log_q=log_q, log_q_strength=strength, drop=drop)


def by_blocks(user, item, temperature, log_q, strength, items, same_item, known, corrected):
    return blocked_softmax(
        user, item, temperature=temperature, log_q=log_q, log_q_strength=strength, candidates=items,
        same_item=same_item, known=known, corrected=corrected,
    )  # fmt: skip


def with_gradients(loss, user, item, temperature, *options):
    points = [one.clone().requires_grad_() for one in (user, item, torch.tensor(temperature, dtype=user.dtype))]
    value = loss(*points, *options)
    return value.detach(), *torch.autograd.grad(value, points)


def blocks_of(rows, user, item, monkeypatch):
    monkeypatch.setattr(losses, "BLOCK_BYTES", rows * len(item) * user.element_size())


@pytest.mark.parametrize("rows", [1, 4, 13, 100])  # 4: the last of four blocks has one row
@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize(("temperature", "length"), [(1.0, 1.0), (0.07, 1.0), (0.01, 30.0)])
def test_a_block_at_a_time_is_the_whole_table(rows, extra, temperature, length, monkeypatch):
    """Loss and gradients of users, items and temperature, with every combination of corrections and masks."""
    user, item, log_q, items, known = a_large_batch(extra, length)
    blocks_of(rows, user, item, monkeypatch)
    forms = [*itertools.product([0.0, 1.0, 1.3], [False, True], [None, known], [False])]
    for strength, *rest in [*forms, (1.0, True, None, True), (1.0, True, known, True)]:
        options = (temperature, log_q, strength, items, *rest)
        found, expected = (with_gradients(loss, user, item, *options) for loss in (by_blocks, whole_table))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_log_q_that_overflows_alone():
    """Row 0: ln(1 + e^(100 - .1)), row 1: ln(1 + e^(.1 - 100)); e^100 is more than float32 holds."""
    zeros = torch.zeros(2, 3)
    loss = blocked_softmax(
        zeros, zeros, temperature=1.0, log_q=torch.tensor([-0.1, -100.0]), candidates=torch.arange(2)
    )
    assert loss.item() == pytest.approx(99.9 / 2)


def test_a_dropped_column_far_above_the_rest():
    """Its logit is 300 above the others', and would leave nothing of them: row 0 has the positive and one negative."""
    user, item = torch.ones(1, 1), torch.tensor([[0.0], [0.0], [300.0]])
    options = {"temperature": 1.0, "log_q": torch.zeros(3), "candidates": torch.arange(3)}
    loss = blocked_softmax(user, item, known=(torch.tensor([0]), torch.tensor([2])), **options)
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("temperature", "length"), [(0.15, 1.0), (0.01, 1.0), (0.01, 30.0)])
def test_single_precision_is_as_good_by_blocks(temperature, length, monkeypatch):
    def error(loss, dtype):
        user, item, log_q, items, known = a_large_batch(3, length, dtype)
        return with_gradients(loss, user, item, temperature, log_q, 1.0, items, True, known, False)

    blocks_of(4, *a_large_batch(3, dtype=torch.float32)[:2], monkeypatch)
    exact = error(whole_table, torch.float64)
    found, usual = ([(a - b).abs().max() for a, b in zip(error(loss, torch.float32), exact, strict=True)]
                    for loss in (by_blocks, whole_table))  # fmt: skip
    for one, other, size in zip(found, usual, exact, strict=True):
        assert one <= 3 * other + 1e-6 * size.abs().max()


def test_half_precision_on_a_cpu_calculates_in_single():
    user, item, log_q, items, known = a_large_batch(3, dtype=torch.bfloat16)
    options = (0.5, log_q.float(), 1.0, items, True, known, False)
    found = with_gradients(by_blocks, user, item, *options)
    expected = with_gradients(by_blocks, (user / 0.5).float() * 0.5, item.float(), *options)
    assert [one.dtype for one in found] == [torch.float32] + 3 * [torch.bfloat16]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=2**-7, atol=1e-3)


def test_gradcheck_by_blocks(monkeypatch):
    user, item, log_q, items, known = a_large_batch(3)
    blocks_of(4, user, item, monkeypatch)
    points = (user, item, torch.tensor(0.3, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda *points: by_blocks(*points, log_q, 1.0, items, True, known, False),
        [point.clone().requires_grad_() for point in points],
    )


def test_a_row_without_negatives_costs_nothing_by_blocks():
    user, item, log_q, _, _ = a_large_batch(0)
    options = (0.1, log_q[:1].expand(13), 1.0, torch.full((13,), 5), True, None)
    for corrected in (False, True):
        loss, gradient, *_ = with_gradients(by_blocks, user, item, *options, corrected)
        assert loss == 0
        assert gradient.eq(0).all()


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.entries = max(self.entries, one.numel())
        return made


def test_never_a_table_of_batch_and_candidates(monkeypatch):
    """With half of the cells masked; the whole table for comparison."""
    generator = torch.Generator().manual_seed(0)
    user, item = torch.randn(2, 512, 4, generator=generator).requires_grad_().unbind()
    items = torch.randint(0, 64, (512,), generator=generator)
    known = torch.arange(512).repeat_interleave(32), torch.randint(0, 64, (512 * 32,), generator=generator)
    blocks_of(8, user, item, monkeypatch)
    largest = {}
    for loss in (by_blocks, whole_table):
        with Largest() as mode:
            loss(user, item, 0.1, torch.zeros(512), 1.0, items, True, known, False).backward()
        largest[loss] = mode.entries
    assert largest[whole_table] >= 512 * 512
    assert largest[by_blocks] <= max(len(known[0]) + 64, 8 * 512 * 4) < 512 * 512 / 10


# --- Masks, by hand ---------------------------------------------------------------------------------------------------


def test_same_item_by_hand():
    # items 5 2 5 0: rows 0 and 2 share item 5, and the third extra candidate is 2 again
    made = same_item_mask(torch.tensor([5, 2, 5, 0, 2]), 4)
    assert made.int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_known_positives_by_hand():
    # row 0 has item 5 and knows 5, 2, 11: column 1 goes; column 2 is its own item, left to the other mask
    # row 1 has item 2 and knows only 2: nothing goes
    # row 2 has item 5 and knows 0 and 2, not 5: columns 1, 3, 4 go
    # row 3 has item 0 and knows nothing
    row, item = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([5, 2, 11, 2, 0, 2])
    made = known_positives_mask(torch.tensor([5, 2, 5, 0, 2]), row, item, 4)
    assert made.int().tolist() == [[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_known_positives_in_any_order_and_twice():
    row, item = torch.tensor([2, 0, 1, 0, 2, 0, 0]), torch.tensor([2, 11, 2, 2, 0, 5, 2])
    made = known_positives_mask(torch.tensor([5, 2, 5, 0, 2]), row, item, 4)
    assert made.int().tolist() == [[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_no_known_positives_mask_nothing():
    none = torch.zeros(0, dtype=torch.int64)
    assert not known_positives_mask(torch.tensor([5, 2]), none, none).any()


@pytest.mark.parametrize("n_rows", [None, 4])
def test_masks_equal_their_definition_and_never_drop_the_positive(n_rows):
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        items = torch.randint(0, 6, (7,), generator=generator)
        rows = len(items) if n_rows is None else n_rows
        known_row = torch.randint(0, rows, (12,), generator=generator)
        known_item = torch.randint(0, 9, (12,), generator=generator)
        same, known = same_item_mask(items, n_rows), known_positives_mask(items, known_row, known_item, n_rows)
        liked = [set(known_item[known_row == row].tolist()) for row in range(rows)]
        for row, column in itertools.product(range(rows), range(7)):
            other, own = items[column].item(), items[row].item()
            assert same[row, column] == (other == own and row != column)
            assert known[row, column] == (other != own and other in liked[row])
        assert not (same | known).diagonal().any()


# --- What is refused --------------------------------------------------------------------------------------------------


NOT_ENOUGH = (
    "needed: the same dimension on both sides, and at least one candidate a row: row i's positive is candidate i"
)

NO_CATALOGUE = "needed: the same dimension on both sides, and positives from 0 to the number of items - 1"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: scores(torch.zeros(3, 2), torch.zeros(2, 2)),
            "user embeddings (3, 2), item embeddings (2, 2)\n" + NOT_ENOUGH,
        ),
        (
            lambda: unwrap(scores)(torch.zeros(2, 3), torch.zeros(2, 2)),
            "user embeddings (2, 3), item embeddings (2, 2)\n" + NOT_ENOUGH,
        ),
        (
            lambda: unwrap(full_softmax)(torch.zeros(2, 3), torch.zeros(4, 2), torch.tensor([0, 3]), temperature=1.0),
            "user embeddings (2, 3), item embeddings (4, 2), 0 positives outside the catalogue\n" + NO_CATALOGUE,
        ),
        (
            lambda: full_softmax(torch.zeros(3, 2), torch.zeros(4, 2), torch.tensor([0, 4, -1]), temperature=1.0),
            "user embeddings (3, 2), item embeddings (4, 2), 2 positives outside the catalogue\n" + NO_CATALOGUE,
        ),
        (
            lambda: unwrap(blocked_softmax)(
                torch.zeros(3, 2), torch.zeros(2, 2), temperature=1.0, log_q=torch.zeros(2), candidates=torch.arange(2)
            ),
            "user embeddings (3, 2), item embeddings (2, 2)\n" + NOT_ENOUGH,
        ),
        (
            lambda: blocked_softmax(
                *torch.zeros(2, 2, 2),
                temperature=1.0,
                log_q=torch.zeros(2),
                candidates=torch.arange(2),
                known=(torch.tensor([1, 0]), torch.tensor([0, 1])),
            ),
            "known positives in any order\nneeded: pairs sorted by row",
        ),
        (lambda: scale(torch.zeros(1, 1), 0.0), "temperature = 0.0\nneeded: a temperature above 0"),
        (lambda: scale(torch.zeros(1, 1), -0.5), "temperature = -0.5\nneeded: a temperature above 0"),
        (lambda: scale(torch.zeros(1, 1), math.nan), "temperature = nan\nneeded: a temperature above 0"),
        (
            lambda: unwrap(correct)(torch.zeros(2, 3), torch.zeros(2)),
            "log q of shape (2,)\nneeded: one value for each of 3 candidates",
        ),
        (
            lambda: unwrap(correct)(torch.zeros(2, 3), torch.zeros(2, 3)),
            "log q of shape (2, 3)\nneeded: one value for each of 3 candidates",
        ),
        (
            lambda: unwrap(apply_mask)(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool)),
            "a mask of shape (2, 2)\nneeded: the shape of the logits, (2, 3)",
        ),
        (
            lambda: apply_mask(torch.zeros(2, 3), torch.tensor([[False, False, True], [False, True, False]])),
            "a mask that drops the positive of row 1\nneeded: False on the diagonal",
        ),
    ],
)
def test_what_is_refused_and_how(call, told):
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == told


def test_shapes_are_checked_at_run_time_in_tests():
    with pytest.raises(Exception, match="log_q") as caught:
        in_batch_softmax(torch.zeros(2, 2), torch.zeros(2, 2), temperature=1.0, log_q=torch.zeros(3))
    assert type(caught.value).__name__ == "TypeCheckError"


def test_nothing_is_changed_in_place():
    user, item, log_q, items = a_batch(3)
    drop = drop_of(items, True, True)
    before = [one.clone() for one in (user, item, log_q, drop)]
    in_batch_softmax(user, item, temperature=0.1, log_q=log_q, drop=drop)
    corrected_log_q_softmax(user, item, temperature=0.1, log_q=log_q, candidates=items, drop=drop)
    options = {"log_q": log_q, "candidates": items, "same_item": True, "known": known_pairs(KNOWN)}
    blocked_softmax(user, item, temperature=0.1, **options)
    assert all(torch.equal(one, then) for one, then in zip((user, item, log_q, drop), before, strict=True))


def test_the_file_can_be_copied_out():
    """It knows torch, jaxtyping and our errors, and nothing else beside Python's own library."""
    with open(losses.__file__) as file:
        lines = {line.split()[1].split(".")[0] for line in file if line.startswith(("import ", "from "))}
    assert sorted(lines - sys.stdlib_module_names) == ["jaxtyping", "torch", "twotower_lib"]
