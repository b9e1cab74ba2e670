"""Randomness is an argument: every draw comes from a generator that was made here from a seed and a name.

Two parts of a program that use different names never disturb each other: adding a draw to the sampler leaves the
initial weights as they were. A generator is a function of (seed, name, numbers), so that a resumed run needs to store
only where it was, not the state of a generator.
"""

from __future__ import annotations

import random
import zlib

import numpy as np
import torch


def child(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """A NumPy generator of its own for one named purpose.

    Args:
        seed: the seed of the whole run, 0 or larger.
        name: what the draws are for, such as `"split"`.
        numbers: further coordinates, such as the epoch.

    >>> bool(child(1, "split").random() == child(1, "split").random())
    True
    >>> bool(child(1, "split").random() == child(1, "batches").random())
    False
    """
    # SeedSequence takes [1] and [1, 0] for the same, so the number of numbers comes before them.
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), len(numbers), *numbers]))


def torch_child(seed: int, name: str, *numbers: int, device: str = "cpu") -> torch.Generator:
    """A torch generator of its own for one named purpose; see `child`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(int(child(seed, name, *numbers).integers(2**63)))
    return generator


def seeded(seed: int = 0, threads: int = 1) -> None:
    """Seed the global generators (Python, NumPy, torch) and fix the number of torch threads.

    The library's own draws do not use the global generators, with one exception: dropout, which torch draws from its
    global one. Notebooks call this in their first cell. One thread makes sums come out in the same order on every
    run, and small models are faster on one.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
