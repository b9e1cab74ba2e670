"""The two towers: one embeds users, the other items, and they meet only in an inner product.

    user features -> tables, pooled and summed   -> head -> normalise -> [u, 1]
    item features -> tables, averaged and summed -> head -> normalise -> [v, T b]        score = <u, v> + T b

What leaves a tower is what an index stores: normalisation happens inside, and the learned item bias b is one more
dimension, against which the user side holds a constant 1. Divided by the temperature T the score is cos / T + b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from twotower_lib.data import Rows
from twotower_lib.errors import SettingError, nearest, need, need_known
from twotower_lib.features import ITEM_FEATURES, UNKNOWN, USER_FEATURES, Codes, Features
from twotower_lib.ranking import Queries, blocks

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
EMBED_BLOCK = 4096
SHORTEST = 1e-6
"""Embeddings shorter than this are not stretched to length 1: that of a person without a history stays zero."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """The layers between the summed embeddings and the normalisation."""

    depth: int = 0
    """Linear layers; 0 is no head at all, 1 a linear map that starts as the identity."""
    width: int = 128
    """Units of the hidden layers."""
    activation: str = "relu"
    """relu, gelu or tanh, between layers."""
    dropout: float = 0.0
    """Chance that a hidden unit is left out in training."""
    layer_norm: bool = False
    """Whether hidden layers are normalised before their activation."""

    def __post_init__(self) -> None:
        if self.depth < 0 or self.width < 1:
            raise SettingError(f"a head of depth {self.depth} and width {self.width}", "depth >= 0 and width >= 1")
        need_known("activation", self.activation, ACTIVATIONS)
        _check_chance("dropout of a head", self.dropout)


@dataclass(frozen=True, kw_only=True)
class TowerSettings:
    """Both towers."""

    dim: int = 64
    """Size of the embeddings, without the dimension of the item bias."""
    user: tuple[str, ...] = ("history",)
    """Features of the user tower: id, history, categories."""
    item: tuple[str, ...] = ("id",)
    """Features of the item tower: id, categories."""
    user_head: HeadSettings = field(default_factory=lambda: HeadSettings(depth=1))
    item_head: HeadSettings = field(default_factory=HeadSettings)
    normalise: bool = True
    """Whether embeddings have length 1, so that the score is a cosine."""
    temperature: float = 0.15
    """T, by which scores are divided in the loss; the start value where it is learned."""
    learn_temperature: bool = False
    max_scale: float = 100.0
    """The largest 1 / T that learning may reach (Radford et al. 2021, CLIP, section 2.5)."""
    tied: bool = False
    """Whether the history reads the item tower's table of ids instead of its own."""
    item_bias: bool = True
    """Whether each item has a learned bias, which lets a normalised score hold popularity."""
    dropout: float = 0.0
    """Chance that an entry of a summed embedding is left out in training."""
    init_scale: float = 0.3
    """Embedding tables start as N(0, (init_scale / sqrt(dim))^2)."""
    pooling: str = "mean"
    """How a history becomes one vector: mean; recency, newer events weigh more; attention, each item has a weight."""
    half_life: float = 20.0
    """Events after which the weight of recency is halved; the start value, since it is learned."""
    id_dropout: float = 0.0
    """Chance that an id is unknown in training, on each side that reads something beside it: so that the rest learns
    to do without (Volkovs et al. 2017, DropoutNet)."""

    def __post_init__(self) -> None:
        for side, names, known in (("user", self.user, USER_FEATURES), ("item", self.item, ITEM_FEATURES)):
            for name in names:
                if name not in known:
                    raise SettingError(f"model.{side} has a feature {name}", ", ".join(known), nearest(name, known))
            if not names or len(set(names)) < len(names):
                raise SettingError(f"model.{side} = {list(names)}", "one feature or more, each once")
        need(self.dim >= 1, "model.dim", self.dim, "1 or more")
        for name in ("max_scale", "init_scale", "half_life"):
            need(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "a number above 0")
        if not (self.temperature > 0 and 1 / self.temperature <= self.max_scale):
            raise SettingError(
                f"model.temperature = {self.temperature}", f"at least 1 / max_scale = {1 / self.max_scale}"
            )
        if self.tied and not ("history" in self.user and "id" in self.item):
            raise SettingError("model.tied without a history and item ids", "user: [history, ...], item: [id, ...]")
        _check_chance("model.dropout", self.dropout)
        self._check_pooling()
        _check_chance("model.id_dropout", self.id_dropout)
        if self.id_dropout and not (self.drops_ids(self.user) or self.drops_ids(self.item)):
            came = f"model.id_dropout = {self.id_dropout}, but no tower reads an id and something beside it"
            raise SettingError(came, "user: [id, history], or item: [id, categories]")

    def _check_pooling(self) -> None:
        need_known("model.pooling", self.pooling, POOLINGS)
        if self.pooling != "mean" and "history" not in self.user:
            raise SettingError(f"model.pooling = {self.pooling} without a history", "user: [history, ...]")

    def drops_ids(self, side: tuple[str, ...]) -> bool:
        """Whether a tower with these features is trained with some ids unknown."""
        return self.id_dropout > 0 and "id" in side and len(side) > 1

    @property
    def item_inputs(self) -> tuple[str, ...]:
        """What the item tower reads: its features, and the id where there is a bias an item."""
        return self.item if not self.item_bias or "id" in self.item else (*self.item, "id")


def _check_chance(name: str, chance: float) -> None:
    need(0 <= chance < 1, name, chance, "a chance from 0 to below 1")


class Head(nn.Sequential):
    """`depth` linear layers, the last without a bias: with one layer, an empty history stays the zero vector."""

    def __init__(self, dim: int, settings: HeadSettings) -> None:
        layers: list[nn.Module] = []
        size = dim
        for _ in range(settings.depth - 1):
            layers.append(nn.Linear(size, settings.width))
            if settings.layer_norm:
                layers.append(nn.LayerNorm(settings.width))
            layers += [ACTIVATIONS[settings.activation](), nn.Dropout(settings.dropout)]
            size = settings.width
        if settings.depth:
            last = nn.Linear(size, dim, bias=False)
            if settings.depth == 1:
                nn.init.eye_(last.weight)
            layers.append(last)
        super().__init__(*layers)


class Mean(nn.Module):
    """Every event of a history weighs the same."""

    def forward(self, table: nn.Module, codes: Codes) -> Float[Tensor, " values"]:
        """The logits of the weights, one a value of the lists."""
        return torch.zeros_like(codes.values, dtype=_weight(table).dtype)


class Recency(nn.Module):
    """The weight of an event is halved with every `half_life` events that came after it.

    One number is learned, and like the temperature as its logarithm: how long a history speaks is a property of the
    data, and one number for all people can hardly overfit.
    """

    def __init__(self, settings: TowerSettings) -> None:
        super().__init__()
        self.log_half_life = nn.Parameter(torch.tensor(math.log(settings.half_life)))

    def forward(self, table: nn.Module, codes: Codes) -> Float[Tensor, " values"]:
        """-age ln 2 / half_life, whose exponential is 2^(-age / half_life)."""
        assert codes.ages is not None
        return -math.log(2) * torch.exp(-self.log_half_life) * codes.ages


class Attention(nn.Module):
    """A learned query meets every item of a history in an inner product: the weight of an item is its own.

    It is the same for everybody, as in attention with one query and no other input (Yang et al. 2016, Hierarchical
    attention networks, equation 6, without the layer before it). The query starts at zero: all weights are equal.
    """

    def __init__(self, settings: TowerSettings) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(settings.dim))

    def forward(self, table: nn.Module, codes: Codes) -> Float[Tensor, " values"]:
        """<query, embedding>."""
        return pooled(table, Codes(codes.values)) @ self.query


POOLINGS: dict[str, Callable[[TowerSettings], nn.Module]] = {
    "mean": lambda settings: Mean(),
    "recency": Recency,
    "attention": Attention,
}


class Tower(nn.Module):
    """One side: a table a feature, pooled and summed, a head."""

    def __init__(self, sizes: Mapping[str, int], settings: TowerSettings, head: HeadSettings) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: new_table(n, settings) for name, n in sizes.items()})
        self.pooling = POOLINGS[settings.pooling](settings) if "history" in sizes else Mean()
        self.dropout = nn.Dropout(settings.dropout)
        self.head = Head(settings.dim, head)

    def forward(self, inputs: Mapping[str, Codes]) -> Float[Tensor, "batch dim"]:
        """Embeddings, not yet normalised."""
        summed = sum(self._pooled(name, inputs[name]) for name in self.tables)
        embedded: Tensor = self.head(self.dropout(summed))
        return embedded

    def _pooled(self, name: str, codes: Codes) -> Float[Tensor, "batch dim"]:
        if name == "history" and not isinstance(self.pooling, Mean):
            return pooled(self.tables[name], codes, self.shares(codes))
        return pooled(self.tables[name], codes)

    def shares(self, history: Codes) -> Float[Tensor, " values"]:
        """What each item of the histories weighs in its own: above 0, and 1 together."""
        return list_softmax(self.pooling(self.tables["history"], history), history)


def new_table(n_codes: int, settings: TowerSettings) -> nn.Embedding:
    """An embedding table; the row of unknown codes is zero and stays so."""
    table = nn.Embedding(n_codes, settings.dim, UNKNOWN)
    nn.init.normal_(table.weight, std=settings.init_scale / math.sqrt(settings.dim))
    nn.init.zeros_(table.weight[UNKNOWN])
    return table


def pooled(table: nn.Module, codes: Codes, shares: Tensor | None = None) -> Float[Tensor, "batch dim"]:
    """The embedding of each code, or the mean of the embeddings of each list; zero for code 0 and for an empty list.

    With `shares`, one a value, the sum of the embeddings times their shares in place of the mean.
    """
    values, weight, sparse = codes.values, _weight(table), bool(table.sparse)
    if codes.offsets is None:
        return nn.functional.embedding(values, weight, UNKNOWN, sparse=sparse)
    bag, mode = nn.functional.embedding_bag, "mean" if shares is None else "sum"
    return bag(values, weight, codes.offsets, mode=mode, sparse=sparse, per_sample_weights=shares)


def list_softmax(logits: Float[Tensor, " values"], lists: Codes) -> Float[Tensor, " values"]:
    """A softmax inside each list: no list sees another one, and an empty one has nothing to share out."""
    owners, n = lists.owners, len(lists.offsets)  # type: ignore[arg-type]
    highest = logits.new_zeros(n).scatter_reduce(0, owners, logits.detach(), "amax", include_self=False)
    weights = torch.exp(logits - highest[owners])
    return weights / logits.new_zeros(n).index_add(0, owners, weights)[owners]


def _weight(table: nn.Module) -> Tensor:
    weight: Tensor = table.weight  # type: ignore[assignment]
    return weight


class TwoTower(nn.Module):
    """A user tower, an item tower and the temperature.

    Initial weights come from torch's global generator; see `seeding.seeded`.

    Raises:
        SettingError: pooling by recency, but the histories of these features have no order.
    """

    def __init__(self, features: Features, settings: TowerSettings) -> None:
        super().__init__()
        if settings.pooling == "recency" and features.history_mode != "before":
            raise SettingError(
                f"model.pooling = recency, but the history is read as a {features.history_mode}, without an order",
                "history.mode = before, which needs events with times",
            )
        self.settings = settings
        user_sizes, item_sizes = features.user_table_sizes(), features.item_table_sizes()
        self.item = Tower({name: item_sizes[name] for name in settings.item}, settings, settings.item_head)
        self.user = Tower({name: user_sizes[name] for name in settings.user}, settings, settings.user_head)
        if settings.tied:
            self.user.tables["history"] = self.item.tables["id"]
        self.bias = nn.Embedding(item_sizes["id"], 1, UNKNOWN) if settings.item_bias else None
        if self.bias is not None:
            nn.init.zeros_(self.bias.weight)
        log_scale = torch.tensor(-math.log(settings.temperature))
        self.log_scale = nn.Parameter(log_scale, requires_grad=settings.learn_temperature)

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """T, never below 1 / max_scale; the gradient passes the bound, so that a scale beyond it can come back."""
        beyond = (self.log_scale - math.log(self.settings.max_scale)).clamp(min=0).detach()
        return 1 / (self.log_scale - beyond).exp()

    def embed_users(self, inputs: Mapping[str, Codes]) -> Float[Tensor, "batch vector"]:
        """Query embeddings, ready for an inner-product index."""
        inputs = self._without_some_ids(inputs, self.settings.user)
        vectors = self._normalised(self.user(inputs))
        return vectors if self.bias is None else torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)

    def embed_items(self, inputs: Mapping[str, Codes]) -> Float[Tensor, "batch vector"]:
        """Item embeddings, ready for an inner-product index."""
        inputs = self._without_some_ids(inputs, self.settings.item)
        vectors = self._normalised(self.item(inputs))
        if self.bias is None:
            return vectors
        return torch.cat([vectors, self.temperature * pooled(self.bias, inputs["id"])], dim=1)

    def _without_some_ids(self, inputs: Mapping[str, Codes], side: tuple[str, ...]) -> Mapping[str, Codes]:
        """In training, ids are made unknown by chance; an item loses its bias with it, as a new item has none."""
        if not (self.training and self.settings.drops_ids(side)):
            return inputs
        codes = inputs["id"].values
        stays = torch.rand(len(codes), device=codes.device) >= self.settings.id_dropout
        return {**inputs, "id": Codes(codes.where(stays, UNKNOWN))}

    def _normalised(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=1, eps=SHORTEST) if self.settings.normalise else vectors


def embed_queries(towers: TwoTower, features: Features, queries: Queries) -> NDArray[np.float32]:
    """The query embeddings of all queries, of shape (queries, vector)."""
    made = [
        _numpy(towers, towers.embed_users, features.of_users(queries.slice(start, stop), towers.settings.user))
        for start, stop in blocks(len(queries), EMBED_BLOCK)
    ]
    return np.concatenate(made)


@torch.inference_mode()
def query_parts(towers: TwoTower, features: Features, query: Queries) -> tuple[Rows, NDArray[np.float64]]:
    """The embedding of one query as a sum: what each item of its history adds, and in the last row all the rest.

    A weighted mean followed by a linear map and a division is a sum of as many terms as the mean has, so this is exact,
    given the weights: those of attention would be others without an item. The constant that meets the item bias is
    left out.

    Returns:
        the item rows of the history that the tower reads, and an array (those items + 1, dim).

    Raises:
        SettingError: the user tower has no history, or layers with something other than a linear map between.
    """
    settings = towers.settings
    if "history" not in settings.user or settings.user_head.depth > 1:
        came = f"model.user = {list(settings.user)} with a head of depth {settings.user_head.depth}"
        raise SettingError(came, "a history and a depth of 0 or 1: only then is the embedding a sum over the history")
    read = features.recent(query.history)[0]
    read = read[features.item_codes[read] != UNKNOWN]
    tables, others = towers.user.tables, [name for name in settings.user if name != "history"]
    codes = features.history(query.history)
    shares = pooled(tables["history"], Codes(codes.values)) * towers.user.shares(codes)[:, None]
    rest = torch.zeros(1, settings.dim)
    for name, codes in features.of_users(query, others).items():
        rest = rest + pooled(tables[name], codes)
    parts = towers.user.head(torch.cat([shares, rest])).double()
    length = parts.sum(0).norm().clamp(min=SHORTEST) if settings.normalise else 1
    return read, (parts / length).numpy()


@dataclass(frozen=True)
class Part:
    """One block of numbers that is learned: a table, a layer, the biases, the temperature."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    bytes: int


def parts(towers: nn.Module) -> list[Part]:
    """What the towers are made of; tied tables are one part, a temperature that is not learned is one too."""
    return [
        Part(name, tuple(one.shape), one.numel(), one.numel() * one.element_size())
        for name, one in towers.named_parameters()
    ]


def embed_rows(towers: TwoTower, features: Features, items: Rows) -> NDArray[np.float32]:
    """The item embeddings of these item rows, of shape (items, vector)."""
    made = [
        _numpy(towers, towers.embed_items, features.of_items(items[start:stop], towers.settings.item_inputs))
        for start, stop in blocks(len(items), EMBED_BLOCK)
    ]
    return np.concatenate(made)


def embed_catalogue(towers: TwoTower, features: Features) -> NDArray[np.float32]:
    """The item embeddings of the whole catalogue, row i for item row i."""
    return embed_rows(towers, features, np.arange(features.n_items))


@torch.inference_mode()
def _numpy(towers: TwoTower, embed: object, inputs: Mapping[str, Codes]) -> NDArray[np.float32]:
    """Embed without dropout and without gradients, and leave the towers in the mode they were in."""
    was_training = towers.training
    towers.eval()
    device = str(towers.log_scale.device)
    vectors = embed({name: codes.to(device) for name, codes in inputs.items()})  # type: ignore[operator]
    towers.train(was_training)
    return np.ascontiguousarray(vectors.cpu().numpy())
