"""The cheapest durable commit of each store: one record in it, by its own client or a plain socket.

One writer, one commit after the other, of 1 KB and of 256 KB. Figures, in ms: `commit_1k_p50`,
`commit_1k_p99`, `commit_256k_p50`, `commit_256k_p99`. A task that
is picked up waits for one such commit, whoever makes it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.driving import Spec

SIZES = {"1k": 1024, "256k": 256 * 1024}
WARM = 20

Write = Callable[[int, bytes], object]
"""Make a record durable: its number, and its content (letters, so that it is JSON between quotes)."""


@contextmanager
def opensearch(spec: Spec) -> Iterator[Write]:
    """Create documents that are not indexed, in an index that is not refreshed."""
    parts = urlsplit(spec.server)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 9200)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    index = f"{parts.path}-bare"

    def put(path: str, body: bytes) -> None:
        connection.request("PUT", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        told = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{answer.status}: {told!r}")

    put(
        index,
        json.dumps(
            {
                "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"},
                "mappings": {"enabled": False},
            }
        ).encode(),
    )
    yield lambda number, data: put(f"{index}/_create/{number}", b'{"data":"%s"}' % data)
    connection.close()


@contextmanager
def postgres(spec: Spec) -> Iterator[Write]:
    """Insert rows, a transaction each."""
    import psycopg

    with psycopg.connect(spec.server, autocommit=True) as connection:
        connection.execute("create table bare (number bigint primary key, data bytea not null)")
        # What cannot be compressed is stored as it is; so are letters then.
        connection.execute("alter table bare alter column data set storage external")

        def write(number: int, data: bytes) -> None:
            connection.execute("insert into bare values (%s, %b)", (number, data), prepare=True)

        yield write


@contextmanager
def valkey(spec: Spec) -> Iterator[Write]:
    """Add to a stream."""
    import redis

    client = redis.Redis.from_url(spec.server.replace("valkey://", "redis://"))
    yield lambda number, data: client.xadd("bare", {"data": data}, id=f"{number + 1}-0")
    client.close()


@contextmanager
def sqlite(spec: Spec) -> Iterator[Write]:
    """Insert rows, a transaction each."""
    connection = sqlite3.connect(Path(spec.scratch) / "bare.db", isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("create table bare (number integer primary key, data blob not null)")
    yield lambda number, data: connection.execute("insert into bare values (?, ?)", (number, data))
    connection.close()


STORES = {"opensearch": opensearch, "postgresql": postgres, "redis": valkey, "valkey": valkey, "": sqlite}


def measure(write: Write, samples: int) -> dict[str, float]:
    """Write so many of each size."""
    figures, number = {}, 0
    for name, size in SIZES.items():
        data, took = b"x" * size, []
        for _ in range(WARM + samples):
            began = time.perf_counter()
            write(number, data)
            took.append((time.perf_counter() - began) * 1e3)
            number += 1
        took = sorted(took[WARM:])
        figures[f"commit_{name}_p50"] = took[len(took) // 2]
        figures[f"commit_{name}_p99"] = took[len(took) * 99 // 100]
    return figures


def main() -> None:
    spec = Spec(os.environ["BENCH_SPEC"])
    with STORES[spec.server.partition("://")[0]](spec) as write:
        figures = measure(write, spec.samples)
    sys.stdout.write(json.dumps({"figures": figures, "cpu": {}}) + "\n")


if __name__ == "__main__":
    main()
