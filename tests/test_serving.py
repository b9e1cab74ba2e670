"""The service: what it answers, what it refuses and how, and that nothing that came is said again."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live import Live, Reply, until
from tests.malformed import Malformed, as_table, judged
from twotower_lib import recipe
from twotower_lib.bundle import Bundle, load
from twotower_lib.errors import SettingError
from twotower_lib.recipe import compose
from twotower_lib.serving import KINDS, ServingSettings, listen

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("data=toy", "model.dim=8", "train.epochs=2", "train.batch_size=128")
LIMITS = {"max_body_bytes": 4096, "max_k": 40, "max_history": 20}
COLD = 39
MARKER = "zq7secretzq"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    assert recipe.train(compose([*SMALL, "model.item_bias=false"]), folder / "run")
    recipe.export(folder / "run", folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def bundle(folder) -> Bundle:
    """The last item is one of which training knew nothing."""
    loaded = load(folder)
    loaded.retriever.features.item_codes[COLD] = 0
    return loaded


@pytest.fixture(scope="module")
def live(bundle) -> Iterator[Live]:
    with Live(bundle, **LIMITS) as running:
        yield running


def rows(results):
    return [vars(one) for one in results]


def names(reply):
    return [one["item"] for one in reply.json["results"]]


# What it answers -----------------------------------------------------------------------------------------------------


def test_a_known_user(live, bundle):
    for user in bundle.users.names[:10]:
        reply = live.recommend(user=user, k=5)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json == {"results": rows(bundle.for_user(user, 5))}


def test_a_history(live, bundle):
    assert live.recommend(history=["f01", "f02"], k=7).json == {"results": rows(bundle.for_history(["f01", "f02"], 7))}
    assert live.recommend(history=["f01"]).json == {"results": rows(bundle.for_history(["f01"], 10))}


def test_similar_items(live, bundle):
    assert live.similar(item="f01", k=3).json == {"results": rows(bundle.similar("f01", 3))}
    assert len(live.similar(item="f01").json["results"]) == 10


def test_seen_items_are_left_out_unless_they_are_asked_for(live, bundle):
    """The toy data has 40 items; p01 knows 12 of them."""
    known = {bundle.catalogue.items[row] for row in bundle.history_of("p01")}
    assert len(known) == 12
    assert set(names(live.recommend(user="p01", k=40))) == set(bundle.catalogue.items.names) - known
    assert names(live.recommend(user="p01", k=40, exclude_seen=True)) == names(live.recommend(user="p01", k=40))
    everything = live.recommend(user="p01", k=40, exclude_seen=False)
    answer = bundle.retriever.recommend(bundle.query("p01"), 40)
    assert names(everything) == [bundle.catalogue.items[row] for row in answer.items[0]]
    assert [one["score"] for one in everything.json["results"]] == [float(score) for score in answer.scores[0]]
    assert "f01" not in names(live.recommend(history=["f01"], k=40))
    assert set(names(live.recommend(history=["f01"], k=40, exclude_seen=False))) == set(bundle.catalogue.items.names)


def test_nothing_given_is_the_same_as_null(live):
    assert live.recommend(user="p01", history=None).body == live.recommend(user="p01").body


def test_what_is_served(live):
    ready = live.get("/readyz").json
    assert ready["status"] == "ready"
    assert ready["bundle"]["protocol"] == "last" and ready["bundle"]["data"]["name"] == "toy"
    assert ready["bundle"]["index"] == {"kind": "flat", "metric": "inner_product", "is_exact": True}
    assert (ready["bundle"]["users"], ready["bundle"]["items"]) == (60, 40)
    assert live.get("/healthz").json == {"status": "ok"}


def test_the_description_of_the_api(live):
    described = live.get("/openapi.json").json
    assert described["paths"].keys() == {"/v1/recommend", "/v1/similar", "/healthz", "/readyz", "/metrics"}
    for path in ("/v1/recommend", "/v1/similar"):
        assert described["paths"][path]["post"]["responses"].keys() == {"200", "default"}
    assert live.get("/docs").status == live.get("/redoc").status == 404  # they would load scripts from elsewhere


# What it refuses -----------------------------------------------------------------------------------------------------

REFUSED = [  # (kind, path, body, pointers)
    ("unknown-user", "recommend", {"user": MARKER}, ["#/user"]),
    ("unknown-user", "recommend", {"user": ""}, ["#/user"]),
    ("unknown-history", "recommend", {"history": ["f01", MARKER, "f02", MARKER]}, ["#/history/1", "#/history/3"]),
    ("unknown-item", "similar", {"item": MARKER}, ["#/item"]),
    ("cold-item", "similar", {"item": "f40"}, ["#/item"]),
    ("invalid-request", "recommend", {}, ["#"]),
    ("invalid-request", "recommend", {"user": "p01", "history": ["f01"]}, ["#"]),
    ("invalid-request", "recommend", {"user": None, "history": None}, ["#"]),
    ("invalid-request", "recommend", {"history": []}, ["#/history"]),
    ("invalid-request", "recommend", {"history": ["f01"] * 21}, ["#/history"]),
    ("invalid-request", "recommend", {"history": ["f01", 2, {MARKER: MARKER}]}, ["#/history/1", "#/history/2"]),
    ("invalid-request", "recommend", {"history": {MARKER: "f01"}}, ["#/history"]),
    ("invalid-request", "recommend", {"user": 7}, ["#/user"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": 0}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": 41}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": 10**400}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": True}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": 5.0}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": MARKER}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "k": float("nan")}, ["#/k"]),
    ("invalid-request", "recommend", {"user": MARKER, "exclude_seen": 1}, ["#/exclude_seen"]),
    ("invalid-request", "recommend", {"user": "p01", MARKER: 1}, ["#"]),
    ("invalid-request", "recommend", {"user": "p01", "item": "f01"}, ["#/item"]),
    ("invalid-request", "similar", {"item": "f01", "k": 41}, ["#/k"]),
    ("invalid-request", "similar", {"k": 3}, ["#/item"]),
    ("invalid-request", "similar", [MARKER], ["#"]),
    ("invalid-request", "similar", b"", ["#"]),
    ("malformed-json", "similar", b'{"item": "f01"', []),
    ("malformed-json", "similar", b'{"item": "' + MARKER.encode() + b"\xff\"}", []),
    ("malformed-json", "similar", b'{"item":' * 400 + b'"f01"' + b"}" * 399, []),
    ("malformed-json", "similar", gzip.compress(b'{"item": "f01"}', mtime=0), []),
    ("body-too-large", "similar", b'{"item": "' + b"x" * 4085 + b'"}', []),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "body", "pointers"), REFUSED)
def test_refused(live, kind, path, body, pointers):
    reply = live.ask("POST", f"/v1/{path}", body)
    assert reply.kind == kind
    assert reply.status == KINDS[kind].status
    assert [one["pointer"] for one in reply.json.get("errors", [])] == pointers
    assert reply.json.keys() - {"errors"} == {"type", "title", "status", "detail"}
    assert reply.json["title"] == KINDS[kind].title and reply.json["detail"]
    assert MARKER not in f"{reply.body!r} {reply.headers}"


def test_limits_are_the_last_that_is_allowed(live):
    assert live.recommend(user="p01", k=40).status == 200
    assert live.recommend(history=["f01"] * 20).status == 200
    whole = b'{"item": "f01"}'
    assert live.ask("POST", "/v1/similar", whole.ljust(4096)).status == 200
    assert live.ask("POST", "/v1/similar", whole.ljust(4097)).kind == "body-too-large"


def test_many_mistakes_are_not_all_told(live):
    reply = live.recommend(history=[n % 2 for n in range(500)])
    assert reply.kind == "invalid-request" and len(reply.json["errors"]) == 20
    assert len(live.recommend({f"{MARKER}{n}": n for n in range(100)}).json["errors"]) == 1  # all have one place


def test_deep_nesting(bundle):
    """Python 3.11 gives up on such JSON, later ones read it."""
    with Live(bundle) as live:
        deep = b"[" * 32_000 + b"]" * 32_000
        for body in (b"[" * 65_000, deep, b'{"history":' + deep + b"}"):
            assert live.ask("POST", "/v1/recommend", body).kind in ("malformed-json", "invalid-request")
        assert live.recommend(user="p01").status == 200


def test_a_body_is_counted_as_it_comes(live):
    """Without Content-Length: 4,096 bytes in pieces pass, and of an endless body no more is read than the limit."""
    whole = b'{"item": "f01"}'.ljust(4096)
    assert live.ask("POST", "/v1/similar", iter([whole[:9], whole[9:]])).status == 200
    assert live.ask("POST", "/v1/similar", iter([whole, b" "])).kind == "body-too-large"
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/similar HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        connection.sendall(b"1001\r\n" + b" " * 4097 + b"\r\n")  # and no end
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"\r\nconnection: close\r\n" in answer.lower()


@pytest.mark.parametrize("media_type", ["", "text/plain", f"application/{MARKER}", "application/json5", MARKER])
def test_another_media_type(live, media_type):
    reply = live.ask("POST", "/v1/similar", b'{"item": "f01"}', {"content-type": media_type} if media_type else {})
    assert reply.kind == "unsupported-media-type"
    assert MARKER not in f"{reply.body!r} {reply.headers}"
    good = {"content-type": "Application/JSON; charset=utf-8"}
    assert live.ask("POST", "/v1/similar", b'{"item": "f01"}', good).status == 200


def test_another_address_or_method(live):
    for path in (f"/{MARKER}", "/v1/similar/", f"/v1/similar/{MARKER}", "//v1/similar", f"/v1/recommend%2f?{MARKER}"):
        reply = live.ask("POST", path, {"item": "f01"})
        assert reply.kind == "not-found" and "location" not in reply.headers
        assert MARKER not in f"{reply.body!r} {reply.headers}"
    for method in ("GET", "PUT", "OPTIONS", MARKER.upper()):
        reply = live.ask(method, "/v1/similar")
        assert reply.kind == "method-not-allowed" and reply.headers["allow"] == "POST"
        assert MARKER.upper().encode() not in reply.body
    assert (live.ask("HEAD", "/v1/similar").status, live.ask("HEAD", "/v1/similar").body) == (405, b"")


def test_a_connection_lives_on_after_a_mistake(live):
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    for body, status in (({"item": MARKER}, 404), ({"item": "f01"}, 200), ({}, 422), ({"item": "f01"}, 200)):
        connection.request("POST", "/v1/similar", json.dumps(body), {"content-type": "application/json"})
        reply = Reply.of(connection.getresponse())
        assert reply.status == status and "connection" not in reply.headers
    connection.close()


def test_an_answer_is_sent_at_once(live):
    """Nagle's algorithm holds the body back until the headers are acknowledged, which takes 40 ms on Linux."""
    connection, seconds = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20), []
    for _ in range(40):
        start = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - start)
    connection.close()
    assert min(seconds[20:]) < 0.03  # the first acknowledgements of a connection come at once


def test_a_slow_body_and_a_client_that_leaves(bundle):
    head = b"POST /v1/similar HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
    with Live(bundle, body_seconds=0.2) as live:
        answer = live.raw(head)
        assert answer.startswith(b"HTTP/1.1 408 ") and b'"type":"urn:problem-type:twotower:body-too-slow"' in answer
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(head)
        left = '{method="POST",route="none",status="499"}'
        until(lambda: live.counted("twotower_requests_total").get(left) == 1)
        assert live.similar(item="f01").status == 200


# Under load, in trouble, and at the end ------------------------------------------------------------------------------


class Held:
    """An index that answers when it is let go, or with an error."""

    def __init__(self, bundle: Bundle, error: Exception | None = None) -> None:
        self.index, self.error = bundle.retriever.index, error
        self.n_items, self.metric, self.is_exact = self.index.n_items, self.index.metric, self.index.is_exact
        self.go, self.inside = threading.Event(), 0
        self.bundle = replace(bundle, retriever=replace(bundle.retriever, index=self))

    def search(self, vectors, k, exclude=None):
        self.inside += 1
        if self.error:
            raise self.error
        assert self.go.wait(20)
        return self.index.search(vectors, k, exclude)


@contextmanager
def asking(live: Live, held: Held, number: int) -> Iterator[list[Reply]]:
    """So many requests that wait inside the index until the `with` ends; then there are the replies."""
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(live.recommend(user="p01"))) for _ in range(number)]
    try:
        for one in threads:
            one.start()
        until(lambda: held.inside == number, 5)
        yield replies
    finally:
        held.go.set()
        for one in threads:
            one.join(20)


def test_one_request_too_many_is_told_to_come_back(bundle):
    held, late = Held(bundle), []
    with Live(held.bundle, max_concurrency=2) as live:
        with asking(live, held, 2) as replies:
            one_more = threading.Thread(target=lambda: late.append(live.recommend(user="p01")))
            one_more.start()
            one_more.join(3)
            told = list(late)  # before anybody leaves
            assert live.get("/healthz").status == live.get("/readyz").status == 200  # the loop is free
        one_more.join(20)
        assert [(one.kind, one.headers["retry-after"]) for one in told] == [("busy", "1")]
        assert [one.status for one in replies] == [200, 200]
        assert live.recommend(user="p01").status == 200


def test_a_fault_of_ours_is_told_without_what_came(bundle, caplog):
    with Live(Held(bundle, ValueError(f"{MARKER} in an error")).bundle) as live:
        reply = live.recommend(user="p01")
        assert (reply.status, reply.kind) == (500, "internal")
        assert live.get("/readyz").status == 200
    faults = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert len(faults) == 1 and faults[0].startswith("ValueError\n") and "in search\n" in faults[0]
    assert MARKER not in f"{reply.body!r} {caplog.text}"


def test_it_leaves_in_two_steps(bundle):
    """First /readyz says so while everything is answered; then the door closes."""
    with Live(bundle, drain_seconds=3.0) as live:
        live.server.handle_exit(signal.SIGTERM, None)
        time.sleep(1)  # a door that closes at once is closed by now
        reply = live.get("/readyz")
        assert (reply.status, reply.kind) == (503, "leaving")
        assert live.recommend(user="p01").status == live.get("/healthz").status == 200
        live.thread.join(10)
        assert not live.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            live.get("/readyz")


def test_a_person_need_not_wait(bundle):
    with Live(bundle, drain_seconds=60.0) as live:
        live.server.handle_exit(signal.SIGINT, None)
        live.thread.join(5)
        assert not live.thread.is_alive()
    with Live(bundle, drain_seconds=60.0) as live:
        live.server.handle_exit(signal.SIGTERM, None)
        live.server.handle_exit(signal.SIGTERM, None)
        live.thread.join(5)
        assert not live.thread.is_alive()


def test_a_request_that_has_begun_is_answered_before_the_end(bundle):
    held = Held(bundle)
    with Live(held.bundle) as live:
        with asking(live, held, 1) as replies:
            live.server.handle_exit(signal.SIGINT, None)
            until(lambda: live.server.should_exit)
        assert [reply.status for reply in replies] == [200]


def test_every_kind_of_problem_is_tested():
    here = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in here and f":{kind}" not in here] == []


# Metrics and log -----------------------------------------------------------------------------------------------------


def test_what_is_counted(bundle):
    with Live(bundle) as live, Live(bundle) as other:
        live.recommend(user="p01", k=3)
        live.recommend(user=MARKER)
        live.recommend(history=["f01", "f02", MARKER])
        live.similar(item="f01", k=2)
        live.ask(MARKER.upper(), f"/{MARKER}")
        assert live.counted("twotower_requests_total") == {
            '{method="POST",route="/v1/recommend",status="200"}': 1,
            '{method="POST",route="/v1/recommend",status="404"}': 1,
            '{method="POST",route="/v1/recommend",status="422"}': 1,
            '{method="POST",route="/v1/similar",status="200"}': 1,
            '{method="other",route="none",status="404"}': 1,
        }
        assert live.counted("twotower_ids_total") == {
            '{kind="user",known="true"}': 1,
            '{kind="user",known="false"}': 1,
            '{kind="item",known="true"}': 3,
            '{kind="item",known="false"}': 1,
        }
        results = live.counted("twotower_results_total")
        assert results == {'{route="/v1/recommend"}': 3, '{route="/v1/similar"}': 2}
        assert live.counted("twotower_request_seconds_count")['{route="/v1/recommend"}'] == 3
        assert MARKER not in live.get("/metrics").body.decode().lower()
        assert other.counted("twotower_ids_total") == {}  # each has a registry of its own


def test_one_line_a_request(live, caplog):
    caplog.set_level(logging.INFO)
    live.recommend(user=MARKER)
    live.ask("GET", f"/{MARKER}?{MARKER}", headers={MARKER: MARKER})

    def last() -> list[str]:
        """The last two lines: that of a request of the test before may still have come."""
        return [one.getMessage() for one in caplog.records if one.name == "twotower.serving"][-2:]

    until(lambda: last() and last()[-1].startswith("GET"))
    assert re.fullmatch(r"POST /v1/recommend 404 \d+\.\d ms", last()[0])
    assert re.fullmatch(r"GET none 404 \d+\.\d ms", last()[1])
    assert MARKER not in caplog.text


# Settings and address ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [{"port": -1}, {"port": 65_536}, {"max_k": 0}, {"max_concurrency": 0}, {"body_seconds": 0.0},
     {"drain_seconds": -1.0}, {"body_seconds": float("nan")}],
    ids=str,
)  # fmt: skip
def test_settings_that_are_refused(setting):
    ((name, value),) = setting.items()
    with pytest.raises(SettingError, match=rf"{name} = {value}\nneeded: a number from "):
        ServingSettings(**setting)


def test_an_address_that_cannot_be_used():
    with listen(ServingSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=rf"host 127\.0\.0\.1, port {port}: Address already in use"):
            listen(ServingSettings(port=port))
    with pytest.raises(SettingError, match=r"host 192\.0\.2\.1, port 0: "):
        listen(ServingSettings(host="192.0.2.1", port=0))


def test_it_imports_nothing_that_only_training_needs():
    unwanted = ["twotower_lib.training", "twotower_lib.losses", "twotower_lib.baselines", "twotower_lib.recipe"]
    unwanted += ["matplotlib", "hydra", "pandas", "ipywidgets"]
    code = f"import sys, twotower_lib.serving; print([one for one in {unwanted} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Three thousand malformed requests -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_three_thousand_malformed_requests(bundle, caplog):
    """No 500, no marker in an answer or a log line, every error a problem, and the service is as it was."""
    caplog.set_level(logging.DEBUG)
    malformed, table = Malformed(0), {}
    with Live(bundle, **LIMITS, body_seconds=0.3) as live:
        before = live.recommend(user="p01").body
        for number in range(3000):
            family, marker, sent = malformed.draw(number)
            answer = live.raw(sent)
            status = judged(answer, family, sent)
            assert marker.encode() not in answer.lower(), (sent, answer)
            table.setdefault(family, Counter())[status] += 1
        assert live.get("/readyz").status == 200
        assert live.recommend(user="p01").body == before
        assert marker[:2] not in live.get("/metrics").body.decode()
        assert not [one for one in live.counted("twotower_requests_total") if 'status="5' in one]
    assert "zq" not in caplog.text.lower()
    print("\n" + as_table(table))
    counts = sum(table.values(), Counter())
    assert sum(counts.values()) == 3000 and min(sum(one.values()) for one in table.values()) >= 300
    assert {400, 404, 405, 408, 413, 415, 422} <= counts.keys()
    assert counts[200] < 600  # some of them are good after all, most are not
