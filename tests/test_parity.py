"""The circle closes: the report of the towers, of the loaded bundle, and of its answers over HTTP are one report."""

from __future__ import annotations

import numpy as np
import pytest

from tests.live import Live
from twotower_lib import recipe
from twotower_lib.bundle import load
from twotower_lib.evaluation import evaluate
from twotower_lib.index import FaissIndex
from twotower_lib.ranking import NOTHING, Recommendations
from twotower_lib.recipe import compose
from twotower_lib.retriever import exact_retriever
from twotower_lib.towers import POOLINGS

SMALL = ("data=toy", "model.dim=8", "train.epochs=2", "train.batch_size=128")
KS = (5, 10, 20)


class OneByOne:
    """A recommender that is asked as a service is; a matrix product of many rows may round a last digit otherwise."""

    def __init__(self, inner) -> None:
        self.inner, self.n_items, self.is_exact = inner, inner.n_items, inner.is_exact

    def recommend(self, queries, k, exclude):
        each = [(queries.slice(at, at + 1), k, exclude.slice(at, at + 1)) for at in range(len(queries))]
        found = [self.inner.recommend(*one) for one in each]
        return Recommendations(*(np.concatenate([getattr(one, name) for one in found]) for name in ("items", "scores")))


class OverHttp:
    """A recommender that knows the names of users and items, and otherwise what the service answers.

    What is excluded is the service's own business, so `exclude` is not sent.
    """

    is_exact = True

    def __init__(self, live: Live, users, items, as_history: bool) -> None:
        self.live, self.users, self.items, self.as_history = live, users, items, as_history
        self.n_items = len(items)

    def recommend(self, queries, k, exclude=None):
        rows = np.full((len(queries), k), NOTHING)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for number in range(len(queries)):
            for one in self.ask(queries, number, k):
                place = one["rank"] - 1
                rows[number, place] = self.items.row(one["item"])
                scores[number, place] = one["score"]
                assert float(scores[number, place]) == one["score"]  # nothing of a float32 is lost in JSON
        return Recommendations(rows, scores)

    def ask(self, queries, number, k):
        history = [self.items[row] for row in queries.history[number]]
        who = {"history": history} if self.as_history else {"user": self.users[queries.user[number]]}
        reply = self.live.recommend(**who, k=k)
        assert reply.status == 200
        return reply.json["results"]


@pytest.fixture(
    scope="module",
    params=[
        (),
        ("model=id",),
        ("model=categories", "model.user=[id,history,categories]", "model.user_head.depth=2", "model.id_dropout=0.3"),
        *((f"model.pooling={name}",) for name in POOLINGS if name != "mean"),
    ],
    ids=["history", "id", "everything", *(name for name in POOLINGS if name != "mean")],
)
def made(request, tmp_path_factory):
    """The overrides, the towers, what is asked, and the bundle."""
    folder = tmp_path_factory.mktemp("parity")
    assert recipe.train(compose([*SMALL, *request.param]), folder / "run")
    recipe.export(folder / "run", folder / "bundle")
    chosen, prepared = recipe.open_run(folder / "run")
    towers, features = recipe.trained_towers(chosen, prepared, folder / "run", "test")
    return chosen, exact_retriever(towers, features), prepared, load(folder / "bundle")


def test_three_reports_are_one(made):
    """The offline side searches by our own index, the others by FAISS."""
    chosen, retriever, prepared, bundle = made
    asked, dataset = prepared.asked("test"), prepared.dataset
    assert isinstance(bundle.retriever.index, FaissIndex) and bundle.retriever.is_exact
    references = recipe.measured_references(chosen, asked, [], KS)
    with Live(bundle) as live:
        over_http = OverHttp(live, dataset.people.users, dataset.catalogue.items, as_history=False)
        reports = [evaluate(one, asked, references, KS) for one in (retriever, bundle.retriever, over_http)]
        answers = [
            one.recommend(asked.queries, 40, asked.exclude)
            for one in (OneByOne(retriever), OneByOne(bundle.retriever), over_http)
        ]
    assert reports[0].as_dict() == reports[1].as_dict() == reports[2].as_dict()
    for report, answer in zip(reports[1:], answers[1:], strict=True):
        assert report.measured.table.equals(reports[0].measured.table)
        np.testing.assert_array_equal(answer.items, answers[0].items)
        np.testing.assert_array_equal(answer.scores, answers[0].scores)
    together = retriever.recommend(asked.queries, 40, asked.exclude)
    np.testing.assert_array_equal(together.items, answers[2].items)
    np.testing.assert_allclose(together.scores, answers[2].scores, rtol=0, atol=1e-6)
    assert len(asked) == 60 and reports[2].measured.means["recall@20"] > 0.3
    assert (answers[2].items >= 0).sum(1).tolist() == [40 - length for length in asked.exclude.lengths]


def test_a_posted_history_is_the_user_where_the_towers_know_no_ids(made):
    chosen, retriever, prepared, bundle = made
    if chosen.model.user != ("history",):
        pytest.skip("these towers know more of a user than the history")
    asked, dataset = prepared.asked("test"), prepared.dataset
    references = recipe.measured_references(chosen, asked, [], KS)
    with Live(bundle) as live:
        over_http = OverHttp(live, dataset.people.users, dataset.catalogue.items, as_history=True)
        report = evaluate(over_http, asked, references, KS)
    assert report.as_dict() == evaluate(retriever, asked, references, KS).as_dict()
