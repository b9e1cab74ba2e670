"""The exported artifact: towers, vocabularies, catalogue, vectors and index as one folder, and back to a Retriever.

Towers and index can't drift apart: they lie in one folder under one manifest (`storage.py`), which also states the
metric of the index. What a loaded bundle answers is what the towers that were evaluated answer.

    towers.safetensors    weights of both towers
    arrays.safetensors    vocabularies of the features, the users' known items
    vectors.safetensors   the item embeddings, row i for item row i
    index.faiss           the index over them
    catalogue.json        item ids, titles, years, categories; user ids
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_model, save_model

from twotower_lib.data import Catalogue, Ids, Rows
from twotower_lib.features import Features
from twotower_lib.index import FLAT, FaissIndex, IndexSettings, recall_against_exact
from twotower_lib.ranking import Queries, Ragged, Recommendations
from twotower_lib.retriever import Retriever, exact_retriever
from twotower_lib.storage import open_folder, write_folder
from twotower_lib.towers import HeadSettings, TowerSettings, TwoTower, embed_catalogue, embed_queries

BUNDLE = "bundle"

RECALL_USERS = 1000
"""Users, at most, on whose queries the recall of an index is measured."""


@dataclass(frozen=True)
class Result:
    """One line of an answer."""

    rank: int
    item: str
    title: str
    score: float


@dataclass(frozen=True)
class Bundle:
    """A retriever that knows names: user ids and item ids in, item ids and titles out."""

    retriever: Retriever
    catalogue: Catalogue
    users: Ids
    seen: Ragged
    """For each user row the item rows known at export, oldest first."""
    facts: Mapping[str, Any]
    """Where it comes from: the data's name and hash, the protocol, the run's settings."""

    def query(self, user: str) -> Queries:
        """The query of a known user: their row, and the items known of them as the history.

        Raises:
            UnknownIdError: nobody has this id.
        """
        row = np.array([self.users.row(user)])
        return Queries(row, self.seen.take(row))

    def for_user(self, user: str, k: int) -> list[Result]:
        """The k best items for a known user, without those they know.

        Raises:
            UnknownIdError: nobody has this id.
        """
        return self._new_to(self.query(user), k)

    def for_history(self, items: Sequence[str], k: int) -> list[Result]:
        """The k best items for a person known only by these item ids, oldest first, without these items.

        Raises:
            UnknownIdError: an item has no such id.
        """
        return self._new_to(Queries.of_history(self.catalogue.items.rows(items)), k)

    def similar(self, item: str, k: int) -> list[Result]:
        """The k items closest to an item.

        Raises:
            UnknownIdError: no item has this id.
        """
        return self.results(self.retriever.similar(self.catalogue.items.rows([item]), k))

    def index_recall(self, k: int = 10) -> float:
        """Recall@k of the index against exact search, over up to `RECALL_USERS` users, without what they know."""
        known = np.flatnonzero(self.seen.lengths)
        users = known[np.linspace(0, len(known) - 1, min(len(known), RECALL_USERS)).astype(np.int64)]
        asked = Queries(users, self.seen.take(users))
        towers, features, index = self.retriever.towers, self.retriever.features, self.retriever.index
        exact = exact_retriever(towers, features).index
        return recall_against_exact(index, exact, embed_queries(towers, features, asked), k, asked.history)

    def history_of(self, user: str) -> Rows:
        """The item rows known of a user, oldest first."""
        return self.seen[self.users.row(user)]

    def _new_to(self, query: Queries, k: int) -> list[Result]:
        return self.results(self.retriever.recommend(query, k, query.history))

    def results(self, found: Recommendations) -> list[Result]:
        """The answer to one query with names; places that are not filled are left out."""
        pairs = zip(found.items[0], found.scores[0], strict=True)
        return [
            Result(rank, self.catalogue.items[item], self.catalogue.titles[item], float(score))
            for rank, (item, score) in enumerate(pairs, 1)
            if item >= 0
        ]


def save(
    path: Path,
    towers: TwoTower,
    features: Features,
    catalogue: Catalogue,
    users: Ids,
    seen: Ragged,
    facts: Mapping[str, Any],
    force: bool = False,
    settings: IndexSettings = FLAT,
) -> None:
    """Write a bundle as one act, with an index of these settings; see `storage.write_folder`."""
    vectors = embed_catalogue(towers, features)
    index = FaissIndex(vectors, settings)
    described = {**facts, "metric": index.metric, "index": asdict(index.settings)}
    described |= {"towers": asdict(towers.settings), "features": _scalars(features)}
    with write_folder(path, BUNDLE, described, force) as work:
        save_model(towers, str(work / "towers.safetensors"))
        save_file(_arrays(features, seen), work / "arrays.safetensors")
        save_file({"items": vectors}, work / "vectors.safetensors")
        index.save(work / "index.faiss")
        names: dict[str, Any] = {"users": users.names, "items": catalogue.items.names, "titles": catalogue.titles}
        names |= {"years": catalogue.years, "categories": catalogue.categories}
        (work / "catalogue.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


def load(path: Path | str) -> Bundle:
    """Verify and read a bundle.

    Raises:
        ArtifactError: the folder is missing, damaged (the file is named) or of another kind, or its index has another
            metric than its towers.
    """
    folder = open_folder(Path(path), BUNDLE)
    names = json.loads(folder.file("catalogue.json").read_text(encoding="utf-8"))
    arrays = load_file(folder.file("arrays.safetensors"))
    features = _features(arrays, folder.facts["features"])
    towers = TwoTower(features, tower_settings(folder.facts["towers"]))
    load_model(towers, str(folder.file("towers.safetensors")))
    index = FaissIndex.load(folder.file("index.faiss"), folder.facts["metric"])
    return Bundle(
        retriever=Retriever(towers.eval(), features, index),
        catalogue=Catalogue(
            items=Ids("item", tuple(names["items"])),
            titles=tuple(names["titles"]),
            years=tuple(names["years"]),
            categories=tuple(tuple(one) for one in names["categories"]),
        ),
        users=Ids("user", tuple(names["users"])),
        seen=Ragged(arrays["seen.values"], arrays["seen.offsets"]),
        facts=folder.facts,
    )


def tower_settings(plain: Mapping[str, Any]) -> TowerSettings:
    """Settings from JSON values."""
    heads = {side: HeadSettings(**plain[side]) for side in ("user_head", "item_head")}
    return TowerSettings(**{**plain, **heads, "user": tuple(plain["user"]), "item": tuple(plain["item"])})


def _scalars(features: Features) -> dict[str, int | str]:
    return {name: value for name, value in vars(features).items() if isinstance(value, int | str)}


def _arrays(features: Features, seen: Ragged) -> dict[str, np.ndarray]:
    """Every array of the features and the known items by name; a ragged list becomes two of them."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in {**vars(features), "seen": seen}.items():
        if isinstance(value, Ragged):
            arrays |= {f"{name}.values": value.values, f"{name}.offsets": value.offsets}
        elif isinstance(value, np.ndarray):
            arrays[name] = value
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}


def _features(arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any]) -> Features:
    lists = {name.removesuffix(".values") for name in arrays if name.endswith(".values")} - {"seen"}
    ragged = {name: Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"]) for name in lists}
    plain = {name: value for name, value in arrays.items() if "." not in name}
    fields: dict[str, Any] = {**plain, **ragged, **scalars}
    return Features(**fields)
