"""Mutants of the sampled metrics of metrics.py; those of the metrics themselves are in `evaluation_storage.py`."""

from functools import partial

from tests.mutants import mutant

metrics = partial(mutant, file="twotower_lib/metrics.py")

MUTANTS = [
    metrics(
        name="sampled ranks: items below the held-out one counted as above",
        old="1 + generator.hypergeometric(ranks - 1, candidates - ranks, negatives)",
        new="1 + generator.hypergeometric(candidates - ranks, ranks - 1, negatives)",
        test="test_drawn_ranks_come_as_often_as_their_chances",
    ),
    metrics(
        name="sampled ranks: negatives drawn with repetition",
        old="1 + generator.hypergeometric(ranks - 1, candidates - ranks, negatives)",
        new="1 + generator.binomial(negatives, (ranks - 1) / (candidates - 1))",
        test="test_whoever_draws_all_others_has_the_true_rank",
    ),
    metrics(
        name="sampled ranks: the best rank is 0",
        old="return 1 + generator.hypergeometric(",
        new="return generator.hypergeometric(",
        test="test_the_first_and_the_last_stay_so_and_each_has_its_own_catalogue",
    ),
    metrics(
        name="sampled ranks: the held-out item is one of its own negatives",
        old="log_choices(candidates - 1, negatives)",
        new="log_choices(candidates, negatives)",
        test="test_the_chances_are_those_of_all_samples",
    ),
    metrics(
        name="sampled ranks: impossible samples have a chance",
        old="possible = (drawn <= above) & (negatives - drawn <= below)",
        new="possible = drawn <= above",
        test="test_the_chances_are_those_of_all_samples",
    ),
    metrics(
        name="corrected metric: the weights of bias and variance exchanged",
        old="(1 - variance_weight) * chances.T @ chances + variance_weight *",
        new="variance_weight * chances.T @ chances + (1 - variance_weight) *",
        test="test_nothing_near_the_correction_costs_less",
    ),
    metrics(
        name="corrected metric: the squared mean counted twice",
        old="left = (1 - variance_weight) * chances.T @ chances",
        new="left = chances.T @ chances",
        test="test_with_the_whole_variance_it_is_the_mean_over_the_true_ranks_that_a_sampled_rank_can_come_from",
    ),
    metrics(
        name="corrected metric: as many negatives as candidates",
        old="if not 1 <= negatives < candidates:",
        new="if not 1 <= negatives <= candidates:",
        test="test_what_cannot_be_sampled_is_refused",
    ),
]
