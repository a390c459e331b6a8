"""A store that does what a test tells it to: stall, fail before or after it has applied, fence, reject."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import Task
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.base import Ownership, Rejected, Roster
from lineshaft.store.memory import MemoryStore

POISON = b"poison"


class ScriptedStore(MemoryStore):
    """A memory store with a script for commits, and gates before commits, look-ups and reads."""

    def __init__(self, *, shards: int = 1, exclusive: bool = True) -> None:
        super().__init__(shards=shards, exclusive=exclusive)
        self.script: deque[str] = deque()
        """What becomes of the next commits: "ok", "unapplied", "applied", "crashed", "fence"."""
        self.commits: list[Batch] = []
        """Every batch that was sent, also again."""
        self.gate = asyncio.Event()
        self.look_up_gate = asyncio.Event()
        self.read_gate = asyncio.Event()
        self.load_gate = asyncio.Event()
        self.swap_gate = asyncio.Event()
        for gate in (self.gate, self.look_up_gate, self.read_gate, self.load_gate, self.swap_gate):
            gate.set()
        self.look_ups: list[list[tuple[str, str]]] = []
        self.reads: list[list[tuple[Blob, int]]] = []
        self.pruned_before: list[int] = []
        self.acquired = self.swapped = self.loaded = 0
        self.refuse_acquire: Exception | None = None
        self.refuse_get: Exception | None = None
        self.released = self.closed = False
        self.congested: str | None = None

    def congestion(self, shard: int) -> str | None:
        return self.congested

    def stall(self) -> None:
        self.gate.clear()

    def go_on(self) -> None:
        self.gate.set()

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        self.acquired += 1
        if self.refuse_acquire is not None:
            raise self.refuse_acquire
        return await super().acquire(shard, owner)

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        self.swapped += 1
        await self.swap_gate.wait()
        return await super().swap_roster(expected, data)

    async def load(self, ownership: Ownership) -> Snapshot:
        self.loaded += 1
        await self.load_gate.wait()
        return await super().load(ownership)

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        self.commits.append(batch)
        await asyncio.sleep(0)
        await self.gate.wait()
        outcome = self.script.popleft() if self.script else "ok"
        if outcome == "fence":
            raise Fenced("another owner has come")
        if outcome == "unapplied":
            raise Unavailable("no answer")
        if any(data is not None and POISON in data for _, _, data in batch.blobs):
            raise Rejected("a value cannot be stored")
        if any(record.data is not None and POISON in record.data for record in batch.records):
            raise Rejected("a record cannot be stored")
        await super().commit(ownership, batch)
        if outcome == "applied":
            raise Unavailable("the answer was lost")
        if outcome == "crashed":
            raise ZeroDivisionError("the driver has a bug")

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        self.look_ups.append(list(keys))
        if self.refuse_get is not None:
            raise self.refuse_get
        rows = await super().get(shard, keys)
        await asyncio.sleep(0)
        await self.look_up_gate.wait()
        return rows

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        self.reads.append(list(keys))
        await self.read_gate.wait()
        return await super().read(shard, keys)

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        self.pruned_before.append(before)
        return await super().prune(ownership, before=before, log_before=log_before, limit=limit)

    async def release(self, ownership: Ownership) -> None:
        self.released = True
        await super().release(ownership)

    async def close(self) -> None:
        self.closed = True
        await super().close()
