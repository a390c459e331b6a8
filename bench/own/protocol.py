"""Lineshaft by a raw client of its protocol: what the coordinator can do, whatever the client is written in.

Figures: `raw_bulk`, `raw_drain`, `raw_single_64` (tasks a second), `raw_pick_up_p50` and `_p99` (ms); and
`store_bulk` and `store_drain`: the rows of the bulk and the drain in as many commits, by the bare store.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.driving import CALLERS, Spec
from bench.own import raw
from bench.own.bare_store import write_lives
from bench.own.coordinator import Coordinator, coordinator, store_of
from bench.usage import cpu_of, own_cpu
from lineshaft import __version__

Figures = dict[str, float]


class Protocol:
    """One round over one coordinator."""

    def __init__(self, server: Coordinator, store_pid: int = 0) -> None:
        self._server = server
        self._store_pid = store_pid
        self.figures: Figures = {}
        self.cpu: dict[str, Figures] = {}
        self.commits: dict[str, int] = {}

    def measure(self, name: str, tasks: int, run: Callable[[], float]) -> None:
        """Run something that takes so many seconds, as tasks a second and processor time a task."""
        commits, client, server = self._server.commits(), own_cpu(), self._server.cpu
        store = self._store_cpu()
        took = run()
        self.cpu[name] = {
            "client": (own_cpu() - client) / tasks * 1e6,
            "server": (self._server.cpu - server) / tasks * 1e6,
        }
        if self._store_pid:
            self.cpu[name]["store"] = (self._store_cpu() - store) / tasks * 1e6
        self.commits[name] = self._server.commits() - commits
        self.figures[name] = tasks / took

    def _store_cpu(self) -> float:
        return cpu_of(self._store_pid) if self._store_pid else 0.0

    def pick_up(self, samples: int) -> None:
        """Measure how soon a parked claim has a task."""
        took = sorted(raw.pick_up(self._server.url, "pick-up", samples))
        self.figures["raw_pick_up_p50"] = took[len(took) // 2] * 1e3
        self.figures["raw_pick_up_p99"] = took[len(took) * 99 // 100] * 1e3


def one_round(spec: Spec) -> dict[str, Any]:
    """Measure everything once."""
    tasks = max(400, spec.drain // 400 * 400)
    singles = max(CALLERS, tasks // 4)
    with coordinator(store_of(spec)) as server:
        url = server.url
        raw.enqueue_bulk(url, "warm", 400)
        raw.drain(url, "warm", 400)
        round = Protocol(server, spec.server_pid)
        round.measure("raw_bulk", tasks, lambda: raw.enqueue_bulk(url, "bulk", tasks))
        round.measure("raw_drain", tasks, lambda: raw.drain(url, "bulk", tasks))
        round.measure(
            "raw_single_64", singles, lambda: raw.enqueue_singly(url, "single", singles, connections=CALLERS)
        )
        round.pick_up(spec.samples)
    if spec.server != "memory://":
        _bare_store(round, tasks, store_of(spec, "bare"))
    return {
        "figures": round.figures,
        "cpu": round.cpu,
        "commits": round.commits,
        "versions": {"lineshaft": __version__},
    }


def _bare_store(round: Protocol, tasks: int, url: str) -> None:
    cpu, began = own_cpu(), time.perf_counter()
    enqueued, drained = asyncio.run(
        write_lives(
            url,
            tasks,
            enqueues=round.commits["raw_bulk"],
            reports=round.commits["raw_drain"],
        )
    )
    share = (own_cpu() - cpu) / (time.perf_counter() - began)
    for name, took in (("store_bulk", enqueued), ("store_drain", drained)):
        round.figures[name] = tasks / took
        round.cpu[name] = {"client": took * share / tasks * 1e6}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one_round(Spec(os.environ["BENCH_SPEC"]))) + "\n")
