"""The losses of each epoch on the toy data, for a few recipes: what a change that should not change numbers is held to.

`tests/test_training.py` compares them with `toy_losses.json`. Where a change is meant to move them, write them anew

    python -m tests.golden.toy_losses

and say in the commit why they moved.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from twotower_lib import recipe
from twotower_lib.training import Progress

FILE = Path(__file__).with_suffix(".json")
COMMON = ("data=toy", "model.dim=16", "train.batch_size=128", "train.warmup_steps=5", "train.epochs=3")
RECIPES = {
    "history": (),
    "id": ("model=id",),
    "categories, no log q, one mask": ("model=categories", "loss.log_q=0", "loss.known_positives=false"),
}

Losses = dict[str, list[float]]


def losses(overrides: tuple[str, ...]) -> Losses:
    """The mean loss of each epoch by phase."""
    found: Losses = {"choose": [], "refit": []}

    def note(progress: Progress) -> None:
        found[progress.phase].append(progress.loss)

    with tempfile.TemporaryDirectory() as folder:
        recipe.train(recipe.compose([*COMMON, *overrides]), Path(folder, "run"), report=note)
    return found


if __name__ == "__main__":
    made = {name: losses(overrides) for name, overrides in RECIPES.items()}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
