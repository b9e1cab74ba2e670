"""What is compared on MovieLens 100K, and the grid that each side was tuned on.

A side is a baseline or a two-tower; every one has a grid of 12 settings, written out here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from twotower_lib.baselines import BaselineSettings, EASESettings, IALSSettings, ItemKNNSettings
from twotower_lib.recipe import Recipe
from twotower_lib.split import SplitSettings
from twotower_lib.towers import HeadSettings, TowerSettings
from twotower_lib.training import LossSettings, TrainSettings

PROTOCOLS = ("random", "last")

BASELINE_GRIDS = {
    "item-knn": [
        BaselineSettings(item_knn=ItemKNNSettings(neighbours=neighbours, shrink=shrink))
        for neighbours, shrink in product((20, 50, 100, 200), (0.0, 10.0, 50.0))
    ],
    "ease": [
        BaselineSettings(ease=EASESettings(regularisation=float(regularisation)))
        for regularisation in (50, 75, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000)
    ],
    "ials": [
        BaselineSettings(ials=IALSSettings(alpha0=alpha0, regularisation=regularisation))
        for alpha0, regularisation in product((0.03, 0.1, 0.3), (0.001, 0.003, 0.01, 0.03))
    ],
}

HISTORY = TowerSettings()
TOWER_SIDES = {
    "id towers": (TowerSettings(user=("id",), user_head=HeadSettings()), LossSettings()),
    "history tower": (HISTORY, LossSettings()),
    "without log q": (HISTORY, LossSettings(log_q=0.0)),
    "without the same-item mask": (HISTORY, LossSettings(same_item=False)),
    "without the known-positives mask": (HISTORY, LossSettings(known_positives=False)),
    "without the item bias": (replace(HISTORY, item_bias=False), LossSettings()),
}
