"""Requests as bytes, good ones and the beginnings of bad ones.

Where an attack tries to get a request past the coordinator that nobody has sent, that request would enqueue a
task of the name `smuggled`: such a task must never be found.
"""

from __future__ import annotations

import json

from tests.hostile.exchange import Step

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
PATHS = (
    "/_tasks",
    "/_tasks/_bulk",
    "/_tasks/_claim",
    "/_tasks/_report",
    "/_tasks/a/_complete",
    "/_tasks/_search",
)


def post(path: str, body: bytes, *headers: bytes, length: bytes | None = None) -> bytes:
    """Return a request; `length` is what it says of its body where that is not true."""
    size = b"%d" % len(body) if length is None else length
    lines = [
        b"POST %s HTTP/1.1" % path.encode(),
        b"Host: localhost",
        JSON.strip(),
        b"Content-Length: " + size,
    ]
    return b"\r\n".join([*lines, *headers, b"", b""]) + body


def enqueue(name: str = "hostile") -> bytes:
    """Return a good request, delayed for good so that it runs into nobody's way."""
    return post("/_tasks", json.dumps({"name": name, "queue": name, "delay": "7d"}).encode())


SMUGGLED = enqueue("smuggled")
CLAIM = post("/_tasks/_claim", b'{"wait":"10s","queues":["nobody"]}')
"""A good claim, of a queue without tasks so that it takes none from the good client."""


def drip(data: bytes, pause: float = 0.05) -> list[Step]:
    """Return steps that send byte by byte, slower than is taken."""
    return [step for byte in data[:60] for step in (bytes([byte]), pause)]


def chunked(path: str, *headers: bytes) -> bytes:
    """Return the head of a request whose body comes in chunks."""
    lines = [b"POST %s HTTP/1.1" % path.encode(), b"Host: localhost", JSON.strip()]
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", *headers, b"", b""])
