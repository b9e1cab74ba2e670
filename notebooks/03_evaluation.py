# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evaluation: no number without its neighbours
#
# A recall of 0.2 says nothing alone. Beside it belong chance, popularity, a strong baseline that was tuned with the
# same care, and an interval. And it has to be the recall that was meant: two popular shortcuts, sampled negatives and
# the batch as a catalogue, measure something else. Afterwards you can
#
# - **compute** the NDCG of a list (exercise 03.1);
# - **compare** two models on the same people (exercise 03.2);
# - **judge** a metric that was sampled, or taken inside a batch (the assertion under *Sampled metrics lie*, and the one
#   under *A batch is not the catalogue*);
# - **repair** a strong baseline that forgot a condition (in the stretch: exercise 03.3);
# - **find** what is wrong with a recall (in the stretch: exercise 03.4).
#
# **You should know** NumPy and the road of [00_start](00_start.ipynb). Of splits you need two sentences. A model learns
# from the train part, its settings are chosen by the **validation part**, and the **test part** is asked once, at the
# end. Here the test part is the last fifth of each person's events, and validation the last tenth of the rest. (Why
# there is told by [02_split](02_split.ipynb), which can be read later.)
# **Time**: 40 minutes for the core, which ends at *The test part, asked once*; the rest is stretch, for about as long.
# **Papers**: [Krichene and Rendle 2020, On sampled metrics for item
# recommendation](https://doi.org/10.1145/3394486.3403226); [Ferrari Dacrema et al. 2019, Are we really making much
# progress?](https://arxiv.org/abs/1907.06902)

# %% tags=["setup"]
import sys

if "google.colab" in sys.modules:  # installs what Colab lacks; anywhere else this cell does nothing
    from importlib.metadata import distributions, requires
    from subprocess import check_call

    from packaging.requirements import Requirement

    pip, here = [sys.executable, "-m", "pip", "install", "-q"], {d.name.lower(): d.version for d in distributions()}
    if "twotower" not in here:
        check_call([*pip, "--no-deps", "git+https://github.com/OWNER/twotower"])
    for one in map(Requirement, [*requires("twotower"), "ipywidgets>=7"]):  # Colab's own ipywidgets is a 7: leave it
        if not one.marker and here.get(one.name, "0") not in one.specifier:
            check_call([*pip, str(one)])
            print(one, "replaced: now Runtime > Restart session" if one.name in here else "added")

# %%
from dataclasses import replace
from html import escape
from itertools import combinations
from math import comb, log2

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch

from twotower_lib import baselines
from twotower_lib.evaluation import difference, intervals, measure
from twotower_lib.exercises import compare, exercise, predict, progress
from twotower_lib.exercises.results import result
from twotower_lib.metrics import capped_recall, corrected_metric, mrr, ndcg, recall, sampled_rank_chances, sampled_ranks
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.recipe import compose, prepare
from twotower_lib.seeding import child, torch_child

# %% [markdown]
# ## Five people by hand
#
# Five people are shown four films each. A **hit** is a shown film that was **held out**: the person did choose it, but
# the model was not told. All that a metric needs is where the hits stand, and how many films were held out.
#
# **Recall@k** is the share of a person's held-out films that stand among the first k shown. **MRR**, the mean
# reciprocal rank, looks at the first hit only: 1 divided by its rank, 0 without a hit. A row below is a person, a
# column a rank, and 1 a hit.

# %%
hits = np.array([[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]], dtype=bool)
held_out = np.array([1, 2, 3, 6, 1])

recall_by_hand = [row.sum() / count for row, count in zip(hits, held_out, strict=True)]
mrr_by_hand = [max((1 / rank for rank, hit in enumerate(row, start=1) if hit), default=0) for row in hits]

assert np.allclose(recall_by_hand, recall(hits, held_out))
assert np.allclose(mrr_by_hand, mrr(hits, held_out))
print("recall@4:", [f"{one:.2f}" for one in recall_by_hand], f"mean {np.mean(recall_by_hand):.2f}")
print("MRR@4:   ", [f"{one:.2f}" for one in mrr_by_hand], f"mean {np.mean(mrr_by_hand):.2f}")

# %% [markdown]
# Recall does not care where in the list a hit stands; MRR cares for nothing but the first one.
#
# **NDCG** counts every hit, and a hit further down counts less. At rank r it gains 1 / log2(r + 1): at rank 1 that is
# 1, at rank 3 it is 1/2. The sum over the hits is the DCG, the discounted cumulative gain. It is divided by the DCG of
# the best list that this person could get: all hits in front, min(k, held-out films) of them. So a perfect list gets 1.

# %%
second = (1 + 1 / log2(5)) / (1 + 1 / log2(3))  # hits at ranks 1 and 4, two films held out: the best ranks are 1 and 2
fourth = 4 / 4  # four hits in four places: nothing better exists, whatever was not shown

assert np.allclose(ndcg(hits, held_out)[[1, 3]], [second, fourth])
print("NDCG@4:  ", [f"{one:.2f}" for one in ndcg(hits, held_out)], f"mean {ndcg(hits, held_out).mean():.2f}")

# %% [markdown]
# ### Exercise 03.1: NDCG
#
# *8 minutes, difficulty 2 of 3, core.*
#
# Write `ndcg_of(hits, held_out)`. `hits` has a row a person and a column a rank, True where the film at that rank is a
# hit; `held_out` says how many films each person has held out, 1 or more. Return one value a person: the sum of
# 1 / log2(rank + 1) over the hits, divided by the same sum for the best list, which has min(k, held-out films) hits in
# front, where k is the number of columns, `hits.shape[1]`. Ranks start at 1. (`np.arange(1, 4)` holds 1, 2, 3;
# `np.cumsum` makes running sums; `np.minimum` takes the smaller of two numbers in each place.)


# %% tags=["exercise"]
def ndcg_of(hits, held_out):
    """(people, k) truth values, (people,) counts -> (people,)."""
    ### BEGIN SOLUTION
    gain = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.cumsum(gain)[np.minimum(held_out, hits.shape[1]) - 1]
    return hits @ gain / best
    ### END SOLUTION


# %%
exercise("03.1").check(ndcg_of)

# %%
exercise("03.1").hint()  # run it again for the next of three

# %% [markdown]
# A name is not a definition: some papers divide by min(k, held-out films) and still call it recall. Compare two papers
# only when you know their denominators, their k, and whether films that the person knew were taken out of the list.
#
# ## Chance and popularity
#
# Now real data: MovieLens 100K. All that follows looks at validation; the test part is asked once, at the end. The
# whole catalogue is ranked, without the films that a person is known to have watched.

# %%
recipe = compose(["data=ml-100k"])
prepared = prepare(recipe)
asked, K = prepared.asked("valid"), 10
train, titles = asked.known, prepared.dataset.catalogue.titles
print(f"{len(asked)} people, {train.n_items:,} films")
print(f"{len(train):,} known events, {len(asked.held_out.values):,} held-out ones")

# %% [markdown]
# **Chance** shows films drawn evenly from those a person may be shown. It needs no experiment: each held-out film is
# among the first 10 with the chance 10 / candidates. **Popularity** shows everybody the films with the most train
# events. It knows nothing of the person.

# %%
predict("How many times the recall@10 of chance does popularity reach?", guess=None, unit="times", key="03.popularity")

# %%
measured = {
    "chance": measure(baselines.fit_random(train, baselines.RandomSettings()), asked, [K]),
    "popularity": measure(baselines.fit_popularity(train, baselines.PopularitySettings()), asked, [K]),
}
expected = np.mean(K / (train.n_items - asked.exclude.lengths))
assert abs(measured["chance"].means["recall@10"] - expected) < 0.002, "one draw of random lists"
print(f"Chance by formula: {expected:.4f}.")
compare("03.popularity", round(measured["popularity"].means["recall@10"] / expected, 1))

# %% [markdown]
# Both lines belong beside every number. Chance says what the task gives away: with 20 candidates instead of 1,600 it
# would be 0.5. Popularity says what can be had without knowing the person; a personal model that does not beat it has
# learned less than a count.
#
# ## Strong baselines
#
# The third neighbour of a number is a strong baseline. Three are fitted in seconds, and each is a few lines of NumPy,
# which a section of the stretch writes by hand.
#
# - **Item-kNN**: two films are similar when the same people watched them. A film scores the sum of its similarities to
#   the films of the person's history; only its nearest neighbours count.
# - **EASE** learns such weights instead of counting them: by linear regression, each film is rebuilt from the *other*
#   films that a person watched.
# - **iALS** gives every person and every film a vector, and the score is their inner product. It is what this course
#   builds, with a small linear system in place of each tower.
#
# They get the care that a model of one's own gets: settings from a grid of 12, chosen on validation by
# `benchmarks/tune`. That includes how many of a person's latest films they are asked with; each of the three chose 10
# from 5, 10 and 20.

# %%
tuning = result("tuning_ml-100k")["last"]


def settings_of(side, kind):
    """The settings that a side chose on validation."""
    named = {name: value for name, value in tuning[side]["chosen"]["settings"].items() if name != "last"}
    return kind(**named)


assert all(len(side["tried"]) == 12 for side in tuning.values())
assert {tuning[f"{side}, recent"]["chosen"]["settings"]["last"] for side in ("item-knn", "ease", "ials")} == {10}
histories = asked.exclude.last(10)
latest = replace(asked, queries=replace(asked.queries, history=histories))  # the same questions, asked with less
item_knn = baselines.fit_item_knn(train, settings_of("item-knn, recent", baselines.ItemKNNSettings))
ease = baselines.fit_ease(train, settings_of("ease, recent", baselines.EASESettings))
ials = baselines.fit_ials(train, settings_of("ials, recent", baselines.IALSSettings))

# %% [markdown]
# Now all five beside each other.

# %%
models = {"item-kNN": item_knn, "EASE": ease, "iALS": ials}
measured |= {name: measure(model, latest, [K]) for name, model in models.items()}
METRICS = [f"{metric}@{K}" for metric in ("recall", "mrr", "ndcg")]
means = pd.DataFrame({name: one.means for name, one in measured.items()}).T[METRICS]
assert (means.loc["popularity"] > 5 * means.loc["chance"]).all()
assert (means.loc[list(models)].min() > 2 * means.loc["popularity"]).all()
on_this_machine(means.round(3).to_string())

# %% [markdown]
# Each of the three finds more than twice what popularity finds. (The row of chance is one draw of random lists.) A new
# model that is shown beside popularity alone would look brilliant by beating it a little; beside these it would look
# like what it is.
#
# ## An interval: who was asked?
#
# 943 people were asked. Another 943 of the same kind would give another mean. How far off could it be? We cannot ask
# others, but we can ask *these people again, as if they were a draw*: draw 943 of them with repetition, take the mean,
# do that 1,000 times, and keep the middle 95 %. This is the **bootstrap**. People are drawn, not films, because the
# films of one person rise and fall together.

# %%
values = measured["iALS"].table[f"ndcg@{K}"].to_numpy()
generator = child(0, "bootstrap")
drawn = np.array([generator.integers(0, len(values), len(values)) for _ in range(1000)])
low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])

library = intervals(measured["iALS"].table)[f"ndcg@{K}"]
assert np.allclose([low, high], [library.low, library.high])
on_this_machine(f"NDCG@10 of iALS: {values.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}")

# %% [markdown]
# ### Two intervals that overlap
#
# Is iALS better than item-kNN? Both were asked about the same people. Guess from the two intervals first.

# %%
whole = {name: intervals(one.table)[f"ndcg@{K}"] for name, one in measured.items()}
assert whole["item-kNN"].high > whole["iALS"].low, "they overlap"
on_this_machine("\n".join(f"{name:11} {one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for name, one in whole.items()))

# %%
predict("Is iALS better than item-kNN: yes, no, or cannot be told?", guess=None, key="03.better")

# %% [markdown]
# Most of what moves a mean is *who was drawn*: people with predictable taste are easy for both models. That part is the
# same for both, and it cancels when the two are subtracted **person by person**, before anything is drawn.

# %% [markdown]
# ### Exercise 03.2: A paired interval
#
# *7 minutes, difficulty 2 of 3, core.*
#
# Write `paired(one, other, drawn)`. `one` and `other` hold a value for each person: a metric of two models that were
# asked about the same people. `drawn` has a row a bootstrap draw, and in it the numbers of the drawn people. Return the
# two ends of the 95 % interval of the mean difference `one` minus `other`: the percentiles 2.5 and 97.5
# (`np.percentile`) over the draws.


# %% tags=["exercise"]
def paired(one, other, drawn):
    """(people,), (people,), (draws, people) numbers of people -> the low end and the high end."""
    ### BEGIN SOLUTION
    difference = (one - other)[drawn].mean(axis=1)
    return np.percentile(difference, [2.5, 97.5])
    ### END SOLUTION


# %%
exercise("03.2").check(paired)

# %%
exercise("03.2").hint()

# %%
against = {name: difference(measured["iALS"], measured[name])[f"ndcg@{K}"] for name in ("item-kNN", "EASE")}
sure = {name: one.low > 0 or one.high < 0 for name, one in against.items()}
assert sure["item-kNN"] and against["item-kNN"].low > 0
per_person = pd.DataFrame({name: measured[name].table[f"ndcg@{K}"] for name in models})
assert per_person.corr().loc["iALS", "item-kNN"] > 0.6
compare("03.better", "yes")

# %%
drawing, (left, right) = canvas(columns=2, width=9, height=3.6)
for row, one in enumerate([whole[name] for name in models]):
    left.plot([one.low, one.high], [row, row], color=COLOURS[row], linewidth=3)
    left.plot(one.mean, row, "o", color=COLOURS[row])
for name, style in (("chance", ":"), ("popularity", "--")):
    left.axvline(whole[name].mean, color="grey", linestyle=style, label=name)
left.set_yticks(range(3), list(models))
left.set_ylim(-0.5, 2.5)
left.set_xlabel("NDCG@10, with its 95 % interval")
left.set_ylabel("model")
left.legend()
for row, one in enumerate(against.values()):
    right.plot([one.low, one.high], [row, row], color=COLOURS[row], linewidth=3)
    right.plot(one.mean, row, "o", color=COLOURS[row])
right.axvline(0, color="black", linewidth=0.8)
right.set_yticks(range(2), [f"iALS minus {name}" for name in against])
right.set_ylim(-0.5, 1.5)
right.set_xlabel("difference of NDCG@10, person by person")
right.set_ylabel("pair")
figure(
    drawing,
    alt="Two charts of points with intervals. Left: NDCG@10 of item-kNN, EASE and iALS on an axis from 0 to 0.2, with "
    "lines for chance near 0 and popularity near 0.06. The three intervals overlap, far right of both lines. Right: "
    "paired differences. That of iALS minus item-kNN lies wholly above 0; that of iALS minus EASE reaches across 0.",
)

# %% [markdown]
# The intervals of item-kNN and iALS overlap, and still iALS is surely better on these people: the interval of the
# paired difference lies above 0. Between EASE and iALS nothing can be told. So: **report the interval of the
# difference**. And an interval over people says nothing about other seeds, other splits, or next month.

# %% [markdown]
# ## Sampled metrics lie
#
# To rank millions of films for every person is work. So many papers rank each held-out film among 100 **negatives**
# only, drawn evenly from the films that the person neither knows nor has held out. Let us do the same.
# First the truth: the rank of each held-out film among itself and *all* such films. From here on means are taken over
# held-out films, not over people, so a person with many of them counts more: iALS had a recall@10 of 0.20 above, and by
# this count it has 0.15.

# %%
owners, wanted, NEGATIVES = asked.held_out.owners, asked.held_out.values, 100
rivals = [
    np.setdiff1d(np.arange(train.n_items), np.append(asked.held_out[person], asked.exclude[person]))
    for person in range(len(asked))
]
candidates = np.array([len(rivals[person]) + 1 for person in owners])


def places(model, queries):
    """The place of every film in each person's order of the whole catalogue, best first."""
    scores = torch.empty(len(queries), train.n_items)
    model.score(queries, scores)
    return np.argsort(np.argsort(-scores.numpy(), axis=1, kind="stable"), axis=1).astype(np.int16)


def true_ranks(place):
    """For each held-out film 1 + how many rivals stand above it."""
    above = [
        (place[person, rivals[person]] < place[person, film]).sum() for person, film in zip(owners, wanted, strict=True)
    ]
    return 1 + np.array(above)


# %%
generator = child(0, "negatives")
negatives = np.array([generator.choice(rivals[person], NEGATIVES, replace=False) for person in owners])


def ranks_in_sample(place):
    """For each held-out film 1 + how many of its 100 negatives stand above it."""
    return 1 + (place[owners[:, None], negatives] < place[owners, wanted][:, None]).sum(axis=1)


fitted = {"popularity": baselines.fit_popularity(train, baselines.PopularitySettings()), **models}
place = {name: places(model, latest.queries) for name, model in fitted.items()}
true = {name: true_ranks(one) for name, one in place.items()}
sampled = {name: ranks_in_sample(one) for name, one in place.items()}

assert abs(measured["iALS"].means["recall@10"] - 0.20) < 0.01 and abs(np.mean(true["iALS"] <= K) - 0.15) < 0.01
print(f"{len(wanted):,} held-out films, each ranked among {candidates.min():,} to {candidates.max():,} films, or 101.")

# %%
predict("Better by sampled recall@10: item-kNN or iALS?", guess=None, key="03.order")


# %%
def delta(one, other, value):
    """The paired difference of a value of the ranks, in the mean over held-out films; people are drawn."""
    return intervals(pd.DataFrame({"user": owners, "delta": value(one) - value(other)}))["delta"]


def in_ten(ranks):
    return (ranks <= K).astype(float)


exact, in_sample = (delta(of["iALS"], of["item-kNN"], in_ten) for of in (true, sampled))
assert exact.low > 0 > in_sample.high, "sure, and the other way round, as sure"
chance = {"exact": np.mean(K / candidates), "sampled": K / (NEGATIVES + 1)}
rows = [
    f"{'recall@10':12} whole catalogue  100 negatives",
    f"{'chance':12} {chance['exact']:15.3f} {chance['sampled']:14.3f}",
]
rows += [f"{name:12} {in_ten(true[name]).mean():15.3f} {in_ten(sampled[name]).mean():14.3f}" for name in fitted]
for told, one in (("whole catalogue", exact), ("100 negatives", in_sample)):
    rows.append(f"iALS minus item-kNN, {told:15}: {one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]")
on_this_machine("\n".join(rows))

# %%
compare("03.order", "item-kNN" if in_sample.mean < 0 else "iALS")
# %%
lengths = np.arange(1, 601)
curve = {name: (true[name] <= lengths[:, None]).mean(axis=1) for name in fitted}
curve["chance"] = (lengths[:, None] / candidates).mean(axis=1)
tenth = int(K / (NEGATIVES + 1) * candidates.mean())  # where the first 10 of 101 end, in a list of the whole catalogue
gap = {name: curve[name] - curve["item-kNN"] for name in ("EASE", "iALS")}
assert all(one[K - 1] > 0 > one[tenth - 1] for one in gap.values()) and 140 < tenth < 160

# %%
drawing, (whole_view, close_view) = canvas(columns=2, width=10, height=4)
styles = dict(zip(curve, ("--", "-", "-.", "-", ":"), strict=True))
for number, (name, found) in enumerate(curve.items()):
    whole_view.semilogx(lengths, found, styles[name], color=COLOURS[number], label=name)
    if name in gap:
        close_view.semilogx(lengths, gap[name], styles[name], color=COLOURS[number], label=f"{name} minus item-kNN")
for axes, height in ((whole_view, 0.01), (close_view, 0.019)):
    for length, told in ((K, "10"), (tenth, "10 of 101")):
        axes.axvline(length, color="black", linewidth=0.8)
        axes.text(length * 1.08, height, told, color="dimgrey")
    axes.set_xlabel("length of the list, whole catalogue")
whole_view.set_ylabel("recall: share of the held-out films")
close_view.set_ylabel("difference of recall")
close_view.axhline(0, color="black", linewidth=0.8)
whole_view.legend(loc="center left")
close_view.set_ylim(-0.065, 0.025)
close_view.legend(loc="lower left")
figure(
    drawing,
    alt="Two line charts, across, logarithmic: the length of the list, 1 to 600 films. Left: recall, 0 to 1; three "
    "models close together, far above popularity and chance. Right: the difference to item-kNN, -0.06 to 0.02. EASE "
    "and iALS lie above 0 at length 10, cross it, and lie below at 150, where the first ten of 101 drawn films end.",
)

# %% [markdown]
# Ten places among 101 films are easy: even chance gets about 0.1. That alone would be harmless, as a thermometer with
# another scale is. But the order is turned around, and the picture says why. To be among the first 10 of 101 drawn
# films, a film need only be among the first tenth of the catalogue, near rank 150 here. The sampled metric reads the
# curves *there*, and there they have crossed: item-kNN is good at the first tenth, iALS at the first ten. A reader with
# ten places on a screen wants the left line. Nothing is wrong with the draw; more people would only make the wrong
# answer surer.
#
# The remedy: rank the whole catalogue. For a model of vectors that is a matrix product. If it is too slow, ask fewer
# *people*: a mean over fewer people is noisier, and its interval says so, but it is the right mean.
#
# ## A batch is not the catalogue
#
# The second shortcut comes for free in training: in a batch of pairs (person, film), rank each person's film among the
# films of the batch, and call the result recall@10. Guess what that gives.

# %%
predict("iALS, recall@10 inside batches of 64 pairs?", guess=None, key="03.batch")


# %%
def scores_of(model):
    """The score of every film for every person."""
    out = torch.empty(len(latest), train.n_items)
    model.score(latest.queries, out)
    return out.numpy()


def in_batch_recall(scores, size):
    """Recall@10 where the film of a pair is ranked among the films of its batch."""
    order, ranked = child(0, "batches").permutation(len(wanted)), []
    for start in range(0, len(order) - size + 1, size):
        pairs = order[start : start + size]
        block = scores[owners[pairs]][:, wanted[pairs]]
        ranked.append((block > np.diag(block)[:, None]).sum(axis=1) < K)
    return np.mean(ranked)


SIZES = (64, 256, 1024)
inside = {name: [in_batch_recall(scores_of(model), size) for size in SIZES] for name, model in fitted.items()}
compare("03.batch", round(inside["iALS"][0], 2))

# %%
catalogue = {name: in_ten(true[name]).mean() for name in fitted}
rows = [f"{'recall@10':24}" + "".join(f"{f'batch {size}':>12}" for size in SIZES) + f"{'catalogue':>12}"]
rows.append(f"{'chance':24}" + "".join(f"{K / size:12.3f}" for size in SIZES) + f"{chance['exact']:12.3f}")
for name, values in inside.items():
    rows.append(f"{name:24}" + "".join(f"{value:12.3f}" for value in (*values, catalogue[name])))
assert inside["iALS"][0] > 2 * catalogue["iALS"] > 8 * inside["iALS"][2], "the size of the batch decides"
assert all(abs(value * size / K - 1) < 0.1 for value, size in zip(inside["popularity"], SIZES, strict=True))
assert catalogue["popularity"] > 5 * chance["exact"]
assert inside["iALS"][2] < inside["item-kNN"][2] and catalogue["iALS"] > catalogue["item-kNN"]
on_this_machine("\n".join(rows))

# %% [markdown]
# One model, three batch sizes, three numbers, and none of them is its recall: from more than twice of it down to less
# than a quarter. Popularity, which finds more than five times as much as chance in the catalogue, is worth **no more
# than chance** in a batch, because the columns are there in proportion to popularity. And iALS, the better one in the
# catalogue, is below item-kNN in a batch of 1,024 (a section of the stretch says why). Watch an in-batch metric to see
# whether a run is alive. Never quote it as recall.
#
# ## The test part, asked once
#
# Everything so far looked at validation, where the settings were chosen, and whoever chooses flatters the chosen. So at
# the very end the models are trained on all that is known, and the test part is asked once. These numbers come from a
# stored result, made by `benchmarks/quality`, with the *history tower* of the coming chapters as one more row, three
# seeds where there is a seed, and k = 20 as in the chapters that follow. The last column is the paired difference to
# the history tower.

# %%
quality = result("quality_ml-100k")["last"]
SIDES = {"random": "chance", "popularity": "popularity", "item-knn, recent": "item-kNN", "ease, recent": "EASE"}
SIDES |= {"ials, recent": "iALS", "history tower": "history tower"}
rows = [f"{'test part':14} recall@20  ndcg@20   recall@20 minus the tower's"]
for side, name in SIDES.items():
    of_tower = quality[side]["differences"]["history tower"]["recall@20"]
    told = f"{of_tower['mean']:+.3f} [{of_tower['low']:+.3f}, {of_tower['high']:+.3f}]" if of_tower["mean"] else ""
    row = {metric: quality[side][metric]["mean"] for metric in ("recall@20", "ndcg@20")}
    rows.append(f"{name:14} {row['recall@20']:9.3f} {row['ndcg@20']:8.3f}   {told}")
print("\n".join(rows))
assert quality["ials, recent"]["differences"]["history tower"]["recall@20"]["high"] < 0

# %% [markdown]
# This is the form of a number that can be believed: chance and popularity in the first rows, strong baselines tuned
# with the same care, a paired interval, a part that was asked once. Here the core of the chapter ends.

# %% [markdown]
# ## Stretch: two models, one person
#
# Means hide people. Choose a person, a list length and a metric: both lists, hits marked, and the sum spelled out. (The
# next two cells only prepare the text; there is no need to read them.)

# %%
PEOPLE = [7, 20, 58, 113, 166, 239, 310, 475]


def listed(model, person, k):
    """The rows of the films shown to a person, and which of them are hits."""
    asks = latest.queries.slice(person, person + 1)
    rows = model.recommend(asks, k, asked.exclude.slice(person, person + 1)).items[0]
    return rows, np.isin(rows, asked.held_out[person])


def spelled(metric, found, count):
    """The metric of one list, as a sum and as a number."""
    ranks = np.flatnonzero(found) + 1
    value = {"recall": recall, "mrr": mrr, "ndcg": ndcg}[metric](found[None], np.array([count]))[0]
    if metric == "recall":
        return f"{len(ranks)} / {count} = {value:.2f}"
    if metric == "mrr":
        return f"1 / {ranks[0]} = {value:.2f}" if len(ranks) else "no hit: 0.00"
    gains = " + ".join(f"1/log2({rank + 1})" for rank in ranks) or "0"
    best_gain = (1 / np.log2(np.arange(2, min(count, len(found)) + 2))).sum()
    return f"({gains}) / {best_gain:.2f} = {value:.2f}"


# %%
pair = {"item-kNN": item_knn, "iALS": ials}


def render(person, k, metric):
    """Both lists side by side as HTML."""
    count, lists = len(asked.held_out[person]), {name: listed(model, person, k) for name, model in pair.items()}
    heads = [f"{name}: {spelled(metric, found, count)}" for name, (_, found) in lists.items()]
    lines = [f"<th scope='col'>{head}</th>" for head in ("rank", *heads)]
    for rank in range(k):
        shown_here = [("<b>HIT</b> " * bool(found[rank]), titles[rows[rank]]) for rows, found in lists.values()]
        lines.append(f"</tr><tr><td>{rank + 1}</td>" + "".join(f"<td>{hit}{escape(it)}</td>" for hit, it in shown_here))
    caption = f"<p role='status'>Person {person}, {count} films held out; {metric}@{k} of both models.</p>"
    return f"{caption}<table><tr>{''.join(lines)}</tr></table>"


# %%
named = [(f"person {one}", one) for one in PEOPLE]
person_buttons = widgets.RadioButtons(options=named, value=PEOPLE[0], description="person")
k_buttons = widgets.RadioButtons(options=[5, 10, 20], value=10, description="films, k")
metric_buttons = widgets.RadioButtons(options=["recall", "mrr", "ndcg"], value="ndcg", description="metric")
both_lists = widgets.HTML()


def show(change=None):
    both_lists.value = render(person_buttons.value, k_buttons.value, metric_buttons.value)


controls = {"tt-person": person_buttons, "tt-length": k_buttons, "tt-metric": metric_buttons}
for name, control in controls.items():
    control.add_class(name)
    control.observe(show, "value")
show()
widgets.VBox([widgets.HBox([person_buttons, k_buttons, metric_buttons]), both_lists]).add_class("tt-lists")

# %% [markdown]
# The same without a kernel: NDCG@10 of both models for each of these people.

# %%
rows = ["person  held out   " + "".join(f"{name:>10}" for name in pair)]
for person in PEOPLE:
    told = [f"{per_person.loc[person, name]:10.2f}" for name in pair]
    rows.append(f"{person:6}  {len(asked.held_out[person]):8}   " + "".join(told))
on_this_machine("\n".join(rows))

# %% [markdown]
# ## Stretch: the three baselines by hand
#
# X has a row a person and a column a film, 1 where the person watched the film in the train part. X10 holds only the
# latest ten of each person: the histories with which the three are asked.
#
# **Item-kNN.** Two films are similar when the same people watched them: the number of people who watched both, over the
# root of the product of how many watched each, which is the cosine of two columns of X. A constant, the *shrink*, pulls
# down what rests on few people. Of each film only the nearest neighbours count, and a film scores the sum of its
# similarities to the films of the history.

# %%
X, X10 = np.zeros((2, train.n_users, train.n_items))
X[train.user, train.item] = X10[histories.owners, histories.values] = 1
knn = settings_of("item-knn, recent", baselines.ItemKNNSettings)
together, watched = X.T @ X, X.sum(axis=0)


def neighbours_by_hand():
    """What a film of the history, a row, adds to the score of another film, a column."""
    similar = together / (np.sqrt(np.outer(watched, watched)) + knn.shrink)
    np.fill_diagonal(similar, 0)
    nearest = np.argsort(-similar.astype(np.float32), axis=0, kind="stable")[: knn.neighbours]
    weights = np.zeros_like(similar)
    np.put_along_axis(weights, nearest, np.take_along_axis(similar, nearest, axis=0), axis=0)
    return weights


weights = neighbours_by_hand()
assert np.allclose(weights, item_knn.weights.toarray(), atol=1e-6)
scores = np.where(X > 0, -np.inf, X10 @ weights)  # without the films of the train part
shown = item_knn.recommend(latest.queries, K, asked.exclude).items
same = np.mean(np.argsort(-scores, axis=1, kind="stable")[:, :K] == shown)
print(f"By hand and the library's: {same:.0%} of the shown films are the same.")

# %% [markdown]
# **EASE** learns the weights instead of counting them: it looks for the matrix B that rebuilds X best as X B. Without a
# condition the answer is useless, since every film would explain itself. So the diagonal of B is 0: each film has to be
# rebuilt from the *others*. A term lambda times the squares of B keeps the weights small. One column of B is then an
# ordinary ridge regression, and we can do one by hand:

# %%
ease_settings = settings_of("ease, recent", baselines.EASESettings)
film = watched.argmax()
others = np.delete(np.arange(train.n_items), film)
system = together[np.ix_(others, others)] + ease_settings.regularisation * np.eye(len(others))
column = np.linalg.solve(system, together[others, film])

assert np.allclose(column, ease.weights[others, film], atol=1e-5) and ease.weights[film, film] == 0
print(
    f"{titles[film]} is rebuilt from, above all:", "; ".join(titles[other] for other in others[column.argsort()[-3:]])
)

# %% [markdown]
# One regression after the other, for all films, would be slow. Steck ([2019](https://arxiv.org/abs/1905.03375),
# equation 8) found all columns at once. G = X'X is the Gram matrix (X' is X with rows and columns exchanged, I has ones
# on the diagonal and zeros elsewhere), and P = inverse of (G + lambda I). Off the diagonal
#
# ```
# B[i, j] = - P[i, j] / P[j, j]
# ```

# %% [markdown]
# ### Exercise 03.3: Spot the bug in EASE
#
# *8 minutes, difficulty 3 of 3, stretch.*
#
# Somebody wrote EASE from memory and forgot the condition on the diagonal. What is solved here is a plain ridge
# regression of all films on all films, the film itself included:
#
# ```python
# def ease(gram, regularisation):
#     return np.linalg.solve(gram + regularisation * np.eye(len(gram)), gram)
# ```
#
# Write `repaired(gram, regularisation)`: the weights B of EASE for this Gram matrix, by the formula above, with zeros
# on the diagonal. With P the inverse of a matrix, `np.linalg.inv`, its diagonal is `np.diag(P)`, and `np.fill_diagonal`
# writes one into a matrix in place.


# %% tags=["exercise"]
def repaired(gram, regularisation):
    """(films, films), a number -> (films, films)."""
    ### BEGIN SOLUTION
    P = np.linalg.inv(gram + regularisation * np.eye(len(gram)))
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return B
    ### END SOLUTION


# %%
exercise("03.3").check(repaired)

# %%
exercise("03.3").hint()

# %% [markdown]
# **iALS** asks of its inner products to be 1 where a person watched a film, and, with a small weight alpha0, to be 0
# everywhere. With all film vectors held fixed the best vector of a person solves a small linear system, and the other
# way round. So the two sides are solved by turns ([Rendle et al. 2021](https://arxiv.org/abs/2110.14037), equations 1
# to 4).


# %%
def solve(met, vectors, of):
    """For each row of `met` the vector that fits it best, while the other side's vectors stay."""
    everyone, eye = of.alpha0 * vectors.T @ vectors, np.eye(of.factors)
    solved = []
    for row in met > 0:
        weight = row.sum() + of.alpha0 * len(vectors)
        system = vectors[row].T @ vectors[row] + everyone + of.regularisation * weight**of.nu * eye
        solved.append(np.linalg.solve(system, vectors[row].sum(axis=0)))
    return np.array(solved)


of = settings_of("ials, recent", baselines.IALSSettings)
start = torch.randn(train.n_items, of.factors, generator=torch_child(of.seed, "ials"), dtype=torch.float64)
films = start.numpy() * of.deviation / of.factors**0.5
for _ in range(of.epochs):
    films = solve(X.T, solve(X, films, of), of)

assert np.allclose(films, ials.vectors.numpy(), atol=1e-8)
assert np.allclose(solve(X10, films, of), ials.embed(latest.queries).numpy(), atol=1e-8)
print("The vectors by hand are the library's.")

# %% [markdown]
# ## Stretch: how often does the order turn?
#
# Was the pair of *Sampled metrics lie* picked because it turned? It was found, not built: these are the models of this
# chapter with their tuned settings. Here are all pairs of six tuned models, the three from above and the three that are
# asked with whole histories.

# %%
three = {
    "item-kNN, all": baselines.fit_item_knn(train, settings_of("item-knn", baselines.ItemKNNSettings)),
    "EASE, all": baselines.fit_ease(train, settings_of("ease", baselines.EASESettings)),
    "iALS, all": baselines.fit_ials(train, settings_of("ials", baselines.IALSSettings)),
}
place |= {name: places(model, asked.queries) for name, model in three.items()}
true |= {name: true_ranks(place[name]) for name in three}
sampled |= {name: ranks_in_sample(place[name]) for name in three}
turned, surely, rows = 0, 0, [f"{'recall@10':28} whole catalogue            100 negatives"]
for one, other in combinations([*models, *three], 2):
    whole_one, sample_one = (delta(ranks[one], ranks[other], in_ten) for ranks in (true, sampled))
    if whole_one.mean * sample_one.mean < 0:
        turned += 1
        surely += whole_one.low * whole_one.high > 0 and sample_one.low * sample_one.high > 0
        told = [f"{each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]" for each in (whole_one, sample_one)]
        rows.append(f"{f'{one} - {other}':28} " + "     ".join(told))
assert turned >= 2 and surely >= 1
on_this_machine("\n".join([*rows, f"{turned} of 15 pairs change their order, {surely} of them surely."]))

# %% [markdown]
# Where two models differ much, both metrics agree. Where they are close, which is where a metric is needed, the sampled
# one is no guide.

# %% [markdown]
# ## Stretch: films that are known, in a batch
#
# A batch holds films that the person knows, which a list would leave out. They stand above the film that counts.

# %%
unknown = {name: np.where(X > 0, -np.inf, scores_of(fitted[name])) for name in ("item-kNN", "iALS")}
without = {name: [in_batch_recall(scores, size) for size in SIZES] for name, scores in unknown.items()}
rows = [f"{'recall@10':24}" + "".join(f"{f'batch {size}':>12}" for size in SIZES)]
for name, values in without.items():
    rows.append(f"{name:24}" + "".join(f"{value:12.3f}" for value in inside[name]))
    rows.append(f"{name + ', known taken out':24}" + "".join(f"{value:12.3f}" for value in values))
rows.append(f"{'chance':24}" + "".join(f"{K / size:12.3f}" for size in SIZES))
rows.append(f"{'popularity':24}" + "".join(f"{value:12.3f}" for value in inside["popularity"]))
assert without["iALS"][2] > 2 * inside["iALS"][2] and without["iALS"][2] > without["item-kNN"][2]
on_this_machine("\n".join(rows))

# %% [markdown]
# At batch 1,024 they alone put iALS below item-kNN: taken out, iALS is above it again at that size. And still these are
# the numbers of a batch.

# %% [markdown]
# ## Stretch: the correction
#
# What if the catalogue really cannot be ranked, and somebody hands you sampled ranks? The draw can be reckoned with. Of
# c candidates, rank r has r - 1 above it. Among m of the other c - 1, drawn evenly and without repetition, the number
# above it follows the hypergeometric distribution. By hand, the chance that rank 20 of 1,500 becomes sampled rank 2 of
# 100 negatives:

# %%
by_hand = comb(19, 1) * comb(1480, 99) / comb(1499, 100)  # one of the 19 above it, 99 of the 1,480 below
chances = sampled_rank_chances(1500, NEGATIVES)
assert np.isclose(by_hand, chances[19, 1])
again = sampled_ranks(true["iALS"], candidates, NEGATIVES, child(0, "again"))  # the library draws from the rank alone
assert abs(np.mean(again <= K) - np.mean(sampled["iALS"] <= K)) < 0.03
print(f"{by_hand:.3f}; with chance {chances[19, 0]:.3f} it comes first, although it is no top-10 film.")

# %% [markdown]
# Krichene and Rendle ask: which number x[s] should be counted for each sampled rank s, so that its mean comes near the
# metric of the true rank? They minimise, over all true ranks, the squared **bias** plus g times the **variance** of
# what is counted. The weight g between 0 and 1 is a choice. At g = 1 the answer is simple: x[s] is the share of top-10
# ranks among all ranks that s can come from.

# %%
top = (np.arange(1, 1501) <= K).astype(float)
share = chances[:K].sum(axis=0) / chances.sum(axis=0)
assert np.allclose(share, corrected_metric(top, NEGATIVES, variance_weight=1.0))
for g in (1.0, 0.1, 0.01, 0.001):
    print(f"g = {g:5}: sampled ranks 1 to 5 count", np.round(corrected_metric(top, NEGATIVES, g)[:5], 2) + 0.0)


# %%
def corrected(ranks, g):
    """What each sampled rank counts; candidates to the nearest 50, so that a dozen tables are enough."""
    sizes = 50 * np.round(candidates / 50).astype(int)
    tables = {c: corrected_metric((np.arange(1, c + 1) <= K).astype(float), NEGATIVES, g) for c in set(sizes.tolist())}
    return np.array([tables[c][rank - 1] for c, rank in zip(sizes, ranks, strict=True)])


rows = [f"{'recall@10':18}{'item-kNN':>10}{'iALS':>10}    difference"]
rows.append(f"{'whole catalogue':18}{catalogue['item-kNN']:10.3f}{catalogue['iALS']:10.3f}    {exact.mean:+.3f}")
width = {}
for g in (1.0, 0.1, 0.01, 0.001):
    counted = {name: corrected(sampled[name], g) for name in ("item-kNN", "iALS")}
    one = delta(counted["iALS"], counted["item-kNN"], lambda value: value)
    told = "".join(f"{counted[name].mean():10.3f}" for name in counted)
    rows.append(f"corrected, g = {g:<5}{told}    {one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]")
    width[g] = one.high - one.low
    assert one.mean > 0, "the order is right again"
assert width[0.001] > 2 * (exact.high - exact.low)
on_this_machine("\n".join(rows))

# %% [markdown]
# The correction puts the order right, and with a small g the level too. The price is variance: single films count more
# than 1 or less than 0, and the interval of the difference gets more than twice as wide as that of the whole catalogue,
# from the same people. It holds only for negatives that were drawn *evenly*, and a bias remains. So it is a way to read
# what others have sampled, not a way to measure.

# %% [markdown]
# ## Stretch: one name, two denominators
#
# Person four of the first section has six films held out, and a list of four can hold four of them. Is a recall of 4/6
# fair? Some papers divide by min(k, held-out films) and still call it recall, among them the one of Mult-VAE (Liang et
# al. 2018). Here that is **capped recall**.

# %%
capped_by_hand = hits.sum(axis=1) / np.minimum(4, held_out)
assert np.allclose(capped_by_hand, capped_recall(hits, held_out))
print(
    f"The same five lists: recall@4 {recall(hits, held_out).mean():.2f}, capped recall@4 {capped_by_hand.mean():.2f}."
)

# %% [markdown]
# ### Exercise 03.4: Spot the bugs in a recall
#
# *10 minutes, difficulty 2 of 3, stretch.*
#
# Somebody measures recall@k like this, and is proud of how close all models are to each other:
#
# ```python
# def recall_of(scores, known, held_out, k):
#     best = np.argsort(-scores, axis=1)[:, :k]
#     found = np.take_along_axis(held_out, best, axis=1).sum(axis=1)
#     return found / k
# ```
#
# `scores` has a row a person and a column a film; `known` and `held_out` are truth values of the same shape: what the
# model knew of the person, and what was held out. No two scores of a row are equal, everybody has something held out,
# and nothing is both. Two things are wrong. Write `mended` with both put right: one value a person, the share of their
# held-out films among the first k of the films that they do not know. (`np.where`, and minus infinity, `-np.inf`, may
# be of use.)


# %% tags=["exercise"]
def mended(scores, known, held_out, k):
    """Three tables (people, films) and a number -> (people,)."""
    ### BEGIN SOLUTION
    best = np.argsort(-np.where(known, -np.inf, scores), axis=1)[:, :k]
    found = np.take_along_axis(held_out, best, axis=1).sum(axis=1)
    return found / held_out.sum(axis=1)
    ### END SOLUTION


# %%
exercise("03.4").check(mended)

# %%
exercise("03.4").hint()

# %% [markdown]
# ## In production
#
# - **Pinterest** chose the design of PinnerFormer, its user representation, by offline experiments and ablations, and
#   judged it by A/B experiments against the representation before it, on retention and engagement ([Pancha et al. 2022,
#   PinnerFormer](https://arxiv.org/abs/2205.04507)). An offline metric decides what is tried; people decide what stays.
# - **Published models** often lose to neighbours: of 18 neural recommenders of top conferences 7 could be reproduced
#   with reasonable effort, and 6 of those were often outperformed by simple methods ([Ferrari Dacrema et al. 2019, Are
#   we really making much progress?](https://arxiv.org/abs/1907.06902)).
#
# ## Five questions
#
# <details><summary>1. A paper reports a recall@20 of 0.40 on data where you reach 0.25. What do you look up before you
# believe in a better model?</summary>
#
# The denominator, the split, what was removed from the lists, whether the whole catalogue was ranked, and what chance
# and popularity reach there.
#
# </details>
#
# <details><summary>2. Two 95 % intervals overlap. Is the difference unsure?</summary>
#
# That cannot be told from them. Where both models met the same people, take the interval of the paired difference.
#
# </details>
#
# <details><summary>3. Somebody draws 1,000 negatives where others draw 100. Is their recall@10 then right?</summary>
#
# No, only nearer: it reads the curve of recall at a shorter list. It is right when all are ranked.
#
# </details>
#
# <details><summary>4. A run reports a recall@10 of 0.37 inside its batches of 64. What does chance reach there, and
# popularity?</summary>
#
# Chance 10/64, about 0.16. Popularity about the same, since the columns come in proportion to it.
#
# </details>
#
# <details><summary>5. A colleague tries forty settings on the test part and reports the best with its interval. What
# does the interval not know?</summary>
#
# That the best of forty was picked, luck included. Settings are chosen on validation; the test part is asked once.
#
# </details>
#
# What is done so far, kept in a file beside this notebook that `forget()` deletes:

# %%
on_this_machine(progress())

# %% [markdown]
# ## What you have seen
#
# Three metrics by hand; chance, popularity and strong baselines as the neighbours of a number; intervals over people
# and paired differences; sampled metrics that turn the order of two models around; and why a batch is not a catalogue.
# In the stretch: three baselines in a few lines each, and the price of correcting sampled ranks. Next comes
# `04_features`; on the short path, and until that one is there, go on with [05_towers](05_towers.ipynb).
