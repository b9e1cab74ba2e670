"""Small made-up data that any test may ask for, and one thread.

Shapes are checked at run time: `--jaxtyping-packages` in pyproject.toml puts beartype on the library. A wrong shape is
then a `TypeCheckError` before the library's own check is reached; a test of that check's text takes the bare function,
`inspect.unwrap(scores)`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from twotower_lib.data import Catalogue, Dataset, Ids, Interactions, People

settings.register_profile("house", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("house")

collect_ignore = ["commands.py", "mutants/plugin.py"]  # plugins: collecting their doctests would import them too early
collect_ignore += ["notebooks/closed_network/sitecustomize.py"]  # importing it closes the network for good

N_USERS, N_ITEMS = 24, 30
LONER = 22
"""The user with one event; user 23 has none."""
COLD_ITEM = 29
"""The item that nobody met."""


@pytest.fixture(scope="session")
def events() -> Interactions:
    """Popular and rare items, several events of a user in one second, a user with one event and one with none."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, N_ITEMS)
    pairs = [
        (user, item)
        for user in range(LONER)
        for item in rng.choice(N_ITEMS - 1, size=rng.integers(5, 16), replace=False, p=popularity / popularity.sum())
    ]
    user, item = np.array([*pairs, (LONER, 3)]).T
    time = rng.integers(0, 20, len(user))
    order = np.lexsort((item, time, user))
    return Interactions(user[order], item[order], N_USERS, N_ITEMS, time[order])


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Every third item is a comedy, every second one a drama; only the cold item is a western."""
    names = tuple(f"i{i}" for i in range(N_ITEMS))
    kinds = [(*(("comedy",) if i % 3 == 0 else ()), *(("drama",) if i % 2 == 0 else ())) for i in range(N_ITEMS)]
    kinds[COLD_ITEM] = ("western", "drama")
    return Catalogue(Ids("item", names), names, ("",) * N_ITEMS, tuple(kinds))


@pytest.fixture(scope="session")
def people() -> People:
    """Users of two towns; the town of every fifth user is unknown."""
    towns = tuple("" if u % 5 == 0 else ("Oslo", "Bergen")[u % 2] for u in range(N_USERS))
    return People(Ids("user", tuple(f"u{u}" for u in range(N_USERS))), {"town": towns})


@pytest.fixture(scope="session")
def dataset(events, catalogue, people) -> Dataset:
    return Dataset("made", events, catalogue, people, "")
