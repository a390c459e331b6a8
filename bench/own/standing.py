"""What a coordinator takes while it does nothing, and what a long queue costs it.

Figures: `rest_rss` (MB), `rest_cpu` (% of a processor); with `queued` tasks of 1 KB waiting:
`backlog_rss_written` and, after a restart, `backlog_rss_loaded` (MB), `backlog_restart` (seconds from the
start of the process until it serves), `backlog_pick_up_none` and `backlog_pick_up` (ms, p50, on another
queue, without and with them).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from bench.driving import Spec
from bench.own import raw
from bench.own.coordinator import Coordinator, coordinator, sqlite_in
from lineshaft import __version__

KILOBYTE = 1024


def at_rest(server: Coordinator, seconds: float) -> dict[str, float]:
    """Leave a fresh coordinator alone for a while."""
    time.sleep(min(1.0, seconds))
    cpu, began = server.cpu, time.perf_counter()
    time.sleep(seconds)
    return {
        "rest_rss": server.rss,
        "rest_cpu": (server.cpu - cpu) / (time.perf_counter() - began) * 100,
    }


def with_backlog(folder: Path, queued: int, samples: int) -> dict[str, float]:
    """Queue so many tasks, measure, restart, measure."""
    store = sqlite_in(folder, "backlog")
    with coordinator(store) as server:
        none = _median(raw.pick_up(server.url, "pick-up", samples))
        raw.enqueue_bulk(server.url, "backlog", queued // 500 * 500, batch=500, size=KILOBYTE)
        written = server.rss
        beside = _median(raw.pick_up(server.url, "pick-up", samples))
    began = time.perf_counter()
    with coordinator(store) as server:
        restart = time.perf_counter() - began
        loaded = server.rss
    return {
        "backlog_pick_up_none": none * 1e3,
        "backlog_pick_up": beside * 1e3,
        "backlog_rss_written": written,
        "backlog_rss_loaded": loaded,
        "backlog_restart": restart,
    }


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    spec = Spec(os.environ["BENCH_SPEC"])
    folder = Path(spec.scratch)
    with coordinator(sqlite_in(folder, "rest")) as server:
        figures = at_rest(server, spec.rest)
    figures |= with_backlog(folder, spec.queued, spec.samples)
    sys.stdout.write(
        json.dumps({"figures": figures, "cpu": {}, "versions": {"lineshaft": __version__}}) + "\n"
    )


if __name__ == "__main__":
    main()
