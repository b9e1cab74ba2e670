"""The explorer: what it asks, what it shows, and that the parts of a score leave nothing over."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from twotower_lib import recipe
from twotower_lib.bundle import load
from twotower_lib.errors import SettingError, UnknownIdError
from twotower_lib.explorer import (
    HISTORY,
    PERSON,
    SIMILAR,
    Answer,
    Explorer,
    Line,
    find_titles,
    for_history,
    for_person,
    render,
    similar_to,
    titled,
)
from twotower_lib.ranking import Queries, Ragged
from twotower_lib.recipe import compose

SMALL = ("data=toy", "model.dim=8", "train.epochs=2", "train.batch_size=128", "train.refit=false")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of several kinds on one catalogue, by name."""
    kinds = {"one": (), "other": ("loss.log_q=0", "seed=3"), "id": ("model=id",)}
    folder = tmp_path_factory.mktemp("explorer")
    for name, overrides in kinds.items():
        assert recipe.train(compose([*SMALL, *overrides]), folder / "runs" / name)
        recipe.export(folder / "runs" / name, folder / name)
    return {name: load(folder / name) for name in kinds}


@pytest.fixture(scope="module")
def pair(bundles):
    return {name: bundles[name] for name in ("one", "other")}


@pytest.fixture(scope="module")
def person(bundles):
    return bundles["one"].users[2]


def line(place, row, **more):
    return Line(**{"place": place, "row": row, "title": f"t{row}", "genres": "", "known_by": 0.5, "score": 1.0, **more})


class Page(HTMLParser):
    """Tables of a page as lists of rows of texts; fails where a tag is not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tables, self.texts, self.tags = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "br":
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


# What is asked -------------------------------------------------------------------------------------------------------


def test_a_person_gets_what_the_bundle_answers(pair, person):
    answer = for_person(pair, person, 7)
    for name, bundle in pair.items():
        expected = bundle.for_user(person, 7)
        assert [(one.place, one.score) for one in answer.lists[name]] == [(one.rank, one.score) for one in expected]
        assert [bundle.catalogue.items[one.row] for one in answer.lists[name]] == [one.item for one in expected]


def test_what_a_person_knows_is_listed_latest_first_and_never_recommended(pair, person):
    first, answer = pair["one"], for_person(pair, person, 30)
    known = first.history_of(person).tolist()
    assert answer.history == tuple(titled(first.catalogue, row) for row in known[::-1])
    assert f"knows {len(known)} items" in answer.question
    for lines in answer.lists.values():
        assert {one.row for one in lines}.isdisjoint(known)


def test_held_out_items_are_marked_for_this_person_only(pair, person):
    best = for_person(pair, person, 3).lists["one"]
    row = pair["one"].users.row(person)
    later = Ragged.of([[best[1].row] if user == row else [best[0].row] for user in range(len(pair["one"].users))])
    answer = for_person(pair, person, 3, later)
    assert [one.came_later for one in answer.lists["one"]] == [False, True, False]
    assert "1 were met later" in answer.summary
    assert "met later" not in for_person(pair, person, 3).summary


def test_a_history_gets_what_the_bundle_answers(pair):
    items = pair["one"].catalogue.items
    answer = for_history(pair, [4, 9, 2], 6)
    expected = pair["other"].for_history([items[4], items[9], items[2]], 6)
    assert [items[one.row] for one in answer.lists["other"]] == [one.item for one in expected]
    assert answer.history == tuple(titled(pair["one"].catalogue, row) for row in (2, 9, 4))


def test_similar_items_are_those_of_the_bundle(pair):
    items = pair["one"].catalogue.items
    answer = similar_to(pair, 5, 6)
    for name, bundle in pair.items():
        assert [items[one.row] for one in answer.lists[name]] == [one.item for one in bundle.similar(items[5], 6)]
    assert titled(pair["one"].catalogue, 5) in answer.question


def test_known_by_is_the_share_of_people(pair, person):
    """Counted by hand: how many people's lists hold the item."""
    bundle, best = pair["one"], for_person(pair, person, 4).lists["one"]
    for one in best:
        knows = sum(one.row in bundle.seen[user] for user in range(len(bundle.users)))
        assert one.known_by == knows / len(bundle.users)


def test_the_sources_of_every_shown_score_add_up_to_it(pair):
    """For every person, and to 1e-6."""
    shown = 0
    for user in pair["one"].users.names:
        for lines in for_person(pair, user, 10).lists.values():
            for one in lines:
                assert abs(sum(share for _, share in one.sources) - one.score) < 1e-6
                shown += 1
    assert shown == 20 * len(pair["one"].users)


def test_the_largest_shares_are_named_and_the_rest_is_counted(pair):
    catalogue = pair["one"].catalogue
    query = [3, 4, 9, 7, 1]
    assert len(for_history({"one": pair["one"]}, query[:3], 1).lists["one"][0].sources) == 3 + 1, "one other is named"
    (best,) = for_history({"one": pair["one"]}, query, 1).lists["one"]
    parts = pair["one"].retriever.contributions(Queries.of_history(query), np.array([best.row]))
    order = np.argsort(-parts.of_history[0])
    expected = [catalogue.titles[parts.history[place]] for place in order[:2]]
    assert [name for name, _ in best.sources] == [*expected, "3 others", "the item's own bias"]


def test_a_model_whose_scores_are_no_sums_has_no_sources(bundles, person):
    lists = for_person({"history": bundles["one"], "id": bundles["id"]}, person, 5).lists
    assert all(one.sources for one in lists["history"])
    assert not any(one.sources for one in lists["id"])


def test_an_unknown_person(pair):
    with pytest.raises(UnknownIdError, match='user "nobody" is not among'):
        for_person(pair, "nobody")


@pytest.mark.parametrize("names", [(), ("one", "other", "id")])
def test_too_few_or_too_many_models(bundles, names):
    with pytest.raises(SettingError, match=f"{len(names)} models\nneeded: one, or two to compare"):
        for_history({name: bundles[name] for name in names}, [1])


def test_models_of_different_catalogues(pair, tmp_path):
    events = tmp_path / "events.csv"
    events.write_text("user,item\n" + "".join(f"u{u},i{(u * 7 + n) % 30}\n" for u in range(20) for n in range(8)))
    overrides = ("data=csv", f"data.interactions={events}", "split.protocol=random", *SMALL[1:])
    recipe.train(compose(overrides), tmp_path / "run")
    recipe.export(tmp_path / "run", tmp_path / "bundle")
    with pytest.raises(SettingError, match="models of different catalogues or people"):
        for_history({"one": pair["one"], "own": load(tmp_path / "bundle")}, [1])


def test_models_whose_people_know_different_items(pair):
    other = replace(pair["other"], seen=Ragged(pair["other"].seen.values[::-1], pair["other"].seen.offsets))
    with pytest.raises(SettingError, match="models whose people know different items"):
        for_history({"one": pair["one"], "other": other}, [1])


# Titles --------------------------------------------------------------------------------------------------------------


def test_titles_hold_all_words_and_those_that_begin_so_come_first(pair):
    titles = ("Alien", "The Alien Sea", "Aliens", "Sea of Love", "ALIEN: sea", "Other")
    catalogue = replace(
        pair["one"].catalogue,
        items=replace(pair["one"].catalogue.items, names=tuple("abcdef")),
        titles=titles,
        years=("",) * 6,
        categories=((),) * 6,
    )
    assert find_titles(catalogue, "alien") == [4, 0, 2, 1]
    assert find_titles(catalogue, " SEA alien") == [4, 1]
    assert find_titles(catalogue, "alien", limit=2) == [4, 0]
    assert find_titles(catalogue, "  ") == find_titles(catalogue, "zebra") == []


# What is shown -------------------------------------------------------------------------------------------------------


def test_places_in_the_other_list_in_words():
    one, other = (line(1, 7), line(2, 8), line(3, 9)), (line(1, 7), line(2, 5), line(3, 8))
    answer = Answer("?", (), {"one": one, "other": other})
    assert [answer.other_place("one", found) for found in one] == ["same place", "place 3", "only here"]
    assert [answer.other_place("other", found) for found in other] == ["same place", "only here", "place 2"]
    assert answer.summary.startswith("2 of 3 items are in both lists.")


def test_the_summary_names_the_median():
    lines = tuple(line(place, place, known_by=share) for place, share in enumerate((0.1, 0.4, 0.6), 1))
    assert Answer("?", (), {"one": lines}).summary == "one: the median item is known by 40% of the people."
    assert Answer("?", (), {"one": ()}).summary == "one: no items."


def test_the_summary_counts_what_was_held_out_even_if_nothing_was_found():
    """None of the list is the telling case, so it is not left out."""
    answer = Answer("?", (), {"one": (line(1, 1),)}, knows_later=True)
    assert answer.summary.endswith("of the people, and 0 were met later.")


def test_the_page_says_what_the_record_says(pair, person):
    answer = for_person(pair, person, 6)
    page = Page(render(answer))
    assert len(page.tables) == 2
    for (name, lines), table in zip(answer.lists.items(), page.tables, strict=True):
        assert table[0] == ["place", "item", "known by", "score", "in the other list"]
        for found, cells in zip(lines, table[1:], strict=True):
            assert cells[0] == str(found.place)
            assert cells[1].startswith(found.title)
            assert cells[3] == f"{found.score:.3f}"
            assert cells[4] == answer.other_place(name, found)
    assert answer.summary in "".join(page.texts)


def test_one_model_has_one_table_and_nothing_to_compare_with(pair, person):
    page = Page(render(for_person({"one": pair["one"]}, person, 4)))
    (table,) = page.tables
    assert table[0] == ["place", "item", "known by", "score"]


def test_tables_can_be_read_aloud(pair, person):
    """A caption a table, a scope a heading cell, and no meaning in a colour."""
    html = render(for_person(pair, person, 4))
    page = Page(html)
    assert html.count("<caption") == html.count("<table") == 2
    assert all(attributes.get("scope") == "col" for tag, attributes in page.tags if tag == "th")
    assert not re.search(r"color|background", html)


def test_titles_are_texts_and_never_tags():
    found = line(1, 1, title="<script>x</script> & Co", genres="<i>", sources=(("<b>", 1.0),))
    html = render(Answer("<u>", ("<p>",), {"<h1>": (found,)}))
    assert not re.search(r"<(script|i|u|h1)>", html)
    assert "&lt;script&gt;x&lt;/script&gt; &amp; Co" in html
    Page(html)


def test_a_long_history_is_cut_and_says_so():
    html = render(Answer("?", tuple(f"h{n}" for n in range(15)), {"one": (line(1, 1),)}))
    assert "h11; and 3 more" in html and "h12" not in html


def test_the_text_form(pair, person):
    answer = for_person(pair, person, 3)
    lines = str(answer).splitlines()
    assert lines[0] == answer.question and lines[1] == answer.summary
    assert sum(bool(re.match(r" +\d+ +-?\d\.\d{3} +\d+%  \S", text)) for text in lines) == 6


# The widget ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def explorer(pair, person):
    return Explorer(pair, user=person, k=5)


def texts(explorer):
    return "".join(Page(explorer.shown.value).texts)


def shown_parts(explorer):
    """The parts that a reader sees."""
    parts = ("user", "words", "matches", "add", "history", "remove")
    hidden = {id(one) for one in (explorer.user, explorer.searching, explorer.add) if one.layout.display == "none"}
    if explorer.searching.layout.display == "none":
        hidden |= {id(explorer.words), id(explorer.matches), id(explorer.add)}
    chosen = explorer.searching.children[1]
    if "none" in (chosen.layout.display, explorer.searching.layout.display):
        hidden |= {id(explorer.history), id(explorer.remove)}
    return [name for name in parts if id(getattr(explorer, name)) not in hidden]


def test_it_begins_with_the_person(explorer, pair, person):
    assert explorer.mode.value == PERSON
    assert render(for_person(pair, person, 5)) in explorer.shown.value


def test_it_can_begin_with_a_history(pair, person):
    explorer = Explorer(pair, user=person, k=5, history=[8, 3])
    assert (explorer.mode.value, [row for _, row in explorer.history.options]) == (HISTORY, [8, 3])
    assert render(for_history(pair, [8, 3], 5)) in explorer.shown.value
    assert "history" in shown_parts(explorer)


def test_each_question_shows_its_own_fields(explorer):
    seen = {}
    for mode in (PERSON, HISTORY, SIMILAR):
        explorer.mode.value = mode
        seen[mode] = shown_parts(explorer)
    assert seen == {
        PERSON: ["user"],
        HISTORY: ["words", "matches", "add", "history", "remove"],
        SIMILAR: ["words", "matches"],
    }


def test_another_person_another_answer(explorer, pair):
    other = pair["one"].users[5]
    explorer.user.value = other
    assert render(for_person(pair, other, 5)) in explorer.shown.value


def test_more_results(explorer, pair, person):
    explorer.k.value = 9
    assert render(for_person(pair, person, 9)) in explorer.shown.value


def test_an_unknown_person_is_told_and_not_raised(explorer):
    explorer.user.value = "nobody <b>"
    assert 'role="alert"' in explorer.shown.value
    assert 'user "nobody <b>" is not among' in texts(explorer)


def test_a_history_is_built_by_searching(explorer, pair):
    catalogue = pair["one"].catalogue
    explorer.mode.value = HISTORY
    assert "Search for a title" in texts(explorer)
    added = []
    for row in (3, 8):
        explorer.words.value = catalogue.titles[row]
        added.append(explorer.matches.value)
        explorer.add.click()
    assert [row for _, row in explorer.history.options] == added == [3, 8]
    assert render(for_history(pair, [3, 8], 5)) in explorer.shown.value
    explorer.add.click()
    assert len(explorer.history.options) == 2, "nothing is added twice"
    explorer.history.value = 3
    explorer.remove.click()
    assert render(for_history(pair, [8], 5)) in explorer.shown.value


def test_similar_items_follow_the_chosen_title(explorer, pair):
    explorer.mode.value = SIMILAR
    explorer.words.value = pair["one"].catalogue.titles[6]
    assert render(similar_to(pair, 6, 5)) in explorer.shown.value
    explorer.words.value = "no such title"
    assert "Search for a title" in texts(explorer)


def test_a_stored_notebook_says_what_is_missing(explorer):
    shown = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "needs a running kernel" in shown["text/plain"]
