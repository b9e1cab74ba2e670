# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Two towers in ten minutes
#
# This notebook walks the whole road once: from a file of ratings to films for one person, and to the one line of the
# loss that most tutorials leave out. Afterwards you can
#
# - **run** the road from settings to an answer with six calls (the assertion under *A score by hand*);
# - **compute** a score by hand and see that it is the library's (the assertion under *A score by hand*);
# - **read** a recall beside chance and popularity (the assertion under *Is that good?*);
# - **say** what one line of the loss changes, and why (the assertion under *The missing line*);
# - **trace** a score to the films it is the sum of, and say what that does not mean (the assertion under *Where a score
#   comes from*).
#
# **You should know** Python's lists and functions, and what a dot product is. **Time**: 10 minutes for the core, which
# ends at *The missing line*, if you take the code on trust; as long again for what follows it, and for the code. A
# laptop with two cores runs all of it in under a minute. **Paper**: [Yi et al. 2019,
# Sampling-bias-corrected neural modeling for large corpus item
# recommendations](https://doi.org/10.1145/3298689.3346996), a two-tower used at YouTube.

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
from pathlib import Path

import numpy as np

from twotower_lib.bundle import load
from twotower_lib.explorer import Explorer, for_history, for_person
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine, seen_from
from twotower_lib.recipe import compose, evaluate_run, export, prepare, train
from twotower_lib.split import items_of_users
from twotower_lib.towers import embed_catalogue, embed_queries

RUNS = Path("runs/00_start")  # everything that this notebook writes

# %% [markdown]
# ## The idea
#
# A catalogue holds far more items than anybody can look at, and an answer must come within milliseconds. So one
# network, the **user tower**, turns what a person did into a vector. Another, the **item tower**, turns each item into
# a vector of the same space. The score of a person and an item is the dot product of their vectors, and nothing else
# passes between the two towers. That is why all item vectors can be computed the night before, and an answer is a
# **nearest-neighbour search**: which stored vectors have the largest dot product with this one?
#
# In a large system the few hundred items found so go on to a slower model that ranks them. This course is about the
# first stage, which decides what the second can see at all.
#
# ## The road
#
# The data is MovieLens 100K: who rated which film, and when, in 1997 and 1998. Every rating counts as an event, a high
# one and a low one alike. The last fifth of each person's events is put aside as the **test part**, and the last tenth
# of the rest as the **validation part**, with which we judge while we work. The model learns from neither.

# %%
recipe = compose(["data=ml-100k", "train=short", "train.refit=false"])  # 1. the settings: three passes over the data
prepared = prepare(recipe)
split, catalogue = prepared.split, prepared.dataset.catalogue
print(f"{split.train.n_users} people, {len(catalogue)} films")
print(f"{len(split.train)} events to learn from, {len(split.valid)} for validation, {len(split.test)} for the test")

# %% [markdown]
# A person is described by the films that they rated, in this order, and by nothing else. Here are the latest films of
# person 6 before the test part begins.

# %%
PERSON = "6"
history = items_of_users(split.known("test"))[prepared.dataset.people.users.row(PERSON)]
print(f"Person {PERSON} rated {len(history)} films before the test part begins. The latest:")
for item in history[-6:]:
    print("   ", catalogue.titles[item], catalogue.years[item])

# %% [markdown]
# ### Make a guess
#
# We show each person 20 films that they have not rated yet, out of the whole catalogue. **Recall@20** is the share of a
# person's held-out films that are among these 20, averaged over people. Write down three numbers before you run the
# next cell: the recall@20 of 20 films drawn at random, of the 20 most rated films, and of a two-tower that has trained
# for some seconds.

# %%
train(recipe, RUNS / "with_log_q", force=True)  # 2. both towers
report = evaluate_run(RUNS / "with_log_q")  # 3. on the validation part, beside chance and popularity
on_this_machine(report.text(lambda metric: metric == "recall@20"))

# %% [markdown]
# ### Is that good?
#
# The row gives the model, its 95 % interval over people, chance, and popularity: the most rated films for everybody.
# (The lines above it say how the question was put. *Split last* is the cut that was described under *The road*; its
# leak and cold people, of whom nothing is known, are matters of chapter 02.) Popularity is the bar that a personal
# recommendation has to clear. The README adds strong baselines on this data, each tuned with the same care; a chapter
# of its own, 03, will be about such comparisons.

# %%
model = report.measured.means["recall@20"]
chance = report.references["chance"].means["recall@20"]
popularity = report.references["popularity"].means["recall@20"]
assert 3 * chance < popularity and 1.5 * popularity < model
print("Popularity finds more than 3 times what chance finds, the two-tower more than 1.5 times what popularity finds.")

# %% [markdown]
# ### Ask
#
# A run becomes a **bundle**: towers, names, item vectors and search index in one folder, with a hash for every file. So
# within a bundle towers and index always match.

# %%
export(RUNS / "with_log_q", RUNS / "bundle_with_log_q", force=True)  # 4. one folder
with_log_q = load(RUNS / "bundle_with_log_q")  # 5. verified, and ready to answer
results = with_log_q.for_user(PERSON, 5)  # 6. the answer
on_this_machine("\n".join(f"{one.rank}  {one.score:.3f}  {one.title}" for one in results))

# %% [markdown]
# ### A score by hand
#
# There is no magic between the vectors and the list. Embed the person, embed every film, multiply, leave out what the
# person has rated, sort:

# %%
towers, features = with_log_q.retriever.towers, with_log_q.retriever.features
query = with_log_q.query(PERSON)
person_vector = embed_queries(towers, features, query)[0]
film_vectors = embed_catalogue(towers, features)

scores = film_vectors @ person_vector
scores[history] = -np.inf
best = np.argsort(-scores)[:5]

assert [catalogue.titles[item] for item in best] == [one.title for one in results]
assert np.allclose(scores[best], [one.score for one in results], atol=1e-5)
print(f"{film_vectors.shape[0]} vectors of {film_vectors.shape[1]} numbers: the same five films, the same scores.")

# %% [markdown]
# Here the item tower is as small as it can be: one learned vector a film. The user tower averages the vectors of the
# person's latest fifty films, and a linear map follows. Both results are scaled to length 1, so that 64 of the numbers
# make a cosine. The 65th is a learned **bias** of the film, against which the person's vector has a 1: a cosine is
# bounded and has no place of its own for popularity. On this data it changes little (see the README), and since it is
# one more dimension, the search stays a dot product.
#
# ## One space
#
# The picture shows all films as person 6 sees them. To the right: the score. Upwards: the direction in which the
# vectors differ most otherwise.

# %%
across, up = seen_from(person_vector[:-1], film_vectors[:, :-1])
placed = np.abs(film_vectors).sum(axis=1) > 0  # a film without a single training event has no vector yet
rated = np.isin(np.arange(len(catalogue)), history)
drawing, axes = canvas(width=8, height=5)
for which, colour, size, label in (
    (placed & ~rated, "#BBBBBB", 8, "a film, by the item tower"),
    (placed & rated, COLOURS[4], 14, "a film that the person has rated"),
    (best, COLOURS[1], 50, "the five recommended films"),
):
    axes.scatter(across[which] + film_vectors[which, -1], up[which], s=size, color=colour, label=label)
axes.scatter([1], [0], s=220, color=COLOURS[0], marker="*", label="the person, by the user tower")
axes.set_xlabel(f"score with person {PERSON} (dot product)")
axes.set_ylabel("main direction of the rest (no unit)")
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
figure(
    drawing,
    alt=f"Scatter plot of all films and person {PERSON}. Across: the score with the person, between -1 and 1. Upwards: "
    "the main direction in which films differ otherwise, between -1 and 1. Rated films lie more often to the right, "
    "the person stands at the right edge as a star, the five recommended films are the rightmost of the unrated ones.",
)

# %% [markdown]
# Only left and right decide the list. Height is one view of 62 further directions, so two films that are near each
# other on the page may be far apart in the space.
#
# ## The missing line
#
# How does a model learn such vectors? From batches of pairs (person, film). A person's scores with all films of the
# batch become probabilities by a **softmax**, and training raises that of the pair's own film. The films of the other
# pairs serve as **negatives**, films that should get less. They cost nothing extra, but they are not drawn evenly: a
# film is in a batch as often as it is popular. Let *q* be its share of all events. Trained so, the best possible score
# is the logarithm of *p(film given person) / q(film)*: how much **more than people in general** this person wants a
# film. What we want to rank by is *p* itself. The cure is one subtraction in the loss:
#
# ```
# logits = scores / temperature - log(q[film])
# ```
#
# Nothing is subtracted when somebody asks. (The temperature is a fixed number that sharpens the softmax.)
#
# **Make a guess** before you run the next cell: without that line, will the model recommend films that are *better
# known* or *more obscure* than with it?

# %%
plain = compose(["data=ml-100k", "train=short", "train.refit=false", "loss.log_q=0"])
train(plain, RUNS / "without_log_q", force=True)
plain_report = evaluate_run(RUNS / "without_log_q")
export(RUNS / "without_log_q", RUNS / "bundle_without_log_q", force=True)
without_log_q = load(RUNS / "bundle_without_log_q")

means, plain_means = report.measured.means, plain_report.measured.means
assert 1.3 * plain_means["popularity@20"] < means["popularity@20"]
assert 1.1 * plain_means["recall@20"] < means["recall@20"]
on_this_machine(
    "               recall@20   share of people who know a recommended film\n"
    f"with log q     {means['recall@20']:.3f}       {means['popularity@20']:.3f}\n"
    f"without log q  {plain_means['recall@20']:.3f}       {plain_means['popularity@20']:.3f}"
)

# %% [markdown]
# More obscure, and fewer of the films that people went on to rate. Is the comparison fair? Every other setting is the
# same, among them a temperature that suits the side with log q; it is one seed and three passes. With each side tuned
# on its own, a part of the gap closes and the rest stays: the table in the README has both on the test part. Chapter 06
# derives the line and shows where in the formula it belongs.
#
# Here the core of the chapter ends. What follows is to try, to look up, and to test yourself.
#
# ## Try it
#
# Both models side by side. Choose another person: 276 is one on whom the two agree least. Or ask for *a history of your
# own*: search for a title, choose it, press *Add to the history*. (By keyboard: Tab moves, Space chooses.) Films marked
# *met later* are those of the test part that the person did rate. They are shown to make the lists concrete; no setting
# was or should be chosen by them. The *largest shares* under a title are explained in the section after this one.

# %%
models = {"with log q": with_log_q, "without log q": without_log_q}
later = items_of_users(split.test)
Explorer(models, user=PERSON, later=later)

# %% [markdown]
# The same answer as a table, for readers without a running kernel:

# %%
on_this_machine(for_person(models, PERSON, later=later))

# %% [markdown]
# ### Where a score comes from
#
# An average, a linear map, a division by the length: a sum stays a sum under all three. So each score splits into what
# every single film of the history adds, plus the bias of the recommended film, and nothing is left over. That is
# bookkeeping. **Make a guess**: if the film with the largest share is taken out of the history, does the score fall by
# its share?

# %%
mine = [catalogue.titles.index(title) for title in ("Alien", "Aliens", "Terminator, The")]
answer = for_history({"with log q": with_log_q}, mine, k=3)
for line in answer.lists["with log q"]:
    assert abs(sum(share for _, share in line.sources) - line.score) < 1e-6  # nothing is left over

top = answer.lists["with log q"][0]
title, share = top.sources[0]
fewer = [item for item in mine if catalogue.titles[item] != title]
without = for_history({"with log q": with_log_q}, fewer, k=50).lists["with log q"]
fall = top.score - next(line.score for line in without if line.row == top.row)
assert fall < share / 2
print("The score falls by less than half of the share of the film that was taken out.")
on_this_machine(answer)

# %% [markdown]
# The vector of the smaller history is scaled to length 1 again, so the other films take over most of what is gone.
# Shares say how a score adds up, not what would happen without a film.
#
# ## In production
#
# - **Pinterest** retrieves Pins for its home feed with two towers trained on what people engaged with. Its sampled
#   softmax is corrected for popularity, and each search host knows which version of the model its vectors come from, so
#   that both towers match (Pinterest Engineering, *Establishing a large scale learned retrieval system at Pinterest*;
#   its sequel is [Advancements in embedding-based retrieval at Pinterest
#   Homefeed](https://medium.com/pinterest-engineering/advancements-in-embedding-based-retrieval-at-pinterest-homefeed-d7d7971a409e)).
# - **YouTube** found candidates among tens of millions of videos with a two-tower whose in-batch softmax subtracts
#   log q, estimated from the stream of events ([Yi et al. 2019](https://doi.org/10.1145/3298689.3346996)).
# - **Uber Eats** replaced thousands of models, one a city, with one pair of towers ([Uber Engineering
#   2023](https://www.uber.com/blog/innovative-recommendation-applications-using-two-tower-embeddings/)).
#
# ## The course
#
# Each chapter has one lesson. A star marks the short path, an afternoon. Finished so far: this chapter,
# [01_data](01_data.ipynb), [02_split](02_split.ipynb), [03_evaluation](03_evaluation.ipynb),
# [05_towers](05_towers.ipynb), [06_losses](06_losses.ipynb), [08_training](08_training.ipynb) and
# [11_index](11_index.ipynb).
#
# | chapter | its one lesson |
# |---|---|
# | 00_start * | the whole road in ten minutes |
# | 01_data * | clicks = preference x exposure; popularity is not taste |
# | 02_split | a leaky split can reverse the winner |
# | 03_evaluation * | no number without chance, popularity, a strong baseline and an interval |
# | 04_features | every feature must be computable before the event |
# | 05_towers * | what each side may see, and why they meet only in a dot product |
# | 06_losses * | in-batch softmax estimates the full softmax; log q belongs on the final logit |
# | 07_batches | whom you never meet as a negative, you recommend wrongly |
# | 08_training * | five plots that find most bugs |
# | 09_mining | harder negatives help until false negatives win |
# | 10_embeddings | look at the space: neighbours, PCA, UMAP, hubs |
# | 11_index * | end-to-end recall = model x index |
# | 12_cold_start | ids memorise, content generalises |
# | 13_serving | towers and index are one artifact |
# | 14_scale | the same code on many machines |
# | 15_museum | real bugs from public libraries |
# | 16_beyond | when to leave two towers |

# %% [markdown]
# ## Five questions
#
# <details><summary>1. Why may the two towers meet only in a dot product?</summary>
#
# Because then every item vector can be computed before anybody asks, and answering is a search among stored vectors. A
# network that reads person and item together must run once for every pair.
#
# </details>
#
# <details><summary>2. A colleague reports a recall@20 and is proud of it. What do you ask first?</summary>
#
# What chance and the twenty most popular items reach on the same split, and how wide the interval is.
#
# </details>
#
# <details><summary>3. Popular films are negatives more often, but they are positives more often too. Why does that not
# cancel?</summary>
#
# It does cancel, and that is the trouble: the score learns how much more this person wants a film than people in
# general do, which takes popularity out. A list of what a person will rate next needs it back.
#
# </details>
#
# <details><summary>4. Why does the vector have one dimension more than the towers?</summary>
#
# It holds the learned bias of the item, against which the person's vector has a 1. So the bias is a part of the dot
# product, and the index needs to know nothing of it.
#
# </details>
#
# <details><summary>5. The explorer says that a film of your history adds +0.25 to a score. Would the score fall by 0.25
# without it?</summary>
#
# No, usually by far less: the sum is scaled back to length 1, so the remaining films take over, and with a long history
# an older film moves into the free place among the fifty. Shares are bookkeeping, not causes.
#
# </details>
#
# ## What you have seen
#
# Settings, training, evaluation, export, loading, an answer: six calls, and between them two networks that meet in a
# dot product. What decides whether it is any good are the loss, its negatives, and an honest comparison. Next comes
# [01_data](01_data.ipynb), with the question what a missing rating means. The same steps as commands are in
# the [README](../README.md).
