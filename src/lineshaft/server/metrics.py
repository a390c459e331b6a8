"""`/metrics` in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from lineshaft.core.replies import QueueState, StatsReply
from lineshaft.core.task import State
from lineshaft.engine.metrics import Histogram
from lineshaft.engine.metrics import Metrics as ShardMetrics

_SHARD_COUNTERS = {
    "commands": "Commands taken.",
    "commits": "Commits made.",
    "commit_retries": "Commits sent again because their outcome was unknown.",
    "committed_rows": "Rows committed.",
    "look_ups": "Reads of rows that commands needed and memory had not.",
    "looked_up_keys": "Rows asked for in them.",
    "refused": "Commands refused because too much was pending.",
    "given_up": "Replies that were not durable in time.",
    "stalls": "Times that the store did not answer for long.",
    "fences": "Times that another owner took the shard.",
    "rejections": "Batches that the store rejected for good.",
    "bisects": "Rejected batches that were taken apart to find the culprit.",
    "loads": "Times that the shard was loaded.",
    "pruned": "Finished tasks pruned.",
}
_SHARD_GAUGES = {
    "pending_commands": "Commands accepted and not yet durable.",
    "pending_bytes": "Bytes accepted and not yet durable.",
    "parked": "Requests parked: claims without a task, and those that wait for a result.",
    "position": "The last commit in memory.",
    "durable": "The last commit that is known to be durable.",
}
_OPEN = (State.SCHEDULED, State.WAITING, State.QUEUED, State.CLAIMED, State.RUNNING)


class RequestMetrics:
    """Counts answers by status."""

    def __init__(self) -> None:
        self._by_status: Counter[int] = Counter()

    def count(self, status: int) -> None:
        """Count one answer."""
        self._by_status[status] += 1

    @property
    def by_status(self) -> Mapping[int, int]:
        """Return how many answers had each status."""
        return self._by_status


class Family(msgspec.Struct, frozen=True):
    """A family of samples; its name stands without the prefix."""

    name: str
    kind: str
    about: str
    samples: list[tuple[dict[str, str], float]]


def render(
    stats: StatsReply | None,
    queues: Iterable[QueueState],
    requests: Mapping[int, int],
    *,
    version: str,
    store: str,
    tier: str,
    uptime: float,
    pending_bytes: int,
    shards: Iterable[ShardMetrics],
    gauges: Mapping[str, float],
    cluster: Iterable[Family] = (),
) -> str:
    """Return the metrics of one tenant and of the process; `stats` None where the tenant is another's."""
    page = _Page()
    page.family(
        "lineshaft_info",
        "gauge",
        "What runs here.",
        [({"version": version, "store": store, "tier": tier}, 1)],
    )
    page.family("lineshaft_uptime_seconds", "gauge", "Since the process started.", [({}, round(uptime, 3))])
    page.family(
        "lineshaft_http_responses_total",
        "counter",
        "Answers by status.",
        [({"status": str(status)}, count) for status, count in sorted(requests.items())],
    )
    if stats is not None:
        _tenant(page, stats)
    page.family("lineshaft_pending_bytes", "gauge", "Accepted and not yet durable.", [({}, pending_bytes)])
    for family in cluster:
        page.family(f"lineshaft_{family.name}", family.kind, family.about, family.samples)
    for name, measured in sorted(gauges.items()):
        page.family(f"lineshaft_store_{name}", "gauge", "Measured by the store itself.", [({}, measured)])
    _queues(page, list(queues))
    _shards(page, list(shards))
    return page.text()


def _tenant(page: _Page, stats: StatsReply) -> None:
    page.family(
        "lineshaft_events_total",
        "counter",
        "What happened to tasks since the process started.",
        [({"event": name}, count) for name, count in sorted(stats.totals.items())],
    )
    for name, value, about in (
        ("leases", stats.leases, "Live leases."),
        ("workers", stats.workers, "Workers seen lately."),
        ("waiting_claims", stats.waiting_claims, "Claims parked until a task comes."),
        ("waiting_results", stats.waiting_results, "Requests that wait for a task to end."),
        ("position", stats.position, "The last commit."),
    ):
        page.family(f"lineshaft_{name}", "gauge", about, [({}, value)])


def _shards(page: _Page, shards: list[ShardMetrics]) -> None:
    for kind, suffix, fields in (("counter", "_total", _SHARD_COUNTERS), ("gauge", "", _SHARD_GAUGES)):
        for field, about in fields.items():
            samples: list[tuple[dict[str, str], float]] = [
                ({"shard": str(shard.shard)}, getattr(shard, field)) for shard in shards
            ]
            page.family(f"lineshaft_shard_{field}{suffix}", kind, about, samples)
    for field, about in (
        ("commit_seconds", "How long commits took."),
        ("batch_commands", "Commands in a commit."),
    ):
        page.histogram(
            f"lineshaft_shard_{field}", about, [(str(shard.shard), getattr(shard, field)) for shard in shards]
        )


def _queues(page: _Page, queues: list[QueueState]) -> None:
    page.family(
        "lineshaft_tasks",
        "gauge",
        "Tasks by queue and state.",
        [
            ({"queue": queue.queue, "state": state.word}, queue.counts.get(state, 0))
            for queue in queues
            for state in State
            if state in _OPEN or queue.counts.get(state, 0)
        ],
    )
    page.family(
        "lineshaft_queue_oldest_age_seconds",
        "gauge",
        "How long the first task that could run has waited.",
        [({"queue": queue.queue}, queue.oldest_age / 1000) for queue in queues],
    )
    page.family(
        "lineshaft_queue_paused",
        "gauge",
        "Whether no task may be claimed.",
        [({"queue": queue.queue}, int(queue.paused)) for queue in queues],
    )
    page.family(
        "lineshaft_queue_closed",
        "gauge",
        "Whether no task may be enqueued.",
        [({"queue": queue.queue}, int(queue.closed)) for queue in queues],
    )


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, about: str, samples: Iterable[tuple[dict[str, str], float]]
    ) -> None:
        self._lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            self._lines.append(f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}")

    def histogram(self, name: str, about: str, shards: list[tuple[str, Histogram]]) -> None:
        self._lines += [f"# HELP {name} {about}", f"# TYPE {name} histogram"]
        for shard, histogram in shards:
            for bound, count in histogram.cumulated():
                self._lines.append(f'{name}_bucket{{shard="{shard}",le="{bound}"}} {count}')
            self._lines.append(f'{name}_sum{{shard="{shard}"}} {histogram.total!r}')
            self._lines.append(f'{name}_count{{shard="{shard}"}} {histogram.count}')

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
