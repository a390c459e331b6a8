"""The screen of `lineshaft top`: head, queues, what runs and what failed last, workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
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


_ROWS = ((1000, 10, 5), (8, 10, 5), (5, 8, 4), (4, 5, 3), (3, 3, 2), (2, 2, 1), (1, 1, 1))
"""How many queues, running and failed tasks are shown: the first that fits."""
_CLIPPED = 60
"""Characters of an error where the height is limited."""


def view(url: str, snapshot: Snapshot) -> RenderableType:
    """Return everything that one snapshot shows; sections without rows are left out."""
    parts = [_head(url, snapshot), *_top(snapshot, _ROWS[0], clip=None)]
    return Group(*parts, *_workers(snapshot, len(snapshot.workers)))


def live_view(url: str, snapshot: Snapshot, screen: Console) -> RenderableType:
    """Return what fits on a screen: workers have the room that tasks leave."""
    head = _head(url, snapshot).append("\nCtrl-C ends", "dim")
    left = -1
    group = Group()
    for rows in _ROWS:
        if left < 0:
            group = Group(head, *_top(snapshot, rows, clip=_CLIPPED))
            left = screen.height - len(screen.render_lines(group))
    return Group(group, *_workers(snapshot, left - _TABLE_HEAD))


_TABLE_HEAD = 2
"""Lines of a table above its rows."""


def _top(snapshot: Snapshot, rows: tuple[int, int, int], *, clip: int | None) -> list[RenderableType]:
    shown_queues, shown_running, shown_failed = rows
    parts: list[RenderableType] = [_states(snapshot.stats)]
    if snapshot.rates is not None:
        parts.append(_rates(snapshot.rates))
    if snapshot.queues:
        busiest = _busiest(snapshot.queues, shown_queues)
        parts.append(make_table(queues.COLUMNS, [queues.row(one) for one in busiest]))
        parts += _more(len(snapshot.queues) - len(busiest), "queues")
    if snapshot.running:
        columns = ("running", "name~", "queue?", "worker?", "attempt#?", "since#", "progress#")
        parts.append(make_table(columns, [_running(task) for task in snapshot.running[:shown_running]]))
    if snapshot.failed:
        named = ("failed last", "name~", "queue?", "when#", "error~")
        parts.append(make_table(named, [_failed(task, clip) for task in snapshot.failed[:shown_failed]]))
    return parts


def _busiest(rows: Sequence[wire.Queue], most: int) -> list[wire.Queue]:
    """Return those with the most to do where not all fit, in the order that they have."""
    by_work = sorted(rows, key=lambda queue: queue.backlog + queue.running, reverse=True)
    chosen = {queue.queue for queue in by_work[:most]}
    return [queue for queue in rows if queue.queue in chosen]


def _more(count: int, what: str) -> list[RenderableType]:
    """Say that there are others; nothing is left out without a word."""
    return [Text(f"… and {count} more {what}", "dim")] if count > 0 else []


def _workers(snapshot: Snapshot, most: int) -> list[RenderableType]:
    every = len(snapshot.workers)
    shown = every if every <= most else max(0, most - 1)  # a line says how many others there are
    rows = [workers.row(worker) for worker in snapshot.workers[:shown]]
    table: list[RenderableType] = [make_table(workers.COLUMNS, rows)] if rows else []
    return table + (_more(every - shown, "workers") if most + _TABLE_HEAD > 0 else [])


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
    return line.append("workers ").append(str(stats.workers), style="bold")


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


def _failed(task: wire.Task, clip: int | None) -> tuple[object, ...]:
    error = None if task.error is None else error_text(task.error)
    if error is not None and clip is not None and len(error) > clip:
        error = error[: clip - 2] + " …"
    return (task.task_id, task.name, task.queue, ago(task.finished_at), error)
