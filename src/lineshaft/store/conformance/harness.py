"""What the promises are told with: a store that is opened and closed around each, its owner, and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from lineshaft.core.batch import Batch, Blob, Change, Counters, Forgotten, Record, Snapshot
from lineshaft.core.task import Run, Spec, State, Task
from lineshaft.store.base import Ownership, Store

NOW = 1_767_312_245_678
SHARD = 0
TENANT = "acme"


class Owner:
    """Somebody who owns the shard and knows which position is next."""

    def __init__(self, store: Store, ownership: Ownership, position: int) -> None:
        self.store = store
        self.ownership = ownership
        self.position = position

    async def commit(self, **content: Any) -> Batch:
        """Commit the next batch; return it."""
        batch = self.batch(**content)
        await self.store.commit(self.ownership, batch)
        self.position = batch.position
        return batch

    def batch(self, *, position: int | None = None, nonce: bytes | None = None, **content: Any) -> Batch:
        """Return the batch that would be next."""
        position = self.position + 1 if position is None else position
        nonce = b"%d of %d" % (position, self.ownership.epoch) if nonce is None else nonce
        counters = content.pop("counters", Counters(now=NOW + position, seq=1_000_000, fence=7))
        return Batch(position=position, nonce=nonce, counters=counters, **content)

    async def put(self, *tasks: Task) -> Batch:
        """Commit rows."""
        return await self.commit(tasks=list(tasks))

    async def load(self) -> Snapshot:
        """Load the shard."""
        return await self.store.load(self.ownership)


async def acquire(store: Store, owner: bytes = b"an owner") -> Owner:
    """Take the shard and load it."""
    ownership = await store.acquire(SHARD, owner)
    return Owner(store, ownership, (await store.load(ownership)).position)


class Promises:
    """Base of the test classes; says how a store is made."""

    opened: Store
    blobs_go_with_their_task = True
    """False where the blobs of a pruned task may read as before for some time: nobody asks for them, since
    a `seq` never names another task."""

    async def make_store(self) -> Store:
        """Return a new, empty store, not yet opened."""
        raise NotImplementedError("say in make_store how your store is made")

    async def reopen(self, store: Store) -> Store:
        """Return the store as a restarted process would find it."""
        await store.close()
        await store.open(address="http://127.0.0.1:7077")
        return store

    async def restart(self, store: Store) -> Store:
        """Reopen, and remember what to close at the end."""
        self.opened = await self.reopen(store)
        return self.opened


Self = TypeVar("Self", bound=Promises)


def promise(tell: Callable[[Self, Store], Awaitable[None]]) -> Callable[[Self], None]:
    """Make a test of a coroutine that is given an open store."""

    async def run(promises: Self) -> None:
        store = promises.opened = await promises.make_store()
        await store.open(address="http://127.0.0.1:7077")
        try:
            await tell(promises, store)
        finally:
            await promises.opened.close()

    def test(self: Self) -> None:
        asyncio.run(run(self))

    test.__name__, test.__qualname__, test.__doc__ = tell.__name__, tell.__qualname__, tell.__doc__
    return test


def row(seq: int, id: str | None = None, **fields: Any) -> Task:
    """Return an open task; `name`, `queue` and `priority` go into its spec."""
    in_spec: dict[str, Any] = {"name": "send-mail"}
    in_spec |= {key: fields.pop(key) for key in ("name", "queue", "priority") if key in fields}
    base: dict[str, Any] = {
        "tenant": TENANT,
        "id": f"task-{seq}" if id is None else id,
        "spec": Spec(**in_spec),
        "state": State.QUEUED,
        "run_at": NOW,
        "created_at": NOW,
    }
    return Task(seq=seq, **(base | fields))


def finished(
    task: Task,
    state: State = State.COMPLETED,
    *,
    prune_at: int | None = NOW + 1_000,
    **run: Any,
) -> Task:
    """Return the task as it is after it has ended."""
    twin = task.snapshot()
    twin.state = state
    twin.run = Run(**({"attempt": 1, "finished_at": NOW, "prune_at": prune_at} | run))
    return twin


def forgotten(task: Task) -> Forgotten:
    """Return the deletion of a row."""
    return Forgotten(task.seq, task.tenant, task.id)


def change(task: Task, state: State | None = None, at: int = NOW) -> Change:
    """Return a line of the log."""
    moved_to = task.state if state is None else state
    return Change(task.seq, task.tenant, task.id, task.spec.name, task.spec.queue, moved_to, at)


def setting(key: str, data: bytes | None, *, kind: str = "queue", tenant: str = TENANT) -> Record:
    """Return a small row that is not a task."""
    return Record(kind, tenant, key, data)


def alike(left: object, right: object) -> bool:
    """Tell whether two values are the same to the last byte."""
    return msgspec.msgpack.encode(left) == msgspec.msgpack.encode(right)


async def everything(store: Store, tasks: Sequence[Task]) -> bytes:
    """Return all that a reader can see of some tasks, to be compared before and after."""
    keys = [(task.tenant, task.id) for task in tasks]
    blobs = [(kind, task.seq) for task in tasks for kind in Blob]
    seen = (await store.get(SHARD, keys), await store.read(SHARD, blobs), await store.log(SHARD, 0))
    return msgspec.msgpack.encode(seen)
