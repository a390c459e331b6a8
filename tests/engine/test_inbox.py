"""The inbox of a store is drained at once, in order, and what cannot be taken stays there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest

from lineshaft.core.batch import Batch
from lineshaft.core.commands import Claim, Get, NewTask, SetQueue
from lineshaft.core.task import Spec
from lineshaft.engine.engine import Engine
from lineshaft.engine.inbox import AT_ONCE
from lineshaft.engine.limits import Limits
from lineshaft.errors import NotFound, Unavailable
from lineshaft.store.base import Inbox, InboxItem, Ownership, Rejected
from lineshaft.store.memory import MemoryStore

SOON = 20


class Postbox(MemoryStore):
    """A memory store with an inbox; `trouble` is raised by the next look into it."""

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[int, InboxItem] = {}
        self.trouble: list[Exception] = []
        self.looks = 0
        self.wakes: list[Callable[[], None]] = []
        self.unstorable = ""

    def post(self, *ids: str, tenant: str = "t") -> None:
        for id in ids:
            number = len(self.items) + 1 + max(self.items, default=0)
            self.items[number] = InboxItem(number, tenant, NewTask(id=id, spec=Spec(name="mail"), given=True))
        for wake in self.wakes:
            wake()

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        if any(task.id == self.unstorable for task in batch.tasks):
            raise Rejected("too odd")
        await super().commit(ownership, batch)
        made = {(task.tenant, task.id) for task in batch.tasks}
        self.items = {n: item for n, item in self.items.items() if (item.tenant, item.task.id) not in made}

    def watch_inbox(self, shard: int, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    async def read_inbox(self, ownership: Ownership, *, limit: int) -> list[InboxItem]:
        self.looks += 1
        if self.trouble:
            raise self.trouble.pop(0)
        return list(self.items.values())[:limit]

    async def clear_inbox(self, ownership: Ownership, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.items.pop(number, None)


def engine_on(store: Postbox) -> Engine:
    assert isinstance(store, Inbox)
    return Engine(store, limits=Limits(backoff=1))


async def empty(engine: Engine, store: Postbox, *, left: int = 0) -> None:
    async with asyncio.timeout(SOON):
        while len(store.items) > left:
            position = engine.position("t")
            if len(store.items) > left:
                change = engine.changed("t", position)
                await asyncio.wait([change], timeout=0.05)
                change.cancel()


async def test_what_was_there_and_what_comes_is_taken_in_order() -> None:
    store = Postbox()
    store.post("a", "b")
    async with engine_on(store) as engine:
        await empty(engine, store)
        store.post("c")
        await empty(engine, store)
        looks = store.looks
        claimed = await engine.submit(Claim(tenant="t", max=9))
        assert [task.id for task in claimed.tasks] == ["a", "b", "c"]
        assert store.looks == looks
    assert store.wakes == []


async def test_more_than_fits_is_taken_in_turns() -> None:
    store = Postbox()
    ids = [f"{number:05}" for number in range(2 * AT_ONCE + 1)]
    store.post(*ids)
    async with engine_on(store) as engine:
        await empty(engine, store)
        claimed = await engine.submit(Claim(tenant="t", max=len(ids)))
        assert [task.id for task in claimed.tasks] == ids


async def test_it_looks_again_when_the_store_did_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    store = Postbox()
    store.trouble = [Unavailable("not now"), RuntimeError("a bug")]
    store.post("a")
    async with engine_on(store) as engine:
        await empty(engine, store)
        assert (await engine.submit(Get(tenant="t", id="a"))).task.id == "a"
    assert "cannot take from its inbox: not now" in caplog.text


async def test_what_there_was_before_is_cleared() -> None:
    store = Postbox()
    async with engine_on(store) as engine:
        store.post("a")
        await empty(engine, store)
        store.post("a")
        await empty(engine, store)
        assert len((await engine.submit(Claim(tenant="t", max=9))).tasks) == 1


async def test_a_queue_closed_since_takes_it() -> None:
    store = Postbox()
    async with engine_on(store) as engine:
        await engine.submit(SetQueue(tenant="t", queue="default", closed=True))
        store.post("a")
        await empty(engine, store)


async def test_what_can_never_be_stored_stays_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = Postbox()
    store.unstorable = "odd"
    store.post("odd", "even", tenant="other")
    with caplog.at_level(logging.ERROR):
        async with engine_on(store) as engine:
            store.post("a", "b")
            await empty(engine, store, left=1)
            store.post("c")
            await empty(engine, store, left=1)
            assert [item.task.id for item in store.items.values()] == ["odd"]
            assert (await engine.submit(Get(tenant="other", id="even"))).task.id == "even"
            with pytest.raises(NotFound):
                await engine.submit(Get(tenant="other", id="odd"))
    assert "task odd of tenant other stays in the inbox" in caplog.text
