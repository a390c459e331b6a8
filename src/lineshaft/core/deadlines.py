"""When time alone makes something happen.

Leases have a line of their own for each length: renewing one appends to the line, and what was renewed is
stepped over when its old entry comes up. Tasks to come lie in a heap. Another is for what mostly ends before
its time: parked requests and running attempts; there the dead are swept out whenever they are the majority,
else each claim that is answered at once would be kept for as long as it might have waited.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from operator import itemgetter
from typing import TYPE_CHECKING

from lineshaft.core.task import Task

if TYPE_CHECKING:
    from lineshaft.core.claimers import Claimer
    from lineshaft.core.tenants import Wait


_FEW = 1_000
"""Entries below which a sweep is not worth while."""


class Kind(IntEnum):
    """What a deadline in a heap is about; from `TIMEOUT` on it mostly ends before its time."""

    RUN_AT = 0
    EXPIRY = 1
    TIMEOUT = 2
    CLAIM = 3
    WAIT = 4


Entry = tuple[int, int, Kind, "Task | Claimer | Wait", int]
"""When, a serial number, and what `Deadlines.add` was told."""


class Deadlines:
    """All instants at which the shard must be told that time has passed."""

    __slots__ = ("_brief", "_count", "_heap", "_leases", "_matters", "_sweep_at")

    def __init__(self, matters: Callable[[Kind, Task | Claimer | Wait, int], bool]) -> None:
        """`matters` tells whether the deadline of a request or an attempt still means anything."""
        self._heap: list[Entry] = []
        self._brief: list[Entry] = []
        self._leases: dict[int, deque[tuple[int, Task, int]]] = {}
        self._count = 0
        self._matters = matters
        self._sweep_at = _FEW

    def add(self, at: int, kind: Kind, subject: Task | Claimer | Wait, mark: int = 0) -> None:
        """Set a deadline; `mark` tells later whether it still means anything (a fence, a run_at)."""
        self._count += 1
        entry = (at, self._count, kind, subject, mark)
        if kind < Kind.TIMEOUT:
            heapq.heappush(self._heap, entry)
            return
        if len(self._brief) >= self._sweep_at:
            self._sweep()
        heapq.heappush(self._brief, entry)

    def _sweep(self) -> None:
        """Drop the dead. What lives is as much as there are requests and leases, so this is quick."""
        self._brief = [entry for entry in self._brief if self._matters(*entry[2:])]
        heapq.heapify(self._brief)
        self._sweep_at = max(_FEW, 2 * len(self._brief))

    def add_lease(self, task: Task) -> None:
        """Watch the task's live lease until its present `expires_at`."""
        lease = task.lease
        assert lease is not None
        at = lease.expires_at
        line = self._leases.get(lease.ttl)
        if line is None:
            line = self._leases[lease.ttl] = deque()
        entry = (at, task, lease.fence)
        if line and line[-1][0] > at:
            # Only where a grace or a load has let others run longer than their TTL.
            insort(line, entry, key=itemgetter(0))
        else:
            line.append(entry)

    def next(self, *, leases: bool = True) -> int | None:
        """Return the earliest deadline, or None."""
        heads = [heap[0][0] for heap in (self._heap, self._brief) if heap]
        earliest = min(heads, default=None)
        if leases:
            for ttl in list(self._leases):
                head = self._lease_head(ttl)
                if head is not None and (earliest is None or head[0] < earliest):
                    earliest = head[0]
        return earliest

    def pop_due(self, now: int) -> tuple[Kind, Task | Claimer | Wait, int] | None:
        """Take one deadline of the heaps that has come, earliest first."""
        heap = self._heap
        if self._brief and (not heap or self._brief[0][:2] < heap[0][:2]):
            heap = self._brief
        if heap and heap[0][0] <= now:
            _, _, kind, subject, mark = heapq.heappop(heap)
            return kind, subject, mark
        return None

    def pop_lost_lease(self, now: int) -> Task | None:
        """Take one task whose lease has run out."""
        for ttl in list(self._leases):
            head = self._lease_head(ttl)
            if head is not None and head[0] <= now:
                self._leases[ttl].popleft()
                return head[1]
        return None

    def _lease_head(self, ttl: int) -> tuple[int, Task, int] | None:
        line = self._leases[ttl]
        while line:
            at, task, fence = line[0]
            lease = task.lease
            if lease is not None and lease.fence == fence and lease.expires_at == at:
                return line[0]
            line.popleft()
        del self._leases[ttl]
        return None
