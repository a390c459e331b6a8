"""A coordinator's connection to the store, on which everything goes wrong.

Calls fail before or after they were carried out, hang, or are carried out long after their caller has given
up; a stranger takes the shard over; batches are refused for what is in them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import Task
from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.base import Log, Ownership, Page, Query, Rejected, Roster
from tests.simulation.chance import Chance, Fault
from tests.simulation.disk import Disk
from tests.simulation.plan import UNSTORABLE
from tests.simulation.record import Record

T = TypeVar("T")


class Link:
    """A store, as far as the engine can tell."""

    url = "memory://simulated"
    tier = "none"

    def __init__(self, disk: Disk, chance: Chance, record: Record, *, name: str, shared: bool) -> None:
        """`shared`: several coordinators may be at the store, and agree by its roster."""
        self.disk = disk
        self.exclusive = not shared
        self.largest_commit: int | None = None
        self.shards = disk.store.shards
        self.cut_off_until = 0.0
        """Until then nothing goes through."""
        self.cut = False
        """The coordinator has crashed: nothing it asks for is answered any more."""
        self._committing = 0
        self.name = name
        self._chance = chance
        self._record = record
        self._delays = chance.random(f"delays of {name}")
        self._sending: dict[int, tuple[tuple[int, int], float]] = {}
        """By shard, the epoch and position that are being committed, and since when."""
        self._late: set[asyncio.Task[None]] = set()

    @property
    def committing(self) -> bool:
        """Whether a commit is under way."""
        return self._committing > 0

    async def open(self, *, address: str) -> None:
        await self.disk.store.open(address=address)

    async def close(self) -> None:
        """Leave the truth open: others use it."""

    # Ownership.

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        async def acquire() -> Ownership:
            ownership = await self.disk.store.acquire(shard, owner)
            self.disk.checkers[shard].acquired(ownership)
            self._record.say(self.name, f"takes {self._named(shard)} over, under epoch {ownership.epoch}")
            return ownership

        return await self._ask(acquire)

    async def renew(self, ownership: Ownership) -> None:
        await self._ask(lambda: self.disk.store.renew(ownership))

    async def release(self, ownership: Ownership) -> None:
        async def release() -> None:
            await self.disk.store.release(ownership)
            checker = self.disk.checkers[ownership.shard]
            if ownership.epoch == checker.epoch:
                checker.released()

        await self._ask(release)

    # Reading.

    async def load(self, ownership: Ownership) -> Snapshot:
        snapshot = await self._ask(lambda: self.disk.store.load(ownership))
        self.disk.checkers[ownership.shard].hearing.loaded(self._now())
        return snapshot

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

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        self.disk.checkers[ownership.shard].pruning(before)
        await self._travel()
        # Its answer is not lost here: what it removed would have to be counted again by a load.
        return await self.disk.store.prune(ownership, before=before, log_before=0, limit=limit)

    async def read_roster(self) -> Roster:
        return await self._ask(self.disk.store.read_roster)

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        fault = self._chance.draw("roster", "swap_lost", "swap_late")
        if fault is not None:
            self._record.tally[f"roster: {fault.kind}"] += 1
            delay = fault.random.uniform(0, 2) if fault.kind == "swap_late" else 0.0
            self._later(self._swap_late(expected, data, delay=delay))
            await self._sleep(fault.random.uniform(0, 0.5))
            raise TimeoutError("no answer from the store")
        return await self._ask(lambda: self.disk.store.swap_roster(expected, data))

    async def _swap_late(self, expected: int, data: bytes, *, delay: float) -> None:
        await asyncio.sleep(delay)
        there = await self.disk.store.swap_roster(expected, data)
        if delay and there.data == data:
            self._record.tally["roster: swapped late"] += 1

    def congestion(self, shard: int) -> str | None:
        return None

    def gauges(self) -> dict[str, float]:
        return {}

    # Committing.

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        slot, began = (ownership.epoch, batch.position), self._now()
        checker = self.disk.checkers[ownership.shard]
        known = self._sending.get(ownership.shard)
        if known is not None and known[0] == slot:
            began = known[1]
        self._sending[ownership.shard] = (slot, began)
        self._committing += 1
        try:
            await self._commit(ownership, batch)
        finally:
            self._committing -= 1
        if ownership.epoch == checker.epoch:  # else the answer came when another listened already
            checker.hearing.stalled(began, self._now())

    async def _commit(self, ownership: Ownership, batch: Batch) -> None:
        fault = self._chance.draw(
            "commits", "refused", "stall", "answer_lost", "answered_twice", "timed_out", "fence"
        )
        kind = None if fault is None else fault.kind
        self._record.commit(self.name, ownership, batch, kind)
        await self._travel()
        if fault is not None:
            await self._before(ownership, batch, fault)
        await self._apply(ownership, batch, delay=self._delays.uniform(0, 0.004))
        if kind == "answered_twice":
            # Something on the way has sent it again, and the second answer is the one that arrives.
            await self._apply(ownership, batch, delay=self._delays.uniform(0, 2))
        await self._travel()
        if kind == "answer_lost":
            raise Unavailable("the connection was reset")

    async def _before(self, ownership: Ownership, batch: Batch, fault: Fault) -> None:
        random = fault.random
        self._record.tally[f"store: {fault.kind}"] += 1
        match fault.kind:
            case "refused":
                await self._travel()
                raise Unavailable("the store refused the connection")
            case "stall":
                await self._sleep(random.uniform(0.5, 20))
            case "fence":
                stranger = await self.disk.store.acquire(ownership.shard, b"a stranger")
                self.disk.checkers[stranger.shard].acquired(stranger)
                self._record.say(
                    "a stranger", f"takes {self._named(stranger.shard)} over, under epoch {stranger.epoch}"
                )
            case "timed_out":
                self._later(self._apply_late(ownership, batch, delay=random.uniform(0, 5)))
                await self._sleep(random.uniform(0, 2))
                raise TimeoutError("no answer from the store")

    async def _apply(self, ownership: Ownership, batch: Batch, *, delay: float) -> None:
        landing = self._delays.random() < 0.5
        await asyncio.sleep(delay)
        if self.cut:
            self._record.tally["coordinator: crashed while its commit was on the way"] += 1
            if not landing:
                await asyncio.Event().wait()
        if any(data is not None and UNSTORABLE in data for _, _, data in batch.blobs):
            self._record.tally["store: rejected for good"] += 1
            raise Rejected("a value that the store cannot hold")
        await self.disk.apply(ownership, batch)

    async def _apply_late(self, ownership: Ownership, batch: Batch, *, delay: float) -> None:
        try:
            await self._apply(ownership, batch, delay=delay)
        except LineshaftError as error:
            self._record.tally["store: timed out, and refused later"] += 1
            self._record.say("the store", f"refuses a late commit: {error}")
        else:
            self._record.tally["store: timed out, and applied later"] += 1

    def _later(self, apply: Coroutine[None, None, None]) -> None:
        # In a context of its own, for it outlives the coordinator that has sent it.
        task = asyncio.get_running_loop().create_task(apply, context=contextvars.Context())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _named(self, shard: int) -> str:
        return "the shard" if self.shards == 1 else f"shard {shard}"

    # The way there and back.

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._travel()
        if self._chance.draw("reads", "unreadable") is not None:
            self._record.tally["store: unreadable"] += 1
            raise Unavailable("the store did not answer")
        answer = await call()
        await self._travel()
        return answer

    async def _travel(self) -> None:
        await self._sleep(self._delays.uniform(0, 0.003))

    async def _sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if self.cut_off_until > self._now():
            await asyncio.sleep(self.cut_off_until - self._now())
        if self.cut:
            await asyncio.Event().wait()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
