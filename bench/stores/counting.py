"""What a server of a store counts itself: the requests that reached it, and the bytes that it holds."""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def requests(url: str, seconds: float) -> float | None:
    """Return requests a second as the server counted them meanwhile; None where there is no server."""
    kind = url.partition("://")[0]
    if kind in ("redis", "valkey"):
        return _monitored(url, seconds)
    read = {"postgresql": _transactions, "opensearch": _actions}.get(kind)
    if read is None:
        return None
    before, began = read(url), time.perf_counter()
    time.sleep(seconds)
    return (read(url) - before) / (time.perf_counter() - began)


def size(url: str) -> int | None:
    """Return how many bytes the store takes: on disk, with Valkey in memory; None where it has none."""
    kind, _, rest = url.partition("://")
    match kind:
        case "sqlite":
            path = Path(unquote(rest[1:]))
            return sum(one.stat().st_size for one in path.parent.glob(path.name + "*"))
        case "postgresql":
            name = urlsplit(url).path[1:]
            return int(_asked(url, "select pg_database_size(%s)", name))
        case "redis" | "valkey":
            return _used_memory(url)
        case "opensearch":
            prefix = urlsplit(url).path
            _search(url, "POST", f"{prefix}*/_flush")
            told = _search(url, "GET", f"{prefix}*/_stats/store?expand_wildcards=all")
            return int(told["_all"]["total"]["store"]["size_in_bytes"])
    return None


def _transactions(url: str) -> int:
    # Backends tell what they did a second later at most, or ten where they do nothing more.
    query = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
    return int(_asked(url, query, urlsplit(url).path[1:]))


def _asked(url: str, query: str, *values: object) -> Any:
    """Ask from another database, so that what is asked is not counted."""
    import psycopg

    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return row[0]


def _actions(url: str) -> int:
    [node] = _search(url, "GET", "/_nodes/usage")["nodes"].values()
    actions: dict[str, int] = node["rest_actions"]
    return sum(count for name, count in actions.items() if name != "nodes_usage_action")


def _search(url: str, method: str, path: str) -> Any:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 9200, timeout=60)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _monitored(url: str, seconds: float) -> float:
    """Count what clients send, without what functions call in turn."""
    count, deadline, rest = 0, time.perf_counter() + seconds, b""
    with _connected(url) as line:
        line.sendall(b"MONITOR\r\n")
        while (left := deadline - time.perf_counter()) > 0:
            line.settimeout(left)
            try:
                *lines, rest = (rest + line.recv(1 << 16)).split(b"\r\n")
            except TimeoutError:
                break
            count += sum(1 for one in lines if one.startswith(b"+") and b" lua]" not in one and one != b"+OK")
    return count / seconds


def _used_memory(url: str) -> int:
    with _connected(url) as line:
        line.sendall(b"INFO memory\r\n")
        told = b""
        while b"used_memory:" not in told:
            told += line.recv(1 << 16)
        return int(told.partition(b"used_memory:")[2].split()[0])


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 6379))
