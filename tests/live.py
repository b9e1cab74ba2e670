"""A service on the loopback interface, in a thread, and the plain HTTP that asks it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twotower_lib.bundle import Bundle
from twotower_lib.serving import Server, ServingSettings, app, listen

JSON = {"content-type": "application/json"}
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, without the words that are no JSON."""
        return json.loads(self.body, parse_constant=lambda word: 1 / 0)

    @property
    def kind(self) -> str:
        """Which problem it is."""
        assert self.headers["content-type"] == PROBLEM
        assert self.json["status"] == self.status
        return self.json["type"].rpartition(":")[2]

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> Reply:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, headers, response.read())


class Live:
    """A running service; leaving the `with` stops it and waits for it."""

    def __init__(self, bundle: Bundle, **settings: Any) -> None:
        self.settings = ServingSettings(port=0, **settings)
        self.api = app(bundle, self.settings)
        self.server = Server(self.api, self.settings)

    def __enter__(self) -> Live:
        listening = listen(self.settings)
        self.port = listening.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([listening],))
        self.thread.start()
        until(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = JSON) -> Reply:
        """Send one request; a body that is neither bytes nor an iterator of them is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = json.dumps(body).encode() if isinstance(body, dict | list | str) else body
            connection.request(method, path, sent, dict(headers))
            return Reply.of(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path, headers={})

    def recommend(self, body: Any = None, **fields: Any) -> Reply:
        return self.ask("POST", "/v1/recommend", fields if body is None else body)

    def similar(self, **fields: Any) -> Reply:
        return self.ask("POST", "/v1/similar", fields)

    def counted(self, name: str) -> dict[str, float]:
        """The samples of a metric: the labels as they are written -> value."""
        lines = [line.rpartition(" ") for line in self.get("/metrics").body.decode().splitlines()]
        return {words.removeprefix(name): float(value) for words, _, value in lines if words.split("{")[0] == name}

    def raw(self, sent: bytes) -> bytes:
        """Send bytes and read until the service closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            received = b""
            try:
                connection.sendall(sent)
                while more := connection.recv(65_536):
                    received += more
            except ConnectionError:  # closed before everything was sent or read: what had come is what there is
                pass
            return received


def until(is_so: Any, seconds: float = 20.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
