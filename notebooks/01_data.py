# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Data: a click is a preference that was given a chance
#
# Everything that this course learns from is a list of events: who, what, when. This chapter walks from a raw file to
# the rows that a model sees. Then it asks what an event says. Nobody clicks what they are not shown, so a count of
# clicks mixes two things: how much a film is liked, and how often it is put in front of people. Afterwards you can
#
# - **turn** a file into interactions and a catalogue (the assertion under *From a file to rows*);
# - **measure** how much of the data falls on a few films (exercise 01.1);
# - **compute** what will be clicked from what is liked and what is shown (exercise 01.2);
# - **reweight** clicks so that they speak of preference again, and say what it costs (in the stretch: exercise 01.3,
#   and the assertion under *Stretch: right on average is not right*);
# - **find** what is wrong with a file before a model meets it (in the stretch: exercise 01.4).
#
# **You should know** NumPy's arrays, and what a mean and a standard deviation are. [00_start](00_start.ipynb) helps.
# **Time**: 35 minutes for the core, which ends at *A small world*; the rest is stretch, for another half hour.
# **Paper**: [Schnabel et al. 2016, Recommendations as treatments: debiasing learning and
# evaluation](https://arxiv.org/abs/1602.05352), section 3.

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

import ipywidgets as widgets
import numpy as np
import pandas as pd

from twotower_lib.data import ColumnSettings, DataSettings, load
from twotower_lib.evaluation import popularity_slices
from twotower_lib.exercises import compare, exercise, predict, progress
from twotower_lib.plots import COLOURS, canvas, figure, on_this_machine
from twotower_lib.seeding import child

FOLDER = Path("runs/01_data")  # everything that this notebook writes
FOLDER.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## From a file to rows
#
# A file of your own has a header and a line for each event: a user, an item, and a time in seconds since 1970. Here is
# a small one, typed by hand. Its users are called 007, 7 and 42, and one of its films is called *NA*.

# %%
own = FOLDER / "clicks.csv"
own.write_text("""user,item,time
007,NA,1700000300
7,Alien,1700000100
007,Alien,1700000200
42,Brazil,1700000400
""")
predict(
    "How many different people does pandas find in this file, read without any option?", guess=None, key="01.people"
)

# %%
careless = pd.read_csv(own)
compare("01.people", careless["user"].nunique())

# %%
print(careless)

# %% [markdown]
# 007 and 7 have become one person, and the film *NA* is gone: its cell holds NaN, which means *missing*. No error was
# raised. So an **id is text**, whatever it looks like. The library reads it so, and then gives each user and each item
# a **row**: a number from 0, in the order of length and then of the alphabet. Everything after this counts in rows.

# %%
settings = DataSettings(source="csv", interactions=str(own), columns=ColumnSettings(time="time"))
small = load(settings)
print("users, by row:", small.people.users.names)
print("items, by row:", small.catalogue.items.names)
print("user row, item row, time:")
for event in zip(small.interactions.user, small.interactions.item, small.interactions.time, strict=True):
    print("  ", *event)

# %% [markdown]
# By hand it takes a few lines. The events stand in the order (user, time, item), so the same data gives the same rows
# whatever the order of the lines in the file.

# %%
lines = [line.split(",") for line in own.read_text().splitlines()[1:]]
users = sorted({user for user, _, _ in lines}, key=lambda name: (len(name), name))
items = sorted({item for _, item, _ in lines}, key=lambda name: (len(name), name))
by_hand = sorted((users.index(user), int(time), items.index(item)) for user, item, time in lines)

events = small.interactions
assert tuple(users) == small.people.users.names and tuple(items) == small.catalogue.items.names
assert by_hand == list(zip(events.user.tolist(), events.time.tolist(), events.item.tolist(), strict=True))
print("The same names, the same rows.")

# %% [markdown]
# Two records leave this step, and the rest of the course stands on them: the **interactions**, arrays of user rows,
# item rows and times, one entry an event; and the **catalogue**, which gives the name and the title of each item row.
#
# ## Faults
#
# A file with faults is refused as a whole, and every fault is told at once with its line. Lines are counted as an
# editor counts them; the header is line 1. This file has five faults. Look for them before you run the cell.

# %%
broken = FOLDER / "broken.csv"
broken.write_text("""user,item,time
ada,Alien,1700000100
,Alien,1700000200
bob,Alien,soon
bob,  ,1700000300
ada,Alien,1700000100
cy,Brazil,1700000400,5
cy,Brazil,1700000500
""")


def told(**columns):
    """What `load` says of the broken file."""
    try:
        load(DataSettings(source="csv", interactions=str(broken), columns=ColumnSettings(**columns)))
    except ValueError as error:
        print(error)


told(time="time")

# %% [markdown]
# Why not drop the bad lines and go on? Because a fault is seldom alone. A time that is no number may be a column that
# has slipped; a row that comes twice may be an export that was glued together twice. Whoever drops lines in silence
# trains on something that nobody has looked at. A misspelt column is told with the nearest name:

# %%
told(user="usr")

# %% [markdown]
# The same person and the same film at *another* time is no fault: people watch a film twice. `load` keeps the first of
# such events, because a pair is to occur once, and says so in its notes. (To write such a check yourself is the last
# exercise of the stretch.)

# %%
twice = FOLDER / "twice.csv"
twice.write_text("user,item,time\nada,Alien,1700000500\nada,Alien,1700000100\n")
noted = load(DataSettings(source="csv", interactions=str(twice), columns=ColumnSettings(time="time")))
assert noted.interactions.time.tolist() == [1700000100]
print(*noted.notes)

# %% [markdown]
# ## The long tail
#
# Now a real file. MovieLens 100K holds the ratings that 943 people gave to 1,682 films in 1997 and 1998. This course
# takes every rating as an event, a high one and a low one alike: the person met the film and cared enough to rate it.

# %%
movielens = load(DataSettings(source="ml-100k"))
events, catalogue = movielens.interactions, movielens.catalogue
counts = events.item_counts  # for each film the number of its ratings
assert counts.tolist() == np.bincount(events.item, minlength=len(catalogue)).tolist()
print(f"{events.n_users} people, {len(catalogue):,} films, {len(events):,} ratings")
for film in counts.argsort()[::-1][:3]:
    print(f"{counts[film]:5} ratings  {catalogue.titles[film]}")

# %%
predict("Of 100 ratings, how many fall on the most rated tenth of the films?", guess=None, key="01.head")

# %% [markdown]
# ### Exercise 01.1: The head's share
#
# *5 minutes, difficulty 1 of 3, core.*
#
# Write `head_share(counts, first)`. `counts` has the number of events of each item, in any order, and `first` is a
# number of items. Take the `first` most popular items. Return the share of all events that falls on them, a number from
# 0 to 1. (`counts.argsort()` gives the places of the counts from the smallest to the largest.)


# %% tags=["exercise"]
def head_share(counts, first):
    """(items,), a number -> a share."""
    ### BEGIN SOLUTION
    return np.sort(counts)[::-1][:first].sum() / counts.sum()
    ### END SOLUTION


# %%
exercise("01.1").check(head_share)

# %%
exercise("01.1").hint()  # run it again for the next of three

# %%
in_order = np.sort(counts)[::-1]
running = in_order.cumsum() / in_order.sum()  # the share of the first film, of the first two, ...
tenth = len(counts) // 10
compare("01.head", round(100 * running[tenth - 1]))

# %% [markdown]
# So a few films hold much of the data: the **head**. The many others are the **long tail**. This course divides the
# films into three groups that have a third of the events each: head, torso and tail. By hand: put the films in order,
# the most rated first, and cut the line of their events into three equal parts. A film belongs to the part in which its
# first event falls.

# %%
order = np.argsort(-counts, kind="stable")
before = np.cumsum(counts[order]) - counts[order]  # events of the films in front of it
by_hand = np.empty(len(counts), dtype=int)
by_hand[order] = before * 3 // counts.sum()

thirds = popularity_slices(events)  # 0 head, 1 torso, 2 tail
assert by_hand.tolist() == thirds.tolist()
for number, name in enumerate(("head", "torso", "tail")):
    of_films, of_ratings = (thirds == number).sum(), counts[thirds == number].sum() / counts.sum()
    print(f"{name:5}  {of_films:5,} films with {of_ratings:.0%} of the ratings")
print(f"{(counts == 1).sum()} films have a single rating.")

# %%
drawing, (left, right) = canvas(columns=2, width=10)
left.loglog(range(1, len(in_order) + 1), in_order, color=COLOURS[0])
left.set_xlabel("films, from the most rated (place)")
left.set_ylabel("ratings of the film")
share_of_films = 100 * np.arange(1, len(in_order) + 1) / len(in_order)
right.plot(share_of_films, 100 * running, color=COLOURS[0], label="MovieLens 100K")
right.plot([0, 100], [0, 100], ":", color="grey", label="all films rated equally often")
for number in (0, 1):
    right.axvline(100 * (thirds <= number).mean(), color=COLOURS[1], linewidth=0.8)
right.text(24, 14, "lines: end of head, end of torso", color=COLOURS[1])
right.set_xlabel("films, from the most rated (%)")
right.set_ylabel("ratings that they have together (%)")
right.legend(loc="lower right")
assert (thirds == 0).mean() < 0.1 and (thirds <= 1).mean() < 0.25
figure(
    drawing,
    alt="Two line charts. Left, both axes logarithmic: the place of a film, 1 to 1,682, against its ratings, from 583 "
    "down to 1; nearly level at first, then falling ever more steeply. Right: the share of films, 0 to 100 percent, "
    "against the share of ratings that they have, 0 to 100 percent. The curve lies far above the diagonal of equal "
    "films; the head ends before 10 percent of the films, the torso before 25.",
)

# %% [markdown]
# ## What an empty cell means
#
# Think of a table with a row a person and a column a film, and a 1 where there is an event. Three people and three
# films will do. Here we know what is hidden in real data: who would like which film, and who was shown which.

# %%
liked = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])  # row: a person, column: a film
shown = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 1]])
clicked = liked * shown
print(clicked)
predict("Of the empty cells, how many say that the person does not like the film?", guess=None, key="01.empty")

# %%
empty = clicked == 0
compare("01.empty", int((empty & (shown == 1)).sum()))

# %%
print(f"{empty.sum()} empty cells:")
print(f"  {(empty & (shown == 1)).sum()} shown, and not liked")
print(f"  {(empty & (shown == 0) & (liked == 1)).sum()} not shown, and would be liked")
print(f"  {(empty & (shown == 0) & (liked == 0)).sum()} not shown, and would not be liked")

# %% [markdown]
# An empty cell is no dislike. It may mean *never shown*, *shown and not liked*, or *not yet*: the person will come to
# the film later. And yet the **negatives** of a model, the films that it learns to put further down, must come from the
# empty cells, for there are no others. In MovieLens nearly all cells are empty.

# %%
filled = len(events) / (events.n_users * events.n_items)
middle = np.median(events.time)
here_before = np.isin(events.user, events.user[events.time <= middle])
not_yet = (here_before & (events.time > middle)).sum()
stars = np.bincount(events.rating.astype(int))[1:] / len(events)
assert filled < 0.07 and stars[3:].sum() > 0.5
print(f"{filled:.1%} of the cells are filled.")
print(f"At the median time {not_yet:,} cells were still empty that a person who was already there filled later.")
print("ratings of 1 to 5 stars:", "  ".join(f"{share:.0%}" for share in stars))
print(
    "mean rating in head, torso, tail:",
    "  ".join(f"{events.rating[thirds[events.item] == n].mean():.2f}" for n in range(3)),
)

# %% [markdown]
# More than half of the ratings have 4 or 5 stars. People rate what they chose to watch, and they chose what they
# expected to like: the data is **missing not at random**. In a survey, users of a web radio were asked to rate songs
# that were drawn *at random*. These ratings looked markedly different from those of songs that they had chosen
# themselves, and many users said that their opinion of a song decides whether they rate it ([Marlin et al.
# 2007](https://arxiv.org/abs/1206.5267)). So even that a cell is empty carries information, and a model that ranks may
# use it ([Steck 2010](https://doi.org/10.1145/1835804.1835895)).
#
# Films of the head have more stars, too. Are they watched because they are good? Or did everybody hear of them, and the
# people who dislike such films stayed away? The file cannot tell, for nobody wrote down what was shown.
#
# ## Clicks are preference times exposure
#
# Two words for the rest of the chapter. The **preference** is the chance that a person clicks an item *if* it is shown.
# The **exposure** is the chance that it is shown. A click needs both:
#
# ```
# chance of a click  =  exposure  x  preference
# ```
#
# Three films, and how often each was shown:

# %%
preference, shows = np.array([0.5, 0.4, 0.2]), np.array([100, 900, 500])
clicks = shows * preference
for name, p, s, c in zip("ABC", preference, shows, clicks, strict=True):
    print(f"film {name}: liked by {p:.0%}, shown {s} times, {c:.0f} clicks")
assert preference.argmax() == 0 and clicks.argmin() == 0
print("By preference A is first, by clicks it is last.")

# %% [markdown]
# ### Exercise 01.2: Expected clicks
#
# *5 minutes, difficulty 1 of 3, core.*
#
# Write `expected_clicks(preference, shown)`. Both are tables with a row for each user u and a column for each item i.
# `preference` holds the chance that the user clicks the item if it is shown, `shown` the chance that it is shown to
# this user. Return for each item the number of clicks to be expected from all users together.


# %% tags=["exercise"]
def expected_clicks(preference, shown):
    """(users, items), (users, items) -> (items,)."""
    ### BEGIN SOLUTION
    return (preference * shown).sum(axis=0)
    ### END SOLUTION


# %%
exercise("01.2").check(expected_clicks)

# %%
exercise("01.2").hint()

# %% [markdown]
# ## A small world
#
# Who decides what is shown? Often the counts themselves: lists of the most popular, a friend's advice, a model trained
# on clicks. So the output comes back as input: **feedback**. We build a world of 200 films. Their preferences are
# evenly spread from 10 % to 30 %, the same for all people, and we know them. On each of 50 days 4,000 films are shown,
# and a film is shown in proportion to
#
# ```
# (1 + its clicks so far) ** feedback
# ```
#
# Feedback 0 shows all films equally often. With feedback 1, twice the clicks bring twice the shows; with 1.5, more than
# that.

# %%
FILMS, DAYS, SHOWS = 200, 50, 4000
preference = child(0, "preference").permutation(np.linspace(0.1, 0.3, FILMS))


def world(feedback, luck=0):
    """Clicks and shows of each film after all days."""
    random = child(luck, "world")
    clicks, shows = np.zeros(FILMS), np.zeros(FILMS)
    for _ in range(DAYS):
        weight = (1 + clicks) ** feedback
        today = random.multinomial(SHOWS, weight / weight.sum())
        shows += today
        clicks += random.binomial(today, preference)
    return clicks, shows


best = np.argsort(-preference)[:20]  # the best-liked tenth
spread = preference[best].max() / preference[best].min()
print(f"Among the 20 best-liked films the most liked one is liked {spread:.2f} times as much as the least liked one.")
predict(
    "With feedback 1: how many times as many clicks has the most clicked of these 20 as the least clicked one?",
    guess=None,
    key="01.factor",
)

# %%
clicks, shows = world(feedback=1)
factor = clicks[best].max() / clicks[best].min()
assert spread < 1.1 and factor > 4
compare("01.factor", float(f"{factor:.1g}"))

# %% [markdown]
# Nearly the same preference, many times the clicks. It was mostly luck on the first days that decided which of them
# were shown on the others. Three measures say how far counts are from preference:
#
# - the share of all clicks that falls on the 20 most clicked films;
# - **found**: how many of the 20 best-liked films are among the 20 most clicked ones. Twenty films drawn at random
#   would find 2;
# - **rank correlation**: the correlation between a film's place by clicks and its place by preference, 1 where the two
#   orders are the same, 0 where they have nothing to do with each other.


# %%
def places(values):
    """The place of each value in their order, 0 for the smallest."""
    return values.argsort(kind="stable").argsort()


def measured(score):
    """Head share, found, rank correlation of a score for each film."""
    head = np.sort(score)[::-1][:20].sum() / score.sum()
    found = len(set(np.argsort(-score, kind="stable")[:20]) & set(best))
    return head, found, np.corrcoef(places(score), places(preference))[0, 1]


STRENGTHS = (0.0, 0.5, 1.0, 1.5)
worlds = {(feedback, luck): world(feedback, luck) for feedback in STRENGTHS for luck in (0, 1)}
table = {key: measured(clicks) for key, (clicks, _) in worlds.items()}
text = "feedback  luck  on the first 20  found  rank correlation\n"
for (feedback, luck), (head, found, agreement) in table.items():
    text += f"{feedback:8}  {luck:4}  {head:15.0%}  {found:5}  {agreement:16.2f}\n"
for luck in (0, 1):
    assert table[0.0, luck][2] > 0.95 > table[1.0, luck][2] > table[1.5, luck][2] > 0.5
    assert table[0.0, luck][0] < 0.2 < table[1.0, luck][0] < 0.6 < table[1.5, luck][0]
on_this_machine(text)

# %%
drawing, panels = canvas(columns=3, width=10.5, height=4)
for axes, feedback in zip(panels, (0.0, 1.0, 1.5), strict=True):
    clicks, _ = worlds[feedback, 0]
    axes.semilogy(100 * preference, 1 + clicks, ".", color="#999999", label="a film")
    axes.semilogy(
        100 * preference[best], 1 + clicks[best], "o", color=COLOURS[1], markersize=4, label="the 20 best-liked"
    )
    axes.set_ylim(1, 1e5)
    axes.set_title(f"feedback {feedback}")
    axes.set_xlabel("preference (%)")
    axes.set_ylabel("1 + clicks")
panels[0].legend(loc="lower right")
figure(
    drawing,
    alt="Three scatter plots of 200 films. Across: preference, 10 to 30 percent. Upwards, logarithmic: clicks, 1 to "
    "100,000. With feedback 0 the points lie on a thin rising line. With feedback 1 they make a rising band. With "
    "feedback 1.5 the band is so broad that films of nearly equal preference differ by a factor of a hundred and more; "
    "among the 20 best-liked films some have very few clicks.",
)

# %% [markdown]
# Even without feedback the counts miss some of the 20, because films whose preferences lie close together change places
# by chance. With feedback they are still not empty of taste: what is liked more is clicked more on the whole. But they
# exaggerate small differences, and part of the order is luck. The same was found with people. In an experiment with
# 14,341 of them, songs were offered with or without the number of earlier downloads. The stronger the influence, the
# more unequal and the less predictable was success: the best songs rarely did poorly, the worst rarely did well, and
# any other result was possible ([Salganik, Dodds and Watts 2006](https://doi.org/10.1126/science.1121066)).
#
# ### Try it
#
# Choose the strength of the feedback and the luck of the first days (by keyboard: Tab moves, Space chooses). The list
# shows the five most clicked films. **Guess first**: do the two lucks have the same winner?


# %%
def winners(feedback, luck):
    """The five most clicked films as rows of text."""
    clicks, shows = worlds[feedback, luck]
    place = FILMS - places(preference)  # 1 for the best-liked film
    _, found, agreement = table[feedback, luck]
    yield f"{found} of the 20 best-liked are among the 20 most clicked (chance: 2), rank correlation {agreement:.2f}"
    for film in np.argsort(-clicks, kind="stable")[:5]:
        yield (
            f"film {film:3}: {clicks[film]:6,.0f} clicks, shown {shows[film]:7,.0f} times, liked by "
            f"{preference[film]:.0%}, place {place[film]} by preference"
        )


strength = widgets.RadioButtons(options=STRENGTHS, value=1.0, description="feedback")
luck = widgets.RadioButtons(options=(0, 1), value=0, description="luck")
answer = widgets.HTML()


# %%
def picture(feedback, luck):
    """Clicks against preference."""
    drawing, axes = canvas(width=5, height=3)
    axes.semilogy(100 * preference, 1 + worlds[feedback, luck][0], ".", color=COLOURS[0])
    axes.set_ylim(1, 1e5)
    axes.set_xlabel("preference (%)")
    axes.set_ylabel("1 + clicks")
    alt = f"Scatter plot of 200 films with feedback {feedback}: preference, 10 to 30 %, against clicks, 1 to 100,000."
    return figure(drawing, alt)._repr_html_()


def show(change=None):
    first, *rows = winners(strength.value, luck.value)
    listed = "".join(f"<li>{row}</li>" for row in rows)
    answer.value = f"<p role='status'>{first}</p><ol>{listed}</ol>{picture(strength.value, luck.value)}"


for control, name in ((strength, "tt-feedback"), (luck, "tt-luck")):
    control.add_class(name)
    control.observe(show, "value")
show()
widgets.VBox([widgets.HBox([strength, luck]), answer]).add_class("tt-world")

# %% [markdown]
# The same as a text, for readers without a running kernel:

# %%
text = ""
for feedback, chance in ((0.0, 0), (1.0, 0), (1.0, 1), (1.5, 0), (1.5, 1)):
    text += f"feedback {feedback}, luck {chance}: " + "\n   ".join(winners(feedback, chance)) + "\n"
first = {key: int(clicks.argmax()) for key, (clicks, _) in worlds.items()}
assert first[1.0, 0] != first[1.0, 1] and first[1.5, 0] != first[1.5, 1]
on_this_machine(text)

# %% [markdown]
# So clicks say what was clicked, and only in part what is liked. A model that learns from them learns both: taste, and
# what the old system showed. How clicks can be mended where it was written down what was shown, and what that costs, is
# told in the stretch.
#
# Here the core of the chapter ends.

# %% [markdown]
# ## Stretch: giving the clicks their chance back
#
# If we know how likely each show was, the counts can be mended. Say a film is shown to a person with chance 1/10, and
# the person clicks. For this click there are nine others, on average, that would have come had the film been shown. So
# the click weighs ten: **each click is divided by its exposure**. This chance is called the **propensity**, and the
# remedy **inverse propensity weighting**:
#
# ```
# estimate for an item  =  average over all people of   click / exposure
# ```
#
# where click is 1 or 0. Why is it right on average? A click comes with chance *exposure x preference*, and each adds 1
# divided by the exposure. The two exposures cancel, and the preference is left. Two things are taken for granted: that
# the exposure is known, and that it is above 0 for every person and item. What is never shown to anybody cannot be
# mended by any weight.

# %% [markdown]
# ### Exercise 01.3: Clicks, reweighted
#
# *8 minutes, difficulty 2 of 3, stretch.*
#
# Write `reweighted(clicks, shown)`. Both are tables with a row a user and a column an item. `clicks` holds 1 where the
# user clicked the item and 0 elsewhere; `shown` holds the chance, above 0, with which the item was shown to this user.
# Return for each item the estimate of its preference, averaged over **all** users.


# %% tags=["exercise"]
def reweighted(clicks, shown):
    """(users, items), (users, items) -> (items,)."""
    ### BEGIN SOLUTION
    return (clicks / shown).mean(axis=0)
    ### END SOLUTION


# %%
exercise("01.3").check(reweighted)

# %%
exercise("01.3").hint()

# %% [markdown]
# Now on the small world with feedback 1. After its 50 days we keep the exposure as it is: on average 20 films are shown
# to each person, each film with a chance in proportion to 1 + its clicks. A log of 1,000 people:

# %%
PEOPLE = 1000
clicks, _ = worlds[1.0, 0]
exposure = np.minimum(1, 20 * (1 + clicks) / (1 + clicks).sum())  # the chance that a person is shown the film
random = child(0, "log")
was_shown = random.random((PEOPLE, FILMS)) < exposure
log = was_shown & (random.random((PEOPLE, FILMS)) < preference)

estimate = (log / exposure).mean(axis=0)  # the formula, by hand
assert np.allclose(estimate, log.mean(axis=0) / exposure)  # here a film's exposure is the same for all people
film = exposure.argmin()
print(f"The film that is shown least has {log[:, film].sum()} clicks; one click more would add", end=" ")
print("more than its whole preference." if 1 / exposure[film] / PEOPLE > preference[film] else "little.")
assert 1 / exposure[film] / PEOPLE > preference[film]

# %% [markdown]
# ## Stretch: right on average is not right
#
# The estimate is **unbiased**: averaged over many logs it is the preference. But one has only one log. How far is a
# single estimate off? A click weighs 1 / exposure, so with n people the variance of the estimate is
#
# ```
# variance  =  (preference / exposure  -  preference ** 2) / n
# ```
#
# For a rare film it is huge. We draw 1,000 logs and look at both: at their average, and at their spread.

# %%
chance = exposure * preference  # of a click
logs = child(0, "logs").binomial(PEOPLE, chance, size=(1000, FILMS))  # clicks of each film in each of 1,000 logs
estimates = logs / PEOPLE / exposure
error = np.sqrt((preference / exposure - preference**2) / PEOPLE)  # the standard deviation, by the formula

off = (estimates.mean(axis=0) - preference) / (error / np.sqrt(1000))  # in standard errors of the average
assert np.abs(off).max() < 4.5 and np.sqrt((off**2).mean()) < 1.2, "unbiased"
common = exposure > 0.02
assert np.allclose(estimates.std(axis=0)[common], error[common], rtol=0.15), "the formula"
print("The average over 1,000 logs is the preference, within its own error; the spread is that of the formula.")

# %%
drawing, (left, right) = canvas(columns=2, width=10)
left.plot([10, 30], [10, 30], ":", color="grey", label="the truth")
plain = logs[0] / logs[0].sum() * preference.sum()
left.plot(100 * preference, 100 * plain, ".", color="#999999", label="plain clicks, one log")
left.plot(100 * preference, 100 * estimates[0], "x", color=COLOURS[1], markersize=4, label="reweighted, one log")
left.plot(100 * preference, 100 * estimates.mean(axis=0), "o", color=COLOURS[0], markersize=3, label="mean of 1,000")
left.set_ylim(-5, 150)
left.set_xlabel("preference (%)")
left.set_ylabel("estimate (%)")
left.legend()
right.loglog(exposure, 100 * error, ".", color=COLOURS[1], label="reweighted")
right.axhline(100 * preference.mean(), color="grey", linestyle=":", label="mean preference")
right.set_yticks((2, 5, 10, 20, 50), (2, 5, 10, 20, 50))
right.minorticks_off()
right.set_xlabel("exposure: the chance of being shown")
right.set_ylabel("error of one log (percentage points)")
right.legend()
figure(
    drawing,
    alt="Two scatter plots. Left: preference of a film, 10 to 30 percent, against its estimate, 0 to 150 percent. "
    "Plain clicks, scaled to the same mean, lie near 0 for most films and far too high for some. Reweighted estimates "
    "of one log are strewn around the diagonal, some at 0. Their mean over 1,000 logs lies on the diagonal. Right, "
    "both axes logarithmic: the rarer a film is shown, 0.0004 to 0.6, the larger the error, from about 2 to over 50 "
    "percentage points; for rare films it is larger than the mean preference.",
)

# %% [markdown]
# Does it pay? **Guess** before you run the cell: which score puts the films in the better order, plain clicks or
# reweighted clicks, in a log of 1,000 people, of 10,000, of 1,000,000? The third side is a log of the same size in
# which all films were shown with the same chance, as many in all. There nothing needs a weight. The middle of 21 logs:


# %%
def agreement(score):
    return np.corrcoef(places(score), places(preference))[0, 1]


def sides(people, draw):
    """Rank correlation with preference, in one log of each kind."""
    clicks = draw.binomial(people, exposure * preference)
    even = draw.binomial(people, exposure.mean() * preference)
    return [agreement(clicks), agreement(clicks / exposure), agreement(even)]


draw = child(0, "sides")
middle = {n: np.median([sides(n, draw) for _ in range(21)], axis=0) for n in (1000, 10_000, 1_000_000)}
text = "people      plain clicks  reweighted  shown evenly\n"
for n, (plain, weighted, even) in middle.items():
    text += f"{n:9,}  {plain:13.2f}  {weighted:10.2f}  {even:12.2f}\n"
assert middle[1000][1] < middle[1000][2] < middle[1000][0]  # in the small log plain clicks are the best
assert middle[1_000_000][0] < 0.95 < middle[1_000_000][1] <= middle[1_000_000][2]
on_this_machine(text)

# %% [markdown]
# In the small log the weights do harm: they take away a bias and bring in more noise than the bias was worth. Plain
# clicks do well here because in this world popularity was *made* by preference. With more people the noise goes and the
# bias stays: plain clicks hardly get better, reweighted ones become nearly perfect. And the best data for this question
# is simply data in which things were shown evenly: a small part of the traffic with random answers is worth a lot. It
# has a price, too: the people who get those answers.
#
# ## Stretch: when nobody wrote down what was shown
#
# MovieLens does not say what was shown, and few logs do. A common stand-in for the exposure is the popularity itself,
# or a power of it. What happens to the order of the films?

# %%
popularity = 1 + worlds[1.0, 0][0]  # the clicks, and 1 so that nothing is divided by 0
by_clicks = np.argsort(-popularity, kind="stable")
by_root = np.argsort(-(popularity / np.sqrt(popularity)), kind="stable")
assert by_clicks.tolist() == by_root.tolist()
assert (popularity / popularity == 1).all()
print("Divided by the root of the popularity: the same order. Divided by the popularity: 1 for every film, no order.")

# %% [markdown]
# A stand-in that is made of the clicks cannot tell preference from exposure, because it holds no more than the clicks
# do. It can still be of use in training, where it shifts weight from popular films to rare ones. But that is a choice
# of whom to serve, not a correction. One needs something from outside: a log of what was shown, or shows that were
# drawn.
#
# And log q, the line of [00_start](00_start.ipynb)? It divides by popularity, too, but for another reason. It corrects
# how often a film is drawn as a *negative* in training, so that the model learns who clicks what, popularity included.
# It does not ask whether these clicks speak of taste. Chapter 06 derives it.
#
# ## Stretch: capped weights
#
# Between no weights and full weights there is a middle: no click weighs more than a cap. That brings some bias back and
# takes much of the noise away. The error over all films and logs, in percentage points:

# %%
text = "cap     bias  spread  both\n"
whole = {}
for cap in (3, 10, 30, 100, 3000):
    capped = logs / PEOPLE * np.minimum(1 / exposure, cap)
    bias = np.sqrt(((capped.mean(axis=0) - preference) ** 2).mean())
    spread = np.sqrt(capped.var(axis=0).mean())
    whole[cap] = np.hypot(bias, spread)
    text += f"{cap:4}  {100 * bias:6.1f}  {100 * spread:6.1f}  {100 * whole[cap]:4.1f}\n"
assert min(whole, key=whole.get) not in (3, 3000)
on_this_machine(text)

# %% [markdown]
# The best cap lies between the ends. Where it lies depends on the size of the log, so it is chosen like any other
# setting: on held-out data. Schnabel et al. discuss further ways to tame the variance.

# %% [markdown]
# ## Stretch: find the faults yourself
#
# The rules of the section *Faults*, as an exercise.

# %% [markdown]
# ### Exercise 01.4: What is wrong with this file?
#
# *8 minutes, difficulty 2 of 3, stretch.*
#
# Write `faulty(rows)`. `rows` is a list of `(user, item, time)`, all three as text; the first row stands on line 2 of
# its file. Return a list of the numbers of the faulty lines, from the smallest. A line is faulty
#
# - where its user or its item is empty (blanks alone count as empty), or
# - where its time is not a finite number, or
# - where the whole row has come before.
#
# `is_number(text)` is given: True for the text of a finite number.


# %%
def is_number(text):
    """Whether a text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


# %% tags=["exercise"]
def faulty(rows):
    """A list of (user, item, time) -> a list of line numbers."""
    ### BEGIN SOLUTION
    found = []
    for place, (user, item, time) in enumerate(rows):
        is_empty = not user.strip() or not item.strip()
        if is_empty or not is_number(time) or rows[place] in rows[:place]:
            found.append(place + 2)
    return found
    ### END SOLUTION


# %%
exercise("01.4").check(faulty)

# %%
exercise("01.4").hint()

# %% [markdown]
# ## In production
#
# - **Pinterest**, *Related Pins*: results that were engaging before are counted by clicks over *expected* clicks,
#   because the place on the page decides how often they are seen. And since a ranking model learns from what the
#   previous model showed, a small part of the traffic serves to collect data without that bias ([Liu et al.
#   2017](https://arxiv.org/abs/1702.07969)).
# - **Pinterest**, ads: a retrieval model is trained on items that got through to be shown, and must score all the
#   others, too. Several remedies were compared; in the online test a domain adaptation that uses items without labels
#   was the best ([Wang et al. 2023](https://doi.org/10.1145/3580305.3599771)).
#
# ## Five questions
#
# <details><summary>1. A file has the users 1, 01 and 001. How many people are there?</summary>
#
# Three. An id is text. Read as numbers they would become one.
#
# </details>
#
# <details><summary>2. Film A has twice the clicks of film B. What do you need to know before you say that it is liked
# more?</summary>
#
# How often each was shown, and to whom. If A was shown four times as often to the same kind of people, B is liked more.
#
# </details>
#
# <details><summary>3. (Stretch) A film is shown to a person with chance 0.02, and the person clicks. How much does
# this click weigh, and what is the trouble with it?</summary>
#
# It weighs 1 / 0.02 = 50. A few such clicks more or less change the estimate a lot: the variance grows with the weight.
#
# </details>
#
# <details><summary>4. Two sites have the same films and the same kind of people, and each shows most what was clicked
# most. Their most clicked films differ. Is the taste of their people different?</summary>
#
# That does not follow. Luck on the first days decides which of the well-liked films are shown on all the others.
#
# </details>
#
# <details><summary>5. A model is trained and tested on clicks that the old system caused. It finds the held-out clicks
# better than the old system does. Do people like it more?</summary>
#
# That does not follow. Held-out clicks fall on what the old system showed, so finding them may be finding its habits.
# Only shows that were drawn, or a test with real people, can tell.
#
# </details>
#
# What is done so far, kept in a file beside this notebook that `forget()` deletes:

# %%
on_this_machine(progress())

# %% [markdown]
# ## What you have seen
#
# Ids are text, and a file with faults is refused as a whole, with every fault and its line. Few items have most of the
# events, and an empty cell is no dislike. A click is preference times exposure: counts exaggerate, and feedback adds
# luck. In the stretch: dividing each click by its exposure is right on average and noisy, and it needs an exposure that
# somebody wrote down. Next comes [02_split](02_split.ipynb): what a model may know when it is asked; on the short path
# it is [03_evaluation](03_evaluation.ipynb).
