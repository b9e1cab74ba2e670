"""The explorer: ask one or two models for the same person, history or item, and see what changes and why.

Three functions ask (`for_person`, `for_history`, `similar_to`), and each gives an `Answer`, which is a record that
renders itself as HTML and as text. `Explorer` puts buttons and text fields over them and knows nothing else.

A user tower that averages a history lets every score be split without a remainder (`Retriever.contributions`): an
answer shows which items of the history a result comes from. The shares are bookkeeping, not causes: without an item
the sum is scaled back to length 1 and the others take over, so a score falls by far less than the share that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from textwrap import shorten
from typing import Any

import ipywidgets as widgets
import numpy as np

from twotower_lib.bundle import Bundle
from twotower_lib.data import Catalogue
from twotower_lib.errors import SettingError, TwoTowerError
from twotower_lib.ranking import NOTHING, Queries, Ragged, Recommendations
from twotower_lib.retriever import Contributions

Models = Mapping[str, Bundle]

SHOWN_SOURCES = 2
"""Items of the history that are named beside a result; the rest is one number."""

SHOWN_HISTORY = 12
"""Items of the history that are named above an answer."""

ONLY_HERE = "only here"

MATCHES = 8
"""Titles that a search lists."""


@dataclass(frozen=True)
class Line:
    """One result of one model."""

    place: int
    row: int
    title: str
    genres: str
    known_by: float
    """Share of the people who know the item."""
    score: float
    sources: tuple[tuple[str, float], ...] = ()
    """What the score is the sum of: names and shares. Empty where the model's score is no such sum."""
    came_later: bool = False
    """Whether the item was held out: this person met it after the model's data ends."""


@dataclass(frozen=True)
class Answer:
    """What each model answers to one question."""

    question: str
    history: tuple[str, ...]
    """Titles that were asked with, latest first."""
    lists: Mapping[str, tuple[Line, ...]]
    knows_later: bool = False
    """Whether held-out items were given, to be marked."""

    def other_place(self, model: str, line: Line) -> str:
        """Where the item of a line stands in the list of the other model, in words."""
        (other,) = (lines for name, lines in self.lists.items() if name != model)
        places = {one.row: one.place for one in other}
        if line.row not in places:
            return ONLY_HERE
        return "same place" if places[line.row] == line.place else f"place {places[line.row]}"

    @property
    def summary(self) -> str:
        """A few words on how the lists differ."""
        parts = []
        if len(self.lists) == 2:
            one, other = ({line.row for line in lines} for lines in self.lists.values())
            parts.append(f"{len(one & other)} of {max(len(one), len(other))} items are in both lists.")
        return " ".join([*parts, *(f"{name}: {self._of(lines)}" for name, lines in self.lists.items())])

    def _of(self, lines: tuple[Line, ...]) -> str:
        if not lines:
            return "no items."
        known = np.median([line.known_by for line in lines])
        later = f", and {sum(line.came_later for line in lines)} were met later" if self.knows_later else ""
        return f"the median item is known by {known:.0%} of the people{later}."

    def _repr_html_(self) -> str:
        return render(self)

    def __str__(self) -> str:
        lines = [self.question, self.summary]
        for name, found in self.lists.items():
            lines += ["", name]
            lines += [f"{one.place:>3}  {one.score:>6.3f}  {one.known_by:>4.0%}  {one.title}" for one in found]
        return "\n".join(lines)


# Asking --------------------------------------------------------------------------------------------------------------


def for_person(models: Models, user: str, k: int = 10, later: Ragged | None = None) -> Answer:
    """The k best items of each model for a known person, without those they know.

    Args:
        models: one or two bundles by name, of one catalogue.
        user: the id of the person.
        k: length of the lists.
        later: for each user row the items held out, to be marked.

    Raises:
        UnknownIdError: nobody has this id.
        SettingError: there are no models or more than two, or their catalogues differ.
    """
    query = _first(models).query(user)
    held_out = None if later is None else later[int(query.user[0])].tolist()
    return _recommended(models, f"Person {user} knows {len(query.history.values)} items.", query, k, held_out)


def for_history(models: Models, items: Sequence[int], k: int = 10) -> Answer:
    """The k best items of each model for a person without an id who likes these item rows, oldest first."""
    question = f"A person who likes {len(items)} item{'s' * (len(items) != 1)}."
    return _recommended(models, question, Queries.of_history(items), k)


def similar_to(models: Models, item: int, k: int = 10) -> Answer:
    """The k items of each model that are closest to an item."""
    first = _first(models)
    found = {name: bundle.retriever.similar(np.array([item]), k) for name, bundle in models.items()}
    lists = {name: _lines(first, answer, None, []) for name, answer in found.items()}
    return Answer(f"Items like {titled(first.catalogue, item)}.", (), lists)


def find_titles(catalogue: Catalogue, words: str, limit: int = MATCHES) -> list[int]:
    """Item rows whose title holds all words, in any case; those that begin with the text come first, then by title."""
    wanted, titles = words.lower().split(), catalogue.titles
    found = [row for row, title in enumerate(titles) if all(word in title.lower() for word in wanted)]
    found.sort(key=lambda row: (not titles[row].lower().startswith(words.strip().lower()), titles[row]))
    return found[:limit] if wanted else []


def titled(catalogue: Catalogue, row: int) -> str:
    """Title and year."""
    year = catalogue.years[row]
    return catalogue.titles[row] + (f" ({year})" if year else "")


def _first(models: Models) -> Bundle:
    """The first model, whose catalogue is that of all."""
    if not 1 <= len(models) <= 2:
        raise SettingError(f"{len(models)} models", "one, or two to compare")
    first, *rest = models.values()
    if any(other.catalogue.items != first.catalogue.items or other.users != first.users for other in rest):
        raise SettingError("models of different catalogues or people", "bundles of runs on the same data")
    if not all(np.array_equal(other.seen.values, first.seen.values) for other in rest):
        raise SettingError("models whose people know different items", "bundles of runs on the same split")
    return first


def _recommended(models: Models, question: str, query: Queries, k: int, later: list[int] | None = None) -> Answer:
    first, lists = _first(models), {}
    for name, bundle in models.items():
        found = bundle.retriever.recommend(query, k, query.history)
        lists[name] = _lines(first, found, _contributions(bundle, query, found), later or [])
    history = tuple(titled(first.catalogue, row) for row in query.history[0][::-1].tolist())
    return Answer(question, history, lists, later is not None)


def _contributions(bundle: Bundle, query: Queries, found: Recommendations) -> Contributions | None:
    """How the scores add up, or nothing where this model's do not."""
    try:
        return bundle.retriever.contributions(query, found.items[0][found.items[0] != NOTHING])
    except SettingError:
        return None


def _lines(bundle: Bundle, found: Recommendations, parts: Contributions | None, later: list[int]) -> tuple[Line, ...]:
    catalogue, held_out = bundle.catalogue, set(later)
    known_by = np.bincount(bundle.seen.values, minlength=len(catalogue)) / max(len(bundle.users), 1)
    return tuple(
        Line(
            place=place + 1,
            row=row,
            title=titled(catalogue, row),
            genres=", ".join(catalogue.categories[row]),
            known_by=float(known_by[row]),
            score=float(found.scores[0, place]),
            sources=() if parts is None else _sources(catalogue, parts, place),
            came_later=row in held_out,
        )
        for place, row in enumerate(found.items[0].tolist())
        if row != NOTHING
    )


def _sources(catalogue: Catalogue, parts: Contributions, place: int) -> tuple[tuple[str, float], ...]:
    """The largest shares of the history by title, the rest of it, and what is not history; together the score."""
    shares = parts.of_history[place]
    order = np.argsort(-shares, kind="stable")
    shown = SHOWN_SOURCES if len(order) > SHOWN_SOURCES + 1 else len(order)
    named = [(catalogue.titles[parts.history[one]], float(shares[one])) for one in order[:shown]]
    rest = order[shown:]
    others = [(f"{len(rest)} others", float(shares[rest].sum()))] if len(rest) else []
    own = [("the item's own bias", float(parts.of_bias[place])), ("the person", float(parts.of_rest[place]))]
    return (*named, *others, *(one for one in own if one[1]))


# Showing -------------------------------------------------------------------------------------------------------------


def render(answer: Answer) -> str:
    """An answer as HTML: the question, what was asked with, a sentence, a table a model."""
    shown, more = answer.history[:SHOWN_HISTORY], len(answer.history) - SHOWN_HISTORY
    history = "; ".join(escape(title) for title in shown) + (f"; and {more} more" if more > 0 else "")
    tables = "".join(_table(answer, name) for name in answer.lists)
    return (
        f'<div class="tt-answer" style="line-height: 1.4">'
        f'<p role="status"><b>{escape(answer.question)}</b> {escape(answer.summary)}</p>'
        + (f"<p>Latest first: {history}</p>" if history else "")
        + f'<div style="display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start">{tables}</div></div>'
    )


def _table(answer: Answer, name: str) -> str:
    is_pair = len(answer.lists) == 2
    heads = ["place", "item", "known by", "score", *(["in the other list"] if is_pair else [])]
    head = "".join(f'<th scope="col" style="text-align: left">{one}</th>' for one in heads)
    body = "".join(_row(line, answer.other_place(name, line) if is_pair else "") for line in answer.lists[name])
    return (
        f'<table style="flex: 1 1 26em"><caption style="text-align: left"><b>{escape(name)}</b></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(line: Line, other_place: str) -> str:
    later = " <b>✓ met later</b>" if line.came_later else ""
    genres = f" <small>{escape(line.genres)}</small>" if line.genres else ""
    sources = ", ".join(f"{escape(shorten(title, 30, placeholder=' …'))} {share:+.3f}" for title, share in line.sources)
    item = f"<b>{escape(line.title)}</b>{later}{genres}" + (
        f"<br><small>largest shares: {sources}</small>" if sources else ""
    )
    cells = [str(line.place), item, f"{line.known_by:.0%}", f"{line.score:.3f}"]
    if other_place:
        cells.append(f"<b>{other_place}</b>" if other_place == ONLY_HERE else other_place)
    shown = "".join(f'<td style="text-align: left; vertical-align: top">{cell}</td>' for cell in cells)
    return f"<tr>{shown}</tr>"


# The widget ----------------------------------------------------------------------------------------------------------

PERSON, HISTORY, SIMILAR = "a person", "a history of your own", "items like one item"
WHAT_TO_DO = {
    HISTORY: "Search for a title, choose one of those that are found, and add it to the history.",
    SIMILAR: "Search for a title and choose one of those that are found.",
}
NAMED = {"style": {"description_width": "8em"}, "tooltip": ""}  # without a text for it, the tooltip is "null"
FIELD = {"layout": {"width": "28em", "max_width": "98%"}, **NAMED}
UNDER_FIELD = {"width": "max-content", "margin": "4px 0 8px calc(8em + 10px)"}


class Explorer:
    """Text fields, choices and buttons over the three questions.

    All of it works with the keyboard alone: Tab moves, Space chooses and presses. No list asks for the arrow keys,
    because JupyterLab takes them for itself everywhere but in text fields (ipywidgets issue 3912).

    Args:
        models: one or two bundles by name.
        user: the id of the person who is shown first.
        k: length of the lists.
        later: for each user row the items held out, to be marked.
        history: item rows, oldest first; where there are some, a person who likes them is shown first instead.
    """

    def __init__(
        self, models: Models, user: str, k: int = 10, later: Ragged | None = None, history: Sequence[int] = ()
    ) -> None:
        self.models, self.later, self.catalogue = models, later, _first(models).catalogue
        names = _first(models).users.names
        self.mode = _choice("Ask for", [PERSON, HISTORY, SIMILAR])
        self.user = widgets.Combobox(value=user, options=names, description="Person", continuous_update=False, **FIELD)
        self.k = widgets.BoundedIntText(value=k, min=1, max=50, description="How many", **FIELD)
        self.words = widgets.Text(description="Search", placeholder="words of a title", **FIELD)
        self.matches, self.history = _choice("Titles"), _choice("History")
        self.add = widgets.Button(description="Add to the history", layout=UNDER_FIELD)
        self.remove = widgets.Button(description="Remove from it", layout=UNDER_FIELD)
        self.shown = widgets.HTML()
        chosen = widgets.VBox([self.history, self.remove])
        self.searching = widgets.HBox([widgets.VBox([self.words, self.matches, self.add]), chosen])
        self.searching.layout.flex_flow = "row wrap"
        self.box = widgets.VBox([self.mode, self.user, self.searching, self.k, self.shown])
        self._wire(chosen)
        if history:
            self._list(self.history, list(history), -1)
            self.mode.value = HISTORY
        self._changed()

    def _wire(self, chosen: widgets.VBox) -> None:
        """What happens when something is touched, and the names by which tests find it on a page."""
        self.box.add_class("tt-explorer")
        self.shown.add_class("jp-RenderedHTMLCommon")  # tables as in any other output of JupyterLab
        for name in ("mode", "user", "k", "words", "matches", "history", "add", "remove", "shown"):
            getattr(self, name).add_class(f"tt-{name}")
        self.words.observe(self._search, "value")
        self.add.on_click(self._add)
        self.remove.on_click(self._remove)
        for one in (self.mode, self.user, self.k, self.matches):
            one.observe(self._changed, "value")
        self.only_for = {HISTORY: [self.searching, chosen, self.add], SIMILAR: [self.searching], PERSON: [self.user]}

    def _search(self, change: object) -> None:
        found = find_titles(self.catalogue, self.words.value, limit=len(self.catalogue))
        self.matches.description = f"{min(len(found), MATCHES)} of {len(found)} titles"
        self._list(self.matches, found[:MATCHES], 0)

    def _add(self, button: object) -> None:
        row = self.matches.value
        if row is not None and row not in self._rows():
            self._list(self.history, [*self._rows(), row], -1)
            self._changed()

    def _remove(self, button: object) -> None:
        self._list(self.history, [row for row in self._rows() if row != self.history.value], -1)
        self._changed()

    def _list(self, choice: widgets.RadioButtons, rows: list[int], chosen: int) -> None:
        """Offer items, one of them chosen."""
        choice.options = [(shorten(titled(self.catalogue, row), 40, placeholder=" …"), row) for row in rows]
        choice.index = range(len(rows))[chosen] if rows else None

    def _rows(self) -> list[int]:
        return [row for _, row in self.history.options]

    def _changed(self, change: object = None) -> None:
        needed = self.only_for[self.mode.value]
        for one in chain(*self.only_for.values()):
            one.layout.display = "" if one in needed else "none"
        try:
            self.shown.value = self._answer()
        except TwoTowerError as error:
            self.shown.value = f'<div role="alert"><pre>{escape(str(error))}</pre></div>'

    def _answer(self) -> str:
        if self.mode.value == PERSON:
            return render(for_person(self.models, self.user.value, self.k.value, self.later))
        if self.mode.value == HISTORY and self._rows():
            return render(for_history(self.models, self._rows(), self.k.value))
        if self.mode.value == SIMILAR and self.matches.value is not None:
            return render(similar_to(self.models, self.matches.value, self.k.value))
        return f'<p role="status">{WHAT_TO_DO[self.mode.value]}</p>'

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Written out, because Colab's ipywidgets 7 has no such method to call."""
        words = "The explorer, which needs a running kernel; the table below it shows its first answer."
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return {"text/plain": words, "application/vnd.jupyter.widget-view+json": view}


def _choice(name: str, options: Sequence[str] = ()) -> widgets.RadioButtons:
    """Options beside their name, as a field stands beside its own."""
    layout = {"width": "max-content", "max_width": "none"}  # ipywidgets prints an option that wraps over the next one
    choice = widgets.RadioButtons(description=name, options=options, layout=layout, **NAMED)
    choice.add_class("widget-inline-hbox")
    return choice
