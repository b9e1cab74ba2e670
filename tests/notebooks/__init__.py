"""The notebooks as files, read by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "notebooks"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

COURSE = [
    *("00_start", "01_data", "02_split", "03_evaluation", "04_features", "05_towers", "06_losses", "07_batches"),
    *("08_training", "09_mining", "10_embeddings", "11_index", "12_cold_start", "13_serving", "14_scale", "15_museum"),
    "16_beyond",
]
"""All chapters, in order."""

WRITTEN = [
    "00_start",
    "01_data",
    "02_split",
    "03_evaluation",
    "05_towers",
    "06_losses",
    "08_training",
    "11_index",
]
"""The chapters that exist; a new one is added here, and one that is lost is missed."""


def stored(stem: str) -> NotebookNode:
    """The executed notebook of a chapter."""
    return nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
