"""What stands, on each store: a coordinator that does nothing, a long queue, a successor.

Figures: `idle_requests` (requests a second that the store's server counts while the coordinator does
nothing); with `queued` tasks of 100 bytes waiting: `load_enqueue` (tasks a second), `load_restart` (seconds
from the start of a coordinator until it serves), `load_memory` (bytes a task in the coordinator),
`load_store` (bytes a task in the store); `failover` (seconds from `kill -9` of the coordinator that serves
until another has handed out a task that was enqueued afterwards, the median of some).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from statistics import median

from bench.driving import Spec
from bench.own import raw
from bench.own.coordinator import Coordinator, coordinator, store_of
from bench.stores import counting
from lineshaft import __version__

SETTLE = 3.0
"""Seconds that coordinators have to be done with their start, and to share the shards."""
QUIET = 12.0
"""Seconds until a PostgreSQL backend that does nothing has told what it did before."""
GIVE_UP = 60.0
SHARED = ("postgresql", "redis", "valkey", "opensearch")


def main() -> None:
    spec = Spec(os.environ["BENCH_SPEC"])
    url = store_of(spec)
    figures = idle(url, spec.rest)
    if url.partition("://")[0] in SHARED:
        figures["failover"] = median(failover(url) for _ in range(3 if spec.rest > 1 else 1))
    figures |= loaded(url, spec.queued)
    told = {"figures": figures, "cpu": {}, "versions": {"lineshaft": __version__}}
    sys.stdout.write(json.dumps(told) + "\n")


def idle(url: str, seconds: float) -> dict[str, float]:
    """Leave a coordinator alone, and ask the store's server what came."""
    with coordinator(url) as server:
        _work(server, 20)
        time.sleep(min(QUIET, 4 * seconds))
        count = counting.requests(url, seconds)
    return {} if count is None else {"idle_requests": count}


def loaded(url: str, queued: int) -> dict[str, float]:
    """Queue so many tasks, and load them into another coordinator."""
    queued = queued // 500 * 500
    figures = {}
    with coordinator(url) as server:
        rest, before = server.rss, counting.size(url)
        figures["load_enqueue"] = queued / raw.enqueue_bulk(server.url, "load", queued, batch=500)
        written = server.rss
    figures["load_memory"] = (written - rest) * 1e6 / queued
    if url == "memory://":
        return figures
    began = time.perf_counter()
    with coordinator(url) as server:
        _wait_until_served(server)
        figures["load_restart"] = time.perf_counter() - began
        figures["load_memory"] = (server.rss - rest) * 1e6 / queued
    after = counting.size(url)
    if before is not None and after is not None:
        figures["load_store"] = (after - before) / queued
    return figures


def failover(url: str) -> float:
    """Kill the coordinator that serves, while another runs; return seconds until that one serves."""
    with coordinator(url) as one, coordinator(url) as two:
        _work(one, 20)
        _work(two, 20)
        time.sleep(SETTLE)
        before = one.commits()
        _work(one, 20)
        dead, alive = (one, two) if one.commits() - before >= 20 else (two, one)
        os.kill(dead.pid, signal.SIGKILL)
        return _wait_until_served(alive)


def _work(server: Coordinator, tasks: int) -> None:
    raw.enqueue_singly(server.url, "few", tasks, connections=1)
    raw.drain(server.url, "few", tasks, batch=1)


def _wait_until_served(server: Coordinator) -> float:
    """Return seconds until a task that is enqueued from now on has been handed out."""
    began = time.perf_counter()
    while time.perf_counter() - began < GIVE_UP:
        try:
            raw.enqueue_singly(server.url, "after", 1, connections=1)
            raw.pick_up(server.url, "next", 1)
        except (raw.Failed, OSError):
            time.sleep(0.02)
            continue
        return time.perf_counter() - began
    raise TimeoutError(f"nobody served within {GIVE_UP} s")


if __name__ == "__main__":
    main()
