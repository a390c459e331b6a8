"""The store that every coordinator of a run shares, and a connection to it on which everything goes wrong.

The truth is the real memory store. A `Link` is what one coordinator sees of it: calls that fail before or
after they were carried out, that hang, or are carried out long after their caller has given up; a stranger
who takes the shard over; batches refused for what is in them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import Task
from lineshaft.errors import Fenced, LineshaftError, Unavailable
from lineshaft.store.base import Log, Ownership, Page, Query, Rejected
from lineshaft.store.memory import MemoryStore
from tests.simulation.checker import Checker
from tests.simulation.plan import CALM, UNSTORABLE, Faults

T = TypeVar("T")


class Disk:
    """The truth, and who may be told of each commit."""

    def __init__(self, checker: Checker) -> None:
        self.store = MemoryStore()
        self.checker = checker
        self.faults: Faults = CALM
        self.position = 0
        self.owner = b""
        self.owned_until = 0.0
        """Until then nobody else may acquire the shard (seconds of the loop)."""
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


class Link:
    """One coordinator's connection to the disk; a store as far as the engine can tell."""

    url = "memory://simulated"
    tier = "none"
    shards = 1

    def __init__(
        self, disk: Disk, random: Random, *, valid_for: int | None, note: Callable[[str], None]
    ) -> None:
        self.disk = disk
        self.cut_off_until = 0.0
        """Until then nothing goes through."""
        self.cut = False
        """The coordinator has crashed: nothing it asks for is answered any more."""
        self._random = random
        self._valid_for = valid_for
        self._epoch = 0
        self._note = note
        self._late: set[asyncio.Task[None]] = set()

    async def open(self, *, address: str) -> None:
        await self.disk.store.open(address=address)

    async def close(self) -> None:
        """Leave the truth open: others use it."""

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        async def acquire() -> Ownership:
            if owner != self.disk.owner and self._now() < self.disk.owned_until:
                raise Unavailable("somebody else owns the shard")
            self.disk.owner = owner
            ownership = await self.disk.store.acquire(shard, owner)
            self.disk.checker.acquired(ownership)
            self._lease(ownership.epoch)
            return msgspec.structs.replace(ownership, valid_for=self._valid_for)

        ownership = await self._ask(acquire)
        self._epoch = ownership.epoch
        return ownership

    async def renew(self, ownership: Ownership) -> None:
        async def renew() -> None:
            await self.disk.store.renew(ownership)
            self._lease(ownership.epoch)

        await self._ask(renew)

    async def release(self, ownership: Ownership) -> None:
        async def release() -> None:
            await self.disk.store.release(ownership)
            if ownership.epoch == self.disk.checker.epoch:
                self.disk.checker.released()
                self.disk.owned_until = 0.0

        await self._ask(release)

    def _lease(self, epoch: int) -> None:
        if self._valid_for is not None and epoch == self.disk.checker.epoch:
            self.disk.owned_until = max(self.disk.owned_until, self._now() + self._valid_for / 1000)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def load(self, ownership: Ownership) -> Snapshot:
        return await self._ask(lambda: self.disk.store.load(ownership))

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        return await self._ask(lambda: self.disk.store.get(shard, keys))

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        return await self._ask(lambda: self.disk.store.read(shard, keys))

    async def search(self, shard: int, query: Query) -> Page:
        return await self._ask(lambda: self.disk.store.search(shard, query))

    async def count(self, shard: int, query: Query) -> int:
        return await self._ask(lambda: self.disk.store.count(shard, query))

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        return await self._ask(lambda: self.disk.store.log(shard, after, limit=limit))

    async def prune(self, shard: int, *, before: int, log_before: int, limit: int = 10_000) -> list[Census]:
        self.disk.checker.pruning(before)
        await self._travel()
        if self._epoch != self.disk.checker.epoch:
            raise Fenced("only the owner prunes, for it counts what is left")
        # Its answer is not lost here: what it removed would have to be counted again by a load.
        return await self.disk.store.prune(shard, before=before, log_before=0, limit=limit)

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        what = self._draw()
        await self._travel()
        self._note(f"commit {batch.position} of epoch {ownership.epoch}{f': {what}' if what else ''}")
        if what == "fail":
            await self._travel()
            raise Unavailable("the store refused the connection")
        if what == "stall":
            await self._sleep(self._random.uniform(0.5, 20))
        if what == "fence":
            await self._sleep(max(0.0, self.disk.owned_until - self._now()))
            stranger = await self.disk.store.acquire(ownership.shard, b"a stranger")
            self.disk.checker.acquired(stranger)
        if what == "late":
            self._later(self._apply(ownership, batch, delay=self._random.uniform(0, 5)))
            await self._sleep(self._random.uniform(0, 2))
            raise TimeoutError("no answer from the store")
        await self._apply(ownership, batch, delay=self._random.uniform(0, 0.004))
        await self._travel()
        if what == "lost_answer":
            raise Unavailable("the connection was reset")

    async def _apply(self, ownership: Ownership, batch: Batch, *, delay: float) -> None:
        landing = self._random.random() < 0.5
        await asyncio.sleep(delay)
        if self.cut and not landing:
            await asyncio.Event().wait()
        if any(data is not None and UNSTORABLE in data for _, _, data in batch.blobs):
            raise Rejected("a value that the store cannot hold")
        await self.disk.apply(ownership, batch)
        self._lease(ownership.epoch)

    def _later(self, apply: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            try:
                await apply
            except LineshaftError as error:
                self._note(f"late commit: {error}")

        # In a context of its own, for it outlives the coordinator that has sent it.
        task = asyncio.get_running_loop().create_task(quietly(), context=contextvars.Context())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _draw(self) -> str | None:
        faults = self.disk.faults
        for name in ("fail", "stall", "lost_answer", "late", "fence"):
            if self._random.random() < getattr(faults, name):
                return name
        return None

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._travel()
        if self._random.random() < self.disk.faults.read:
            raise Unavailable("the store did not answer")
        answer = await call()
        await self._travel()
        return answer

    async def _travel(self) -> None:
        await self._sleep(self._random.uniform(0, 0.003))

    async def _sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await asyncio.sleep(max(0.0, self.cut_off_until - self._now()))
        if self.cut:
            await asyncio.Event().wait()


def rows_of(disk: Disk) -> dict[int, Task]:
    """Return every row of the truth."""
    data: Any = disk.store._shards[0]
    rows: dict[int, Task] = data.tasks
    return rows


def blob_of(disk: Disk, kind: Blob, seq: int) -> bytes:
    """Return a blob of the truth; absent is null."""
    data: Any = disk.store._shards[0]
    found: bytes | None = data.blobs.get((kind, seq))
    return b"null" if found is None else found
