"""What others published on the same files: R@20 and N@20 over the whole catalogue, train items removed.

Nearly all of these papers choose the epoch, and often the settings, on the test part itself. Where we know the size of
the embeddings it stands with the name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of somebody's table."""

    model: str
    recall: float
    ndcg: float
    source: str


BOARDS = "leaderboards of BARS and RecZoo"
BSL = "BSL (Wu et al. 2024, arXiv 2312.12882), training logs"
SLK = "SL@K (Yang et al. 2025, arXiv 2508.05673), and an independent rerun"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "gowalla": (
        Published("MF-BPR", 0.1627, 0.1378, BOARDS),
        Published("YoutubeDNN (two towers with a history)", 0.1754, 0.1473, BOARDS),
        Published("item-kNN", 0.1570, 0.1214, BOARDS),
        Published("EASE", 0.1765, 0.1467, BOARDS),
        Published("SimpleX", 0.1872, 0.1557, BOARDS),
        Published("LightGCN", 0.1830, 0.1554, BOARDS),
        Published("UltraGCN", 0.1862, 0.1580, BOARDS),
        Published("MF + softmax", 0.1759, 0.1395, BSL),
        Published("MF + BSL, d 64", 0.1882, 0.1584, BSL),
        Published("LightGCN + BSL", 0.1892, 0.1590, BSL),
        Published("BSPM-EM (no training)", 0.1920, 0.1597, BOARDS),
    ),
    "yelp2018": (
        Published("MF-BPR", 0.0576, 0.0468, BOARDS),
        Published("YoutubeDNN (two towers with a history)", 0.0686, 0.0567, BOARDS),
        Published("item-kNN", 0.0639, 0.0531, BOARDS),
        Published("EASE", 0.0657, 0.0552, BOARDS),
        Published("SimpleX", 0.0701, 0.0575, BOARDS),
        Published("LightGCN", 0.0649, 0.0530, BOARDS),
        Published("UltraGCN", 0.0683, 0.0561, BOARDS),
        Published("MF + softmax", 0.0721, 0.0592, BSL),
        Published("MF + BSL, d 64", 0.0725, 0.0599, BSL),
        Published("LightGCN + BSL", 0.0744, 0.0617, BSL),
        Published("BSPM-EM (no training)", 0.0720, 0.0593, BOARDS),
    ),
    "electronic": (
        Published("MF-BPR", 0.0816, 0.0527, SLK),
        Published("MF + softmax", 0.0821, 0.0529, SLK),
        Published("MF + BSL", 0.0834, 0.0530, SLK),
        Published("MF + SL@20", 0.0901, 0.0590, SLK),
    ),
}

AIMS: dict[str, dict[str, tuple[float, float]]] = {
    "gowalla": {"history tower, d 64": (0.1882, 0.1584), "history tower, any d": (0.1930, 0.1600)},
    "yelp2018": {"history tower, d 64": (0.0730, 0.0605), "history tower, any d": (0.0750, 0.0622)},
    "electronic": {"history tower, d 64": (0.0927, 0.0608)},
}
"""R@20 and N@20 that we set out to reach; the test part never chose anything."""
