"""A bundle over HTTP: recommendations, similar items, health and metrics.

    POST /v1/recommend   {"user": "196"} or {"history": ["50", "181"]}, with k and exclude_seen -> results
    POST /v1/similar     {"item": "50"}, with k -> results
    GET  /healthz        the process answers
    GET  /readyz         what is served, while requests are welcome; 503 from the moment the service is told to stop
    GET  /metrics        for Prometheus

A request passes `Observed` (one log line, metrics, the last resort), then `LimitedBody`, then the models of what may be
asked, then `Service`, which asks the bundle in a thread so that the loop stays free. Every error is a problem of
RFC 9457 that is made in one place, `Problem.response`. It says where the mistake is and never repeats what came: no
value, and no name of a field that is not ours. Neither do the log lines and the labels of the metrics.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import shlex
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twotower_lib import bundle as bundles
from twotower_lib.bundle import Bundle, Result
from twotower_lib.errors import SettingError, UnknownIdError
from twotower_lib.ranking import Queries, Recommendations
from twotower_lib.storage import MANIFEST

LOG = logging.getLogger("twotower.serving")
METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
LEFT = 499
"""The status in log and metrics where the client left before there was an answer."""


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Where the service listens, and what it refuses."""

    host: str = "127.0.0.1"
    """Reachable from this machine only; `0.0.0.0` lets others in."""
    port: int = 8000
    """0 takes any free one."""
    max_body_bytes: int = 65_536
    max_k: int = 1_000
    max_history: int = 1_000
    max_concurrency: int = 32
    """Requests that search at the same time; one more is told to come back."""
    body_seconds: float = 10.0
    """How long a body may take to arrive."""
    drain_seconds: float = 2.0
    """After SIGTERM: how long `/readyz` says 503, while all else is answered, before the service stops."""
    finish_seconds: int = 5
    """After that: how long requests that have begun may still take."""

    def __post_init__(self) -> None:
        for one in fields(self)[1:]:
            least, most = RANGES.get(one.name, (1, math.inf))
            if not least <= getattr(self, one.name) <= most:
                raise SettingError(f"{one.name} = {getattr(self, one.name)}", f"a number from {least} to {most}")


RANGES = {"port": (0, 65_535), "drain_seconds": (0, math.inf), "body_seconds": (0.01, math.inf)}
"""What is not just 1 or more."""


# What may be asked, and what is answered -----------------------------------------------------------------------------


class Ask(BaseModel):
    """What all questions share."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    k: int = Field(10, ge=1, description="How many results.")


class Recommend(Ask):
    """Who asks: a known user, or a person known only by a history."""

    user: str | None = Field(None, description="Id of a known user.")
    history: list[str] | None = Field(None, min_length=1, description="Ids of items, oldest first.")
    exclude_seen: bool = Field(True, description="Leave out what is known of the user, or the posted history.")


class Similar(Ask):
    """To which item."""

    item: str = Field(description="Id of an item.")


OURS = {*Recommend.model_fields, *Similar.model_fields}
"""The names of all fields."""


class Answer(BaseModel):
    """Best first; fewer than k where no more are left."""

    results: list[Result]


# Problems ------------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of problem: its status, and its title, which never changes."""

    status: int
    title: str


KINDS = {
    "malformed-json": Kind(400, "The body is not JSON"),
    "not-found": Kind(404, "There is nothing at this address"),
    "unknown-user": Kind(404, "No user has this id"),
    "unknown-item": Kind(404, "No item has this id"),
    "method-not-allowed": Kind(405, "This address answers another method"),
    "body-too-slow": Kind(408, "The body did not arrive in time"),
    "body-too-large": Kind(413, "The body is too large"),
    "unsupported-media-type": Kind(415, "The body is of another media type"),
    "invalid-request": Kind(422, "The request is not as it should be"),
    "unknown-history": Kind(422, "No item has an id of the history"),
    "cold-item": Kind(422, "Training knew nothing of this item"),
    "internal": Kind(500, "The service made a mistake"),
    "busy": Kind(503, "Too many requests at the same time"),
    "leaving": Kind(503, "The service is about to stop"),
}

BY_STATUS = {400: "malformed-json", 404: "not-found", 405: "method-not-allowed"}
"""What FastAPI itself raises."""

SHOWN_FAULTS = 20


class Fault(NamedTuple):
    """One mistake in a body: a JSON pointer to its place, and what is needed there."""

    pointer: str
    detail: str


class Problem(Exception):
    """An error as RFC 9457 has it.

    Args:
        kind: a key of `KINDS`.
        detail: what is needed, without anything that came.
        faults: the places in the body.
        headers: of the response.
    """

    def __init__(
        self, kind: str, detail: str, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.faults, self.headers = kind, detail, faults, headers

    def response(self) -> JSONResponse:
        """As `application/problem+json`."""
        status, title = KINDS[self.kind]
        said: dict[str, Any] = {"type": f"urn:problem-type:twotower:{self.kind}", "title": title, "status": status}
        said["detail"] = self.detail
        if self.faults:
            said["errors"] = [fault._asdict() for fault in self.faults[:SHOWN_FAULTS]]
        return JSONResponse(said, status, dict(self.headers or {}), "application/problem+json")


async def _told(request: Request, problem: Problem) -> Response:
    return problem.response()


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """Of each mistake its place and pydantic's sentence, which for our models holds nothing that came."""
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return Problem("malformed-json", "JSON in UTF-8 is needed").response()
    faults = dict.fromkeys(Fault(_pointer(one["loc"]), one["msg"]) for one in found)
    return Problem("invalid-request", "see errors", list(faults)).response()


async def _refused(request: Request, error: HTTPException) -> Response:
    """An address, a method, or a body that FastAPI could not read; its headers say which methods are allowed."""
    details = {400: "JSON in UTF-8 is needed", 404: "see /openapi.json", 405: "see the header allow"}
    return Problem(BY_STATUS[error.status_code], details[error.status_code], headers=error.headers).response()


def _pointer(location: Sequence[int | str]) -> str:
    """The JSON pointer to a place, as far as its parts are positions or names of ours."""
    ours = takewhile(lambda part: isinstance(part, int) or part in OURS, location[1:])
    return "#" + "".join(f"/{part}" for part in ours)


# The questions -------------------------------------------------------------------------------------------------------


class Service:
    """Asks a bundle what has come over HTTP, within the limits of the settings."""

    def __init__(self, bundle: Bundle, settings: ServingSettings, metrics: Metrics) -> None:
        self.bundle, self.settings, self.metrics = bundle, settings, metrics
        # Looked up here and not in the bundle, whose error searches for a name that is spelt like the unknown one.
        self.users, self.items = (
            {name: row for row, name in enumerate(ids.names)} for ids in (bundle.users, bundle.catalogue.items)
        )

    def recommend(self, ask: Recommend) -> Answer:
        """The k best items for a user or a history.

        Raises:
            Problem: there is no user and no history, or both; a limit is exceeded, or an id is unknown.
        """
        self._check("k", ask.k, self.settings.max_k)
        query = self._query(ask)
        exclude = query.history if ask.exclude_seen else None
        return self._answer(self.bundle.retriever.recommend(query, ask.k, exclude))

    def similar(self, ask: Similar) -> Answer:
        """The k items closest to an item.

        Raises:
            Problem: a limit is exceeded, or the item is unknown, or training knew nothing of it.
        """
        self._check("k", ask.k, self.settings.max_k)
        if not self._known("item", self.items, [ask.item])[0]:
            raise Problem("unknown-item", "the id of an item of the data is needed", [Fault("#/item", "unknown")])
        try:
            return self._answer(self.bundle.retriever.similar(np.array([self.items[ask.item]]), ask.k))
        except UnknownIdError:
            detail = "an item that somebody met before the split is needed"
            raise Problem("cold-item", detail, [Fault("#/item", "has no embedding")]) from None

    def _query(self, ask: Recommend) -> Queries:
        if (ask.user is None) == (ask.history is None):
            fault = Fault("#", "Either user or history is needed, and not both")
            raise Problem("invalid-request", "see errors", [fault])
        return self._of_history(ask.history or []) if ask.user is None else self._of_user(ask.user)

    def _of_user(self, user: str) -> Queries:
        if not self._known("user", self.users, [user])[0]:
            raise Problem("unknown-user", "the id of a user of the data is needed", [Fault("#/user", "unknown")])
        return self.bundle.query(user)

    def _of_history(self, history: Sequence[str]) -> Queries:
        self._check("history", len(history), self.settings.max_history)
        known = self._known("item", self.items, history)
        faults = [Fault(f"#/history/{place}", "unknown") for place, is_known in enumerate(known) if not is_known]
        if faults:
            raise Problem("unknown-history", "ids of items of the data are needed", faults)
        return Queries.of_history([self.items[name] for name in history])

    def _check(self, name: str, value: int, most: int) -> None:
        if value > most:
            raise Problem("invalid-request", "see errors", [Fault(f"#/{name}", f"At most {most} is allowed here")])

    def _known(self, kind: str, ids: Mapping[str, int], names: Sequence[str]) -> list[bool]:
        known = [name in ids for name in names]
        for answer in (True, False):
            self.metrics.ids.labels(kind, str(answer).lower()).inc(known.count(answer))
        return known

    def _answer(self, found: Recommendations) -> Answer:
        return Answer(results=self.bundle.results(found))


# What a request passes -----------------------------------------------------------------------------------------------


class Metrics:
    """Counters in a registry of their own, so that several services can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = partial(Counter, registry=self.registry)
        self.requests = make("twotower_requests", "Requests that ended", ["method", "route", "status"])
        self.results = make("twotower_results", "Results returned", ["route"])
        self.ids = make("twotower_ids", "Ids that came", ["kind", "known"])
        self.seconds = Histogram(
            "twotower_request_seconds",
            "From the headers of a request to the end of its answer",
            ["route"],
            registry=self.registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )


class Observed:
    """Writes one line a request, counts it, and answers where everything else failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), LEFT

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            _log_fault(error)
            if status == LEFT:
                await Problem("internal", "this is not your mistake").response()(scope, receive, noted)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")  # none: unknown, or refused before it was looked up
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(method, route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        LOG.info("%s %s %d %.1f ms", method, route, status, 1000 * seconds)


def _log_fault(error: Exception) -> None:
    """The type of an exception and where it came from; its text could hold what came from a client."""
    where = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("%s\n%s", type(error).__name__, where)


class LimitedBody:
    """Reads the whole body before anything else sees it, and no more of it than is allowed."""

    def __init__(self, app: ASGIApp, settings: ServingSettings) -> None:
        self.app, self.most, self.seconds = app, settings.max_body_bytes, settings.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body as one message."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        close = {"connection": "close"}  # the rest of the body is not read
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(receive)
        except TimeoutError:
            problem = Problem("body-too-slow", f"at most {self.seconds:g} seconds are allowed", headers=close)
            return await problem.response()(scope, receive, send)
        if body is None:
            return
        if len(body) > self.most:
            problem = Problem("body-too-large", f"at most {self.most} bytes are allowed", headers=close)
            return await problem.response()(scope, receive, send)
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, replayed, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or the beginning of it that is already too long; nothing where the client left."""
        body = bytearray()
        while len(body) <= self.most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        return bytes(body)


async def _json_only(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem("unsupported-media-type", "application/json is needed")


# The application -----------------------------------------------------------------------------------------------------


def app(bundle: Bundle, settings: ServingSettings, served: Mapping[str, Any] | None = None) -> FastAPI:
    """The service as an ASGI application; it shares nothing with another one in the same process.

    Args:
        bundle: what answers.
        settings: the limits; host and port are not read.
        served: more that `/readyz` shall say of what is served, such as the name of the bundle.
    """
    metrics = Metrics()
    api = FastAPI(
        title="twotower",
        summary="Two-tower retrieval: recommendations and similar items.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect repeats the address that came
        exception_handlers={Problem: _told, RequestValidationError: _invalid, HTTPException: _refused},
        responses={"default": {"description": "A problem (RFC 9457)", "content": {"application/problem+json": {}}}},
    )
    api.state.ready = True
    _add_questions(api, Service(bundle, settings, metrics))
    _add_states(api, metrics, {**_described(bundle), **(served or {})})
    api.add_middleware(LimitedBody, settings=settings)
    api.add_middleware(Observed, metrics=metrics)  # added last, so it is the outermost
    return api


def _add_questions(api: FastAPI, service: Service) -> None:
    slots = asyncio.Semaphore(service.settings.max_concurrency)

    async def answered(route: str, function: Callable[..., Answer], ask: Ask) -> Answer:
        if slots.locked():
            raise Problem("busy", "try again later", headers={"retry-after": "1"})
        async with slots:
            answer = await run_in_threadpool(function, ask)
        service.metrics.results.labels(route).inc(len(answer.results))
        return answer

    @api.post("/v1/recommend", dependencies=[Depends(_json_only)])
    async def recommend(ask: Recommend) -> Answer:
        return await answered("/v1/recommend", service.recommend, ask)

    @api.post("/v1/similar", dependencies=[Depends(_json_only)])
    async def similar(ask: Similar) -> Answer:
        return await answered("/v1/similar", service.similar, ask)


def _add_states(api: FastAPI, metrics: Metrics, served: Mapping[str, Any]) -> None:
    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> dict[str, Any]:
        if not api.state.ready:
            raise Problem("leaving", "ask another instance", headers={"retry-after": "1"})
        return {"status": "ready", "bundle": served}

    @api.get("/metrics", response_class=Response)
    async def read_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _described(bundle: Bundle) -> dict[str, Any]:
    facts, index = bundle.facts, bundle.retriever.index
    return {
        "data": facts.get("data"),
        "protocol": facts.get("protocol"),
        "index": {"kind": facts["index"]["kind"], "metric": index.metric, "is_exact": index.is_exact},
        "users": len(bundle.users),
        "items": len(bundle.catalogue.items),
    }


# The server ----------------------------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """Says when it is ready, and leaves in two steps: first `/readyz` says so, then the door closes.

    SIGTERM, which comes from a supervisor, leaves `drain_seconds` between the two; SIGINT, from a person, none.
    """

    def __init__(self, api: FastAPI, settings: ServingSettings, greeting: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                api,
                http="h11",  # whatever else is installed
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=settings.finish_seconds,
            )
        )
        logging.getLogger("uvicorn.access").disabled = True  # its lines would hold the address that came
        self.api, self.drain, self.greeting, self.leave_at = api, settings.drain_seconds, greeting, math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.greeting:
            print(self.greeting, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second signal leaves at once."""
        again, self.api.state.ready = not self.api.state.ready, False
        self.force_exit = again
        self.leave_at = time.monotonic() + (self.drain if sig == signal.SIGTERM and not again else 0)

    async def on_tick(self, counter: int) -> bool:
        """Whether to leave now."""
        self.should_exit = self.should_exit or time.monotonic() >= self.leave_at
        return await super().on_tick(counter)


def serve(path: Path, settings: ServingSettings) -> None:
    """Serve a bundle until a signal comes.

    Raises:
        ArtifactError: the bundle is missing, damaged or of another kind.
        SettingError: the address cannot be used.
    """
    torch.set_num_threads(1)  # one request is too little work to share
    bundle = bundles.load(path)
    bundle.for_user(bundle.users[0], 1)  # the first search takes ten times as long as the next
    manifest = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    api = app(bundle, settings, {"name": path.resolve().name, "manifest_sha256": manifest})
    listening = listen(settings)
    logging.basicConfig(format="%(asctime)s %(message)s")
    LOG.setLevel(logging.INFO)
    Server(api, settings, _greeting(path, bundle, listening)).run([listening])


def listen(settings: ServingSettings) -> socket.socket:
    """A socket at the address of the settings.

    Raises:
        SettingError: the port is taken, or the host is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        made = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingError(
            f"host {settings.host}, port {settings.port}: {error.strerror}",
            "an address that is free",
            "--port 0 takes any",
        ) from error

    # asyncio switches off Nagle's algorithm, which costs 40 ms an answer, only where the protocol is named.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, made.detach())


def _greeting(path: Path, bundle: Bundle, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    body = shlex.quote(json.dumps({"user": bundle.users[0], "k": 5}))
    curl = f"curl -s {address}/v1/recommend -H 'content-type: application/json' -d {body}"
    return f"serving {path} at {address}; try: {curl}"
