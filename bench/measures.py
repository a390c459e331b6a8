"""What is measured: names, units, and which way is better."""

from __future__ import annotations

import msgspec


class Measure(msgspec.Struct, frozen=True):
    """One figure. `more` is better, or less; `reach` is what we set out for, `aim` what we would like."""

    title: str
    unit: str
    more: bool = True
    reach: float | None = None
    aim: float | None = None


RATE = "tasks/s"
SIDE_BY_SIDE = {
    "enqueue_one": Measure("Enqueue one by one, one caller", RATE),
    "enqueue_64": Measure("Enqueue one by one, 64 callers", RATE),
    "bulk": Measure("Bulk enqueue", RATE),
    "drain": Measure("Drain by one worker process", RATE),
    "pick_up_p50": Measure("Pick-up by an idle worker, p50", "ms", more=False),
    "pick_up_p99": Measure("Pick-up by an idle worker, p99", "ms", more=False),
    "round_trip_p50": Measure("Enqueue and wait for the result, p50", "ms", more=False),
}
OWN = {
    "raw_bulk": Measure("Bulk enqueue over HTTP, batches of 100", RATE, True, 80_000, 120_000),
    "raw_drain": Measure("Drain by `_report` with claim, batches of 100", RATE, True, 50_000, 80_000),
    "raw_single_64": Measure("Single enqueues from 64 connections", RATE, True, 20_000, 35_000),
    "raw_pick_up_p50": Measure("Pick-up by a raw client, p50", "ms", False, 0.6, 0.45),
    "raw_pick_up_p99": Measure("Pick-up by a raw client, p99", "ms", False, 1.5, 0.9),
    "store_bulk": Measure("Bare store: the rows of the bulk enqueue", RATE),
    "store_drain": Measure("Bare store: the rows of the drain", RATE),
    "rest_rss": Measure("At rest: memory", "MB", False, 50, 40),
    "rest_cpu": Measure("At rest: processor", "%", False, 0, 0),
    "backlog_rss_written": Measure("1,000,000 queued: memory as written", "MB", False),
    "backlog_rss_loaded": Measure("1,000,000 queued: memory after a restart", "MB", False, 400, 300),
    "backlog_restart": Measure("1,000,000 queued: restart until it serves", "s", False, 2.5, 1.2),
    "backlog_pick_up_none": Measure("Pick-up p50 with none queued", "ms", False),
    "backlog_pick_up": Measure("Pick-up p50 with 1,000,000 queued", "ms", False),
}
STORES = {
    "commit_1k_p50": Measure("Bare commit of 1 KB, p50", "ms", more=False),
    "commit_1k_p99": Measure("Bare commit of 1 KB, p99", "ms", more=False),
    "commit_256k_p50": Measure("Bare commit of 256 KB, p50", "ms", more=False),
    "commit_256k_p99": Measure("Bare commit of 256 KB, p99", "ms", more=False),
    "idle_requests": Measure("Requests of an idle coordinator", "/s", more=False),
    "failover": Measure("From kill -9 until another serves", "s", more=False),
    "load_enqueue": Measure("1,000,000 queued: written at", RATE),
    "load_restart": Measure("1,000,000 queued: start until it serves", "s", more=False),
    "load_memory": Measure("1,000,000 queued: memory a task", "bytes", more=False),
    "load_store": Measure("1,000,000 queued: in the store, a task", "bytes", more=False),
}
"""What is measured of stores alone; see `bench.stores`."""
MEASURES = SIDE_BY_SIDE | OWN | STORES
