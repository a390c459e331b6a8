"""The store that every coordinator of a run shares: the truth, which is the real memory store."""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.core.batch import Batch, Blob
from lineshaft.core.task import Task
from lineshaft.errors import Fenced
from lineshaft.store.base import Ownership
from lineshaft.store.memory import MemoryStore
from tests.simulation.checker import Checker


class Disk:
    """Commits at the truth, and has each commit judged."""

    def __init__(self, checker: Checker) -> None:
        self.store = MemoryStore(exclusive=False)
        self.checker = checker
        self.position = 0
        self._attempted: dict[tuple[int, int, bytes], bytes] = {}

    async def apply(self, ownership: Ownership, batch: Batch) -> None:
        """Commit at the truth; judge what was committed."""
        self._same_batch_again(ownership, batch)
        try:
            await self.store.commit(ownership, batch)
        except Fenced as fence:
            self.checker.fenced(ownership, batch, str(fence))
            raise
        if batch.position == self.position + 1:
            self.position = batch.position
            self.checker.committed(ownership, batch)

    def _same_batch_again(self, ownership: Ownership, batch: Batch) -> None:
        key = (ownership.epoch, batch.position, batch.nonce)
        told = msgspec.msgpack.encode(batch)
        if self._attempted.setdefault(key, told) != told:
            self.checker.violated(f"another batch was tried under the nonce of position {batch.position}")

    # What is stored.

    def rows(self) -> dict[int, Task]:
        """Return every row."""
        data: Any = self.store._shards[0]
        rows: dict[int, Task] = data.tasks
        return rows

    def blob(self, kind: Blob, seq: int) -> bytes:
        """Return a blob; absent is null."""
        data: Any = self.store._shards[0]
        found: bytes | None = data.blobs.get((kind, seq))
        return b"null" if found is None else found

    def is_paused(self, tenant: str, queue: str) -> bool:
        """Tell whether a queue is paused."""
        data: Any = self.store._shards[0]
        record = data.records.get(("queue", tenant, queue))
        return record is not None and b"p" in record.data
