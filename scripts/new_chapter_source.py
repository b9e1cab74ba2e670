# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # $title
#
# The one lesson: $lesson.
#
# To write: why a reader wants to know it. What follows is one small example of every part of a chapter, to be replaced
# part by part. Afterwards you can
#
# - **say** how unevenly events fall on films (your guess, and the assertion, under *How uneven is it?*);
# - **compute** a recall by hand and see that it is the library's (the assertion under *Recall by hand*);
# - **judge** a recall beside chance and popularity (the assertion under *Is that good?*).
#
# **You should know** what `$before` teaches. **Time**: 10 minutes for you, some seconds for a laptop.
# **Paper**: [Cremonesi et al. 2010, Performance of recommender algorithms on top-n recommendation
# tasks](https://doi.org/10.1145/1864708.1864721).

# %% tags=["setup"]
# $colab_cell

# %%
import numpy as np

from twotower_lib.baselines import fit_baseline
from twotower_lib.evaluation import evaluate, measure
from twotower_lib.exercises import compare, predict
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.ranking import Queries
from twotower_lib.recipe import compose, measured_references, prepare

# %% [markdown]
# ## How uneven is it?
#
# The data is invented and comes with the library. The last events of each person are put aside as **validation part**
# and **test part**; the rest, the **train part**, is what a model learns from.

# %%
recipe = compose(["data=toy"])
prepared = prepare(recipe)
counts = prepared.split.train.item_counts
print(f"{prepared.split.train.n_users} people, {len(counts)} films, {counts.sum()} events to learn from")

# %% [markdown]
# Put the films in order, the most watched one first, and take the first quarter of them. Write your guess in place of
# `None`.

# %%
predict("Which share of the events falls on this quarter?", guess=None, unit="%", key="$number.quarter")

# %%
in_order = np.sort(counts)[::-1]
share = in_order[: len(counts) // 4].sum() / counts.sum()
assert share > 1 / 4  # what it would be if all films were watched equally often
compare("$number.quarter", round(100 * share))

# %% [markdown]
# ## Recall by hand
#
# **Item-kNN** recommends films that were watched by the same people as those of the history. We show each person five
# films that are new to them. The **recall@5** is the share of a person's held-out films that are among these five:
#
# ```
# recall@k = held-out films among the first k / held-out films
# ```

# %%
K = 5
asked = prepared.asked("valid")
item_knn = fit_baseline("item-knn", asked.known, recipe.baselines)
shown = item_knn.recommend(asked.queries, K, asked.exclude).items

by_hand = [np.isin(held_out, films).mean() for films, held_out in zip(shown, asked.held_out, strict=True)]

assert np.allclose(by_hand, measure(item_knn, asked, [K]).table[f"recall@{K}"])
print(f"{len(by_hand)} people: the same recall as the library's, one by one.")

# %% [markdown]
# ## Is that good?
#
# A mean says nothing alone. Beside it stand its 95 % interval over people; **chance**, films drawn at random; and
# **popularity**, the most watched films for everybody. Few people are asked here, so the interval is wide.

# %%
KS = range(1, 21)
references = measured_references(recipe, asked, [], KS)
report = evaluate(item_knn, asked, references, KS)
on_this_machine(report.text(lambda metric: metric in ("recall@5", "recall@20")))

# %%
means = {"item-kNN": report.measured.means} | {name: one.means for name, one in references.items()}
recalls = {name: np.array([one[f"recall@{k}"] for k in KS]) for name, one in means.items()}
assert recalls["item-kNN"][K - 1] > 1.2 * recalls["popularity"][K - 1]
assert np.all(recalls["item-kNN"] > recalls["popularity"])
print("Five films by item-kNN find more than 1.2 times what the five most popular ones find.")

# %%
drawing, axes = canvas()
for (name, values), colour, line in zip(recalls.items(), COLOURS, ("-", ":", "--"), strict=False):
    axes.plot(KS, values, line, color=colour, label=name)
axes.set_xticks([1, 5, 10, 15, 20])
axes.set_xlabel("films shown, k")
axes.set_ylabel("recall@k (share of the held-out films)")
axes.legend(frameon=False)
figure(
    drawing,
    alt="Line chart. Across: how many films are shown, from 1 to 20. Upwards: recall, from 0 to 1. Three lines rise: "
    "item-kNN, chance and popularity. Item-kNN lies above popularity everywhere.",
)

# %% [markdown]
# ## Try it
#
# Choose another person, `p01` to `p60`, and run the cell again. Popularity leaves out what the person has watched, so
# its lists differ a little, too.

# %%
PERSON = "p54"
history = prepared.split.seen("valid")[prepared.dataset.people.users.row(PERSON)]
query = Queries.of_history(history)
popularity = fit_baseline("popularity", asked.known, recipe.baselines)


def titles(model):
    """The first K films for this person."""
    return [prepared.dataset.catalogue.titles[film] for film in model.recommend(query, K, query.history).items[0]]


rows = [("item-kNN", "popularity"), *zip(titles(item_knn), titles(popularity), strict=True)]
on_this_machine("\n".join(f"{one:<30}{other}" for one, other in rows))

# %% [markdown]
# ## In production
#
# - To write: what a published system does with the lesson of this chapter, and its source. An example: **YouTube**
#   found candidates with a two-tower whose loss corrects for how often an item is drawn ([Yi et al.
#   2019](https://doi.org/10.1145/3298689.3346996)).
#
# ## Five questions
#
# To write: five questions on what this chapter shows, which a reader can answer who has understood it and only then.
#
# <details><summary>1. Why is the model compared with popularity, and not with chance alone?</summary>
#
# The most popular items are a fair guess for everybody and cost nothing. A personal list has to do better than that.
#
# </details>
#
# <details><summary>2. What is the recall@5 of a person with ten held-out films at most?</summary>
#
# One half: five films are shown, and all of them may be among the ten.
#
# </details>
#
# <details><summary>3. Why are films that a person has watched left out of their list?</summary>
#
# They cannot be among the held-out ones, because a pair of person and film occurs once. They would take places away.
#
# </details>
#
# <details><summary>4. Why is the validation part asked here, and not the test part?</summary>
#
# What we look at while we work becomes something that we choose by. The test part is looked at once, at the end.
#
# </details>
#
# <details><summary>5. What is recall@k when k is the number of all films that a person has not watched?</summary>
#
# 1, for every model: the list then holds every film that could be held out.
#
# </details>
#
# ## What you have seen
#
# To write: the lesson in three sentences. $after
