"""Workers as the shard knows them: what they can do, what they hold, what they have free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lineshaft.core.commands import WorkerInfo
from lineshaft.core.task import Task

if TYPE_CHECKING:
    from lineshaft.core.claimers import Claimer
    from lineshaft.core.lanes import Lane

FORGET_AFTER = 300_000
"""A worker that holds nothing and was not heard of for this long is forgotten."""

RESERVE_AFTER = 30_000
"""How long a big request may be overtaken by smaller ones before a worker is kept free for it."""

_ROUNDING = 1 + 1e-9
"""Tenths given back in another order than they were taken must all be free again."""

Amounts = tuple[tuple[str, float], ...]


class Worker:
    """One incarnation of a worker."""

    __slots__ = (
        "capabilities",
        "claimers",
        "held",
        "info",
        "names",
        "queues",
        "reserved_for",
        "resources",
        "seen_at",
        "used",
    )

    def __init__(self, info: WorkerInfo, now: int) -> None:
        self.held: dict[int, Task] = {}
        self.claimers: dict[int, Claimer] = {}
        self.used: dict[str, float] = {}
        self.reserved_for: Lane | None = None
        self.queues: tuple[str, ...] | None = None
        self.names: tuple[str, ...] | None = None
        self.hear(info, now)

    def hear(self, info: WorkerInfo, now: int) -> None:
        """Take over what the worker says of itself now."""
        self.info = info
        self.capabilities = frozenset(info.capabilities)
        self.resources = dict(info.resources)
        self.seen_at = now

    def capable(self, lane: Lane) -> bool:
        """Tell whether it could run the lane's tasks if it held nothing else."""
        return lane.needs <= self.capabilities and all(
            self.resources.get(name, 0) >= amount for name, amount in lane.affinity.resources
        )

    def has_free(self, amounts: Amounts) -> bool:
        """Tell whether the amounts are free now."""
        return all(
            self.resources.get(name, 0) * _ROUNDING - self.used.get(name, 0) >= amount
            for name, amount in amounts
        )

    def kept_from(self, lane: Lane) -> bool:
        """Tell whether the lane's tasks would eat into what is reserved for another lane."""
        reserved = self.reserved_for
        if reserved is None or reserved is lane or not self.capable(reserved):
            return False
        wanted = {name for name, _ in reserved.affinity.resources}
        return any(name in wanted for name, _ in lane.affinity.resources)

    def reserve(self, lane: Lane) -> None:
        """Keep what comes free for the lane's head, unless this or another worker is reserved already."""
        if self.reserved_for is None and lane.reserved_by is None:
            self.reserved_for = lane
            lane.reserved_by = self

    def end_reservation(self) -> None:
        """Take part again in everything."""
        if self.reserved_for is not None:
            self.reserved_for.reserved_by = None
            self.reserved_for = None

    def hold(self, task: Task) -> None:
        """Count a leased task in."""
        self.held[task.seq] = task
        for name, amount in task.spec.affinity.resources:
            self.used[name] = self.used.get(name, 0) + amount

    def let_go(self, task: Task) -> bool:
        """Count a task out; tell whether that freed resources."""
        self.held.pop(task.seq, None)
        resources = task.spec.affinity.resources
        if not resources:
            return False
        for name, amount in resources:
            left = self.used.get(name, 0) - amount
            if left > 0:
                self.used[name] = left
            else:
                self.used.pop(name, None)
        return True


class Fleet:
    """The workers of one tenant, by id and incarnation."""

    __slots__ = ("draining", "workers")

    def __init__(self) -> None:
        self.workers: dict[tuple[str, str | None], Worker] = {}
        self.draining: dict[str, str] = {}
        """Worker id → the incarnation that is to go ("" where it names none)."""

    def hear(self, info: WorkerInfo, now: int) -> Worker:
        """Note a sign of life and return the worker."""
        worker = self.workers.get((info.id, info.incarnation))
        if worker is None:
            self.forget_silent(now)
            worker = self.workers[(info.id, info.incarnation)] = Worker(info, now)
        else:
            worker.hear(info, now)
        return worker

    def of(self, worker_id: str | None, incarnation: str | None) -> Worker | None:
        """Return the worker that a lease names, if it names one that is known."""
        return None if worker_id is None else self.workers.get((worker_id, incarnation))

    def is_draining(self, worker: Worker) -> bool:
        """Tell whether the worker was asked to go."""
        return self.draining.get(worker.info.id) == (worker.info.incarnation or "")

    def forget_silent(self, now: int) -> None:
        """Forget who holds nothing, waits for nothing and was not heard of for long."""
        for key, worker in list(self.workers.items()):
            if not worker.held and not worker.claimers and now - worker.seen_at > FORGET_AFTER:
                worker.end_reservation()
                del self.workers[key]
