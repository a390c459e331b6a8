"""The screen of `lineshaft top`: head, queues, workers, what runs and what failed last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from lineshaft.cli import queues, workers
from lineshaft.cli.output import STYLES, visible
from lineshaft.cli.spans import ago, span
from lineshaft.cli.tables import make_table
from lineshaft.cli.tasks import error_text

if TYPE_CHECKING:
    from lineshaft import wire
    from lineshaft.cli.top import Snapshot

_STATES = ("scheduled", "waiting", "queued", "claimed", "running", "completed", "failed", "cancelled")


def view(url: str, snapshot: Snapshot) -> RenderableType:
    """Return everything that one snapshot shows; sections without rows are left out."""
    parts: list[RenderableType] = [_head(url, snapshot), _states(snapshot.stats)]
    if snapshot.rates is not None:
        parts.append(_rates(snapshot.rates))
    if snapshot.queues:
        parts.append(make_table(queues.COLUMNS, [queues.row(queue) for queue in snapshot.queues]))
    if snapshot.workers:
        parts.append(make_table(workers.COLUMNS, [workers.row(worker) for worker in snapshot.workers]))
    if snapshot.running:
        columns = ("running", "name~", "queue?", "worker?", "attempt#?", "since#", "progress#")
        parts.append(make_table(columns, [_running(task) for task in snapshot.running]))
    if snapshot.failed:
        named = ("failed last", "name~", "queue?", "when#", "error~")
        parts.append(make_table(named, [_failed(task) for task in snapshot.failed]))
    return Group(*parts)


def _head(url: str, snapshot: Snapshot) -> Text:
    stats = snapshot.stats
    return Text.assemble(
        ("lineshaft ", "bold"),
        f"{visible(stats.version)} at {visible(url)}, up {span(stats.uptime)}\n",
        (f"{visible(stats.store)} (survives: {visible(stats.tier)}), position {stats.position}", "dim"),
    )


def _states(stats: wire.Stats) -> Text:
    line = Text()
    for state in _STATES:
        count = stats.counts.get(state, 0)
        if count or state in ("queued", "running", "completed", "failed"):
            line.append(f"{state} ", style=STYLES[state]).append(f"{count}  ", style="bold")
    return line


def _rates(rates: dict[str, float]) -> Text:
    return Text("  ".join(f"{name} {rate:g}/s" for name, rate in rates.items()))


def _running(task: wire.Task) -> tuple[object, ...]:
    progress = None
    if task.progress is not None and task.progress.done is not None:
        total = f"/{task.progress.total:g}" if task.progress.total is not None else ""
        progress = f"{task.progress.done:g}{total}"
    return (
        task.task_id,
        task.name,
        task.queue,
        task.worker_id,
        task.attempt,
        ago(task.started_at),
        progress,
    )


def _failed(task: wire.Task) -> tuple[object, ...]:
    error = None if task.error is None else error_text(task.error)
    return (task.task_id, task.name, task.queue, ago(task.finished_at), error)
