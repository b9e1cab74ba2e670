"""Who meets whom: the batches of one epoch, and the log q of this very sampler.

An epoch is a fresh permutation of the train events, cut into batches; what is left over at the end waits for the next
epoch's permutation. The items of a batch are each other's negatives, so an item is drawn in proportion to its share of
the train events, and log q is the logarithm of that share. Further candidates may be drawn uniformly from the items of
train; then q is that of the mixture.

Every draw is a function of (seed, epoch, step), made on the CPU whatever the device. A run that stops in the middle of
an epoch goes on from `start` with the batches that it would have met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twotower_lib.data import Interactions, Rows
from twotower_lib.errors import SettingError, need
from twotower_lib.features import Codes, Features, HistorySettings
from twotower_lib.ranking import Ragged
from twotower_lib.seeding import child


@dataclass(frozen=True)
class Batch:
    """One row an event: what both towers read, and what the loss must know of the candidates.

    Its length is that of its rows. Row i's positive is candidate i; candidates beyond the rows are extra negatives.
    """

    user: Mapping[str, Codes]
    item: Mapping[str, Codes]
    items: Tensor
    """Item row of each candidate."""
    log_q: Tensor
    """Natural logarithm of each candidate's chance to be drawn into a column."""
    known_row: Tensor
    """For each known positive of the batch's users the row of the batch; with `known_item` a list of pairs."""
    known_item: Tensor
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows


class Batches:
    """The batches of a train part.

    Args:
        train: the events, in the order (user, time, item).
        features: fitted on `train`.
        user_features: names of the features that the user tower reads.
        item_features: names of the features that the item tower reads.
        batch_size: events a batch; all of them where there are fewer.
        history: how histories are sampled.
        seed: seed of the run.
        known_positives: whether batches carry the known positives of their users.
        uniform_negatives: further candidates of each batch, drawn uniformly from the items of train, with repetition
            (Yang et al. 2020, "Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations").
        device: where batches are put together.
    """

    def __init__(
        self,
        train: Interactions,
        features: Features,
        user_features: Sequence[str],
        item_features: Sequence[str],
        *,
        batch_size: int,
        history: HistorySettings,
        seed: int,
        known_positives: bool = True,
        uniform_negatives: int = 0,
        device: str = "cpu",
    ) -> None:
        if batch_size < 2:
            raise SettingError(f"a batch of {batch_size}", "2 events or more, since they are each other's negatives")
        need(uniform_negatives >= 0, "uniform_negatives", uniform_negatives, "0 or more")
        self.train, self.features, self.history, self.seed = train, features, history, seed
        self.user_features, self.item_features = tuple(user_features), tuple(item_features)
        self.batch_size = min(batch_size, len(train))
        self.known_positives, self.uniform_negatives, self.device = known_positives, uniform_negatives, device
        self.seen = Ragged.grouped(train.user, train.item, train.n_users)
        self._known_items = np.flatnonzero(train.item_counts)
        self.log_q = self._on_device(self._log_q())
        self._shelf = _Lists(self.seen, device)
        self._codes = self._on_device(features.item_codes)
        self._event_place = self._on_device(_places(train))

    def _log_q(self) -> np.ndarray:
        """For each item the logarithm of its expected share of a batch's candidates; 0 for items outside train.

        Of n + m candidates n are events, which hold an item with chance p, its share of them, and m are uniform over
        the N items of train: q = (n p + m / N) / (n + m).
        """
        counts = self.train.item_counts
        n, m = self.batch_size, self.uniform_negatives
        q = (n * counts / len(self.train) + m / len(self._known_items)) / (n + m)
        return np.log(np.where(counts > 0, q, 1.0)).astype(np.float32)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.train) // self.batch_size

    @property
    def n_candidates(self) -> int:
        """Columns of a batch."""
        return self.batch_size + self.uniform_negatives

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `start` on."""
        order = child(self.seed, "order", epoch).permutation(len(self.train))
        shelf = self._shuffled_histories(epoch)
        for step in range(start, self.steps_per_epoch):
            events = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._batch(events, shelf, epoch, step)

    def _batch(self, events: Rows, shelf: Tensor, epoch: int, step: int) -> Batch:
        users, positives = self.train.user[events], self.train.item[events]
        candidates = np.concatenate([positives, self._uniform(epoch, step)])
        coded = self.features.of_items(candidates, self.item_features)
        items = self._on_device(candidates)
        history = child(self.seed, "history", epoch, step)
        known_row, known_item = self._shelf.take(users if self.known_positives else users[:0])
        return Batch(
            user={name: self._user_codes(name, events, shelf, history) for name in self.user_features},
            item={name: one.to(self.device) for name, one in coded.items()},
            items=items,
            log_q=self.log_q[items],
            known_row=known_row,
            known_item=known_item,
            n_rows=len(events),
        )

    def _uniform(self, epoch: int, step: int) -> Rows:
        """Items of train, each as likely as any other."""
        draws = child(self.seed, "uniform", epoch, step).integers(0, len(self._known_items), self.uniform_negatives)
        return self._known_items[draws]

    def _user_codes(self, name: str, events: Rows, shelf: Tensor, generator: np.random.Generator) -> Codes:
        if name != "history":
            return self.features.of_user_rows(self.train.user[events], name).to(self.device)
        return self._history(events, shelf, generator)

    def _shuffled_histories(self, epoch: int) -> Tensor:
        """The items of each user one after the other: in the order of time, or with `set` shuffled for this epoch."""
        if "history" not in self.user_features or self.features.history_mode == "before":
            return self._shelf.values
        luck = self._on_device(child(self.seed, "shelf", epoch).random(len(self.train)))
        order = luck.argsort(stable=True)
        return self._shelf.values[order[self._shelf.owners[order].argsort(stable=True)]]

    def _history(self, events: Rows, shelf: Tensor, generator: np.random.Generator) -> Codes:
        """For each event the codes of items of the same user, without the event's own.

        With `set` they are a run of up to `length` items of the user's shuffled shelf, from a random place and round
        the end: a sample without repetition. With `before` they are the run that ends just before the event, the latest
        first, and what is left out does not make the rest any younger.
        """
        users = self.train.user[events]
        first, count = (self._on_device(one[users])[:, None] for one in (self.seen.offsets, self.seen.lengths))
        step = torch.arange(self.features.history_length, device=self.device)
        is_ordered = self.features.history_mode == "before"
        if is_ordered:
            place = self._event_place[self._on_device(events)][:, None] - 1 - step
            there = place >= first
        else:
            place = self._on_device(generator.integers(0, self.seen.lengths[users]))[:, None] + step
            place = first + place - count * (place >= count)
            there = step < count
        items = shelf.index_select(0, torch.where(there, place, 0).view(-1)).view(there.shape)
        there &= items != self._on_device(self.train.item[events])[:, None]
        there &= self._on_device(generator.random(there.shape, dtype=np.float32)) >= self.history.dropout
        kept = there.view(-1).nonzero().squeeze(1)
        codes = self._codes.index_select(0, items.view(-1).index_select(0, kept))
        offsets = (lengths := there.sum(1)).cumsum(0) - lengths
        return Codes(codes, offsets, kept % there.shape[1] if is_ordered else None)

    def _on_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)


class _Lists:
    """Lists of different lengths on a device."""

    def __init__(self, lists: Ragged, device: str) -> None:
        made = (lists.values, lists.offsets, lists.owners)
        self.values, self.offsets, self.owners = (torch.from_numpy(one).to(device) for one in made)

    def take(self, lists: Rows) -> tuple[Tensor, Tensor]:
        """The values of the lists with these numbers, and before them for each its place among the numbers."""
        chosen = torch.from_numpy(lists).to(self.values.device)
        starts, lengths = self.offsets[chosen], self.offsets[chosen + 1] - self.offsets[chosen]
        owner = torch.arange(len(chosen), device=chosen.device).repeat_interleave(lengths)
        shift = starts - (lengths.cumsum(0) - lengths)
        places = torch.arange(len(owner), device=chosen.device) + shift.index_select(0, owner)
        return owner, self.values.index_select(0, places)


def _places(train: Interactions) -> Rows:
    """For each event where its user's list holds the first event of the same second; what came before ends there.

    Without times it is the place of the event itself.
    """
    place = np.empty(len(train), dtype=np.int64)
    place[np.argsort(train.user, kind="stable")] = np.arange(len(train))
    if train.time is None:
        return place
    order = np.argsort(place)
    user, time = train.user[order], train.time[order]
    starts = np.concatenate([[True], (np.diff(user) != 0) | (np.diff(time) != 0)])
    run = np.cumsum(starts) - 1
    return np.flatnonzero(starts)[run][place]
