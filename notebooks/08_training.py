# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training: five plots that find most bugs
#
# Most bugs of a recommender raise no error. The loss falls, a list comes out, and something is wrong all the same. In
# this chapter we write the training loop, plant seven bugs in it, and look at each of them in five plots. Afterwards
# you can
#
# - **name** a bug from the five plots (exercise 08.1);
# - **judge** a difference between two runs beside what the seed alone does (in the stretch: the assertion under
#   *Stretch: seeds and spread*);
# - **compute** what a model pays that cannot tell two films apart (in the stretch: exercise 08.2);
# - **schedule** a learning rate (in the stretch: exercise 08.3);
# - **measure** how well vectors are spread out (in the stretch: exercise 08.4).
#
# **You should know** the loss of [06_losses](06_losses.ipynb): temperature, log q, masks. **Time**: 35 minutes for the
# core, which ends at *All of them*; the rest is stretch, for about as long.
# **Paper**: [Wang and Isola 2020, Understanding contrastive representation learning through alignment and uniformity on
# the hypersphere](https://arxiv.org/abs/2005.10242).

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
import json
import math
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch

from twotower_lib.diagnostics import (
    BINS,
    COLLAPSED,
    HIGHEST,
    LOWEST,
    Diagnosis,
    diagnose,
    fixed_sample,
    uniformity,
    with_gradients,
)

# %%
from twotower_lib.evaluation import measure
from twotower_lib.exercises import compare, exercise, predict, progress
from twotower_lib.exercises.results import result
from twotower_lib.features import Codes
from twotower_lib.losses import in_batch_softmax
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.recipe import begin, compose, measured_references, prepare, resume, train
from twotower_lib.retriever import exact_retriever
from twotower_lib.training import batch_loss, learning_rate_at, load_state, no_negatives

RUNS = Path("runs/08_training")

# %% [markdown]
# ## The loop in twenty lines
#
# A training loop repeats four things: take a batch of events, compute the loss, compute its gradient, move every weight
# a little against the gradient. One pass over all events is an **epoch**, one move is a **step**. How far a step goes
# is the **learning rate**; it grows at first, and later falls to 0 (a section of the stretch says why). The optimiser
# AdamW does the moving; it also scales each weight's move by how large its gradients have been.
#
# We begin with toy data: 60 people, 40 films. `begin` builds what a loop needs, in one
# record called a *phase*: the two towers with their first weights, the batches, and the settings.

# %%
toy = compose(["data=toy", "model.dim=8", "train.batch_size=128", "train.warmup_steps=5", "train.epochs=4"])
toy_data = prepare(toy)
phase = begin(toy, toy_data, toy_data.split, toy.train.epochs)
print(f"{phase.batches.steps_per_epoch} steps an epoch, {phase.total_steps} steps in all")


# %%
def unchanged(batch):
    return batch


def loop(phase, look, change=unchanged, loss=batch_loss):
    """The whole training. `look` is told the number of each step and its loss; bugs come in by the other two."""
    learned = [weight for weight in phase.towers.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learned, weight_decay=0.0, fused=True)
    number = 0
    for epoch in range(phase.epochs):
        for batch in phase.batches.epoch(epoch):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(number, phase.total_steps, phase.train)
            value = loss(phase.towers, change(batch), phase.loss)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            number += 1
            look(number, value.item())


# %% [markdown]
# `train` of the library runs the same loop, and adds what a long run needs: validation after each epoch, a log, saved
# states. Equal seeds give equal first weights and equal batches, so the losses must agree, and not only roughly.

# %%
steps, told = [], []
loop(phase, lambda number, value: steps.append(value))
train(toy, RUNS / "toy", force=True, report=told.append)

per_epoch = phase.batches.steps_per_epoch
by_hand = [sum(steps[start : start + per_epoch]) / per_epoch for start in range(0, len(steps), per_epoch)]
library = [line.loss for line in told if line.phase == "choose"]
assert by_hand[: len(library)] == library
print(f"{len(library)} epochs: the mean losses are equal to the last digit.")

# %% [markdown]
# ## What equal scores cost
#
# Is a loss of 5 good? What it has to be compared with is a model that gives every film the same score. With B films in
# the batch, all equally popular, each gets the probability 1 / B, and the loss is ln B, the natural logarithm of the
# batch size. With log q and masks it is another number.

# %% [markdown]
# Now the real data: MovieLens 100K, small towers, batches of 512, and one pass over the events. A person is read from
# their latest 20 films. All bugs of this chapter are planted in this run.

# %%
SETTINGS = ["data=ml-100k", "model.dim=32", "train.batch_size=512", "train.warmup_steps=20", "history.length=20"]
recipe = compose(SETTINGS)
prepared = prepare(recipe)
phase = begin(recipe, prepared, prepared.split, 1)
sample = fixed_sample(phase.batches)
print(f"{len(prepared.split.train)} events to learn from, {phase.total_steps} steps; ln 512 = {math.log(512):.2f}")

# %%
predict("With log q and both masks, what do equal scores cost in this batch of 512?", guess=None, key="08.equal")


# %%
def cost_of_equal_scores(batch, settings):
    """The library's loss of vectors that are all zero."""
    zeros, drop = torch.zeros(len(batch), 1), no_negatives(batch, settings)
    return in_batch_softmax(zeros, zeros, temperature=1.0, log_q=batch.log_q, drop=drop).item()


EQUAL = cost_of_equal_scores(sample, phase.loss)
assert math.log(512) + 0.5 < EQUAL
compare("08.equal", round(EQUAL, 2))

# %% [markdown]
# More than ln 512. A row's own film is mostly a popular one, so its logit, minus log q, is low: a model that knows
# nothing, and is told that popularity does not count, bets on rare films. A loss can be compared with *its own* line of
# equal scores, and with the loss of runs that have the same log q, masks and batch size. With others it cannot.

# %% [markdown]
# ## Five plots
#
# The loop runs for one epoch, and four times on the way we stop and look. (A run of the library writes the same into
# its log, `log.jsonl`.)
#
# 1. the **loss**, beside the line of equal scores;
# 2. the **gradient** of each tower: its norm, which is the length of all its entries taken as one vector;
# 3. the **scores** of positives and of negatives, as two histograms;
# 4. the **geometry**: how long the vectors are before they are normalised, and how many dimensions they use;
# 5. the **recall** on validation, beside popularity and chance.
#
# Plots 3 and 4 are made from a fixed sample of 512 events, so that two looks differ only by what was learned between
# them.


# %%
@dataclass
class Look:
    """What is seen at one moment of a run."""

    step: int
    loss: float  # mean since the last look
    diagnosis: Diagnosis  # gradients since the last look; scores and geometry now
    means: dict  # metrics on validation


# %%
def watch(*overrides, change=unchanged, loss=batch_loss):
    """One epoch of the twenty lines above, looked at four times."""
    phase = begin(compose([*SETTINGS, *overrides]), prepared, prepared.split, 1)
    sample, every = change(fixed_sample(phase.batches)), phase.total_steps // 4
    looks, losses, gradients = [], [], {}

    def look(number, value):
        losses.append(value)
        gradients.update(with_gradients(gradients, phase.towers))
        if number % every == 0:
            found = diagnose(phase.towers, sample, no_negatives(sample, phase.loss), gradients, every)
            means = measure(exact_retriever(phase.towers, phase.features), asked, [20]).means
            looks.append(Look(number, sum(losses[-every:]) / every, found, means))
            gradients.clear()

    loop(phase, look, change, loss)
    return looks


# %%
asked = prepared.asked("valid")
references = {name: one.means["recall@20"] for name, one in measured_references(recipe, asked, [], [20]).items()}
healthy = watch()
recalls = [look.means["recall@20"] for look in healthy]
assert 10 * references["chance"] < 2 * references["popularity"] < recalls[-1]
assert healthy[-1].loss < EQUAL - 1.5 and healthy[-1].diagnosis.alarm == ""
print("The healthy run: after one epoch more than twice the recall of popularity.")

# %% [markdown]
# The next cells only draw: each function makes one of the five plots for one or more runs. There is no need to read
# them.

# %%
STYLES = (("o", COLOURS[0]), ("s", COLOURS[1]), ("D", COLOURS[2]))


def curves(axes, runs, value, label, line="-"):
    """A curve a run: a value of each look."""
    for (name, looks), (mark, colour) in zip(runs.items(), STYLES, strict=False):
        axes.plot([one.step for one in looks], [value(one) for one in looks], line + mark, color=colour, label=name)
    axes.set_xlabel("steps")
    axes.set_ylabel(label)


def draw_loss(axes, runs):
    curves(axes, runs, lambda look: look.loss, "loss")
    axes.axhline(EQUAL, color="grey", linestyle=":")
    axes.text(140, EQUAL - 0.03, "equal scores", color="dimgrey", ha="right", va="top")
    axes.legend()


def draw_gradient(axes, runs):
    curves(axes, runs, lambda look: look.diagnosis.user.gradient, "gradient norm")
    curves(axes, runs, lambda look: look.diagnosis.item.gradient, "gradient norm (-- items)", "--")
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylim(bottom=0)


# %%
def draw_scores(axes, runs):
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    for looks, (_, colour) in zip(runs.values(), STYLES, strict=False):
        found = looks[-1].diagnosis
        for counts, line in ((found.positives, "-"), (found.negatives, "--")):
            axes.stairs(np.array(counts) / sum(counts), edges, color=colour, linestyle=line)
    axes.set_xlim(LOWEST, HIGHEST)
    axes.set_xlabel("score after the last step")
    axes.set_ylabel("share (-- negatives)")


def draw_dimensions(axes, runs):
    curves(axes, runs, lambda look: look.diagnosis.user.dimensions, "dimensions")
    curves(axes, runs, lambda look: look.diagnosis.item.dimensions, "dimensions in use (-- items)", "--")
    axes.set_yscale("log")
    axes.axhline(COLLAPSED, color="grey", linestyle=":")


def draw_recall(axes, runs):
    curves(axes, runs, lambda look: look.means["recall@20"], "recall@20 on validation")
    for name, value in references.items():
        axes.axhline(value, color="grey", linestyle=":")
        axes.text(140, value + 0.012, name, color="dimgrey", ha="right")
    axes.set_ylim(0, 0.34)


# %% [markdown]
# ### Plot 1: the loss
#
# Bug: **the labels are shifted by one row**. Each person gets the film of the next row as their positive. Such things
# happen when two tables are joined after one of them was shuffled.


# %%
def shifted(batch):
    """The items, and all that belongs to them, one row further."""
    codes = Codes(batch.item["id"].values.roll(1))
    return replace(batch, item={"id": codes}, items=batch.items.roll(1), log_q=batch.log_q.roll(1))


shifted_labels = watch(change=shifted)
assert healthy[-1].loss < shifted_labels[-1].loss - 0.5 and shifted_labels[-1].loss < EQUAL - 0.5

# %%
drawing, axes = canvas(height=3.5)
draw_loss(axes, {"healthy": healthy, "labels shifted": shifted_labels})
figure(
    drawing,
    alt="Line chart. Across: the steps, 35 to 140. Upwards: the mean loss since the last look, about 5 to 7. The "
    "healthy run falls from 6.5 to 5. The run with shifted labels falls too, from 6.8 to 6. A dotted line marks equal "
    "scores, at 7.1. Both end below it.",
)

# %% [markdown]
# The loss of the broken run falls as well, and ends below the line of equal scores. What is there to learn from labels
# of other people? Which films are chosen often. So a falling loss only says that something was learned. Beside a run
# that is known to be good it says more: here the gap is wide.
#
# ### Plot 2: the gradient
#
# Bug: **a dead tower**. Somebody wrote `.detach()` behind the user vectors, or built the optimiser before a layer was
# added. No gradient reaches the tower; the other one learns alone.


# %%
def without_user_gradient(towers, batch, settings):
    """The loss, but the user vectors are constants."""
    original = towers.embed_users
    towers.embed_users = lambda inputs: original(inputs).detach()
    value = batch_loss(towers, batch, settings)
    del towers.embed_users
    return value


dead_tower = watch(loss=without_user_gradient)
hot = watch("train.learning_rate=1.0")
assert all(look.diagnosis.user.gradient == 0 < look.diagnosis.item.gradient for look in dead_tower)
assert hot[-1].diagnosis.item.gradient < healthy[-1].diagnosis.item.gradient / 3
assert dead_tower[-1].loss < dead_tower[0].loss
print("The dead tower has a gradient of exactly 0, and the loss falls all the same.")

# %%
drawing, axes = canvas(height=3.5)
draw_gradient(axes, {"healthy": healthy, "dead user tower": dead_tower, "learning rate x 100": hot})
axes.legend(*(part[:3] for part in axes.get_legend_handles_labels()))
figure(
    drawing,
    alt="Line chart of gradient norms. Across: the steps, 35 to 140. Upwards: the norm, 0 to about 1.5, logarithmic "
    "above 0.01. Solid lines are user towers, dashed ones item towers. In the healthy run both fall and level off "
    "between 0.2 and 1. The dead user tower lies at 0, its item tower above the healthy one. With a learning rate 100 "
    "times too high both norms fall far below those of the healthy run.",
)

# %% [markdown]
# Zero is easy to see here. The loss does not tell, and the recall is above popularity, as plot 5 will show. The other
# thing to look for is a gradient that grows from look to look: it can be the beginning of a run that breaks apart.
#
# The third run has a **learning rate 100 times too high**, and its gradient is *small*. That needs an explanation, and
# plot 4 will give it.
#
# ### Plot 3: the scores
#
# A trained model scores positives above negatives. Both histograms belong in one picture, for what matters is how far
# they lie apart. **Guess** before you run it: what do they look like when the labels are shifted?


# %%
def gap(looks):
    """How far the mean score of the positives lies above that of the negatives."""
    middles = (np.arange(BINS) + 0.5) * (HIGHEST - LOWEST) / BINS + LOWEST
    found = looks[-1].diagnosis
    return np.average(middles, weights=found.positives) - np.average(middles, weights=found.negatives)


assert gap(healthy) > 0.3 and gap(shifted_labels) < gap(healthy) / 2
drawing, axes = canvas(height=3.5)
draw_scores(axes, {"healthy": healthy, "labels shifted": shifted_labels})
figure(
    drawing,
    alt="Four histograms as steps. Across: the score, -2 to 2. Upwards: the share of the scores in a bin. Solid: "
    "positives, dashed: negatives. In the healthy run the positives lie clearly to the right of the negatives. With "
    "shifted labels the two lie nearly on each other.",
)

# %% [markdown]
# What is left of the gap with shifted labels is popularity: positives are popular films more often than negatives that
# are not masked.
#
# ### Plot 4: the geometry
#
# Two questions. **How long are the vectors** before they are normalised? The score does not see it, but training does:
# to turn a vector ten times as long by the same angle, it has to be moved ten times as far. So the gradient of a long
# vector is small, and it turns slowly.
#
# **How many dimensions do they use?** Take two vectors of length 1 at random; their product is the cosine between them.
# Square it, and take the mean over all pairs (each vector with itself, too). Where all vectors lie on one line, every
# square is 1. Where they are spread evenly over d dimensions the mean is about 1 / d. So
#
# ```
# dimensions in use  =  1 / mean of the squared cosine of two vectors
# ```
#
# goes from 1, everything in one place, to d. First by hand, for three vectors in a plane:

# %%
vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
cosines = vectors @ vectors.T
in_use = 1 / cosines.square().mean()
print("cosines:", [[round(value, 2) for value in row] for row in cosines.tolist()])
print(f"dimensions in use: {in_use:.2f} of 2")

# %% [markdown]
# Bug: **a loss without negatives**. "Bring the vectors of a pair together" sounds like a good aim, so somebody asks for
# a score of 1 of every positive, and for nothing else.


# %%
def without_negatives(towers, batch, settings):
    """How far the scores of the positives are from 1."""
    return (1 - (towers.embed_users(batch.user) * towers.embed_items(batch.item)).sum(dim=1)).square().mean()


no_others = watch(loss=without_negatives)
assert no_others[-1].loss < 0.1
assert no_others[-1].diagnosis.user.dimensions < COLLAPSED < healthy[-1].diagnosis.user.dimensions
assert 3 * no_others[-1].diagnosis.item.dimensions < healthy[-1].diagnosis.item.dimensions
assert hot[-1].diagnosis.user.norm > 100 * healthy[-1].diagnosis.user.norm
print(no_others[-1].diagnosis.alarm.partition(".")[0][:29], "...")

# %%
drawing, (left, right) = canvas(columns=2, width=10, height=3.5)
runs = {"healthy": healthy, "no negatives": no_others, "learning rate x 100": hot}
draw_dimensions(left, runs)
curves(right, runs, lambda look: look.diagnosis.user.norm, "length before normalising (-- items)")
curves(right, runs, lambda look: look.diagnosis.item.norm, "length before normalising (-- items)", "--")
right.set_yscale("log")
right.legend(*(part[:3] for part in right.get_legend_handles_labels()), loc="center", bbox_to_anchor=(0.5, 0.4))
figure(
    drawing,
    alt="Two line charts, upwards logarithmic, across the steps 35 to 140; solid lines are users, dashed ones items. "
    "Left: dimensions in use, 1 to about 13. The healthy run keeps between 2 and 3 for users and about 10 for items. "
    "Without negatives users fall to 1.1, the dotted line of the alarm, and items below 2. Right: lengths, 0.3 to 300. "
    "Healthy vectors stay below 1; with the learning rate 100 times too high those of users grow to some hundreds.",
)

# %% [markdown]
# Without negatives the loss is almost 0, the best of this chapter, because everything lies in one place: then every
# positive is near. That is a **collapse**. The library raises an alarm when one side uses fewer than 1.1 dimensions,
# and says it once while the run goes on. (Users use few dimensions even in the healthy run: histories are averages, and
# averages are alike.)
#
# And the run with the high rate? Its first steps threw the vectors far out. Since then they turn so slowly that the
# rate hardly matters. It recovers in part, and that is why nobody notices it.
#
# ### Plot 5: the recall
#
# The last plot is the only one that asks for what we want. It has two lines that never move: popularity and chance.

# %%
predict("Labels shifted, one epoch: which recall@20? (chance is about 0.01, popularity 0.11)", guess=None, key="08.pop")

# %%
final = {
    name: looks[-1].means["recall@20"]
    for name, looks in (("healthy", healthy), ("shifted", shifted_labels), ("dead", dead_tower), ("hot", hot))
}
assert abs(final["shifted"] - references["popularity"]) < 0.03
assert references["popularity"] < final["dead"] < final["healthy"] and final["hot"] < final["healthy"]
compare("08.pop", round(final["shifted"], 2))

# %%
drawing, axes = canvas(height=3.5)
draw_recall(axes, {"healthy": healthy, "labels shifted": shifted_labels, "dead user tower": dead_tower})
axes.legend(loc="center left", bbox_to_anchor=(0.0, 0.55))
figure(
    drawing,
    alt="Line chart. Across: the steps, 35 to 140. Upwards: recall@20 on validation, 0 to 0.34. Dotted lines: chance "
    "near 0.01, popularity near 0.11. The healthy run rises from 0.23 to 0.28. With shifted labels the recall lies on "
    "the line of popularity; with a dead user tower it rises to about 0.16.",
)

# %% [markdown]
# With labels of other people the model has become the list of the most popular films. Without the line of popularity
# its recall would look like a modest success.

# %% [markdown]
# ### Exercise 08.1: Name the bug
#
# *10 minutes, difficulty 2 of 3, core.*
#
# The next four pictures show the five plots of four runs (orange squares), each beside the healthy one (blue circles).
# Solid: users and positives; dashed: items and negatives. Each run has one of these bugs:
#
# 1. the labels are shifted by one row;
# 2. the learning rate is 100 times too high;
# 3. log q is added, not subtracted;
# 4. scores are multiplied by the temperature, not divided by it;
# 5. the target stands in the person's own history;
# 6. a tower gets no gradient;
# 7. the loss has no negatives.
#
# Look at the pictures and the table below the next cells first. Then write `bug(run)`: for the run 1, 2, 3 or 4 the
# number of its bug. Replace each `0` in the cell that follows them.


# %%
def leaking(batch):
    """Each target once more, among the films of its own history."""
    history, own = batch.user["history"], torch.arange(len(batch))
    owners = torch.cat([history.owners, own])
    values = torch.cat([history.values, batch.item["id"].values])[owners.argsort(stable=True)]
    return replace(batch, user={"history": Codes(values, history.offsets + own)})


def without_item_gradient(towers, batch, settings):
    """The loss, but the item vectors are constants."""
    original = towers.embed_items
    towers.embed_items = lambda inputs: original(inputs).detach()
    value = batch_loss(towers, batch, settings)
    del towers.embed_items
    return value


# %%
unnamed = {
    1: watch("loss.log_q=-1"),
    2: watch(f"model.temperature={1 / recipe.model.temperature}"),
    3: watch(change=leaking),
    4: watch(loss=without_item_gradient),
}
PLOTS = (draw_loss, draw_gradient, draw_scores, draw_dimensions, draw_recall)


def strip(looks, name, alt):
    """The five plots of a run beside those of the healthy one."""
    drawing, axes = canvas(columns=5, width=15, height=3)
    for draw, one in zip(PLOTS, axes, strict=True):
        draw(one, {"healthy": healthy, name: looks})
    return figure(drawing, alt)


# %%
ALT = "Five small charts, run {} in orange and the healthy one in blue: loss, gradient, scores, dimensions, recall. "
SEEN = {
    1: "The loss ends a little below the healthy one. Both gradients are there. Positives score above negatives. "
    "Items use more dimensions than in the healthy run. The recall lies between chance and popularity.",
    2: "The loss falls only a little and ends far above the healthy one. The gradient of users is small. Most scores "
    "lie in the highest bin. Items end with fewer than 4 dimensions. The recall lies between popularity and the "
    "healthy run.",
    3: "The loss ends far below the healthy one. Both gradients are larger than in the healthy run. Users use more "
    "dimensions. The recall is that of the healthy run.",
    4: "The loss stays near the line of equal scores. The gradient of items is 0. The dimensions of items do not "
    "change from look to look. The recall lies near chance.",
}
strip(unnamed[1], "run 1", ALT.format(1) + SEEN[1])

# %%
strip(unnamed[2], "run 2", ALT.format(2) + SEEN[2])

# %%
strip(unnamed[3], "run 3", ALT.format(3) + SEEN[3])

# %%
strip(unnamed[4], "run 4", ALT.format(4) + SEEN[4])

# %% [markdown]
# The same as numbers, at the last look: loss, gradient norms, the gap between the mean scores of positives and
# negatives, dimensions in use, recall, and which share of the people know a recommended film.


# %%
def table(runs):
    """A line a run: the last look."""
    lines = [f"{'':22} loss   gradient user/item   gap    dimensions user/item   recall@20   known by"]
    for name, looks in runs.items():
        last, found = looks[-1], looks[-1].diagnosis
        lines.append(
            f"{name:22} {last.loss:4.2f}   {found.user.gradient:8.3f} /{found.item.gradient:6.3f}   {gap(looks):6.2f}"
            f"{found.user.dimensions:12.1f} /{found.item.dimensions:5.1f}"
            f"{last.means['recall@20']:13.3f}{last.means['popularity@20']:11.1%}"
        )
    return "\n".join(lines)


on_this_machine(table({"healthy": healthy, **{f"run {run}": looks for run, looks in unnamed.items()}}))


# %% tags=["exercise"]
def bug(run):
    """1, 2, 3 or 4 -> a number from the list."""
    ### BEGIN SOLUTION
    return {1: 3, 2: 4, 3: 5, 4: 6}[run]
    ### END SOLUTION


# %%
exercise("08.1").check(bug)

# %%
exercise("08.1").hint()  # run it again for the next of three

# %% [markdown]
# ### All of them
#
# Now with their names. Choose a run; its five plots stand beside those of the healthy one. (By keyboard: Tab moves to
# the buttons, the arrow keys choose.)

# %%
runs = {
    "labels shifted": shifted_labels,
    "learning rate x 100": hot,
    "log q added": unnamed[1],
    "times temperature": unnamed[2],
    "target in its history": unnamed[3],
    "dead user tower": dead_tower,
    "dead item tower": unnamed[4],
    "no negatives": no_others,
}
which = widgets.RadioButtons(options=list(runs), value="labels shifted", description="bug").add_class("tt-bug")
shown = widgets.HTML()


def show(change=None):
    name, last = which.value, runs[which.value][-1]
    alarm = last.diagnosis.alarm or "No alarm."
    told = f"{name}: loss {last.loss:.2f}, recall@20 {last.means['recall@20']:.3f}. {alarm}"
    picture = strip(runs[name], name, f"Five charts, {name} beside the healthy run. {told}")
    shown.value = f"<p role='status'>{told}</p>{picture._repr_html_()}"


which.observe(show, "value")
show()
widgets.VBox([which, shown]).add_class("tt-bugs")

# %% [markdown]
# The same as a table, for readers without a running kernel:

# %%
on_this_machine(table({"healthy": healthy, **runs}))

# %%
low = [name for name, looks in {"healthy": healthy, **runs}.items() if looks[-1].loss < healthy[-1].loss]
assert low == ["log q added", "target in its history", "no negatives"]
assert unnamed[1][-1].means["recall@20"] < references["popularity"] / 2
assert unnamed[1][-1].means["popularity@20"] < 0.02
assert unnamed[2][-1].means["coverage@20"] < healthy[-1].means["coverage@20"] / 2
assert abs(unnamed[3][-1].means["recall@20"] - recalls[-1]) < 0.04
print("A lower loss than the healthy run:", ", ".join(low))

# %% [markdown]
# Three of the broken runs have a **lower** loss than the healthy one. With log q added the loss is another loss, and
# the best score under it avoids popular films: almost nobody knows what it recommends. With the target in its history
# the task is easier than the one that is asked on validation; after one epoch the recall does not show it, only the
# loss does, beside a run without the leak.
#
# Multiplied by the temperature, cosines count little beside the item bias, and the lists become alike: all people
# together are shown fewer than half as many films as by the healthy run. No plot finds every bug. That is why there are
# five.
#
# Here the core of the chapter ends.
#
# ## Stretch: seeds and spread
#
# Two runs with the same settings and another seed do not reach the same recall: first weights, the order of the events
# and the films that are left out of a history by chance (dropout) differ. How much? `benchmarks/seeds` trained twelve
# runs that differ in nothing else, six epochs each, with the default settings. That makes 66 pairs of runs.

# %%
predict("Of these 66 pairs, how many differ by more than 0.005 in recall@20?", guess=None, key="08.pairs")

# %%
seeds = result("seeds")
curves_of = np.array([[epoch["recall@20"] for epoch in one["epochs"]] for one in seeds["seeds"]])
differences = np.array([pair["recall@20"]["mean"] for pair in seeds["pairs"]])
compare("08.pairs", int((np.abs(differences) > 0.005).sum()))

# %%
spread = curves_of[:, -1].std(ddof=1)
apart = sum(pair["recall@20"]["low"] > 0 or pair["recall@20"]["high"] < 0 for pair in seeds["pairs"])
print(f"recall@20 after the last epoch: mean {curves_of[:, -1].mean():.4f}, standard deviation {spread:.4f}")
print(f"largest difference of two seeds: {np.abs(differences).max():.4f}")
print(f"pairs whose 95 % interval over people leaves out 0: {apart} of {len(differences)}")
for n in (1, 3, 5, 12):
    print(f"means of {n:2} seeds each: a difference has the standard error {spread * math.sqrt(2 / n):.4f}")
wide = np.mean([pair["recall@20"]["high"] - pair["recall@20"]["low"] for pair in seeds["pairs"]]) / 2
print(f"half the width of such an interval, on average: {wide:.4f}")
assert 0.001 < spread < 0.005 and apart == 0
assert curves_of[:, 1].std(ddof=1) > 1.5 * spread

# %%
drawing, axes = canvas(height=3.5)
epochs = range(1, curves_of.shape[1] + 1)
axes.plot(epochs, curves_of.T, color=COLOURS[4], linewidth=0.8)
axes.plot(epochs, curves_of.mean(axis=0), "o-", color=COLOURS[0], label="mean of 12 seeds")
for name, one in seeds["references"].items():
    axes.axhline(one["recall@20"], color="grey", linestyle=":")
    axes.text(6, one["recall@20"] + 0.005, name, color="dimgrey", ha="right")
axes.set_ylim(0, 0.36)
axes.set_xlabel("epochs")
axes.set_ylabel("recall@20 on validation")
axes.legend(loc="center right")
figure(
    drawing,
    alt="Line chart with twelve thin lines and their mean. Across: epochs, 1 to 6. Upwards: recall@20 on validation, 0 "
    "to 0.36. All lines rise from about 0.28 to about 0.33 and lie close together, far above the dotted lines of "
    "popularity, 0.11, and chance, 0.01.",
)

# %% [markdown]
# What does a difference of 0.005 mean then? Between two single runs the seed alone makes it now and then, so one run of
# each side proves nothing. In the middle of training, while the learning rate is high, the spread is about twice as
# wide: runs that are stopped early compare worse. Means of several seeds are steadier, by the square root of their
# number.
#
# And the seed is not all. The interval over people asks what other people would have given, and it is wider than what
# the seeds do. More seeds do not narrow it; more people do. A report needs both: several seeds, and the interval.
#
# ## Stretch: early stopping and refit
#
# How many epochs? More are not always better: at some point a model learns its events by heart. So the run asks
# validation after every epoch, remembers the best one, and stops when `train.patience` epochs in a row were not better.
# This is **early stopping**, and the number of epochs is a setting that was chosen on validation, like any other.
#
# The towers of that best epoch have never seen the validation events, which are the latest that we know of each person.
# Hence the **refit**: begin anew, on train and validation together, for the number of epochs that was best. There is no
# validation left to stop by, which is why the number has to be known. Here is the log of the toy run above:

# %%
lines = [json.loads(line) for line in (RUNS / "toy" / "log.jsonl").read_text().splitlines()]
chosen = [line for line in lines if line["phase"] == "choose"]
best = 1 + max(range(len(chosen)), key=lambda place: chosen[place]["metrics"]["ndcg@20"])
assert [line["epoch"] for line in lines if line["phase"] == "refit"] == list(range(1, best + 1))
rows = []
for line in lines:
    metric = f"ndcg@20 {line['metrics']['ndcg@20']:.3f}" if line["metrics"] else "nothing left to ask"
    rows.append(f"{line['phase']:6}  epoch {line['epoch']}  loss {line['loss']:.2f}  {metric}")
on_this_machine("\n".join(rows))

# %% [markdown]
# So the refit is nothing but our loop on more events, for the best number of epochs. If that is true, it must end with
# the same weights, bit by bit:


# %%
def equal(one, other):
    """Whether two states hold the same tensors, to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


again = begin(toy, toy_data, toy_data.split.refit(), best)
loop(again, lambda number, value: None)
final_towers = load_state(RUNS / "toy" / "final")["towers"]
assert equal(again.towers.state_dict(), final_towers)
print(f"{len(toy_data.split.refit().train)} events instead of {len(toy_data.split.train)}, the same weights.")

# %% [markdown]
# ## Stretch: stopped and resumed
#
# A long run will be interrupted. It is worth nothing that it can go on, if it then goes on as another run: a resumed
# run has to end with the bits of one that was never stopped. That takes more than the weights. The saved state holds
# the weights, the optimiser's memory of earlier gradients, and the position: phase, epoch, step, best metric so far.
# The order of the events needs no place in it, because every draw is a function of seed, epoch and step. (Dropout draws
# from torch's own generator, so the state of that generator is saved too.)
#
# We press Ctrl-C after the second epoch, by sending the signal ourselves, and then resume.


# %%
def press_ctrl_c(line):
    if (line.phase, line.epoch) == ("choose", 2):
        signal.raise_signal(signal.SIGINT)


is_complete = train(toy, RUNS / "stopped", force=True, report=press_ctrl_c)
print("complete:", is_complete, " stands at epoch", load_state(RUNS / "stopped" / "last")["position"]["epoch"])
assert not is_complete and resume(RUNS / "stopped")
assert equal(load_state(RUNS / "stopped" / "final")["towers"], final_towers)
print("resumed and complete: the same weights, to the last bit.")

# %% [markdown]
# ## Stretch: what equal scores cost, by hand
#
# The line of equal scores, which plot 1 compares a loss with, as an exercise.

# %% [markdown]
# ### Exercise 08.2: What equal scores cost
#
# *8 minutes, difficulty 2 of 3, stretch.*
#
# All scores are 0. The logit of a column is its score minus its log q, so it is minus `log_q`, one value a column. The
# positive of row i is column i. `drop` is a square of truth values: True where a column is no negative for a row, which
# takes it out of that row's softmax; the diagonal is False. The loss of a row is minus the natural logarithm of the
# probability of its own column. That is the logarithm of the sum of exp(logit) over the columns that are left, minus
# the logit of its own column. Write `equal_scores(log_q, drop)`: the mean loss of the rows. (`torch.logsumexp` and
# `masked_fill` may help: `logits = -log_q` first, minus infinity where a column is dropped.)


# %% tags=["exercise"]
def equal_scores(log_q, drop):
    """(batch,), (batch, batch) -> a number."""
    ### BEGIN SOLUTION
    logits = -log_q
    return (logits.masked_fill(drop, -torch.inf).logsumexp(dim=1) - logits).mean()
    ### END SOLUTION


# %%
exercise("08.2").check(equal_scores)

# %%
exercise("08.2").hint()

# %% [markdown]
# In the batch of this chapter: the sum of 1 / q over the columns that are left, times the q of the row's own film.

# %%
weight = (-sample.log_q).exp() * ~no_negatives(sample, phase.loss)  # 1 / q of each column that is left
by_hand = (weight.sum(dim=1) * sample.log_q.exp()).log().mean().item()
assert math.isclose(by_hand, EQUAL, rel_tol=1e-5)
print("By hand, the line of equal scores of plot 1.")

# %% [markdown]
# ## Stretch: the learning rate
#
# The first gradients of new weights are large and point everywhere, and AdamW does not know their usual size yet. So
# the learning rate begins small and grows in equal steps: the **warm-up**. At the end small moves are wanted, so that
# the weights settle: the rate falls along half a **cosine**, from the peak down to 0.

# %% [markdown]
# ### Exercise 08.3: Up, then down
#
# *8 minutes, difficulty 1 of 3, stretch.*
#
# Write `rate(step, total, warmup, peak)`, the learning rate of one step. Steps are counted from 0; there are `total`
# of them. During the first `warmup` steps the rate grows by equal amounts, from `peak / warmup` at step 0 to `peak` at
# the last step of the warm-up. Afterwards it is `peak` times (1 + cos a) / 2, where the angle a goes in proportion from
# 0 at step `warmup` to pi at step `total`. (`math.cos`, `math.pi`; use `if` and `return`.)


# %% tags=["exercise"]
def rate(step, total, warmup, peak):
    """Three whole numbers and the peak -> the learning rate."""
    ### BEGIN SOLUTION
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
    ### END SOLUTION


# %%
exercise("08.3").check(rate)

# %%
exercise("08.3").hint()

# %%
rates = [learning_rate_at(step, phase.total_steps, recipe.train) for step in range(phase.total_steps)]
peak, warmup = recipe.train.learning_rate, recipe.train.warmup_steps
assert rates[warmup - 1] == peak == max(rates) and rates[-1] < peak / 1000
drawing, axes = canvas(height=3)
axes.plot(range(1, len(rates) + 1), rates, color=COLOURS[0])
axes.axvline(warmup, color="grey", linestyle=":")
axes.text(warmup + 2, peak / 10, "end of the warm-up", color="dimgrey")
axes.set_xlabel("step")
axes.set_ylabel("learning rate")
figure(
    drawing,
    alt="Line chart of the learning rate. Across: the steps, 1 to 142. Upwards: the rate, 0 to 0.01. It rises in a "
    "straight line to the peak during 20 steps and then falls along half a cosine to 0: slowly, fast, slowly again.",
)

# %% [markdown]
# ## Stretch: alignment and uniformity
#
# Two more numbers of the log, from the paper of this chapter. **Alignment** is the mean squared distance of the two
# vectors of a positive pair: small is good. **Uniformity** says how evenly vectors of length 1 are spread over the
# sphere: the lower, the better. Each is easy to make perfect alone: everything in one place, or everything at random. A
# good model needs both, and the softmax over negatives asks for both at once.

# %% [markdown]
# ### Exercise 08.4: Uniformity
#
# *8 minutes, difficulty 2 of 3, stretch.*
#
# Write `spread_out(vectors)`, the uniformity of the rows of `vectors`. For each pair of two different rows take the
# squared Euclidean distance, multiply it by -2, and take exp of that. The uniformity is the natural logarithm of the
# mean over the pairs. (`torch.pdist(vectors)` gives the distance of every pair of different rows, each pair once.)


# %% tags=["exercise"]
def spread_out(vectors):
    """(count, dim) -> a number, 0 or less."""
    ### BEGIN SOLUTION
    return torch.pdist(vectors).square().mul(-2).exp().mean().log()
    ### END SOLUTION


# %%
exercise("08.4").check(spread_out)

# %%
exercise("08.4").hint()

# %%
three = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])  # squared distances 4, 2 and 2
by_hand = math.log((math.exp(-8) + math.exp(-4) + math.exp(-4)) / 3)
assert math.isclose(uniformity(three), by_hand, rel_tol=1e-5)
shown_lines = [f"{'':22} alignment   uniformity of users   of items"]
for name, looks in {"healthy": healthy, **runs}.items():
    found = looks[-1].diagnosis
    shown_lines.append(f"{name:22} {found.alignment:9.2f}{found.user.uniformity:22.2f}{found.item.uniformity:11.2f}")
assert no_others[-1].diagnosis.alignment < 0.5 * healthy[-1].diagnosis.alignment
assert no_others[-1].diagnosis.item.uniformity > healthy[-1].diagnosis.item.uniformity + 1
on_this_machine("\n".join(shown_lines))

# %% [markdown]
# Without negatives: the best alignment of all, and the worst uniformity of items.
#
# ## In production
#
# - **YouTube** found that its larger ranking models became unstable in training: the loss diverges, the model is lost
#   and the machine time with it. The paper looks at the training near that point and gives a reason why common
#   remedies fail ([Tang et al. 2023, Improving training stability for multitask ranking models in recommender
#   systems](https://arxiv.org/abs/2302.09178)).
# - **Pinterest** trains models anew on a schedule, automatically. A new model is released only after it
#   has passed checks of its performance (Pinterest Engineering 2023, [Training foundation improvements for Closeup
#   recommendation ranker, in
#   summary](https://www.engineering.fyi/article/training-foundation-improvements-for-closeup-recommendation-ranker)).
#
# ## Five questions
#
# <details><summary>1. A colleague's loss is 5.0 with log q and 4.9 without. Is the second run better?</summary>
#
# Nobody can say from that. They are two different losses with different lines of equal scores. Compare the recall on
# validation.
#
# </details>
#
# <details><summary>2. The loss falls, and the recall equals that of popularity. What do you check first?</summary>
#
# Whether each row has its own label: shifted labels leave nothing to learn but popularity. The histograms of positives
# and negatives then lie nearly on each other.
#
# </details>
#
# <details><summary>3. Why can a run with a learning rate far too high show a very small gradient?</summary>
#
# Its first steps made the vectors long, and the length is normalised away. A small move hardly turns a long vector, so
# the loss hardly changes with it, and that is a small gradient.
#
# </details>
#
# <details><summary>4. (Stretch) A change brings 0.005 of recall with one seed. What do you do before you believe
# it?</summary>
#
# Train both sides with several seeds and compare the means with their standard error. A single pair of runs can differ
# by that much with no change at all.
#
# </details>
#
# <details><summary>5. (Stretch) Why does the refit not stop by validation?</summary>
#
# The validation events are among those it learns from, so asking them says nothing. It uses the number of epochs that
# was best before.
#
# </details>
#
# What is done so far, kept in a file beside this notebook that `forget()` deletes:

# %%
on_this_machine(progress())

# %% [markdown]
# ## What you have seen
#
# The loop in twenty lines, equal to the library's; what equal scores cost; a rate that rises and falls; five plots,
# each with a bug that it shows and bugs that it hides; what the seed alone does; why the best number of epochs is
# trained once more; and a run that goes on as if it had never been stopped. Next comes `09_mining`: harder negatives
# help until false negatives win. That chapter is still to be written; the short path goes on with
# [11_index](11_index.ipynb).
