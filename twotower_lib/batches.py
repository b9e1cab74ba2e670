"""Who meets whom: the batches of one epoch, and the log q of this very sampler.

An epoch is a fresh permutation of the train events, cut into batches; what is left over at the end waits for the next
epoch's permutation. The items of a batch are each other's negatives, so an item is drawn in proportion to its share of
the train events, and log q is the logarithm of that share.

Every draw is a function of (seed, epoch, step). A run that stops in the middle of an epoch goes on from `start` with
the batches that it would have met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twotower_lib.data import Interactions, Rows
from twotower_lib.errors import SettingError
from twotower_lib.features import Codes, Features, HistorySettings
from twotower_lib.ranking import Ragged
from twotower_lib.seeding import child


@dataclass(frozen=True)
class Batch:
    """One row an event: what both towers read, and what the loss must know of the candidates.

    Row i's positive is candidate i.
    """

    user: Mapping[str, Codes]
    item: Mapping[str, Codes]
    items: Tensor
    """Item row of each candidate."""
    log_q: Tensor
    """Natural logarithm of each candidate's share of the train events."""
    known_row: Tensor
    """For each known positive of the batch's users the row of the batch; with `known_item` a list of pairs."""
    known_item: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return Batch(
            user={name: codes.to(device) for name, codes in self.user.items()},
            item={name: codes.to(device) for name, codes in self.item.items()},
            items=self.items.to(device),
            log_q=self.log_q.to(device),
            known_row=self.known_row.to(device),
            known_item=self.known_item.to(device),
        )


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
    ) -> None:
        if batch_size < 2:
            raise SettingError(f"a batch of {batch_size}", "2 events or more, since they are each other's negatives")
        self.train, self.features, self.history, self.seed = train, features, history, seed
        self.user_features, self.item_features = tuple(user_features), tuple(item_features)
        self.batch_size = min(batch_size, len(train))
        self.known_positives = known_positives
        self.seen = Ragged.grouped(train.user, train.item, train.n_users)
        # Items outside train have no share; they never stand in a column.
        self.log_q = np.log(np.maximum(train.item_counts, 1) / len(train)).astype(np.float32)
        self._event_place = _places(train, self.seen)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.train) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `start` on."""
        order = child(self.seed, "order", epoch).permutation(len(self.train))
        shelf = self._shuffled_histories(epoch)
        for step in range(start, self.steps_per_epoch):
            events = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._batch(events, shelf, child(self.seed, "history", epoch, step))

    def _batch(self, events: Rows, shelf: Rows, generator: np.random.Generator) -> Batch:
        users, items = self.train.user[events], self.train.item[events]
        known = self.seen.take(users) if self.known_positives else Ragged.empty(len(users))
        return Batch(
            user={name: self._user_codes(name, events, shelf, generator) for name in self.user_features},
            item=self.features.of_items(items, self.item_features),
            items=torch.from_numpy(items),
            log_q=torch.from_numpy(self.log_q[items]),
            known_row=torch.from_numpy(known.owners),
            known_item=torch.from_numpy(known.values),
        )

    def _user_codes(self, name: str, events: Rows, shelf: Rows, generator: np.random.Generator) -> Codes:
        if name != "history":
            return self.features.of_user_rows(self.train.user[events], name)
        return self._history(events, shelf, generator)

    def _shuffled_histories(self, epoch: int) -> Rows:
        """The items of each user one after the other: in the order of time, or with `set` shuffled for this epoch."""
        if "history" not in self.user_features or self.features.history_mode == "before":
            return self.seen.values
        luck = child(self.seed, "shelf", epoch).random(len(self.train))
        return self.seen.values[np.lexsort((luck, self.seen.owners))]

    def _history(self, events: Rows, shelf: Rows, generator: np.random.Generator) -> Codes:
        """For each event the codes of items of the same user, without the event's own.

        With `set` they are a run of up to `length` items of the user's shuffled shelf, from a random place and round
        the end: a sample without repetition. With `before` they are the run that ends just before the event, the latest
        first, and what is left out does not make the rest any younger.
        """
        users = self.train.user[events]
        first, count = self.seen.offsets[users][:, None], self.seen.lengths[users][:, None]
        step = np.arange(self.features.history_length)
        is_ordered = self.features.history_mode == "before"
        if is_ordered:
            place = self._event_place[events][:, None] - 1 - step
            there = place >= first
        else:
            place = first + (generator.integers(0, count) + step) % count
            there = step < count
        items = shelf[np.where(there, place, 0)]
        there &= items != self.train.item[events][:, None]
        there &= generator.random(items.shape, dtype=np.float32) >= self.history.dropout
        row, column = there.nonzero()
        return self.features.of_lists(row, items[there], len(events), column if is_ordered else None)


def _places(train: Interactions, seen: Ragged) -> Rows:
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
