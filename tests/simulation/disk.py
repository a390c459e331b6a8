"""The store that every coordinator of a run shares: the truth, which is the real memory store.

Each shard has a judge of its own, as each is a history of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec

from lineshaft.core.batch import Batch, Blob, Counters
from lineshaft.core.task import Task
from lineshaft.errors import Fenced
from lineshaft.store.base import LogRecord, Ownership
from lineshaft.store.memory import MemoryStore
from lineshaft.values.partitions import shard_of
from tests.simulation.checker import Checker

GAP = 40
"""By how much positions, arrivals and fences go on after a loss."""


class Disk:
    """Commits at the truth, and has each commit judged."""

    def __init__(self, note: Callable[[str], None], *, shards: int = 1) -> None:
        self.store = MemoryStore(shards=shards, exclusive=False)
        self.checkers = [Checker(note) for _ in range(shards)]
        """By number of the shard."""
        self.failovers = 0
        self._attempted: dict[tuple[int, int, int, bytes], bytes] = {}

    def checker_of(self, tenant: str) -> Checker:
        """Return the judge of a tenant's shard."""
        return self.checkers[self.shard_of(tenant)]

    def shard_of(self, tenant: str) -> int:
        """Return the shard of a tenant."""
        return shard_of(tenant, len(self.checkers))

    @property
    def commits(self) -> int:
        """Return how many commits there were."""
        return sum(checker.position for checker in self.checkers)

    @property
    def violations(self) -> list[str]:
        """Return every promise that was found broken."""
        return [told for checker in self.checkers for told in checker.violations]

    async def apply(self, ownership: Ownership, batch: Batch) -> None:
        """Commit at the truth; judge what was committed."""
        checker = self.checkers[ownership.shard]
        self._same_batch_again(checker, ownership, batch)
        try:
            await self.store.commit(ownership, batch)
        except Fenced as fence:
            checker.fenced(ownership, batch, str(fence))
            raise
        if batch.position == checker.position + 1:
            checker.committed(ownership, batch)

    def _same_batch_again(self, checker: Checker, ownership: Ownership, batch: Batch) -> None:
        key = (ownership.shard, ownership.epoch, batch.position, batch.nonce)
        told = msgspec.msgpack.encode(batch)
        if self._attempted.setdefault(key, told) != told:
            checker.violated(f"another batch was tried under the nonce of position {batch.position}")

    # Losing the end.

    def copy(self) -> list[Any]:
        """Return what is stored at present, for `fail_over`."""
        return [_copied(data) for data in self.store._shards]

    def fail_over(self, copies: list[Any]) -> bool:
        """Go on from a copy, as a store does that noticed what it lost; return whether anything was.

        Positions, arrivals and fences go on beyond all that were handed out, and nobody owns a shard.
        """
        lost = False
        self.failovers += 1
        for data, copied, checker in zip(self.store._shards, copies, self.checkers, strict=True):
            end, was, ends = copied.position, data.counters, copied.counters
            copied.epoch, copied.owner, copied.nonce = data.epoch + 1, None, b""
            if data.position > end:
                lost = True
                copied.position = data.position + GAP
                copied.counters = Counters(max(was.now, ends.now), was.seq + GAP, was.fence + GAP)
                for position in range(end + 1, copied.position + 1):
                    copied.log[position] = LogRecord(position, copied.counters.now, [])
                checker.lost_tail(end, data.position, resumes=copied.position)
            checker.epoch = copied.epoch
        self.store._shards[:] = copies
        return lost

    # What is stored.

    def rows(self, shard: int) -> dict[int, Task]:
        """Return every row of a shard."""
        data: Any = self.store._shards[shard]
        rows: dict[int, Task] = data.tasks
        return rows

    def blob(self, shard: int, kind: Blob, seq: int) -> bytes:
        """Return a blob; absent is null."""
        data: Any = self.store._shards[shard]
        found: bytes | None = data.blobs.get((kind, seq))
        return b"null" if found is None else found

    def is_paused(self, tenant: str, queue: str) -> bool:
        """Tell whether a queue is paused."""
        data: Any = self.store._shards[self.shard_of(tenant)]
        record = data.records.get(("queue", tenant, queue))
        return record is not None and b"p" in record.data


def _copied(data: Any) -> Any:
    # Rows are never changed once they are stored, so they may be shared.
    twin = copy.copy(data)
    for name, value in vars(data).items():
        if isinstance(value, dict | list):
            setattr(twin, name, value.copy())
    return twin
