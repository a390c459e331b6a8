"""What an engine counts, per shard; everything only rises but the gauges, which are read when asked for."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH_COMMANDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Histogram:
    """Counts of observations by upper bound (inclusive), as Prometheus has them but not cumulated."""

    __slots__ = ("bounds", "count", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, int]]:
        """Return (upper bound, observations up to it) as Prometheus wants them, ending with "+Inf"."""
        running, rows = 0, []
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            running += count
            rows.append(("+Inf" if bound is None else f"{bound:g}", running))
        return rows


class Metrics(msgspec.Struct, kw_only=True):
    """Counters of one shard since its engine was opened."""

    shard: int
    commands: int = 0
    commits: int = 0
    commit_retries: int = 0
    committed_rows: int = 0
    look_ups: int = 0
    looked_up_keys: int = 0
    refused: int = 0
    given_up: int = 0
    stalls: int = 0
    fences: int = 0
    rejections: int = 0
    bisects: int = 0
    loads: int = 0
    pruned: int = 0
    commit_seconds: Histogram = msgspec.field(default_factory=lambda: Histogram(COMMIT_SECONDS))
    batch_commands: Histogram = msgspec.field(default_factory=lambda: Histogram(BATCH_COMMANDS))
    # Gauges, filled in by `Engine.metrics`.
    pending_commands: int = 0
    pending_bytes: int = 0
    parked: int = 0
    position: int = 0
    durable: int = 0
