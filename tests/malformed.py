"""Requests that nobody should send, each with a marker of its own that must not come back."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter

from tests.live import PROBLEM

# In all of these lists @ stands for the marker.

GOOD = [
    ("recommend", {"user": "p01", "k": 5}),
    ("recommend", {"history": ["f01", "f02"], "exclude_seen": False}),
    ("similar", {"item": "f01", "k": 5}),
]

VALUES = [
    '"@"',
    '"\\ud800@"',
    '"@\\u0000"',
    '["@"]',
    '{"@": "@"}',
    '["f01", "@"]',
    "['@']",
    '"' + 50 * "@" + '"',
    "1@",
    "@",
]
VALUES += ["NaN", "-Infinity", "1e999", "-0", "1.5", "true", "null", "-1", "0", "[]", "{}", '""', "9" * 20, "9" * 2000]
VALUES += ["[" * 200 + '"@"' + "]" * 200]
"""JSON values that are wrong nearly everywhere."""

KEYS = [
    '"@": 1',
    '"\\udfff@": 1',
    '"k": 3, "k": "@"',
    '"": "@"',
    '"__proto__": "@"',
    '"#/@": []',
    '"K": "@"',
    '"@~1@": 1',
]
KEYS += ['"user": "@", "history": ["@"]', ", ".join(f'"@{n}": {n}' for n in range(60))]
"""Fields beside the right ones."""

WHOLE = b'{"user": "@"}'
TEXTS = [WHOLE[:n] for n in range(len(WHOLE))]
TEXTS += [
    WHOLE + b",",
    WHOLE * 2,
    WHOLE + b"\x00",
    b"\xef\xbb\xbf" + WHOLE,
    WHOLE.replace(b'"', b"'"),
    b"/* @ */" + WHOLE,
]
TEXTS += [
    b'{"user": "@\xff\xfe"}',
    b'{"us\\xer": "@"}',
    b"\xed\xa0\x80@",
    b'"@"',
    b"user=@",
    b"<a>@</a>",
    b"",
    b"null",
    b"@",
]
TEXTS += [b"[" * depth + b"@" for depth in (100, 900, 4000)] + [
    '{"user": "@"}'.encode("utf-16-le"),
    gzip.compress(WHOLE, mtime=0),
]
"""Bodies that are no JSON, or are JSON of something else."""

HEADERS = ["content-type: application/@", "content-type: @", "content-type: multipart/form-data; boundary=@"]
HEADERS += [
    "content-type: application/json; charset=@",
    "content-type: text/plain",
    "content-type:",
    "content-encoding: @",
]
HEADERS += ["host: @", "x-forwarded-for: @", "x-request-id: @", "cookie: @=@", "accept: @/@", "authorization: Bearer @"]
HEADERS += ["expect: 100-continue", "upgrade: @", "@: @", "x: " + 50 * "@", "accept-encoding: @", "origin: http://@"]
HEADERS += ["traceparent: 00-@", "range: bytes=@", "transfer-encoding: @", "referer: http://@/"]

PATHS = [
    "/@",
    "/v1/@",
    "/v1/similar/@",
    "//@/v1/similar",
    "/v1/recommend?@=@",
    "/v1/similar%00@",
    "/v1/..%2f@",
    "/v1/!@",
]
PATHS += ["/%ff%fe@", "/%ed%a0%80@", "http://@/v1/similar", "/v1/similar#@", "*@", "*", "/" + 200 * "@", "/healthz/@"]
PATHS += ["/readyz?@", "/metrics?@", "/docs?@", "/v1/similar/?@", "/{@}", "/v1/%7b@%7d", "/openapi.json?@"]

METHODS = ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "post", "QUERY", "@"]

HEAD = b"POST /v1/similar HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
NO_HTTP = [
    b"@",
    b"GET /@",
    b"GET / HTTP/9.9\r\nconnection: close\r\n@: 1",
    b"GET /@ @ HTTP/1.1",
    b"GET /\x80@ HTTP/1.1\r\nhost: x",
    b"\x16\x03\x01@",
]
NO_HTTP += [HEAD + b"content-length: -1", HEAD + b"content-length: @", HEAD + b"content-length: 1\r\ncontent-length: 2"]
NO_HTTP += [
    HEAD + line for line in (b"@", b"transfer-encoding: @", b" @: 1", b"x: \x00@", b"x: " + 5000 * b"@", b"@ : 1")
]
NO_HTTP += [HEAD.replace(b"host: x\r\n", b""), CHUNKED + b"@", CHUNKED + b"f" * 20 + b"\r\n@", CHUNKED + b"3\r\n@@@@"]


class Malformed:
    """A seeded stream of them; each family is a method whose name begins with `with_`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.families = [getattr(self, name) for name in dir(self) if name.startswith("with_")]

    def draw(self, number: int) -> tuple[str, str, bytes]:
        """The family, the marker, and the bytes to send."""
        family = self.families[number % len(self.families)]
        marker = f"zq{number:04d}{self.random.getrandbits(40):010x}zq"
        return family.__name__.removeprefix("with_"), marker, family(marker)

    def one(self, templates: list, marker: str):
        chosen = self.random.choice(templates)
        return chosen.replace("@", marker) if isinstance(chosen, str) else chosen.replace(b"@", marker.encode())

    def good(self) -> tuple[str, dict[str, object]]:
        path, ask = self.random.choice(GOOD)
        return f"/v1/{path}", dict(ask)

    def with_values(self, marker: str) -> bytes:
        path, ask = self.good()
        fields = {name: json.dumps(value) for name, value in ask.items()}
        for name in self.random.sample(sorted(fields), self.random.randint(1, len(fields))):
            fields[name] = self.one(VALUES, marker)
        body = ", ".join(f'"{name}": {value}' for name, value in fields.items())
        return request(f"{{{body}}}".encode(), path)

    def with_keys(self, marker: str) -> bytes:
        path, ask = self.good()
        return request(f"{json.dumps(ask)[:-1]}, {self.one(KEYS, marker)}}}".encode(), path)

    def with_text(self, marker: str) -> bytes:
        return request(self.one(TEXTS, marker), self.good()[0])

    def with_flipped_bits(self, marker: str) -> bytes:
        path, ask = self.good()
        body = bytearray(json.dumps({**ask, "user": marker}).encode())
        for _ in range(self.random.randint(1, 6)):
            body[self.random.randrange(len(body))] ^= 1 << self.random.randrange(8)
        return request(bytes(body), path)

    def with_sizes(self, marker: str) -> bytes:
        body = json.dumps({"user": marker}).encode().ljust(self.random.choice([4097, 5000, 20_000, 70_000]))
        if self.random.random() < 0.5:
            return request(body)
        step = self.random.choice([7, 997, 65_536])
        pieces = (body[at : at + step] for at in range(0, len(body), step))
        return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    def with_headers(self, marker: str) -> bytes:
        path, ask = self.good()
        return request(json.dumps({**ask, "x": marker}).encode(), path, header=self.one(HEADERS, marker))

    def with_paths(self, marker: str) -> bytes:
        body = json.dumps({"item": marker}).encode()
        return request(body, self.one(PATHS, marker), self.random.choice(["GET", "POST"]))

    def with_methods(self, marker: str) -> bytes:
        path = self.random.choice(["/v1/similar", "/v1/recommend", "/healthz", "/readyz", "/metrics", f"/{marker}"])
        return request(json.dumps({"item": marker}).encode(), path, self.one(METHODS, marker))

    def with_no_http(self, marker: str) -> bytes:
        return self.one(NO_HTTP, marker) + b"\r\n\r\n" + marker.encode()


def request(body: bytes, path: str = "/v1/similar", method: str = "POST", header: str = "") -> bytes:
    """The bytes of a request that is HTTP; the header takes the place of the one of its name."""
    lines = ["host: x", "content-type: application/json", f"content-length: {len(body)}"]
    kept = [line for line in lines if line.partition(":")[0] != header.partition(":")[0]]
    return (
        "\r\n".join([f"{method} {path} HTTP/1.1", "connection: close", *kept, header or "x: y", "", ""]).encode() + body
    )


def judged(answer: bytes, family: str, sent: bytes) -> int:
    """The status of an answer that is as it should be; 0 where the connection was closed without one."""
    if not answer:
        assert family in ("no_http", "sizes"), sent
        return 0
    if answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head[9:12])
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert status < 500, (sent, answer)
    if (
        family in ("no_http", "headers", "paths") and b"Invalid HTTP request received." in body
    ):  # it never became a request
        assert status == 400
    elif status >= 400:
        assert headers[b"content-type"] == PROBLEM.encode(), (sent, answer)
        assert not body or json.loads(body)["status"] == status
    return status


def as_table(table: dict[str, Counter]) -> str:
    statuses = sorted({status for counts in table.values() for status in counts})
    lines = [f"{'':<15}" + "".join(f"{status or 'closed':>8}" for status in statuses)]
    lines += [
        f"{family:<15}" + "".join(f"{counts[status] or '':>8}" for status in statuses)
        for family, counts in table.items()
    ]
    total = sum(table.values(), Counter())
    return "\n".join([*lines, f"{'all':<15}" + "".join(f"{total[status]:>8}" for status in statuses)])
