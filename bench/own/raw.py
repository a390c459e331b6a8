"""A client of the protocol that costs next to nothing, so that the coordinator is what is measured.

Requests are bytes made beforehand, answers are looked at by searching their bytes; only the drain reads ids
and tokens, into structs of two fields. One process, one thread, `epoll` over all connections of a measure.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import msgspec

PAYLOAD = "x" * 98
"""100 bytes of JSON with its quotes."""

PAUSE = 0.05
"""Seconds after which what was refused for now is sent again."""

LINES = 8
"""Connections of batches: with fewer the coordinator waits for requests while it commits."""

Answered = Callable[[bytes], bytes | None]
"""Takes the content of an answer, gives the next request, None where it is done."""


class Failed(RuntimeError):
    """The coordinator answered something else than it should."""


class Overloaded(Failed):
    """The coordinator refuses for now; `PAUSE` later it may take the same."""


class Line:
    """One kept-alive connection; a request at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._sent = b""

    def send(self, request: bytes) -> None:
        """Send all of it."""
        self._sent = request
        self.socket.sendall(request)

    def send_again(self) -> None:
        """Send what was sent last."""
        self.socket.sendall(self._sent)

    def receive(self) -> bytes | None:
        """Take what has come; return the content of an answer once it is whole. Raises Failed, Overloaded."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise Failed("the coordinator hung up")
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = buffer
            return None
        head = buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(buffer) < end + 4 + length:
            self._buffer = buffer
            return None
        self._buffer = b""
        content = buffer[end + 4 :]
        if head[9:10] != b"2":
            raise (Overloaded if head[9:12] == b"429" else Failed)(f"{head[:30]!r}: {content[:300]!r}")
        return content

    def call(self, request: bytes) -> bytes:
        """Send, and wait for the answer."""
        self.send(request)
        while (content := self.receive()) is None:
            pass
        return content

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


@contextlib.contextmanager
def lines(url: str, count: int) -> Iterator[list[Line]]:
    """Open connections for the length of the block."""
    opened = [Line(url) for _ in range(count)]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()


def post(path: str, body: bytes) -> bytes:
    """Return a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return b"%sContent-Length: %d\r\n\r\n%s" % (head.encode(), len(body), body)


def converse(opened: list[Line], first: bytes, answered: Answered) -> float:
    """Keep a request in flight on every line until all are done; return how long it took, in seconds."""
    by_number = {line.socket.fileno(): line for line in opened}
    began = time.perf_counter()
    with select.epoll() as ready:
        for number, line in by_number.items():
            ready.register(number, select.EPOLLIN)
            line.send(first)
        going = len(by_number)
        while going:
            for number, _ in ready.poll():
                line = by_number[number]
                try:
                    content = line.receive()
                except Overloaded:
                    time.sleep(PAUSE)
                    line.send_again()
                    continue
                if content is None:
                    continue
                following = answered(content)
                if following is None:
                    going -= 1
                else:
                    line.send(following)
    return time.perf_counter() - began


def enqueue_body(queue: str, size: int = 100) -> bytes:
    """Return an enqueue whose payload is `size` bytes of JSON."""
    return msgspec.json.encode({"name": "noop", "queue": queue, "payload": "x" * (size - 2)})


def enqueue_bulk(url: str, queue: str, tasks: int, *, batch: int = 100, size: int = 100) -> float:
    """Enqueue in batches over several connections; return seconds."""
    request = post("/_tasks/_bulk", b"[" + b",".join([enqueue_body(queue, size)] * batch) + b"]")
    count = min(LINES, tasks // batch)
    left = tasks // batch - count

    def answered(content: bytes) -> bytes | None:
        nonlocal left
        if content.count(b'"status":201') != batch:
            raise Failed(content[:300].decode())
        left -= 1
        return request if left >= 0 else None

    with lines(url, count) as opened:
        return converse(opened, request, answered)


def enqueue_singly(url: str, queue: str, tasks: int, *, connections: int) -> float:
    """Enqueue one a request, one in flight on each connection; return seconds."""
    request = post("/_tasks", enqueue_body(queue))
    left = tasks - connections

    def answered(content: bytes) -> bytes | None:
        nonlocal left
        left -= 1
        return request if left >= 0 else None

    with lines(url, connections) as opened:
        return converse(opened, request, answered)


class _Leased(msgspec.Struct, gc=False):
    task_id: str
    lease_token: str


class _Reported(msgspec.Struct):
    tasks: list[_Leased]


def drain(url: str, queue: str, tasks: int, *, batch: int = 100) -> float:
    """Claim and complete everything by reports of a batch each over several connections; return seconds.

    Raises Failed where not exactly `tasks` were there or one was refused.
    """
    claim = (
        b'"claim":' + msgspec.json.encode({"max": batch, "queues": [queue], "worker": {"id": "raw"}}) + b"}"
    )
    decode = msgspec.json.Decoder(_Reported).decode
    done = 0

    def answered(content: bytes) -> bytes | None:
        nonlocal done
        if b'"error"' in content:
            raise Failed(content[:300].decode())
        leased = decode(content).tasks
        if not leased:
            return None
        done += len(leased)
        items = ",".join(
            [
                f'{{"op":"complete","task_id":"{one.task_id}","lease_token":"{one.lease_token}","result":"ok"}}'
                for one in leased
            ]
        )
        return post("/_tasks/_report", b'{"items":[' + items.encode() + b"]," + claim)

    with lines(url, LINES) as opened:
        took = converse(opened, post("/_tasks/_report", b'{"items":[],' + claim), answered)
    if done != tasks:
        raise Failed(f"{done} of {tasks} tasks were drained")
    return took


def pick_up(url: str, queue: str, samples: int) -> list[float]:
    """Return seconds from sending an enqueue until a parked claim has the task, one at a time."""
    enqueue = post("/_tasks", enqueue_body(queue))
    claim = post("/_tasks/_claim", msgspec.json.encode({"queues": [queue], "wait": "50s"}))
    took = []
    with lines(url, 2) as (client, worker):
        for _ in range(samples):
            worker.send(claim)
            time.sleep(0.002)  # until the claim is parked
            began = time.perf_counter()
            client.send(enqueue)
            while (content := worker.receive()) is None:
                pass
            took.append(time.perf_counter() - began)
            while client.receive() is None:
                pass
            task = msgspec.json.decode(content, type=_Leased)
            done = msgspec.json.encode({"lease_token": task.lease_token, "result": "ok"})
            worker.call(post(f"/_tasks/{task.task_id}/_complete", done))
    return took
