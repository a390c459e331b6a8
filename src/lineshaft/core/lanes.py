"""Lanes: where ready tasks wait in order.

A lane holds the tasks that any worker would take or leave alike: one queue, one name, one worker affinity. So
a claim needs to look at the heads of lanes only, and a task that nobody can run now never stands in the way
of one that somebody can. Order is (priority, run_at, arrival). Most tasks arrive in that order and lie in a
deque; one that does not lies in a heap beside it.

A task that leaves by another door than `pop` (cancelled, patched) is not searched for: it stays as a dead
entry, whose state is no longer `queued`, and is stepped over. Therefore a task object that has been withdrawn
must never become `queued` again; a copy takes its place.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from lineshaft.core.task import Affinity, State, Task

if TYPE_CHECKING:
    from lineshaft.core.claimers import Claimer
    from lineshaft.core.fleet import Worker
    from lineshaft.core.tenants import Queue

Order = tuple[int, int, int]
_TOLERATED_DEAD = 64


def order(task: Task) -> Order:
    """Return the place of a ready task among others: lower runs first."""
    return (task.spec.priority, task.run_at, task.seq)


class Lane:
    """The ready tasks of one queue, name and affinity, and the parked claimers that could take them."""

    __slots__ = (
        "affinity",
        "claimers",
        "dead",
        "heap",
        "line",
        "name",
        "needs",
        "pushed",
        "queue",
        "reserved_by",
        "size",
        "tail",
    )

    def __init__(self, queue: Queue, name: str, affinity: Affinity) -> None:
        self.queue = queue
        self.name = name
        self.affinity = affinity
        self.needs = frozenset(affinity.capability)
        self.size = 0
        self.dead = 0
        self.line: deque[Task] = deque()
        self.tail: Order | None = None
        self.heap: list[tuple[Order, int, Task]] = []
        self.pushed = 0
        self.claimers: dict[int, Claimer] = {}
        self.reserved_by: Worker | None = None

    def push(self, task: Task) -> None:
        """Let a ready task wait at its place."""
        place = order(task)
        if self.tail is None or not self.line or place >= self.tail:
            self.line.append(task)
            self.tail = place
        else:
            self.pushed += 1
            heapq.heappush(self.heap, (place, self.pushed, task))
        self.size += 1
        if self.size == 1:
            self.queue.ready[self] = None

    def head(self) -> Task | None:
        """Return the task that goes next, without taking it."""
        line, heap = self.line, self.heap
        while line and line[0].state is not State.QUEUED:
            line.popleft()
            self.dead -= 1
        while heap and heap[0][2].state is not State.QUEUED:
            heapq.heappop(heap)
            self.dead -= 1
        if heap and (not line or heap[0][0] < order(line[0])):
            return heap[0][2]
        return line[0] if line else None

    def pop(self) -> None:
        """Take the head away."""
        if self.heap and self.head() is self.heap[0][2]:
            heapq.heappop(self.heap)
        else:
            self.line.popleft()
        self._shrink()

    def withdraw(self) -> None:
        """Count one task out whose state has just ceased to be `queued`; its entry is dead now."""
        self.dead += 1
        self._shrink()
        if self.dead > _TOLERATED_DEAD and self.dead > self.size:
            self.line = deque(task for task in self.line if task.state is State.QUEUED)
            self.heap = [entry for entry in self.heap if entry[2].state is State.QUEUED]
            heapq.heapify(self.heap)
            self.dead = 0

    def ahead_of(self, place: Order) -> int:
        """Count about how many tasks go before a place (dead entries not yet stepped over count too)."""
        return bisect_left(self.line, place, key=order) + sum(other < place for other, _, _ in self.heap)

    def _shrink(self) -> None:
        self.size -= 1
        if self.size == 0:
            self.queue.ready.pop(self, None)
            if self.reserved_by is not None:
                self.reserved_by.reserved_for = None
                self.reserved_by = None
