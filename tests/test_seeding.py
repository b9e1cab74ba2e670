"""Draws that do not disturb each other."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from twotower_lib.seeding import child, seeded, torch_child


def draws(generator):
    return generator.integers(0, 2**62, 20).tolist()


def test_a_generator_is_a_function_of_its_seed_name_and_numbers():
    assert draws(child(7, "split", 2, 3)) == draws(child(7, "split", 2, 3))


def test_different_seeds_names_and_numbers_give_different_draws():
    keys = [(0, "a"), (1, "a"), (0, "b"), (1, "b"), (2**40, "a")]
    keys += [(0, "a", 1), (0, "a", 2), (0, "a", 1, 2), (0, "a", 2, 1)]
    assert len({tuple(draws(child(*key))) for key in keys}) == len(keys)
    assert len({torch_child(*key).initial_seed() for key in keys}) == len(keys)


def test_a_number_of_zero_is_a_number():
    """NumPy fills a short entropy up with zeros: SeedSequence([1]) is SeedSequence([1, 0])."""
    assert draws(child(0, "a")) != draws(child(0, "a", 0))


def test_draws_of_different_children_are_uncorrelated():
    many = np.array([child(seed, name, n).normal(size=400) for seed in range(3) for name in "ab" for n in range(5)])
    correlations = np.corrcoef(many)[np.triu_indices(len(many), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(400)


def test_one_child_does_not_disturb_another():
    one, other = child(0, "a"), child(0, "b")
    alone = draws(child(0, "b"))
    draws(one)
    assert draws(other) == alone


@pytest.mark.parametrize(
    "make", [lambda: draws(child(0, "a")), lambda: torch.rand(9, generator=torch_child(0, "a")).tolist()]
)
def test_the_global_generators_are_neither_read_nor_moved(make):
    seeded(1)
    one, moved = make(), [random.random(), np.random.rand(), torch.rand(()).item()]
    seeded(1)
    still = [random.random(), np.random.rand(), torch.rand(()).item()]
    seeded(2)
    assert make() == one
    assert moved == still


def test_a_child_is_the_same_on_every_machine():
    """Python's own hash of a text differs between processes; these numbers are from another one."""
    assert child(0, "split").integers(1000, size=4).tolist() == [267, 526, 233, 490]
    assert torch.randint(1000, (4,), generator=torch_child(0, "split")).tolist() == [131, 272, 634, 641]


def test_seeded_repeats_all_three_global_generators_and_sets_the_threads():
    def three():
        return random.random(), np.random.rand(), torch.rand(()).item()

    seeded(5)
    one = three()
    seeded(6)
    other = three()
    seeded(5)
    assert three() == one
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert torch.get_num_threads() == 1


def test_a_seed_may_be_longer_than_numpys_global_one():
    seeded(2**40 + 3)
    one = np.random.rand()
    seeded(2**40 + 3)
    assert np.random.rand() == one
