# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Splits: what the model may know
#
# A model is judged on events that it has not seen. Which events are put aside decides what it knows when it is asked,
# and a split can hand it the future. Such a split does not only flatter: it can name the wrong winner. Afterwards you
# can
#
# - **divide** events by the last fraction of each person (exercise 02.1);
# - **select** what was known before a question, and nothing else (exercise 02.2);
# - **measure** how much of the future a split lets a model know (the assertion under *The leak meter*);
# - **judge** two models whose order a leaky split reverses (the assertion under *The winner changes*);
# - **find** a leak in a feature (exercise 02.3).
#
# **You should know** the road of [00_start](00_start.ipynb), what `01_data` teaches, and a little NumPy.
# **Time**: 60 minutes for the core, which ends at the protocol box and its explorer; the rest is stretch.
# **Paper**: [Ji et al. 2023, A critical study on data leakage in recommender system offline
# evaluation](https://doi.org/10.1145/3569930).

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
import ipywidgets as widgets
import numpy as np

from twotower_lib.baselines import BaselineSettings, fit_baseline
from twotower_lib.data import DataSettings, Interactions, load
from twotower_lib.evaluation import difference, measure
from twotower_lib.exercises import compare, exercise, predict, progress
from twotower_lib.exercises.results import result
from twotower_lib.leaks import first_seen, not_yet_seen, of_the_future
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.protocols import point_in_time, questions
from twotower_lib.ranking import Queries
from twotower_lib.seeding import child
from twotower_lib.split import LEAKS, PARTS, PROTOCOLS, Split, SplitSettings, split

# %% [markdown]
# ## Five people on a time line
#
# Five people watch films A to H in the course of a month. Each entry says on which day somebody watched what. Dia comes
# on day 22 and Eli on day 25; nobody watches G before day 18, or H before day 24.

# %%
DIARY = {
    "Ana": {1: "A", 2: "B", 4: "C", 7: "D", 9: "E"},
    "Ben": {3: "A", 8: "C", 13: "D", 19: "G", 26: "H"},
    "Cem": {12: "B", 14: "A", 16: "E", 18: "G", 20: "F"},
    "Dia": {22: "A", 23: "F", 24: "H", 27: "G", 29: "C"},
    "Eli": {25: "B", 26: "A", 28: "H", 29: "G", 30: "F"},
}
NAMES, FILMS = list(DIARY), "ABCDEFGH"
rows = [(NAMES.index(name), FILMS.index(film), day) for name, days in DIARY.items() for day, film in days.items()]
user, item, day = np.array(rows).T
events = Interactions(user, item, n_users=5, n_items=8, time=day)
print(f"{len(events)} events of {events.n_users} people on {events.n_items} films, from day {day.min()} to {day.max()}")

# %% [markdown]
# We hold out 40 % of the events as the **test part**; the model learns from the rest, the **train part**. Three ways to
# choose them, three **protocols**:
#
# - **random**: any 40 % of all events;
# - **last fraction**: of each person the latest 40 %;
# - **global time**: the latest 40 % of all events, whoever did them. The moment at which they begin is the **cut**.
#
# The first and the last are a line each. `True` means held out.

# %%
SHARE = 0.4
held_out = {}
held_out["random"] = np.isin(np.arange(25), child(42, "split", 0).permutation(25)[: round(25 * SHARE)])
held_out["time"] = day >= np.sort(day)[len(day) - round(len(day) * SHARE)]
for protocol, by_hand in held_out.items():
    assert np.array_equal(by_hand, PROTOCOLS[protocol](events, SHARE, child(42, "split", 0)))
print("held out from day", day[held_out["time"]].min(), "on, for everybody")

# %% [markdown]
# ### Exercise 02.1: The last fraction
#
# *10 minutes, difficulty 2 of 3, core.*
#
# Write `last_fraction(users, times, share)`. Entry i of `users` says who did event i, entry i of `times` when; the
# events stand in no order, and no person has two at the same time. Return one truth value an event: `True` for the
# latest events of each person, as many as `share` times the number of that person's events, rounded down. Arrays of
# NumPy; the data is small, so every event may be compared with every other one: `users[:, None] == users` is a square
# of truth values called `same` in the hints.


# %% tags=["exercise"]
def last_fraction(users, times, share):
    """(events,), (events,), a number -> (events,), True = held out."""
    ### BEGIN SOLUTION
    same = users[:, None] == users
    later = (same & (times[:, None] < times)).sum(axis=1)
    return later < np.floor(same.sum(axis=1) * share)
    ### END SOLUTION


# %%
exercise("02.1").check(last_fraction)

# %%
exercise("02.1").hint()  # run it again for the next of three

# %%
held_out["last"] = PROTOCOLS["last"](events, SHARE, child(42, "split", 0))
drawing, panels = canvas(columns=3, width=11, height=3.6)
for axes, protocol in zip(panels, ("random", "last", "time"), strict=True):
    for is_test, marker, colour, name in ((False, "o", COLOURS[0], "train"), (True, "D", COLOURS[1], "test")):
        chosen = held_out[protocol] == is_test
        axes.plot(day[chosen], user[chosen], marker, color=colour, markersize=5 + 3 * is_test, label=name)
    axes.set_title(f"split {protocol}")
    axes.set_yticks(range(5), NAMES)
    axes.set_ylim(4.5, -0.5)
    axes.set_xlabel("day")
    axes.set_ylabel("person")
panels[2].axvline(day[held_out["time"]].min() - 0.5, color="grey", linestyle=":")
panels[0].legend(loc="lower left")
figure(
    drawing,
    alt="Three panels of the same 25 events. Across: the day, 1 to 30. Down: five people. Circles are train, diamonds "
    "test. Split random: diamonds lie anywhere between circles. Split last: the two right-most events of each person "
    "are diamonds. Split time: everything right of a line at day 23 is a diamond, all events of Eli among it.",
)

# %% [markdown]
# ## The leak meter
#
# In service a question comes at a moment, and what is later does not exist yet. So let us ask each split: **at the
# moment of a question, which share of what the model learned from lies in the future?** Ana's first held-out event in
# the split *last* is on day 7. She has three train events and the others have twelve.

# %%
predict("How many of these twelve happened after day 7?", guess=None, key="02.twelve")

# %%
train = ~held_out["last"]
compare("02.twelve", ((user != 0) & train & (day > 7)).sum())

# %% [markdown]
# Now for every held-out event, and for each of the three splits. `own` is the share of the person's own train events
# that lie after the question, `others` that of everybody else's.


# %%
def by_loops(train):
    """For each held-out event the shares of later train events: the person's own, and the others'."""
    rows = []
    for who, now in zip(user[~train], day[~train], strict=True):
        own, others = day[train & (user == who)], day[train & (user != who)]
        rows.append(((own > now).mean() if len(own) else np.nan, (others > now).mean()))
    return np.array(rows)


def parts(protocol):
    """The split of the five people as the library holds it."""
    return Split(events, np.where(held_out[protocol], PARTS["test"], PARTS["train"]).astype(np.int8), protocol)


for protocol in ("random", "last", "time"):
    meter = of_the_future(point_in_time(parts(protocol), "test"))
    assert np.allclose(by_loops(~held_out[protocol]), meter[["own", "others"]], equal_nan=True)
    own, others = meter["own"].mean(), meter["others"].mean()
    print(f"{protocol:7} own future {own:4.0%}   others' future {others:4.0%}   ({LEAKS[protocol]})")
    assert (own > 0, others > 0) == {"random": (True, True), "last": (False, True), "time": (False, False)}[protocol]

# %% [markdown]
# That is what the sentence in brackets says, which every report of this course prints. A random split knows what the
# person did later. The last fraction does not, but it knows what everybody else did later. Only a cut in time knows
# nothing of either.
#
# ## Asking point in time
#
# A cut in time has a price: of Eli nothing is known at all. Such a person is **cold**, and a model that reads a history
# finds an empty one. But in service Eli's second visit comes when his first is known. So we ask **point in time**: each
# held-out event is a question of its own, and its history is what this person did before it, held-out events included.
# The model stays as it was trained, **frozen at the cut**.

# %% [markdown]
# ### Exercise 02.2: Before the question
#
# *5 minutes, difficulty 1 of 3, core.*
#
# Write `known_before(users, times, user, now)`. Event i was done by `users[i]` at `times[i]`. A question is asked for
# `user` at time `now`. Return one truth value an event: `True` where the event belongs to the history of this question.
# What falls into the very second of the question is not known.


# %% tags=["exercise"]
def known_before(users, times, user, now):
    """(events,), (events,), a number, a number -> (events,), True = known."""
    ### BEGIN SOLUTION
    return (users == user) & (times < now)
    ### END SOLUTION


# %%
exercise("02.2").check(known_before)

# %%
exercise("02.2").hint()

# %%
asked = point_in_time(parts("time"), "test")
asker, when, history = asked.queries.user, asked.queries.time, asked.queries.history
for who, now, known, wanted in zip(asker, when, history, asked.held_out, strict=True):
    assert np.array_equal(known, item[(user == who) & (day < now)])  # the formula, by hand
    shown = " ".join(FILMS[film] for film in known) or "nothing"
    print(f"day {now}: {NAMES[who]} is asked knowing {shown:9} and chose {FILMS[wanted[0]]}")
assert len(asked) == held_out["time"].sum() and asked.cold.sum() == 1

# %% [markdown]
# Eli is cold once, on day 25, and then no more.
#
# ## A thousand people
#
# Now MovieLens 100K, with the course's own shares: 20 % test, and 10 % of the rest for validation. Its events span
# seven months. First two facts about its people.

# %%
dataset = load(DataSettings(source="ml-100k"))
films, people = dataset.interactions, dataset.interactions.n_users
span = np.array([np.ptp(films.time[films.user == one]) for one in range(people)])
second = np.stack([films.user, films.time])
_, number, count = np.unique(second, axis=1, return_inverse=True, return_counts=True)
hour, whole_day = (f"{(span < seconds).mean():.0%}" for seconds in (3600, 86400))
print(f"{hour} of the people did all they ever did within an hour, {whole_day} within a day;")
print(f"{(count[number.ravel()] > 1).mean():.0%} of the events share their second with another one of the same person.")

# %% [markdown]
# So most people come once, and a cut in time finds new people after it. Events of one second were most likely sent off
# together, as one page of films. None of them was known before the others, so they are **held out together**: one
# question with several right answers.

# %%
predict("Of 100 events after the cut, how many are by people who were there before it?", guess=None, key="02.known")

# %%
splits = {protocol: split(dataset, SplitSettings(protocol=protocol)) for protocol in ("random", "last", "time")}
after = splits["time"]
new = after.cold_users("test")
compare("02.known", round(100 * (~new[after.test.user]).mean()))

# %%
asked = {"random": questions(splits["random"], "test"), "last": questions(splits["last"], "test")}
asked |= {"time, asked once": questions(after, "test"), "time, point in time": point_in_time(after, "test")}
asked["random, point in time"] = point_in_time(splits["random"], "test")
print(f"{'':22} questions  people  left out  cold questions  events of films that nobody knew")
for name, one in asked.items():
    of = splits[name.partition(",")[0]]
    unknown = of.cold_items("test")[of.test.item].sum()
    counts = f"{len(one):9,} {one.n_users:7} {one.left_out:9} {one.cold.sum():15,}"
    print(f"{name:22} {counts} {unknown:7} of {len(of.test):,}")
assert asked["time, asked once"].cold.mean() > 0.6 and asked["time, point in time"].cold.mean() < 0.03
assert asked["time, point in time"].held_out.lengths.sum() == len(after.test)

# %% [markdown]
# Asked once a person, a cut in time is a test of strangers: nearly two in three of the people asked have no history.
# Point in time the same people are strangers once each, and then they are known. The other price stays: two thirds of
# all people are left out, because they did nothing after the cut, so intervals are wider.
#
# Now the meter. The second number is its other half: of **20 films that item-kNN recommends**, which share had no event
# of anybody yet when the question was asked? Where a person is asked once, the moment is their first held-out event.

# %%
K, MODEL = 20, BaselineSettings()
print(f"{'':22} own future   others' future   recommended, but not yet seen")
for name in ("random", "last", "time, point in time"):
    one, of = asked[name], splits[name.partition(",")[0]]
    meter = of_the_future(point_in_time(of, "test"))
    shown = fit_baseline("item-knn", one.known, MODEL).recommend(one.queries, K, one.exclude).items
    early = not_yet_seen(shown, one, first_seen(films)).mean()
    print(f"{name:22} {meter['own'].mean():10.0%} {meter['others'].mean():16.0%} {early:17.1%}")
    assert (early > 0) == (name != "time, point in time") == bool(meter["others"].mean() > 0)
first_month = (first_seen(films) < films.time.min() + 30 * 24 * 3600).mean()
assert first_month > 2 / 3
print(f"{first_month:.0%} of the films had their first event within the first 30 days.")

# %% [markdown]
# Under the random split half of what the model knows of a person, and half of what it knows of everybody, lies after
# the question. Films too early are few here, because most films of this data had been seen within a month. On
# MovieLens latest-small, which spans 22 years, they are many; the stretch part has the table. And *first seen* is a
# stand-in: a film without an event may have existed.
#
# ## The winner changes
#
# Does it matter? A leak that flatters all models alike would leave their order alone. Two models, as equal as can be:
# both are **EASE**, the strong linear model of `03_evaluation`, fitted on the same events with the same settings. One
# is asked with a person's whole history, the other with the **ten latest** films of it only. What is excluded is the
# same for both. **NDCG@20** is a measure of the list of 20: 1 where the held-out films come first, 0 where none is in
# it; the next chapter takes it apart.

# %%
predict("Under which splits is it better to read all films? Write their names.", guess=None, key="02.all")


# %%
class Latest:
    """A recommender that is asked with the latest films of each history only."""

    def __init__(self, model, length=10):
        self.model, self.length, self.n_items, self.is_exact = model, length, model.n_items, model.is_exact

    def recommend(self, queries, k, exclude=None):
        latest = queries.history.last(self.length)
        return self.model.recommend(Queries(queries.user, latest, queries.time), k, exclude)


def all_or_latest(name):
    """EASE with all films, with the ten latest, and the paired difference: latest minus all."""
    ease = fit_baseline("ease", asked[name].known, MODEL)
    whole, recent = (measure(model, asked[name], [K]) for model in (ease, Latest(ease)))
    return whole.means["ndcg@20"], recent.means["ndcg@20"], difference(recent, whole)["ndcg@20"]


# %%
reached = {name: all_or_latest(name) for name in ("random", "last", "time, point in time")}


def lines(names):
    """A line a way of asking."""
    for name in names:
        whole, recent, delta = reached[name]
        interval = f"{delta.mean:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}]"
        yield f"{name:22} {whole:9.3f} {recent:12.3f}   {interval}"


HEAD = f"{'NDCG@20':22} all films   ten latest   latest minus all, with its 95 % interval"
better = {name: "latest" if row[2].low > 0 else "all" if row[2].high < 0 else "?" for name, row in reached.items()}
assert better == {"random": "all", "last": "latest", "time, point in time": "latest"}
on_this_machine("\n".join([HEAD, *lines(reached)]))

# %%
compare("02.all", "random")

# %% [markdown]
# The random split names the wrong winner, and no interval holds zero. (Compare within a row: between rows the questions
# differ, and so does their number of right answers.) Whoever chose by the random split would serve the model that is
# worse at what a service is asked: what comes next.
#
# Is it the leak, or are the held-out events of the random split another kind? That can be told. The **same** split, the
# same trained EASE, the same held-out events, but asked point in time: the history ends before the question.

# %%
reached["random, point in time"] = all_or_latest("random, point in time")
assert reached["random, point in time"][2].low > 0
on_this_machine("\n".join([HEAD, *lines(["random", "random, point in time"])]))

# %% [markdown]
# The order turns round. So it is what the history knows that decided. Asked with films from before *and* after, a model
# fills a gap, and the more of both sides it reads, the better; its ten "latest" films are the end of all that the
# person ever did, mostly later than the question. A service asks what comes next, and there the films just before say
# most.
#
# One pair may be chance, or a matter of settings. So `benchmarks/leaks` chose the settings of every side on the
# validation part of each split, and then asked its test part once. (The towers took those of an earlier tuning, and
# under *time* those of *last*.) The *recent* ones are asked with the 5, 10 or 20 latest films; recent *popularity*
# counts the last 7, 30 or 90 days. The history tower *set* reads any films, *before* the fifty before the question.
# Towers: the mean of three seeds. In brackets the place; popularity and chance stand among them.

# %%
leaks = result("leaks_ml-100k")
WAYS = {"random": "random", "last": "last", "time": "time, point in time"}
SIDES = [name for name in leaks["time"]["sides"] if name != "chance"]
rank = {way: sorted(SIDES, key=lambda one: -leaks[way]["sides"][one]["recall@20"]["mean"]) for way in WAYS}
print(f"{'recall@20 (place)':30}" + "".join(f"{told:>22}" for told in WAYS.values()))
for name in [*sorted(SIDES, key=rank["time"].index), "chance"]:
    cells = []
    for way in WAYS:
        one = leaks[way]["sides"][name]["recall@20"]
        place = f"({rank[way].index(name) + 1})" if name in SIDES else ""
        cells.append(f"{one['mean']:.3f} {place:>4}")
    print(f"{name:30}" + "".join(f"{cell:>22}" for cell in cells).rstrip())
recent = {name for name in SIDES if name.endswith(("recent", "before"))}
assert recent.isdisjoint(rank["random"][:4]) and recent.issuperset(rank["time"][:4])
assert "id towers" in rank["random"][:4] and rank["time"].index("id towers") > rank["time"].index("popularity")

# %%
PAIRS = [("EASE", "EASE, recent"), ("item-kNN", "item-kNN, recent"), ("iALS", "iALS, recent")]
PAIRS += [("history tower, set", "history tower, before"), ("popularity", "popularity, recent")]
NAMED = {"ml-100k": "MovieLens 100K", "ml-latest-small": "MovieLens latest-small"}


def deltas(data, way):
    """Of each pair the second minus the first: mean, low and high of the NDCG@20 on test."""
    found = {tuple(one["pair"]): one["test"]["ndcg@20"] for one in result(f"leaks_{data}")[way]["differences"]}
    return [[-found[pair][end] for end in ("mean", "high", "low")] for pair in PAIRS]


# %%
drawing, panels = canvas(columns=2, width=11, height=4.4)
for axes, data in zip(panels, NAMED, strict=True):
    for place, (way, told) in enumerate(WAYS.items()):
        mean, low, high = np.array(deltas(data, way)).T
        spots, bars = np.arange(len(PAIRS)) + 0.22 * (place - 1), [mean - low, high - mean]
        axes.errorbar(mean, spots, xerr=bars, fmt="osD"[place], color=COLOURS[place], capsize=3, label=told)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(PAIRS)), [other for _, other in PAIRS])
    axes.invert_yaxis()
    axes.set_title(NAMED[data])
    axes.set_xlabel("NDCG@20: recent minus whole history")
    axes.set_ylabel("model")
drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
figure(
    drawing,
    alt="Two panels of points with intervals, MovieLens 100K and latest-small. Across: NDCG@20 of the recent model "
    "minus that of the whole history, from about -0.17 to 0.06; a line at zero. Down: EASE, item-kNN, iALS, history "
    "tower, popularity. Under the random split all points lie left of zero, point in time all lie right of it. Those "
    "of the last fraction lie right of zero or on it, but for popularity left of it.",
)

# %% [markdown]
# Left of the line it is better to know everything, right of it to look at what is recent.

# %%
WORDS, said = {-1: "all", 0: "undecided", 1: "recent"}, {}
print(f"{'':48}" + "".join(f"{whole.partition(',')[0]:15}" for whole, _ in PAIRS).rstrip())
for data in NAMED:
    for way, told in WAYS.items():
        said[data, way] = [WORDS[(low > 0) - (high < 0)] for _, low, high in deltas(data, way)]
        print(f"{NAMED[data]:24}{told:24}" + "".join(f"{word:15}" for word in said[data, way]).rstrip())
    assert said[data, "random"] == ["all"] * 5 and said[data, "time"] == ["recent"] * 5
    assert said[data, "last"][4] == "all" and "all" not in said[data, "last"][:4]
(remark,) = (one for one in result("leaks_ml-latest-small")["time"]["differences"] if one["pair"] == list(PAIRS[4]))
assert remark["valid"]["ndcg@20"]["low"] > 0

# %% [markdown]
# Five pairs on two data sets, and the random split is wrong about all ten, with intervals that do not touch zero. Look
# at the last fraction, too. About histories it never contradicts the cut in time. About **popularity** it does, on both
# data sets: it counts what others watched, and of that the last fraction knows the future. So a leak misleads where a
# model can use it. (One remark: on the *validation* part of latest-small, point in time, recent popularity was still
# the worse one; few people are asked there.) And the id towers, which know a person by a row of a table, are among the
# first four under the random split and below popularity point in time, because a new person has no row.
#
# A warning belongs to it. On MovieLens people rate in sittings, and what they rate depends on which films the site
# shows them ([Fan et al. 2023, Our model achieves excellent performance on MovieLens: what does it
# mean?](https://arxiv.org/abs/2307.09985)). So the latest films may say more here than elsewhere. That the order *can*
# turn round is the lesson; in which data it does must be measured.
#
# ## Leaks come in by features, too
#
# A clean split is not enough. Every number that a model reads must have been there before the event.

# %% [markdown]
# ### Exercise 02.3: Find the leak
#
# *8 minutes, difficulty 2 of 3, core.*
#
# Somebody describes every event by how popular its film is, and splits the table afterwards. `items[i]` is the film of
# event i, `times[i]` its time; the table is in no order.
#
# ```python
# def popularity_of_events(items, times):
#     return np.bincount(items)[items]
# ```
#
# Write `repaired`, the same without the leak: for each event the number of events of the same film that are strictly
# earlier. The data is small, so comparing every event with every other one is fine, as `items[:, None] == items` does.


# %% tags=["exercise"]
def repaired(items, times):
    """(events,), (events,) -> (events,), a count for each."""
    ### BEGIN SOLUTION
    earlier = times < times[:, None]
    return ((items[:, None] == items) & earlier).sum(axis=1)
    ### END SOLUTION


# %%
exercise("02.3").check(repaired)

# %%
exercise("02.3").hint()

# %% [markdown]
# ## The protocol box
#
# Here is what every later number of this course stands on. Where a chapter does otherwise, it says so beside the
# number.

# %%
course = SplitSettings()
box = {
    "split": f"{course.protocol}: of each person the latest {course.test:.0%} are test; of the rest {course.valid:.0%} "
    "validation, cut in the same way",
    "asked": "each person once, knowing train (for the test: train and validation)",
    "ranked": "the whole catalogue, without the films that were known of this person",
    "left out": "people with nothing held out; every report says how many",
    "leak": LEAKS[course.protocol],
    "chosen on": "validation; then trained on both parts, and the test part is asked once",
    "about time": "claims about time, trends or new people are tested with split time, point in time",
}
assert (course.protocol, course.test, course.valid) == ("last", 0.2, 0.1)
print("\n".join(["+--- THE PROTOCOL BOX " + "-" * 89, *(f"| {name:11} {text}" for name, text in box.items())]))
print("+" + "-" * 110)

# %% [markdown]
# Why not a cut in time for everything? On this data it leaves two thirds of the people out, and most of the rest are
# new. The last fraction asks everybody, and about histories it said nothing above that the cut denies. It is a choice
# with a known hole, what others do later, and its leak is printed with every report. The other way of asking at the
# command line:
#
# ```
# twotower train data=ml-100k split.protocol=time out=runs/time
# twotower evaluate runs/time --point-in-time
# ```
#
# ### Try it: what may a model know?
#
# The five people again, now with a validation part. Choose a person and a protocol with the buttons (Tab and Space
# work, too), and **guess** first: how much of what the model learned is later than the question?


# %%
def divided(protocol):
    """Train, valid and test of the five people, as `split` makes them: test first, then validation from the rest."""
    is_test = PROTOCOLS[protocol](events, SHARE, child(42, "split", 0))
    rest = np.flatnonzero(~is_test)
    part = np.where(is_test, PARTS["test"], PARTS["train"]).astype(np.int8)
    part[rest[PROTOCOLS[protocol](events.take(rest), 1 / 3, child(42, "split", 1))]] = PARTS["valid"]
    return Split(events, part, protocol)


ASK = {"random": questions, "last": questions, "time": questions, "time, point in time": point_in_time}


def on_the_line(name, way):
    """What a person did, day by day, each with its part."""
    of = divided(way.partition(",")[0])
    told = {number: part for part, number in PARTS.items()}
    mine = np.flatnonzero(user == NAMES.index(name))
    return [(int(day[place]), FILMS[item[place]], told[of.part[place]]) for place in mine]


# %%
def what_is_known(name, way):
    """A sentence for each question that this person is asked for the test."""
    asked = ASK[way](divided(way.partition(",")[0]), "test")
    for place in np.flatnonzero(asked.queries.user == NAMES.index(name)):
        now, seen = asked.queries.time[place], " ".join(FILMS[film] for film in asked.queries.history[place])
        meter = of_the_future(asked).iloc[place].fillna(0)
        wanted = " ".join(FILMS[film] for film in asked.held_out[place])
        yield (
            f"Day {now}, what comes now? Right: {wanted}. Known of {name}: {seen or 'nothing'}. Of what the "
            f"model learned, {meter['own']:.0%} of {name}'s and {meter['others']:.0%} of the others' events are later."
        )


# %%
chosen_person = widgets.RadioButtons(options=NAMES, value="Ana", description="person")
chosen_way = widgets.RadioButtons(options=list(ASK), value="random", description="protocol")
panel = widgets.HTML()


def show(change=None):
    cells = "".join(
        f'<tr><td>day {now}</td><td>{film}</td><td style="background: {SHADES[part]}; color: black">{part}</td></tr>'
        for now, film, part in on_the_line(chosen_person.value, chosen_way.value)
    )
    told = list(what_is_known(chosen_person.value, chosen_way.value)) or [
        f"{chosen_person.value} is not asked: nothing is held out."
    ]
    head = "".join(f'<th scope="col">{one}</th>' for one in ("when", "film", "part"))
    panel.value = f"<table><tr>{head}</tr>{cells}</table><p role='status'>{'<br>'.join(told)}</p>"


SHADES = {"train": "#CFE3F1", "valid": "#FBE6B3", "test": "#F6C9AE"}
for control, hook in ((chosen_person, "tt-person"), (chosen_way, "tt-protocol")):
    control.add_class(hook)
    control.observe(show, "value")
show()
widgets.VBox([widgets.HBox([chosen_person, chosen_way]), panel]).add_class("tt-split")

# %% [markdown]
# The same without buttons: small letters are train, (in brackets) validation, CAPITALS test.

# %%
MARKS = {"train": str.lower, "valid": "({})".format, "test": str.upper}
print(f"{'':8}" + "".join(f"{protocol:16}" for protocol in ("random", "last", "time")).rstrip())
for name in NAMES:
    lines_of = (on_the_line(name, protocol) for protocol in ("random", "last", "time"))
    print(
        f"{name:8}" + "".join(f"{' '.join(MARKS[part](film) for _, film, part in one):16}" for one in lines_of).rstrip()
    )
for name, protocol in (("Ana", "random"), ("Eli", "time"), ("Dia", "time, point in time")):
    print("\n".join([f"\n{name}, {protocol}:", *what_is_known(name, protocol)]))

# %% [markdown]
# Here the core of the chapter ends.
#
# ## Stretch: films from the future
#
# How often does a model recommend what did not exist? Count it.

# %% [markdown]
# ### Exercise 02.4: Films that nobody had seen
#
# *8 minutes, difficulty 2 of 3, stretch.*
#
# Write `too_early(shown, first, now)`. `shown` has a row a question and k columns, each a film's row number; `first[f]`
# is the time of the first event of film f; `now` has the time of each question. Return for each question the share of
# its films whose first event is later than the question. A film that begins in that very second is not too early.


# %% tags=["exercise"]
def too_early(shown, first, now):
    """(questions, k), (films,), (questions,) -> (questions,), shares from 0 to 1."""
    ### BEGIN SOLUTION
    return (first[shown] > now[:, None]).mean(axis=1)
    ### END SOLUTION


# %%
exercise("02.4").check(too_early)

# %%
exercise("02.4").hint()

# %% [markdown]
# The library's count is `not_yet_seen`; below is its table. The second block is stricter: films that were **released**
# in a later year than that of the question, so that nobody could have known them. MovieLens latest-small spans 22
# years, MovieLens 100K seven months.

# %%
for kind in ("not yet seen", "not yet released"):
    print(f"of 20 recommended films, {kind}:")
    for data in NAMED:
        stored = result(f"leaks_{data}")
        for name in ("chance", "popularity", "popularity, recent", "item-kNN", "EASE", "iALS", "history tower, set"):
            cells = [stored[one]["sides"][name][kind] for one in WAYS]
            shares = "".join(f"{told}: {cell:6.1%}    " for told, cell in zip(WAYS.values(), cells, strict=True))
            print(f"  {data:16} {name:22} {shares}".rstrip())
            assert name == "chance" or cells[2] < 0.001
small = {way: result("leaks_ml-latest-small")[way]["sides"] for way in WAYS}
for way in ("random", "last"):
    early = [small[way][name]["not yet seen"] for name in ("popularity", "popularity, recent", "chance")]
    assert early[0] > 1 / 8 and 0.4 < early[1] < 0.5 < early[2] and small[way]["EASE"]["not yet seen"] < 0.05
assert 0.1 < small["time"]["chance"]["not yet seen"] < 0.15

# %% [markdown]
# Over 22 years the leak is plain to see. Under the random split and under the last fraction, more than one in eight of
# the most popular films had not been seen by anybody when the question was asked, and nearly half of the recently
# popular ones. The personal models hide it better, because a history tells in which years somebody watched. Chance
# shows that the **catalogue** can leak, too: it lists films that are still to come, even under the cut in time, where
# all other numbers are zero.
#
# ## Stretch: was it drawn?
#
# Published data often comes in two parts, and a paper says how they were made. Can that be checked, even without times?
# If m of a person's n events were **drawn**, each of them is in the test part with the chance m / n. The test events of
# a film are then a sum of independent draws, one for each person who saw it, whose mean and variance we know. So
# (count - mean)² / variance, on average over the films, is about 1. Call it the **drift**.

# %%
predict("Hold out the last fifth of each person instead. How large is the drift?", guess=None, key="02.drift")


# %%
def drift(one):
    """The mean over films of (count - mean)^2 / variance of their test events: about 1 where they were drawn."""
    person, film, tested = one.events.user, one.events.item, one.part == PARTS["test"]
    chance = (np.bincount(person, tested) / np.bincount(person))[person]
    mean, variance = np.bincount(film, chance), np.bincount(film, chance * (1 - chance))
    known = variance > 0
    return ((np.bincount(film, tested) - mean)[known] ** 2 / variance[known]).mean()


compare("02.drift", round(drift(splits["last"]), 1))

# %%
for protocol, one in splits.items():
    print(f"MovieLens 100K, {protocol:8} {drift(one):.2f}")
assert 0.9 < drift(splits["random"]) < 1.1 < drift(splits["time"]) < drift(splits["last"])
published = {data: result(f"public-{data}")["nature"] for data in ("electronic", "gowalla", "yelp2018")}
for data, nature in published.items():
    print(f"published, {data:14}{nature['drift']:.2f}   (drawn anew: {nature['drift of a random test part']:.2f})")
assert published["electronic"]["drift"] < 1.1 < 1.7 < published["gowalla"]["drift"] < published["yelp2018"]["drift"]

# %% [markdown]
# Films come and go, and what people do last is not what they did first. Far above 1 means: not drawn; it does not say
# why. Papers on Gowalla and Yelp2018, two of the most used test beds, describe the test part as drawn; asked, an author
# of NGCF wrote that it is [the latest
# fifth](https://github.com/xiangwang1223/neural_graph_collaborative_filtering/issues/19) of each person's events.
# Whoever then chooses settings on a random part of train may choose for another task: the README shows what differs,
# under *Is a published split what it is called?*
#
# ## In production
#
# - **YouTube** found the same in its candidate generation: to hold out a random watch and predict it from the rest of
#   the history leaks the future. Its models are trained to predict a *future* watch from what came before, and that did
#   better in A/B tests ([Covington et al. 2016](https://doi.org/10.1145/2959100.2959190), section 3.4 and figure 5).
# - **Pinterest** trains PinnerFormer, a tower that embeds users, to predict what a user will do
#   later from what they did recently ([Pancha et al. 2022](https://arxiv.org/abs/2205.04507)).
#
# ## Five questions
#
# <details><summary>1. A model has a higher recall under a random split than under a cut in time. By how much did the
# leak flatter it?</summary>
#
# That cannot be said. The questions differ: other people, other events, another number of right answers for each. Only
# what is asked the same questions compares.
#
# </details>
#
# <details><summary>2. Why did the random split prefer the model that reads all films?</summary>
#
# Its history holds films from before and after the held-out ones, so the task is to fill a gap, and both sides help. A
# service asks what comes next, and there the latest films say most.
#
# </details>
#
# <details><summary>3. Leave-one-out holds out the latest event of each person. What does it leak?</summary>
#
# What other people did later: it is a last fraction with one event. Of the person's own future it knows nothing.
#
# </details>
#
# <details><summary>4. Under a cut in time, point in time, the history of a question holds test events. Is that a
# leak?</summary>
#
# No. They happened before the question, and a service would know them then. The model was not trained on them; it only
# reads them.
#
# </details>
#
# <details><summary>5. Your events of one second belong to one page of ten films. Why are they held out
# together?</summary>
#
# Each would otherwise be asked with the others as its history, in an order that nobody observed. What is sent off at
# once cannot be known beforehand.
#
# </details>
#
# What is done so far, kept in a file beside this notebook that `forget()` deletes:

# %%
on_this_machine(progress())

# %% [markdown]
# ## What you have seen
#
# A split decides what a model knows when it is asked. A random split hands it the person's own future, the last
# fraction that of others, a cut in time nothing; asked point in time, the cut finds people whom it knows. The leak
# turned the order of two models round, with the same training and the same held-out events. Next comes `03_evaluation`:
# no number without chance, popularity, a strong baseline and an interval.
