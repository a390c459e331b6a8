"""What several partitions answer, made one answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from lineshaft.errors import LineshaftError, NotOwner, Retryable, Unavailable
from lineshaft.wire import Queue, QueueList, Stats, Swept, WorkerInfo, WorkerList

T = TypeVar("T")


def all_of(answers: Sequence[T | BaseException]) -> list[T]:
    """Return the answers where all partitions gave one; else raise the worst of what they said.

    What some have done and others for now cannot is `Unavailable`: it is to be repeated.
    """
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if not errors:
        return [answer for answer in answers if not isinstance(answer, BaseException)]
    worst = max(errors, key=_gravity)
    if len(errors) < len(answers) and isinstance(worst, Retryable | NotOwner):
        raise Unavailable(
            f"{len(errors)} of {len(answers)} partitions cannot for now, repeat the whole: {worst.reason}",
            retry_after=worst.retry_after,
        ) from worst
    raise worst


def _gravity(error: BaseException) -> int:
    if not isinstance(error, LineshaftError):
        return 3
    if isinstance(error, Unavailable):
        return 2
    return 1 if isinstance(error, Retryable | NotOwner) else 0


def queue(parts: Sequence[Queue]) -> Queue:
    """Return one queue. A switch is on where it is on anywhere, as after a call that half failed."""
    return Queue(
        queue=parts[0].queue,
        paused=any(part.paused for part in parts),
        closed=any(part.closed for part in parts),
        backlog=sum(part.backlog for part in parts),
        running=sum(part.running for part in parts),
        oldest_age=max(part.oldest_age for part in parts),
        # A worker asks all partitions, but perhaps was busy with one of them for a while.
        workers=max(part.workers for part in parts),
        counts=counts(part.counts for part in parts),
        position=max(part.position for part in parts),
    )


def queues(lists: Sequence[QueueList]) -> QueueList:
    """Return all queues, by name."""
    parts: dict[str, list[Queue]] = {}
    for each in lists:
        for part in each.queues:
            parts.setdefault(part.queue, []).append(part)
    return QueueList(queues=[queue(parts[name]) for name in sorted(parts)])


def counts(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return sums by key."""
    summed: dict[str, int] = {}
    for part in parts:
        for key, count in part.items():
            summed[key] = summed.get(key, 0) + count
    return summed


def worker(parts: Sequence[WorkerInfo]) -> WorkerInfo:
    """Return one worker: what it last said of itself, and what it holds everywhere.

    A partition was told of its resources without those in use elsewhere (see `claiming`).
    """
    latest = max(parts, key=lambda part: part.seen_at)
    elsewhere = {name: sum(used(part).get(name, 0) for part in parts) for name in latest.resources}
    own = used(latest)
    total = {
        name: _whole(amount + elsewhere[name] - own.get(name, 0)) for name, amount in latest.resources.items()
    }
    positions = [part.position for part in parts if part.position is not None]
    return msgspec.structs.replace(
        latest,
        held=sum(part.held for part in parts),
        waiting=any(part.waiting for part in parts),
        draining=any(part.draining for part in parts),
        resources=total,
        free={name: _whole(total[name] - elsewhere[name]) for name in total},
        position=max(positions, default=None),
    )


def used(part: WorkerInfo) -> dict[str, float]:
    """Return how much of its resources a worker's tasks take in one partition."""
    return {name: amount - part.free.get(name, 0) for name, amount in part.resources.items()}


def workers(lists: Sequence[WorkerList]) -> WorkerList:
    """Return all workers, by id."""
    parts: dict[tuple[str, str], list[WorkerInfo]] = {}
    for each in lists:
        for part in each.workers:
            parts.setdefault((part.worker_id, part.incarnation or ""), []).append(part)
    return WorkerList(workers=[worker(parts[key]) for key in sorted(parts)])


def swept(parts: Sequence[Swept]) -> Swept:
    """Return sums, and the largest position."""
    return Swept(
        matched=sum(part.matched for part in parts),
        changed=sum(part.changed for part in parts),
        position=max(part.position for part in parts),
    )


def stats(parts: Sequence[Stats], *, queues: int, workers: int) -> Stats:
    """Return sums; a claim that waits does so in every partition, and is one."""
    return msgspec.structs.replace(
        parts[0],
        counts=counts(part.counts for part in parts),
        queues=queues,
        workers=workers,
        waiting_claims=max(part.waiting_claims for part in parts),
        waiting_results=sum(part.waiting_results for part in parts),
        leases=sum(part.leases for part in parts),
        totals=counts(part.totals for part in parts),
        position=max(part.position for part in parts),
        now=max(part.now for part in parts),
    )


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number
