"""Recommendations + held-out items -> a table with one row a query -> `Report`.

The protocol is a contract:

* who is asked what is made in `protocols.py`; how many users were left out is reported;
* ranked is the whole catalogue, cold items included, without what was known of the user before;
* equal scores fall in the order of the item rows (`ranking.py`);
* each metric gives one value a query (`metrics.py`); means are taken at the end, over queries, and intervals are 95 %
  percentile bootstraps over users;
* no number stands alone: a report holds the same metrics for chance and for popularity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from twotower_lib.data import Interactions, Rows
from twotower_lib.errors import ExactnessError, SettingError
from twotower_lib.metrics import METRICS, Hits, Values, hit_matrix, recall
from twotower_lib.protocols import MOMENTS, ONCE, Questions
from twotower_lib.ranking import Recommender
from twotower_lib.seeding import child

KS = (10, 20, 50)
DRAWS = 1000
SLICES = ("head", "torso", "tail")

# What one recommender reached -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What one recommender reached: a row a query, a column a metric, and the share of the catalogue it showed."""

    table: pd.DataFrame
    coverage: Mapping[str, float]
    asked: tuple[str, ...] = ()
    """Hash of the data, protocol, part and way of asking: what was measured on other questions does not compare."""

    @property
    def means(self) -> dict[str, float]:
        """The mean of every metric over the queries that have it."""
        columns = self.table.drop(columns="user")
        return {**{str(name): float(value) for name, value in columns.mean().items()}, **self.coverage}


def measure(recommender: Recommender, asked: Questions, ks: Sequence[int] = KS, approximate: bool = False) -> Measured:
    """Ask everything once, for the largest k, and judge.

    Args:
        recommender: what is judged.
        asked: the questions.
        ks: list lengths to report.
        approximate: say that it is the index that is measured; otherwise an index that may miss items is refused.

    Raises:
        ExactnessError: the recommender is not exact and `approximate` is not set.
        SettingError: a k is below 1.
    """
    if not ks or min(ks) < 1:
        raise SettingError(f"ks = {list(ks)}", "list lengths of 1 or more")
    if not recommender.is_exact and not approximate:
        raise ExactnessError(
            "an index that may miss items",
            "exact search, so that the model is judged",
            "approximate=True to judge both",
        )
    shown = recommender.recommend(asked.queries, max(ks), asked.exclude).items
    hits = hit_matrix(shown, asked.held_out)
    columns: dict[str, Any] = {"user": asked.queries.user}
    for k in ks:
        for name, metric in METRICS.items():
            columns[f"{name}@{k}"] = metric(hits[:, :k], asked.held_out.lengths)
        columns[f"popularity@{k}"] = _popularity(shown[:, :k], asked.known)
    columns |= _recall_by_popularity(hits, shown, asked, _middle(ks))
    coverage = {f"coverage@{k}": _coverage(shown[:, :k], recommender.n_items) for k in ks}
    return Measured(pd.DataFrame(columns), coverage, (asked.sha256, asked.protocol, asked.part, asked.way))


def _middle(ks: Sequence[int]) -> int:
    """The k closest to 20: the one that slices are reported for."""
    return min(ks, key=lambda k: abs(k - 20))


def _popularity(shown: Rows, known: Interactions) -> Values:
    """For each query the mean, over the items shown, of the share of users who met the item; 0 for an empty list."""
    share = np.append(known.item_counts / known.n_users, 0.0)
    return share[shown].sum(1) / np.maximum((shown >= 0).sum(1), 1)


def _coverage(shown: Rows, n_items: int) -> float:
    """Share of the catalogue that was shown to anybody."""
    return len(np.unique(shown[shown >= 0])) / n_items


def popularity_slices(known: Interactions) -> Int[np.ndarray, " items"]:
    """For each item 0, 1 or 2: head, torso, tail, each with a third of the known interactions; cold items are tail.

    An item belongs to the third in which its first interaction falls when items stand in a line, most popular first.
    """
    order = np.argsort(-known.item_counts, kind="stable")
    before = np.cumsum(known.item_counts[order]) - known.item_counts[order]
    slices = np.empty(known.n_items, dtype=np.int64)
    slices[order] = np.minimum(before * len(SLICES) // max(len(known), 1), len(SLICES) - 1)
    slices[known.item_counts == 0] = len(SLICES) - 1
    return slices


def _recall_by_popularity(hits: Hits, shown: Rows, asked: Questions, k: int) -> dict[str, Values]:
    """Recall@k over the held-out items of each slice; missing where a query has none there."""
    slices = popularity_slices(asked.known)
    owners, held = asked.held_out.owners, slices[asked.held_out.values]
    columns = {}
    for number, name in enumerate(SLICES):
        wanted = np.bincount(owners[held == number], minlength=len(asked))
        found = (hits[:, :k] & (slices[shown[:, :k]] == number)).sum(1)
        columns[f"recall@{k}[{name}]"] = np.where(wanted > 0, found / np.maximum(wanted, 1), np.nan)
    for name, chosen in (("warm", ~asked.cold), ("cold", asked.cold)):
        columns[f"recall@{k}[{name} users]"] = np.where(chosen, recall(hits[:, :k], asked.held_out.lengths), np.nan)
    return columns


# Intervals -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def intervals(table: pd.DataFrame, draws: int = DRAWS) -> dict[str, Interval]:
    """Means with 95 % percentile bootstrap intervals; users are drawn, each with all of their queries.

    The generator is fixed, so that equal tables give equal intervals.
    """
    values = table.drop(columns="user").astype(float)
    by_user = values.groupby(table["user"].to_numpy())
    sums, counts = by_user.sum().to_numpy(), by_user.count().to_numpy()
    n_users = len(sums)
    generator = child(0, "bootstrap")
    resampled = np.empty((draws, values.shape[1]))
    for draw in range(draws):
        weight = np.bincount(generator.integers(0, n_users, n_users), minlength=n_users)
        with np.errstate(invalid="ignore"):
            resampled[draw] = weight @ sums / (weight @ counts)
    means = values.mean()
    named = {}
    for place, name in enumerate(values.columns):
        drawn = resampled[:, place][~np.isnan(resampled[:, place])]
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
        named[str(name)] = Interval(float(means[name]), float(low), float(high))
    return named


def difference(one: Measured, other: Measured) -> dict[str, Interval]:
    """The paired difference one - other of every metric a query has, with its interval.

    Raises:
        SettingError: the two were not asked the same questions.
    """
    if one.asked != other.asked or not one.table["user"].equals(other.table["user"]):
        raise SettingError(f"answers to {_told(one)} and to {_told(other)}", "answers to the same questions")
    delta = one.table.drop(columns="user") - other.table.drop(columns="user")
    return intervals(delta.assign(user=one.table["user"]))


def _told(one: Measured) -> str:
    return f"{len(one.table)} questions ({' '.join(part[:12] for part in one.asked)})"


# Report --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What was measured, beside its references.

    `references` holds at least `chance` and `popularity`; the other entries are baselines.
    """

    measured: Measured
    references: Mapping[str, Measured]
    asked: Questions

    def __post_init__(self) -> None:
        missing = {"chance", "popularity"} - self.references.keys()
        if missing:
            raise SettingError(
                f"a report without {' and '.join(sorted(missing))}", "the references chance and popularity"
            )
        for name, one in self.references.items():
            if not one.means.keys() >= self.measured.means.keys():
                raise SettingError(f"the reference {name} has other metrics", "references measured with the same ks")

    @property
    def metrics(self) -> dict[str, Interval]:
        """Means with intervals."""
        return intervals(self.measured.table)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        baselines = {name: one for name, one in self.references.items() if name != "chance"}
        return {
            "metrics": _as_dicts(self.metrics) | {k: {"mean": v} for k, v in self.measured.coverage.items()},
            "chance": {name: _finite(value) for name, value in self.references["chance"].means.items()},
            "baselines": {
                name: {"metrics": _as_dicts(intervals(one.table)) | {k: {"mean": v} for k, v in one.coverage.items()}}
                for name, one in baselines.items()
            },
            "differences": {name: _as_dicts(difference(self.measured, one)) for name, one in baselines.items()},
            "users": self.asked.n_users,
            "questions": len(self.asked),
            "users_left_out": self.asked.left_out,
            "cold_users": int(self.asked.cold.sum()),
            "protocol": self.asked.protocol,
            "asked": self.asked.way,
            "leak": self.asked.leak,
            "part": self.asked.part,
            "data": {"sha256": self.asked.sha256},
        }

    def __str__(self) -> str:
        """A table: a row a metric; the model with its interval, then every reference."""
        return self.text(lambda metric: True)

    def short(self) -> str:
        """The table without the metrics that say much the same as another one."""
        k = _middle([int(name.partition("@")[2]) for name in self.measured.coverage])
        kept = ("recall@", "ndcg@", f"hit_rate@{k}", f"mrr@{k}", f"popularity@{k}", f"coverage@{k}")
        return self.text(lambda metric: metric.startswith(kept))

    def text(self, is_shown: Callable[[str], bool]) -> str:
        """The table of the metrics that are shown."""
        return "\n".join([*self._heading(), "", *self._rows(is_shown)])

    def _heading(self) -> list[str]:
        asked = self.asked
        way = "" if asked.way == ONCE else f", {asked.way}"
        return [
            f"{asked.n_users:,} users of the {asked.part} part, split {asked.protocol}{way} ({asked.leak});",
            f"{asked.left_out:,} users left out: no held-out item; {_cold(asked)}.",
            "Whole catalogue ranked, known items removed. 95 % intervals over users.",
        ]

    def _rows(self, is_shown: Callable[[str], bool]) -> list[str]:
        names = list(self.references)
        rows = [f"{'':<24}{'model':>8} {'interval':<16}" + "".join(f"{name:>12}" for name in names)]
        means = {name: one.means for name, one in self.references.items()}
        for metric, interval in self.metrics.items():
            if is_shown(metric) and not np.isnan(interval.mean):
                between = f"{interval.low:.4f}..{interval.high:.4f}"
                rows.append(f"{metric:<24}{interval.mean:>8.4f} {between:<16}" + _cells(means, metric))
        for metric, value in filter(lambda pair: is_shown(pair[0]), self.measured.coverage.items()):
            rows.append(f"{metric:<24}{value:>8.4f} {'':<16}" + _cells(means, metric))
        return rows


def _cold(asked: Questions) -> str:
    cold = int(asked.cold.sum())
    of_moments = f"{cold:,} of {len(asked):,} moments find a cold user"
    return of_moments if asked.way == MOMENTS else f"{cold:,} asked users are cold"


def _cells(means: Mapping[str, Mapping[str, float]], metric: str) -> str:
    return "".join(f"{one[metric]:>12.4f}" for one in means.values())


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else value


def _as_dicts(named: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """As JSON values; a metric that no query has is left out."""
    return {name: one.as_dict() for name, one in named.items() if not np.isnan(one.mean)}


def evaluate(
    recommender: Recommender,
    asked: Questions,
    references: Mapping[str, Measured],
    ks: Sequence[int] = KS,
    approximate: bool = False,
) -> Report:
    """Measure a recommender and set it beside its references; see `measure` for the arguments and errors."""
    return Report(measure(recommender, asked, ks, approximate), references, asked)
