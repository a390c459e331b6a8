"""When time alone makes something happen.

Leases have a line of their own for each length: renewing one appends to the line, and what was renewed is
stepped over when its old entry comes up. Everything rarer lies in one heap.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from enum import IntEnum
from operator import itemgetter
from typing import TYPE_CHECKING

from lineshaft.core.task import Task

if TYPE_CHECKING:
    from lineshaft.core.claimers import Claimer
    from lineshaft.core.tenants import Wait


class Kind(IntEnum):
    """What a deadline in the heap is about."""

    RUN_AT = 0
    EXPIRY = 1
    TIMEOUT = 2
    CLAIM = 3
    WAIT = 4


Subject = "Task | Claimer | Wait"


class Deadlines:
    """All instants at which the shard must be told that time has passed."""

    __slots__ = ("_count", "_heap", "_leases")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Kind, Task | Claimer | Wait, int]] = []
        self._leases: dict[int, deque[tuple[int, Task, int]]] = {}
        self._count = 0

    def add(self, at: int, kind: Kind, subject: Task | Claimer | Wait, mark: int = 0) -> None:
        """Set a deadline; `mark` tells later whether it still means anything (a fence, a run_at)."""
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, kind, subject, mark))

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
        earliest = self._heap[0][0] if self._heap else None
        if leases:
            for ttl in list(self._leases):
                head = self._lease_head(ttl)
                if head is not None and (earliest is None or head[0] < earliest):
                    earliest = head[0]
        return earliest

    def pop_due(self, now: int) -> tuple[Kind, Task | Claimer | Wait, int] | None:
        """Take one deadline of the heap that has come, earliest first."""
        if self._heap and self._heap[0][0] <= now:
            _, _, kind, subject, mark = heapq.heappop(self._heap)
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
