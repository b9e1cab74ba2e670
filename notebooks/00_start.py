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
# - **run** the road from data to an answer with five calls (each call below is one of them);
# - **compute** a score by hand and see that it is the library's (the assertion under *A score by hand*);
# - **read** a recall beside chance and popularity (the assertion under *Is that good?*);
# - **say** what one line of the loss changes for a person (your guess, and the assertion, under *The missing line*);
# - **trace** a recommendation to the films it comes from (the assertion under *Where a score comes from*).
#
# **You should know** Python's lists and functions, and what a dot product is. **Time**: 10 minutes for you, under one
# for a laptop with two cores. **Paper**: [Yi et al. 2019, Sampling-bias-corrected neural modeling for large corpus
# item recommendations](https://doi.org/10.1145/3298689.3346996), the two-tower of YouTube.

# %% tags=["setup"]
# COLAB

# %%
from pathlib import Path

import numpy as np

from twotower_lib.bundle import load
from twotower_lib.explorer import Explorer, for_history, for_person
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.recipe import compose, evaluate_run, export, prepare, train
from twotower_lib.split import items_of_users
from twotower_lib.towers import embed_catalogue, embed_queries

RUNS = Path("runs/00_start")  # everything that this notebook writes

# %% [markdown]
# ## The idea
#
# A catalogue holds far more items than anybody can look at, and an answer may take some milliseconds. So one network,
# the **user tower**, turns what a person did into a vector. Another, the **item tower**, turns each item into a vector
# of the same space. The score of a person and an item is the dot product of their vectors, and nothing else passes
# between the two towers. That is why all item vectors can be computed the night before, and serving is a
# **nearest-neighbour search**: which stored vectors have the largest dot product with this one?
#
# ## The road
#
# The data is MovieLens 100K: who rated which film, and when, in 1997 and 1998. We take every rating as "watched it".
# The last fifth of each person's films is put aside as the test part, and the last tenth of the rest as the validation
# part. The model never sees either while it learns.

# %%
recipe = compose(["data=ml-100k", "train=short", "train.refit=false"])  # 1. all settings; these train for seconds
prepared = prepare(recipe)
split, catalogue = prepared.split, prepared.dataset.catalogue
print(f"{split.train.n_users} people, {len(catalogue)} films")
print(f"{len(split.train)} events to learn from, {len(split.valid)} for validation, {len(split.test)} for the test")

# %% [markdown]
# What does the model learn from? From a person's films in the order in which they were rated. Here are the latest of
# person 6.

# %%
PERSON = "6"
row = prepared.dataset.people.users.row(PERSON)
history = items_of_users(split.known("test"))[row]
print(f"Person {PERSON} rated {len(history)} films before the test part begins. The latest:")
for item in history[-6:]:
    print("   ", catalogue.titles[item], catalogue.years[item])

# %% [markdown]
# ### Make a guess
#
# We will show each person 20 of the 1,682 films, none of which they are known to have rated. **Recall@20** is the share
# of their held-out films that are among these 20. Write down three numbers before you run the next cell: the recall@20
# of 20 films drawn at random, of the 20 most rated films, and of a two-tower that has trained for some seconds.

# %%
train(recipe, RUNS / "with_log_q", force=True)  # 2. both towers, three passes over the data
report = evaluate_run(RUNS / "with_log_q")  # 3. on the validation part, beside chance and popularity
on_this_machine(report.short())

# %% [markdown]
# ### Is that good?
#
# Look at the row `recall@20`: the model, its 95 % interval over people, chance, and popularity. Popularity is the bar
# that a personal recommendation has to clear, and many published ones never show it. [`03_evaluation`] adds strong
# baselines; the README has them for this data, all tuned with the same care.

# %%
model = report.measured.means["recall@20"]
chance = report.references["chance"].means["recall@20"]
popularity = report.references["popularity"].means["recall@20"]
assert 3 * chance < popularity and 1.5 * popularity < model
print("Popularity finds more than 3 times what chance finds, the two-tower more than 1.5 times what popularity finds.")

# %% [markdown]
# ### Ask
#
# A run becomes a **bundle**: towers, names, item vectors and index in one folder. What is served is this folder, so
# towers and index cannot drift apart.

# %%
export(RUNS / "with_log_q", RUNS / "bundle_with_log_q", force=True)  # 4. one folder, verified by hashes
with_log_q = load(RUNS / "bundle_with_log_q")  # 5. ready to answer
results = with_log_q.for_user(PERSON, 5)
on_this_machine("\n".join(f"{one.rank}  {one.score:.3f}  {one.title}" for one in results))

# %% [markdown]
# ### A score by hand
#
# There is no magic between the vectors and the list. Embed the person, embed every film, multiply, sort:

# %%
towers, features = with_log_q.retriever.towers, with_log_q.retriever.features
query = with_log_q.query(PERSON)
person_vector = embed_queries(towers, features, query)[0]
film_vectors = embed_catalogue(towers, features)

scores = film_vectors @ person_vector
scores[query.history[0]] = -np.inf  # what the person knows already
best = np.argsort(-scores)[:5]

assert [catalogue.titles[item] for item in best] == [one.title for one in results]
assert np.allclose(scores[best], [one.score for one in results], atol=1e-5)
print(f"{film_vectors.shape[0]} vectors of {film_vectors.shape[1]} numbers: the same five films, the same scores.")

# %% [markdown]
# Why 65 numbers, when the towers have 64? Both vectors are normalised to length 1, so their product is a cosine, and a
# cosine cannot say that a film is liked by everybody. The 65th number is a learned bias of the film; the person's vector
# has a 1 there. It is one more dimension, so the search stays a dot product.
#
# ## One space
#
# The picture shows the space of this model, seen from one person. To the right: the score. Upwards: the direction in
# which the films differ most otherwise.

# %%
unit = film_vectors[:, :-1] - np.outer(film_vectors[:, :-1] @ person_vector[:-1], person_vector[:-1])
warm = np.abs(film_vectors).sum(1) > 0  # a film that nobody rated before the split has no place yet
_, _, directions = np.linalg.svd(unit[warm] - unit[warm].mean(0), full_matrices=False)
up = unit @ directions[0] * np.sign(directions[0] @ unit[best[0]])
products = film_vectors @ person_vector
known = np.zeros(len(catalogue), dtype=bool)
known[history] = True

# %%
drawing, axes = canvas(width=8, height=5)
for which, colour, size, label in (
    (warm & ~known, "#BBBBBB", 8, "a film, by the item tower"),
    (warm & known, COLOURS[4], 14, "a film that the person knows"),
):
    axes.scatter(products[which], up[which], s=size, color=colour, label=label)
axes.scatter(products[best], up[best], s=45, color=COLOURS[1], marker="D", label="nearest five: recommended")
axes.scatter([1], [0], s=220, color=COLOURS[0], marker="*", label="the person, by the user tower")
axes.set_xlabel(f"score with person {PERSON} (dot product)")
axes.set_ylabel("main direction of the rest (no unit)")
axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
assert -1 < products.min() and products.max() < 1 and np.abs(up).max() < 1  # as the description says
figure(
    drawing,
    alt=(
        f"Scatter plot of all films and person {PERSON} in one space. Across: the score with the person, between -1 "
        "and 1. Upwards: the main direction in which films differ otherwise, between -1 and 1. Films that the person "
        "knows lie more often to the right, the person stands at the right edge as a star, and the five recommended "
        "films are the rightmost ones among those not yet known."
    ),
)

# %% [markdown]
# ## The missing line
#
# How does a model learn such vectors? From a batch of pairs (person, film). For each person the film of the same pair
# should score high, and the films of all other pairs in the batch serve as **negatives**, films that should score
# lower. That costs nothing extra, but it is not fair: popular films appear in many pairs, so they are negatives all
# the time. The cure is one subtraction, with q the share of the events that are of this film:
#
# ```
# logits = scores / temperature - log(q)
# ```
#
# **Make a guess** before you run the next cell. Without that line, will the model recommend films that are *better
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
    "                 how well known (share of people)    recall@20\n"
    f"with log q       {means['popularity@20']:.3f}                              {means['recall@20']:.3f}\n"
    f"without log q    {plain_means['popularity@20']:.3f}                              {plain_means['recall@20']:.3f}"
)

# %% [markdown]
# More obscure, and less of what people went on to watch: punished as negatives all day long, the popular films have
# sunk. Everything else is equal here. Tuning the temperature again buys a part of the loss back, and the README says
# how much; [`06_losses`] derives the line and shows where in the formula it belongs.
#
# ## Try it
#
# Both models side by side, on the same person. Choose another person, or write a history of your own: search for a
# title, choose it, press *Add*. Films marked *met later* are held-out ones that the person did rate afterwards. Person
# 276 is one on whom the two models agree least.

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
# This user tower is simple enough to be read: it averages the vectors of a person's latest fifty films, applies a
# linear map, and divides by the length. A sum stays a sum under all three, so each score can be split into what every
# single film of the history adds, plus the bias of the recommended film. Nothing is left over.

# %%
mine = [catalogue.titles.index(title) for title in ("Alien", "Aliens", "Terminator, The")]
answer = for_history(models, mine, k=5)
for lines in answer.lists.values():
    for line in lines:
        assert abs(sum(share for _, share in line.sources) - line.score) < 1e-6
on_this_machine(answer)

# %% [markdown]
# ## In production
#
# - **Pinterest** retrieves Pins for its home feed with two towers trained on what people engaged with, corrects its
#   sampled softmax for popularity, and stores with every search host which version of the model its vectors come from,
#   so that both towers match ([Pinterest Engineering, Advancements in embedding-based retrieval at
#   Homefeed](https://medium.com/pinterest-engineering/advancements-in-embedding-based-retrieval-at-pinterest-homefeed-d7d7971a409e),
#   and the earlier post on establishing the system).
# - **YouTube** found candidates among tens of millions of videos with a two-tower whose in-batch softmax subtracts
#   log q, estimated from the stream of events ([Yi et al. 2019](https://doi.org/10.1145/3298689.3346996)).
# - **Uber Eats** replaced thousands of models, city by city, with one pair of towers
#   ([Uber Engineering 2023](https://www.uber.com/blog/innovative-recommendation-applications-using-two-tower-embeddings/)).
#
# ## The course
#
# Chapters with a star are the short path, an afternoon. Those not written yet are marked *to come*.
#
# | chapter | its one lesson |
# |---|---|
# | 00_start * | the whole road in ten minutes |
# | 01_data * (to come) | clicks = preference x exposure; popularity is not taste |
# | 02_split (to come) | a leaky split can reverse the winner |
# | 03_evaluation * (to come) | no number without chance, popularity, a strong baseline and an interval |
# | 04_features (to come) | every feature must be computable before the event |
# | 05_towers * (to come) | what each side may see, and why they meet only in a dot product |
# | 06_losses * (to come) | in-batch softmax estimates the full softmax; log q belongs on the final logit |
# | 07_batches (to come) | whom you never meet as a negative, you recommend wrongly |
# | 08_training * (to come) | five plots that find most bugs |
# | 09_mining (to come) | harder negatives help until false negatives win |
# | 10_embeddings (to come) | look at the space: neighbours, PCA, UMAP, hubs |
# | 11_index * (to come) | end-to-end recall = model x index |
# | 12_cold_start (to come) | ids memorise, content generalises |
# | 13_serving (to come) | towers and index are one artifact |
# | 14_scale (to come) | the same code on many machines |
# | 15_museum (to come) | real bugs from public libraries |
# | 16_beyond (to come) | when to leave two towers |

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
# <details><summary>3. Which films suffer when log q is left out, and why?</summary>
#
# The popular ones: they stand in a batch more often, so they are pushed down as negatives more often than their place
# in the catalogue would ask for.
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
# <details><summary>5. The explorer says that a film of your history adds +0.05 to a score. Would the score fall by 0.05
# without it?</summary>
#
# Not exactly. The mean would be over one film fewer and its length another, so the shares of all other films would
# change as well.
#
# </details>
#
# ## What you have seen
#
# Settings, training, evaluation, export, an answer: five calls, and between them two networks that meet in a dot
# product. What decides whether it is any good are the loss, its negatives, and an honest comparison. Next:
# `01_data`, or, with an afternoon, the chapters with a star. The same five steps as commands are in the
# [README](../README.md).
