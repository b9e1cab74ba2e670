# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Towers: two sides that meet in one dot product
#
# One network reads the person, another reads the film, and neither may look at what the other reads. Their two vectors
# meet in a dot product, which is little. What is gained by that, what can no longer be said, and what belongs into each
# tower? Afterwards you can
#
# - **count** what a question costs with a dot product and with a network over both sides (exercise 05.1);
# - **judge** what a dot product of few dimensions cannot say (the assertion under *What a dot product cannot say*);
# - **extend** a vector by a bias, so that a dot product is a cosine plus a bias (exercise 05.2);
# - **average** histories of different lengths (in the stretch: exercise 05.3);
# - **weigh** newer events more (in the stretch: exercise 05.4).
#
# **You should know** the road of [00_start](00_start.ipynb) and the metrics of [03_evaluation](03_evaluation.ipynb).
# **Time**: 40 minutes for the core, which ends at *Length, bias and temperature*; the rest is stretch, for half an
# hour. **Paper**: [Rendle et al. 2020, Neural collaborative filtering vs. matrix factorization
# revisited](https://arxiv.org/abs/2005.09683)

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
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from twotower_lib.bundle import load
from twotower_lib.evaluation import measure
from twotower_lib.exercises import compare, exercise, predict, progress
from twotower_lib.exercises.results import result
from twotower_lib.explorer import Explorer, for_history
from twotower_lib.index import ExactIndex
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.recipe import compose, export, measured_references, prepare, train
from twotower_lib.retriever import Retriever
from twotower_lib.towers import TowerSettings, TwoTower, embed_catalogue, embed_queries, parts, pooled

RUNS = Path("runs/05_towers")

# %% [markdown]
# ## What each side may see
#
# The **user tower** may read all that is known of the person when they ask: their history, an id, the time of day. The
# **item tower** may read what is known of the item before anybody asks: an id, genres, a picture. Neither may read a
# fact about the *pair*, such as "this person has watched the first part of this film". Such a fact belongs to the model
# that ranks the few hundred items which the towers have found.
#
# By hand: four films with vectors of two numbers. The person liked the first two, and the user tower takes their mean.

# %%
films = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
person = (films[0] + films[1]) / 2  # the user tower: it reads the history, and no candidate
scores = films @ person
print("person", [round(x, 2) for x in person.tolist()], " scores", [round(x, 2) for x in scores.tolist()])
assert scores[2:].argmax() == 0, "of the two new films the third fits better"

# %% [markdown]
# Now towers of the library, small and trained for some seconds: `history` reads what a person rated, `id` knows each
# person by a row of a table. Their item towers are alike, a table of films.

# %%
SETTINGS = ["data=ml-100k", "train=short", "train.refit=false", "model.dim=32", "history.length=20"]
SIDES = {"history": [], "id": ["model=id", "train.epochs=6"]}
bundles = {}
for name, more in SIDES.items():
    train(compose([*SETTINGS, *more]), RUNS / name, force=True)
    export(RUNS / name, RUNS / f"{name}_bundle", force=True)
    bundles[name] = load(RUNS / f"{name}_bundle")

prepared = prepare(compose(SETTINGS))
catalogue, asked = prepared.dataset.catalogue, prepared.asked("valid")
towers, features = bundles["history"].retriever.towers, bundles["history"].retriever.features

for name, bundle in bundles.items():
    print(f"{name} tower")
    for part in parts(bundle.retriever.towers):
        print(f"    {part.name:28}{part.shape!s:12}{part.parameters:8,} numbers{part.bytes:10,} bytes")

# %% [markdown]
# Nearly all of it is tables with a row for each film or person; the linear map `user.head` is small, and `log_scale`
# is the temperature. No table is shared between the sides, and nothing reads both. So the vectors of all films can be
# computed now, **before we know who will ask**:

# %%
film_vectors = embed_catalogue(towers, features)  # once, for everybody

three = asked.queries.slice(0, 3)  # then three people come
by_hand = embed_queries(towers, features, three) @ film_vectors.T
answer = bundles["history"].retriever.recommend(three, k=5)

assert np.allclose(np.sort(by_hand, axis=1)[:, ::-1][:, :5], answer.scores, atol=1e-5)
print(f"{film_vectors.shape[0]:,} film vectors of {film_vectors.shape[1]} numbers: the same scores as the library's.")

# %% [markdown]
# (Why 33 numbers and not 32? See *Length, bias and temperature*.)
#
# ## Why only a dot product?
#
# A **cross network** reads the vectors of a person and of a film together, one behind the other, and gives the score.
# It can learn any interaction of the two. What does it cost?

# %%
predict(
    "1,682 films, vectors of 64 numbers. A cross network has hidden layers of 128 and 64 units. How many times the "
    "multiplications of the dot products does it take to score all films for one person?",
    guess=None,
    unit="times",
    key="05.cost",
)

# %% [markdown]
# ### Exercise 05.1: What a question costs
#
# *5 minutes, difficulty 1 of 3, core.*
#
# The person's vector and `items` film vectors are there, each of `dim` numbers. A dot product of two of them takes
# `dim` multiplications. The cross network reads both vectors, twice `dim` numbers, has hidden layers of `widths[0]`,
# `widths[1]`, ... units, and ends in one number, the score. A layer that turns a numbers into b numbers takes a times b
# multiplications. The network runs once for each item. Write `cost(items, dim, widths)`: two numbers, the
# multiplications for the scores of all items with the dot product, and with the network. (`[2 * dim, *widths, 1]` is a
# list of all sizes.)


# %% tags=["exercise"]
def cost(items, dim, widths):
    """Two numbers and a list -> [of the dot products, of the network]."""
    ### BEGIN SOLUTION
    sizes = [2 * dim, *widths, 1]
    return [items * dim, items * sum(sizes[i] * sizes[i + 1] for i in range(len(sizes) - 1))]
    ### END SOLUTION


# %%
exercise("05.1").check(cost)

# %%
exercise("05.1").hint()  # run it again for the next of three

# %%
per_film = 2 * 64 * 128 + 128 * 64 + 64 * 1
compare("05.cost", round(per_film / 64))

# %%
rest = 128 * 64 + 64 * 1
for many, where in ((1682, "MovieLens 100K"), (10_000_000, "ten million items")):
    print(f"{where:17}  dot {many * 64:15,}   cross {many * per_film:18,}   after the first layer {many * rest:17,}")
assert rest > 100 * 64

# %% [markdown]
# The last column is the fair one. The first layer is linear, so its film half can be computed ahead too. All that comes
# after its activation depends on the pair, has to wait for the question, and is still more than a hundred times the dot
# products.
#
# And that is the smaller half of the matter. Film vectors that are known beforehand can be put into an **index**, which
# finds the largest dot products without looking at most of them (chapter 11). The cross network has to run on
# everything that it is to find. The paper of this chapter calls such networks too costly for retrieval, and adds a
# surprise: a dot product that is tuned well does better than those that were published to replace it.
#
# ## What a dot product cannot say
#
# The price of the dot product is the **rank**. Write the scores of all people and films as a table. With vectors of one
# number, each row is the row of film numbers, multiplied by the person's number:

# %%
person_numbers, film_numbers = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[3.0], [1.0], [-2.0]])
print(person_numbers @ film_numbers.T)

# %% [markdown]
# With `dim` numbers a row is a sum of `dim` fixed rows, each multiplied by one number of the person. The number of rows
# that are needed to build all others in this way is the rank of the table, so it is at most `dim`. It does not matter
# how deep the towers are: they decide *which* numbers come out, not how many.
#
# Now a small world that needs more. There are 8 films and 28 people. Each person wants exactly two films, and each pair
# of films is what one person wants.

# %%
PAIRS = list(combinations(range(8), 2))
wants = np.zeros((len(PAIRS), 8))
for row, pair in enumerate(PAIRS):
    wants[row, list(pair)] = 1


def first_two(scores):
    """Of the two films with the highest scores: how many each person wants."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    return np.take_along_axis(wants, best, axis=1).sum(axis=1)


print("people and films:", wants.shape, " rank:", np.linalg.matrix_rank(wants))

# %%
predict(
    "Vectors of one number, chosen as well as you like: how many of the 28 people find both of their films in front?",
    guess=None,
    key="05.line",
)

# %%
line = np.random.default_rng(0).normal(size=8)  # any place on the line for each film
lists = {tuple(np.argsort(-number * line)[:2]) for number in np.linspace(-3, 3, 60)}
compare("05.line", len(lists))

# %% [markdown]
# On a line there are only two lists: the films from the right, for everybody with a positive number, and from the left,
# for everybody with a negative one. Two pairs come first, and 26 people are out of luck.
#
# What can `dim` numbers do at best? The singular value decomposition (SVD) answers it for the squared error: cut after
# `dim` singular values, it is the nearest table of rank `dim`, and the error is the sum of the squares of those that
# were cut (Eckart and Young 1936). We can do it by hand. Each film is wanted by 7 people, each two films by 1 person.
# So `wants.T @ wants` has 7 on the diagonal and 1 elsewhere; its eigenvalues, the squared singular values, are
# 14 = 7 + 7 · 1, and 6 = 7 - 1 for the other seven. Of the sum, 56, rank `dim` leaves 56 - 14 - 6 (dim - 1).

# %%
left, values, right = np.linalg.svd(wants, full_matrices=False)
assert np.allclose(values**2, [14, 6, 6, 6, 6, 6, 6, 6])
nearest = {dim: left[:, :dim] * values[:dim] @ right[:dim] for dim in range(1, 9)}
error = {dim: ((wants - table) ** 2).sum() for dim, table in nearest.items()}
assert np.allclose(list(error.values()), [56 - 14 - 6 * (dim - 1) for dim in range(1, 9)])
print({dim: round(float(abs(one)), 1) for dim, one in error.items()})

# %% [markdown]
# But a list needs no exact numbers, only the right films in front. So let us also *learn* vectors, with the softmax of
# chapter 06, and count the people who find both of their films.


# %%
def learn(score, weights, steps=600, rate=0.05):
    """Move the weights until the softmax over the films gives each person's two films the most."""
    optimiser, target = torch.optim.Adam(weights, lr=rate), torch.from_numpy(wants)
    for _ in range(steps):
        loss = -(torch.log_softmax(score(), dim=1) * target).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return score().detach().numpy()


def vectors(dim):
    return torch.randn(28, dim, requires_grad=True), torch.randn(8, dim, requires_grad=True)


torch.manual_seed(0)
learned = {}
for dim in range(1, 9):
    users, items = vectors(dim)
    learned[dim] = learn(lambda u=users, v=items: u @ v.T, [users, items])
happy = {dim: int((first_two(table) == 2).sum()) for dim, table in learned.items()}
assert happy[1] == 2 and happy[2] <= 12 and happy[3] < 28 and all(happy[dim] == 28 for dim in range(4, 9))
print("Learned: 2 people with one dimension, not all with two or three, all 28 with four or more.")

# %%
drawing, axes = canvas(height=3.8)
recall = {"nearest table (SVD)": nearest, "learned for the list": learned}
for (name, tables), (mark, colour) in zip(recall.items(), (("s--", COLOURS[1]), ("o-", COLOURS[0])), strict=True):
    axes.plot(list(tables), [first_two(one).sum() / 56 for one in tables.values()], mark, color=colour, label=name)
axes.axhline(2 / 8, color="grey", linestyle=":")
axes.text(8, 0.27, "chance and popularity: all films are wanted by seven", color="dimgrey", ha="right")
axes.set_ylim(0, 1.05)
axes.set_xlabel("dimensions of the vectors")
axes.set_ylabel("recall@2")
axes.legend(loc="center right")
served = {dim: first_two(nearest[dim]).sum() / 56 for dim in (4, 6)}
assert served[4] < 0.9 and served[6] < 1 and error[4] > 20
figure(
    drawing,
    alt="Line chart. Across: dimensions of the vectors, 1 to 8. Upwards: recall@2, 0 to 1, with a dotted line for "
    "chance and popularity at 0.25. Vectors learned for the list rise to 1 at four dimensions and stay there; the "
    "nearest table in squared error stays below them and reaches 1 only at the end.",
)

# %%
on_this_machine(
    "dimensions   squared error   both films in front: nearest table   learned\n"
    + "\n".join(
        f"{dim:10}{abs(error[dim]):16.0f}{int((first_two(nearest[dim]) == 2).sum()):38}{happy[dim]:10}" for dim in happy
    )
)

# %% [markdown]
# Two things to keep. With few dimensions some tastes **cannot be said**, by no choice of vectors and no depth of
# towers: with one there are two lists, and the learned vectors of two and three dimensions leave people out as well.
# And the right *order* needs fewer dimensions than the right *numbers*: four are enough here, where the exact table
# needs eight. That is one reason why 64 numbers can serve a catalogue of thousands.
#
# A cross network can say it with fewer. Two numbers a person and two a film, read together:

# %%
torch.manual_seed(0)
users, items = vectors(2)
network = torch.nn.Sequential(
    *(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
)


def together():
    """Every person beside every film, through the network."""
    beside = torch.cat([users[:, None].expand(28, 8, 2), items[None].expand(28, 8, 2)], dim=2)
    return network(beside)[..., 0]


crossed = int((first_two(learn(together, [users, items, *network.parameters()], rate=0.01)) == 2).sum())
assert crossed > happy[2] + 10
print("With two numbers a side the network serves at least ten people more than the dot product of two.")

# %% [markdown]
# It pays for that with a run for every pair. The other cure is cheaper: more dimensions.
#
# ## Three clicks and an answer
#
# Somebody new opens the site and clicks on three films. The model was trained yesterday; it has never met this person.
# A history tower needs nothing but the three films: their vectors are in its table. An id tower has no row for the
# person. The row of an unknown id is zero, so all cosines are zero, and only the bias of each film is left.

# %%
predict(
    "Two new people: one likes three science-fiction films, the other three cartoons. How many of the ten films that "
    "the id towers show them are the same?",
    guess=None,
    key="05.clicks",
)


# %%
def rows_of(*titles):
    return [catalogue.titles.index(title) for title in titles]


space = rows_of("Alien", "Aliens", "Terminator, The")
cartoons = rows_of("Cinderella", "Aladdin", "Lion King, The")
shown = {
    name: [{line.row for line in for_history(bundles, mine, 10).lists[name]} for mine in (space, cartoons)]
    for name in bundles
}
same = {name: len(one & other) for name, (one, other) in shown.items()}
assert same["history"] <= 2
compare("05.clicks", same["id"])

# %% [markdown]
# Try it: press *Remove from it*, search for a title, add it. The left list follows; the right one at most leaves out
# what was added. (By keyboard: Tab moves, Space chooses. The buttons on top ask for a known person as well; there both
# models have something to say.)

# %%
Explorer(bundles, user="6", history=space)

# %% [markdown]
# The first answer as a table, for readers without a running kernel:

# %%
on_this_machine(for_history(bundles, space))

# %% [markdown]
# ### How much is that worth?
#
# `benchmarks/towers` trained towers of full size. Each side has a grid of 24 settings; the best one on validation was
# trained with five more seeds. Sides that read an id were asked about the people of the validation part twice: as who
# they are, and as **strangers**, with their history but without their id.

# %%
measured = result("towers")
sides = measured["sides"]
chance, popularity = (measured["references"][name]["recall@20"] for name in ("chance", "popularity"))
assert all(len(side["tried"]) in (12, 24) and len(side["seeds"]) == 5 for side in sides.values())


def recalls(side, strangers=False):
    """recall@20 on validation, of five seeds; towers that read no id do not notice who is a stranger."""
    rows = sides[side]["seeds"]
    return np.array([(row.get("as strangers", row) if strangers else row)["recall@20"] for row in rows])


# %%
def dots(names, alt, **more):
    """A row a side, a dot a seed; of strangers too where it is asked for."""
    drawing, axes = canvas(width=8, height=1.2 + 0.4 * len(names))
    places = range(len(names) - 1, -1, -1)
    for place, side in zip(places, names, strict=True):
        axes.plot(recalls(side), [place] * 5, "o", color=COLOURS[0], alpha=0.6)
        if more.get("strangers"):
            axes.plot(recalls(side, strangers=True), [place - 0.25] * 5, "s", color=COLOURS[1], alpha=0.6)
    for value, name in ((chance, "chance"), (popularity, "popularity")):
        axes.axvline(value, color="grey", linestyle=":")
        axes.text(value + 0.004, len(names) - 0.6, name, color="dimgrey")
    axes.set(yticks=places, yticklabels=names.values(), xlim=(0, 0.4), ylim=(-0.6, len(names)))
    axes.set(xlabel="recall@20 on validation, five seeds", ylabel=more["what"])
    return figure(drawing, alt)


# %%
KNOWING = {
    "mean": "history",
    "id towers": "id",
    "id and history": "id and history",
    "id and history, id dropout 0.3": "both, id dropout 0.3",
    "id and history, id dropout 0.7": "both, id dropout 0.7",
}
dots(
    KNOWING,
    "Dot chart. Upwards: what the user tower reads. Across: recall@20 on validation, 0 to 0.4, with lines for chance, "
    "0.01, and popularity, 0.11; a circle a seed for people as they are, a square as strangers. History stands "
    "furthest to the right. Id falls from 0.25 to popularity for strangers, id and history from 0.33 to 0.19; with id "
    "dropout circles and squares lie near each other, above 0.29.",
    strangers=True,
    what="read (squares: strangers)",
)

# %%
mean_of_seeds = {side: (recalls(side).mean(), recalls(side, strangers=True).mean()) for side in KNOWING}
for side, (here, stranger) in mean_of_seeds.items():
    print(f"{KNOWING[side]:22} recall@20 {here:.3f}, as strangers {stranger:.3f}")
print(f"popularity {popularity:.3f}, chance {chance:.3f}")
assert abs(mean_of_seeds["id towers"][1] - popularity) < 0.01
assert mean_of_seeds["id and history"][1] < 0.6 * mean_of_seeds["id and history"][0]
assert mean_of_seeds["id and history, id dropout 0.3"][1] > 1.5 * mean_of_seeds["id and history"][1]
assert 0.005 < mean_of_seeds["id and history"][0] - mean_of_seeds["id and history, id dropout 0.3"][0] < 0.015
assert max(mean_of_seeds.values()) == mean_of_seeds["mean"]
trained = {row["epochs"] for row in sides["id towers"]["seeds"]}
assert trained == {max(row["epochs"] for row in sides["id towers"]["tried"])}

# %% [markdown]
# Strangers get from id towers what popularity gives them. Towers that read both have learned to lean on the id: without
# it they lose more than two fifths of their recall. **ID dropout** makes ids unknown by chance in training, so that the
# history has to do without: with 0.3 strangers fare as well as known people, who pay about a hundredth for it. On this
# data the simplest side is the best: the history alone. (Id towers chose the longest training of their grid, so they
# may have something left to gain for known people.)
#
# ## Length, bias and temperature
#
# A dot product is *length times length times cosine*. The person's length changes nothing in the person's list, since
# it multiplies all of their scores. But a **long film vector** is far in front for everybody it points to. What will a
# model use the lengths for, if it may have them? **Guess** before you run the next cells.

# %%
free = compose([*SETTINGS, "model.normalise=false", "model.item_bias=false", "model.temperature=0.6"])
train(free, RUNS / "free", force=True)
export(RUNS / "free", RUNS / "free_bundle", force=True)
free_towers = load(RUNS / "free_bundle").retriever.towers
long_vectors = embed_catalogue(free_towers, features)

known = prepared.split.train.item_counts
norms, met = np.linalg.norm(long_vectors, axis=1), known > 0
by_rank = np.corrcoef(norms[met].argsort().argsort(), known[met].argsort().argsort())[0, 1]
assert by_rank > 0.5
print("Correlation of the ranks of length and popularity: above 0.5.")

# %%
drawing, axes = canvas(height=3.8)
axes.semilogx(known[met], norms[met], ".", color=COLOURS[0], alpha=0.5)
axes.set_ylim(bottom=0)
axes.set_xlabel("train events of the film")
axes.set_ylabel("length of its vector")
assert np.median(norms[known > 200]) > 1.3 * np.median(norms[met & (known < 10)])
figure(
    drawing,
    alt="Scatter plot of the films. Across: train events of a film, 1 to about 500, logarithmic. Upwards: the length "
    "of its vector, 0 to about 1.7. The points rise from left to right: popular films have the longest vectors.",
)

# %% [markdown]
# Popularity hides in the lengths. So whoever normalises the vectors afterwards, say because an index offers only the
# cosine, throws away what was learned there:


# %%
def asked_with(item_vectors):
    """Recall, and the share of people who know a recommended film, if these vectors are in the index."""
    means = measure(Retriever(free_towers, features, ExactIndex(item_vectors)), asked, [20]).means
    return means["recall@20"], means["popularity@20"]


references = {name: one.means["recall@20"] for name, one in measured_references(free, asked, [], [20]).items()}
as_trained = asked_with(long_vectors)
cut = asked_with((long_vectors / np.maximum(norms, 1e-6)[:, None]).astype(np.float32))
assert cut[0] < 0.9 * as_trained[0] and cut[1] < 0.8 * as_trained[1]
assert references["chance"] < references["popularity"] < as_trained[0]
on_this_machine(
    f"as trained: recall@20 {as_trained[0]:.3f}, a recommended film is known by {as_trained[1]:.0%}\n"
    f"lengths cut afterwards: {cut[0]:.3f}, {cut[1]:.0%}\n"
    f"popularity {references['popularity']:.3f}, chance {references['chance']:.3f}"
)

# %% [markdown]
# Hence the rule of this library: what leaves a tower is what the index stores. If the length is to be 1, the tower
# itself brings it to 1, in training too. Then the score is a cosine, between -1 and 1. That has a price:

# %%
predict(
    "Logits are cosines (temperature 1). How much probability can one of 1,682 films get at most in the softmax?",
    guess=None,
    unit="percent",
    key="05.most",
)


# %%
def most(temperature):
    """The probability of a film with cosine 1 if all others have cosine -1, in percent."""
    return 100 / (1 + 1681 * np.exp(-2 / temperature))


print(f"at temperature 0.15: {most(0.15):.1f} percent; the largest logit is then 1 / 0.15 = {1 / 0.15:.1f}")
compare("05.most", round(most(1.0), 1))

# %% [markdown]
# So a cosine needs the **temperature**: divided by T = 0.15, logits reach from -6.7 to 6.7. And popularity, which had
# its place in the length, gets another one: a learned **bias** b of each film. As one more dimension it stays inside
# the dot product. The film's vector becomes [v, T b] and the person's [u, 1]:
#
# ```
# score      =  <u, v> + T b       both u and v of length 1
# score / T  =  cosine / T + b
# ```

# %% [markdown]
# ### Exercise 05.2: A cosine and a bias in one dot product
#
# *7 minutes, difficulty 2 of 3, core.*
#
# Write `item_side(vectors, bias, temperature)`: what an index stores of the items. `vectors` has a row an item, none of
# them zero; `bias` has one number an item. Bring each row to length 1, and put behind it one more number, the
# temperature times the item's bias. (`torch.nn.functional.normalize(vectors)` brings rows to length 1, and
# `torch.cat([one, other], dim=1)` puts two tables side by side; `bias[:, None]` is the bias as a table of one column.)


# %% tags=["exercise"]
def item_side(vectors, bias, temperature):
    """(items, dim), (items,), a number -> (items, dim + 1)."""
    ### BEGIN SOLUTION
    return torch.cat([torch.nn.functional.normalize(vectors), temperature * bias[:, None]], dim=1)
    ### END SOLUTION


# %%
exercise("05.2").check(item_side)

# %%
exercise("05.2").hint()

# %% [markdown]
# Is that what the library does? Here are its table of films, its biases and its temperature, put together by hand:

# %%
with torch.no_grad():
    ids = torch.from_numpy(features.item_codes)
    raw, bias, T = towers.item.tables["id"](ids), towers.bias(ids), towers.temperature
    length = raw.norm(dim=1, keepdim=True)
    by_hand = torch.cat([raw / length.clamp(min=1e-6), T * bias], dim=1)

assert np.allclose(by_hand, film_vectors, atol=1e-6)
assert (embed_queries(towers, features, three)[:, -1] == 1).all()
print(f"{len(film_vectors):,} vectors: 32 numbers of length 1, then T times the bias, against which people have a 1.")

# %% [markdown]
# Here the core of the chapter ends.
#
# ## Stretch: deeper, wider?
#
# Between the mean of the history and the normalisation stands a **head**: no layer at all, one linear map (the default,
# `mean` below), or hidden layers with an activation between. Deeper towers are the first thing that one would try.

# %%
DEPTH = {
    "no head": "no head",
    "mean": "1 layer, linear",
    "2 layers, width 32": "2 layers, width 32",
    "2 layers, width 128": "2 layers, width 128",
    "2 layers, width 512": "2 layers, width 512",
    "3 layers, width 128": "3 layers, width 128",
    "2 layers, width 128, on both sides": "2 layers on both sides",
}
predict(
    "How much recall@20 does the best of the five nets with hidden layers gain over the linear map (in hundredths; "
    "below 0 if it loses)?",
    guess=None,
    key="05.depth",
)

# %%
deep = {side: recalls(side).mean() - recalls("mean").mean() for side in list(DEPTH)[2:]}
compare("05.depth", round(100 * max(deep.values()), 2))

# %%
dots(
    DEPTH,
    "Dot chart. Upwards: seven heads of the tower, from no head to hidden layers on both sides. Across: recall@20 on "
    "validation, 0 to 0.4. The dots of a head lie close together, between 0.31 and 0.34. The five nets with hidden "
    "layers lie a little to the left of the linear map, all far to the right of chance, 0.01, and popularity, 0.11.",
    what="head of the tower",
)


# %%
def gain(side, beside="mean"):
    """Difference to another side, and its standard error by the five seeds of both."""
    one, other = recalls(side), recalls(beside)
    return one.mean() - other.mean(), np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 5)


def line_of(side):
    """A side in words: how large, how good, how much better than one linear map over a mean."""
    row, (more, error) = sides[side]["seeds"][0], gain(side)
    beside = "" if side == "mean" else f"   {more:+.4f} ± {error:.4f}"
    return f"{side:38}{row['parameters']:9,} numbers   T {row['temperature']:<5} {recalls(side).mean():.4f}{beside}"


print(f"{'':66}recall@20  beside mean")
print("\n".join(map(line_of, DEPTH)))
print(f"popularity {popularity:.4f}, chance {chance:.4f}")
assert all(gain(side)[0] < -2 * gain(side)[1] for side in deep)
assert abs(gain("no head")[0]) < gain("no head")[1]
numbers = {side: sides[side]["seeds"][0]["parameters"] for side in DEPTH}
assert 60_000 < max(numbers.values()) - numbers["mean"] < 62_000

# %% [markdown]
# None of the five gains; each loses a little, by more than two standard errors, with up to 62,000 numbers more. And
# without any head it is as good as with the linear map. So hidden layers are harmful? Look where the best settings lie
# in the grid before you say so:

# %%
edges = {side: {key: sides[side]["seeds"][0][key] for key in ("temperature", "epochs")} for side in DEPTH}
coldest, longest = (
    pick(row[key] for row in sides["mean"]["tried"]) for pick, key in ((min, "temperature"), (max, "epochs"))
)
assert all(one["epochs"] == longest for one in edges.values())
assert [side for side, one in edges.items() if one["temperature"] == coldest] == list(deep)
print(f"all seven trained longest ({longest} epochs); all nets with hidden layers chose the coldest T, {coldest}.")

# %% [markdown]
# At the **edge**, where a better setting may lie beyond, and for the nets more than for the linear map. A grid that
# ends at the best setting has to be widened before it says anything. So for three of the heads: colder temperatures,
# and twice the epochs.

# %%
WIDER = ["mean, wider grid", "2 layers, wider grid", "3 layers, wider grid"]
print(f"{'':66}recall@20  beside mean")
print("\n".join(map(line_of, ("mean", *WIDER))))
print(f"popularity {popularity:.4f}, chance {chance:.4f}")
two, three_layers = gain(WIDER[1], WIDER[0]), gain(WIDER[2], WIDER[0])
assert abs(gain(WIDER[0])[0]) < gain(WIDER[0])[1] and abs(two[0]) < two[1]
assert three_layers[0] < -2 * three_layers[1]
assert all(sides[side]["seeds"][0]["temperature"] > 0.07 for side in WIDER)

# %% [markdown]
# With twice the epochs the net of two layers **is as good** as the linear map, to which the longer training gave
# nothing; three layers are still a little behind. What looked like the harm of two layers was a net that had not been
# trained to its end. But they gain nothing either. A likely reason is that the mean of film vectors lies in the right
# space already; and the bound on the rank no depth could have lifted.
#
# Read the small print before you carry that elsewhere. It is one small data set; the ± knows other seeds, but not other
# people; and both nets chose the warmest T and the most epochs of the wider grid, which are edges again. For the linear
# map the curve over the epochs has become flat, for the nets perhaps not.

# %% [markdown]
# ## Stretch: from a history to a vector
#
# Histories have different lengths. The usual trick is **padding**: all are brought to one length, what is added stands
# for nothing, and a **mask** says where something real stands.

# %% [markdown]
# ### Exercise 05.3: A mean that leaves out the gaps
#
# *7 minutes, difficulty 2 of 3, stretch.*
#
# `vectors` has shape (people, places, dim): for each person and each place of the history the vector of an item.
# `mask`, of shape (people, places), is True where there is an item and False where there is a gap. In a gap `vectors`
# may hold anything. Write `mean_of(vectors, mask)`: for each person the mean of the vectors of their items, and zeros
# for a person without an item. (`mask[:, :, None]` has the shape to be multiplied with `vectors`; `clamp(min=1)` raises
# every number of a tensor to at least 1.)


# %% tags=["exercise"]
def mean_of(vectors, mask):
    """(people, places, dim), (people, places) -> (people, dim)."""
    ### BEGIN SOLUTION
    kept = vectors * mask[:, :, None]
    return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    ### END SOLUTION


# %%
exercise("05.3").check(mean_of)

# %%
exercise("05.3").hint()

# %% [markdown]
# The library needs no padding: it stores histories one after the other, with the places where each begins. It is the
# same mean:

# %%
codes = features.history(asked.queries.slice(0, 50).history)  # of fifty people; a code is a row of the table
table = towers.user.tables["history"]
lengths = torch.bincount(codes.owners, minlength=50)
padded = torch.nn.utils.rnn.pad_sequence(codes.values.split(lengths.tolist()), batch_first=True)
mask = torch.arange(padded.shape[1]) < lengths[:, None]
by_hand = (table(padded) * mask[:, :, None]).sum(dim=1) / lengths[:, None].clamp(min=1)

assert torch.allclose(by_hand, pooled(table, codes), atol=1e-6)
print(f"{len(lengths)} histories, {len(codes.values)} items; padded: {padded.numel()} places. The same fifty means.")

# %% [markdown]
# ## Stretch: who weighs how much in a history
#
# A mean gives every event of a history the same weight. Two other ways to pool, each with one idea:
#
# - **recency**: the weight is halved with every half-life of events that came since. One number is learned, the
#   half-life;
# - **attention**: a learned vector, the query, meets the vector of each item in a dot product, and a softmax over the
#   history turns these numbers into weights. Here the query is the same for everybody: some items say more than others.
#
# Both must leave out the gaps **before** the weights are divided by their sum.

# %% [markdown]
# ### Exercise 05.4: Newer events weigh more
#
# *8 minutes, difficulty 2 of 3, stretch.*
#
# `ages` has a row a person and a column a place of the history: how many events of this person came after that one; the
# newest has age 0. `mask` is True where there is an event; everybody has at least one. Write
# `weights(ages, mask, half_life)`: an event weighs 0.5 to the power of its age divided by the half-life, and a gap
# weighs 0; then the weights of each person are divided by their sum, so that a row adds up to 1. (`0.5 ** ages` works
# on whole tables, and a table times `mask` is 0 in the gaps.)


# %% tags=["exercise"]
def weights(ages, mask, half_life):
    """(people, places), (people, places), a number -> (people, places)."""
    ### BEGIN SOLUTION
    weight = 0.5 ** (ages / half_life) * mask
    return weight / weight.sum(dim=1, keepdim=True)
    ### END SOLUTION


# %%
exercise("05.4").check(weights)

# %%
exercise("05.4").hint()

# %% [markdown]
# Both by hand, with padding and a mask, and equal to the library's. The towers are new, and the attention gets a random
# query, since the one that it starts from is zero: equal weights.

# %%
torch.manual_seed(0)
by_way = {}
for way in ("recency", "attention"):
    fresh = TwoTower(features, TowerSettings(dim=32, pooling=way, half_life=5.0))
    if way == "attention":
        torch.nn.init.normal_(fresh.user.pooling.query)
    with torch.no_grad():
        items, ages = fresh.user.tables["history"](padded), padded.new_zeros(padded.shape)
        ages[mask] = codes.ages
        logit = items @ fresh.user.pooling.query if way == "attention" else -np.log(2) * ages / 5.0
        share = torch.softmax(logit.masked_fill(~mask, -torch.inf), dim=1)
        by_hand = (share[:, :, None] * items).sum(dim=1)
        shares = fresh.user.shares(codes)
        assert torch.allclose(share[mask], shares, atol=1e-6)
        assert torch.allclose(by_hand, pooled(fresh.user.tables["history"], codes, shares), atol=1e-6)
    by_way[way] = share[0, mask[0]]
print("One person's newest five, by recency:", [round(x, 2) for x in by_way["recency"][-5:].tolist()])

# %%
print("\n".join(map(line_of, ("mean", "recency", "attention"))))
print("half-lives that were learned:", [row["half_life"] for row in sides["recency"]["seeds"]], "events, from 20")
print(f"popularity {popularity:.4f}, chance {chance:.4f}")
assert gain("recency")[0] > 2 * gain("recency")[1] and gain("attention")[0] < 0

# %% [markdown]
# Recency gains about half a hundredth, by more than two standard errors, for one number more. All five runs found
# nearly the same half-life. A weight a film, which is what this attention can say, gains nothing.
#
# ## Stretch: one table or two, lengths, bias
#
# The history tower has a table of films, and the item tower has one too. **Tied** towers share it, which halves the
# model. But the two tables say different things: what a film says about the person who saw it, and who wants it next.

# %%
others = ("tied", "without the item bias", "not normalised", "not normalised, without the item bias")
print("\n".join(map(line_of, ("mean", *others))))
print(f"popularity {popularity:.4f}, chance {chance:.4f}")
one_seed = recalls("mean").std(ddof=1)
assert all(gain(side)[0] < -2 * gain(side)[1] for side in others if side != "without the item bias")
assert -one_seed < gain("without the item bias")[0] < 0
hot = {side: min(row["temperature"] for row in sides[side]["tried"]) for side in others[2:]}
assert all(sides[side]["seeds"][0]["temperature"] == coldest for side, coldest in hot.items())

# %% [markdown]
# Tied towers lose about a hundredth and save half of the numbers, a bargain where memory is dear. Without the item bias
# the loss is smaller than what one seed does; a likely reason is that cosines divided by T can hold popularity too.
# Towers that are not normalised lose about a hundredth as well, but they chose the coldest temperature of *their* grid,
# so a better one may lie beyond it.
#
# ## Stretch: four dimensions are enough, by hand
#
# Why did four dimensions suffice for all pairs of films? Put the films on a circle, film j at the angle t[j], and give
# it the vector [cos t, sin t, cos 2t, sin 2t]. A person with four numbers then has as score *any* wave of these four
# parts. For the person who wants the films at the angles a and b take
#
# ```
# - (1 - cos(t - a)) (1 - cos(t - b))
# ```
#
# It is 0 at the angles a and b and negative everywhere else; and multiplied out it is such a wave, up to a constant,
# which moves all scores alike. It works for any number of films.

# %%
angle = 2 * np.pi * np.arange(8) / 8
waves = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], axis=1)
wanted = np.stack([-(1 - np.cos(angle - angle[a])) * (1 - np.cos(angle - angle[b])) for a, b in PAIRS])
people, *_ = np.linalg.lstsq(waves, (wanted - wanted.mean(axis=1, keepdims=True)).T, rcond=None)
assert np.allclose(waves @ people + wanted.mean(axis=1), wanted.T)
assert (first_two(people.T @ waves.T) == 2).all()
print(people.T.shape, "numbers for the people,", waves.shape, "for the films: all 28 find both of their films.")

# %% [markdown]
# ## In production
#
# - **Pinterest** makes a person's vector from the sequence of their recent actions, in PinnerFormer. It is computed
#   once a day, and the training is made for that: it predicts long-term engagement, which loses less by the delay than
#   predicting the next action ([Pancha et al. 2022, PinnerFormer](https://arxiv.org/abs/2205.04507)).
# - **YouTube** used an item tower that reads a wide variety of content features of a video, for a catalogue of tens of
#   millions ([Yi et al. 2019](https://doi.org/10.1145/3298689.3346996)).
# - **New people and items** can be trained for: DropoutNet leaves out what is known of a person or an item by chance,
#   so that the rest learns to do without ([Volkovs et al. 2017,
#   DropoutNet](https://proceedings.neurips.cc/paper_files/paper/2017/hash/dbd22ba3bd0df8f385bdac3e9f8be207-Abstract.html)).
#
# ## Five questions
#
# <details><summary>1. Somebody wants to give the item tower the feature "the person has seen the first part". What do
# you say?</summary>
#
# That is a fact about a pair. With it the item's vector would differ from person to person and could not be computed
# beforehand. It belongs to the model that ranks what the towers have found.
#
# </details>
#
# <details><summary>2. A team doubles the depth of both towers, because "64 dimensions cannot say everything". Does that
# help with this?</summary>
#
# No. The table of scores has at most the rank of the vectors' size, however they were computed. More dimensions raise
# that bound, depth does not.
#
# </details>
#
# <details><summary>3. Is a taste beyond reach because the nearest table of rank 4 has a large squared error?</summary>
#
# Not for a list. The right films must only be in front, and that can take fewer dimensions than the exact numbers.
#
# </details>
#
# <details><summary>4. A model was trained without normalisation, and the index of your colleague normalises all vectors
# when they are stored. What happens?</summary>
#
# The lengths are gone, and with them the popularity that they held: other films come, and recall falls. What leaves the
# tower must be what the index stores.
#
# </details>
#
# <details><summary>5. What do id towers recommend to somebody who came today?</summary>
#
# The unknown id has a zero vector, so all cosines are zero. The biases of the films are left: the same list for every
# new person, whatever they click on.
#
# </details>
#
# What is done so far, kept in a file beside this notebook that `forget()` deletes:

# %%
on_this_machine(progress())

# %% [markdown]
# ## What you have seen
#
# Two towers that never read a pair, so that item vectors can be computed beforehand; what a network over both would
# cost; what few dimensions cannot say, and why lists need fewer than numbers; a history as a mean; three clicks that
# are enough for an answer; popularity in lengths, and its better place in a bias; and, in the stretch, what depth is
# worth when all sides are tuned alike. Next comes [06_losses](06_losses.ipynb): how such vectors are learned.
