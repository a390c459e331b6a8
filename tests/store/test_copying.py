"""An installation moves from one store to another and goes on there."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lineshaft.core.batch import Batch
from lineshaft.engine.clock import ManualClock
from lineshaft.engine.engine import Engine
from lineshaft.errors import LeaseLost, Unavailable
from lineshaft.server.calls import Calls
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.store.base import Ownership, Store
from lineshaft.store.copying import Copied, Copy, CopyFailed, NotEmpty
from lineshaft.store.memory import MemoryStore
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.urls import open_store
from lineshaft.wire import CALLS
from lineshaft.wire.operations import NewKey
from lineshaft.wire.tasks import Enqueue, Search
from lineshaft.wire.workers import (
    Claim,
    ClaimedTask,
    CompleteItem,
    FailItem,
    HeartbeatItem,
    Item,
    Report,
)

NOW = 1_767_312_245_678
TENANTS = [f"tenant-{n}" for n in range(7)]


class Served:
    """A coordinator of a store, asked without HTTP."""

    def __init__(self, engine: Engine, keys: KeyRing) -> None:
        self.engine = engine
        self.calls = Calls(engine, keys)

    async def ask(self, name: str, tenant: str, **given: Any) -> Any:
        return await self.calls.call(CALLS[name], Identity(tenant), **given)

    async def claim(self, tenant: str, count: int) -> list[ClaimedTask]:
        answer = await self.ask("claim", tenant, body=Claim(max=count, lease="1h"))
        return list(answer.tasks)

    async def report(self, tenant: str, *items: Item) -> Any:
        return await self.ask("report", tenant, body=Report(items=list(items)))


@asynccontextmanager
async def served(store: Store) -> AsyncIterator[Served]:
    clock = ManualClock(NOW)
    nonces = (b"%16d" % n for n in itertools.count())
    async with Engine(store, clock=clock, nonces=lambda: next(nonces)) as engine:
        keys = KeyRing(engine, engine.clock.now)
        await keys.load()
        yield Served(engine, keys)


async def fill(store: Store) -> dict[str, str]:
    """Let tenants have tasks in every state, with all kinds of values; return the tokens of live leases."""
    tokens: dict[str, str] = {}
    async with served(store) as to:
        for tenant in TENANTS:
            for n in range(20):
                body = Enqueue(
                    name="work",
                    task_id=f"t-{n}",
                    payload=msgspec.Raw(b'{"n": %d, "who": "%s"}' % (n, tenant.encode())),
                    tags=["even"] if n % 2 == 0 else None,
                    delay="1h" if n >= 15 else None,
                )
                await to.ask("enqueue", tenant, body=body)
            done, failed, held, *_ = tasks = await to.claim(tenant, 10)
            await to.report(
                tenant,
                *(CompleteItem(**named(task), result=msgspec.Raw(b'"done"')) for task in (done, *tasks[6:])),
                FailItem(**named(failed), retry=False),
                HeartbeatItem(**named(held), checkpoint=msgspec.Raw(b'{"row": 3}')),
            )
            await to.ask("cancel", tenant, id="t-12")
            await to.ask("pause_queue", tenant, id="mail")
            tokens[tenant] = held.lease_token
        await to.ask("new_key", "default", body=NewKey(name="a-key", scopes=["admin"]))
    return tokens


def named(task: ClaimedTask) -> dict[str, str]:
    return {"task_id": task.task_id, "lease_token": task.lease_token}


async def copied(source: Store, target: Store) -> Copied:
    seen: list[tuple[int, int]] = []
    await source.open(address="copy")
    await target.open(address="copy")
    try:
        found = await Copy(source, target, progress=lambda *at: seen.append(at)).run()
    finally:
        await source.close()
        await target.close()
    assert seen[-1] == (found.tasks, found.tasks)
    return found


MakeStore = Callable[[], Store]


@pytest.fixture(
    params=[
        "one to one",
        "one to many",
        "many to many",
        "many to one",
        "many to fewer",
        "to a file",
        "file to file",
    ]
)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    def many(shards: int) -> Store:
        return MemoryStore(shards=shards)

    return {
        "one to one": lambda: (many(1), many(1)),
        "one to many": lambda: (many(1), many(16)),
        "many to many": lambda: (many(4), many(4)),
        "many to one": lambda: (many(16), many(1)),
        "many to fewer": lambda: (many(6), many(4)),
        "to a file": lambda: (many(3), SQLiteStore(tmp_path / "new.db")),
        "file to file": lambda: (SQLiteStore(tmp_path / "old.db"), SQLiteStore(tmp_path / "new.db")),
    }[request.param]()


async def test_what_was_there_is_there_and_goes_on(pair: tuple[Store, Store]) -> None:
    source, target = pair
    tokens = await fill(source)
    found = await copied(source, target)
    assert (found.tasks, found.tenants, found.continues) == (140, 7, True)
    assert found.renumbered == (target.shards % source.shards != 0)
    await goes_on(target, tokens, renumbered=found.renumbered)
    await is_as_it_was(source)


async def goes_on(target: Store, tokens: dict[str, str], *, renumbered: bool) -> None:
    async with served(target) as at:
        for tenant in TENANTS:
            page = await at.ask("find", tenant, query=Search(limit=100, sort="created_at"))
            assert [task.task_id for task in page.tasks] == [f"t-{n}" for n in range(20)]
            states = [task.state for task in page.tasks]
            assert states.count("completed") == 5
            assert (states.count("failed"), states.count("cancelled"), states.count("scheduled")) == (1, 1, 5)
            ended = await at.ask("get", tenant, id="t-0")
            assert (bytes(ended.payload), bytes(ended.result)) == (
                b'{"n": 0, "who": "%s"}' % tenant.encode(),
                b'"done"',
            )
            queue = await at.ask("queue", tenant, id="mail")
            assert queue.paused
            # Enqueueing one of them again finds it.
            again = await at.ask("enqueue", tenant, body=Enqueue(name="work", task_id="t-0"))
            assert (again.created, again.state) == (False, "completed")
            # Whoever held one goes on where its token still names it; the tokens to come are larger.
            answer = await at.report(tenant, HeartbeatItem(task_id="t-2", lease_token=tokens[tenant]))
            [item] = answer.items
            if item.error is not None:
                assert (item.error.type, renumbered) == (LeaseLost.type, True)
            [claimed] = await at.claim(tenant, 1)
            assert claimed.task_id == "t-10"
            assert claimed.fence > int(tokens[tenant].partition("-")[0], 16)
        assert (await at.ask("keys", "default")).keys[0].name == "a-key"


async def is_as_it_was(source: Store) -> None:
    async with served(source) as at:
        for tenant in TENANTS:
            page = await at.ask("find", tenant, query=Search(limit=100, sort="created_at"))
            assert len(page.tasks) == 20


async def test_positions_go_on_beyond_those_of_the_source() -> None:
    source, target = MemoryStore(shards=3), MemoryStore(shards=2)
    await fill(source)
    async with served(source) as at:
        reached = max(at.engine.position(tenant) for tenant in TENANTS)
    await copied(source, target)
    async with served(target) as at:
        for tenant in TENANTS:
            assert at.engine.position(tenant) > reached
        # Whoever followed the changes hears that it must begin anew, not nothing.
        log = await at.engine.log(TENANTS[0], reached)
        assert log.earliest > reached + 1


@pytest.mark.parametrize("scheme", ["valkey", "postgres", "opensearch"])
async def test_to_a_server_and_back(scheme: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    there = request.getfixturevalue(f"{scheme}_url")
    source, last = SQLiteStore(tmp_path / "old.db"), SQLiteStore(tmp_path / "new.db")
    await fill(source)
    first = await copied(source, open_store(there))
    assert (first.renumbered, first.continues) == (False, True)
    assert (await copied(open_store(there), last)).renumbered
    async with served(last) as at:
        for tenant in TENANTS:
            page = await at.ask("find", tenant, query=Search(limit=100, sort="created_at"))
            assert [task.task_id for task in page.tasks] == [f"t-{n}" for n in range(20)]


async def test_nothing_is_copied_to_a_store_that_has_something() -> None:
    source, target = MemoryStore(), MemoryStore()
    await fill(source)
    await fill(target)
    with pytest.raises(NotEmpty, match="is not empty: name a store that is new"):
        await copied(source, target)


async def test_a_copy_that_breaks_off_says_so_and_leaves_the_source_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lineshaft.store.copying.TRIES", 2)
    source, target = MemoryStore(shards=2), Unreliable()
    await fill(source)
    with pytest.raises(CopyFailed, match=r"no more room: what is in memory:// now is a part of the whole"):
        await copied(source, target)
    await is_as_it_was(source)
    target.breaks_at = 1_000
    with pytest.raises(NotEmpty, match="holds a part of a copy that was not finished"):
        await copied(source, target)


class Unreliable(MemoryStore):
    """Has no room for a fourth commit."""

    breaks_at = 4

    def __init__(self) -> None:
        super().__init__(shards=3)
        self.commits = 0

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        self.commits += 1
        if self.commits >= self.breaks_at:
            raise Unavailable("no more room")
        await super().commit(ownership, batch)


async def test_a_copy_that_is_not_equal_is_none() -> None:
    source, target = MemoryStore(), Forgetful()
    await fill(source)
    with pytest.raises(CopyFailed, match="the copy is not equal to the original: tenant tenant-0 has"):
        await copied(source, target)


class Forgetful(MemoryStore):
    """Loses a row of every batch."""

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        await super().commit(ownership, msgspec.structs.replace(batch, tasks=batch.tasks[1:]))


async def test_whoever_begins_to_serve_the_source_spoils_the_copy() -> None:
    source, target = MemoryStore(), MemoryStore()
    await fill(source)

    class Meddled(MemoryStore):
        async def commit(self, ownership: Ownership, batch: Batch) -> None:
            await super().commit(ownership, batch)
            await source.acquire(0, b"another")

    with pytest.raises(CopyFailed, match="is at epoch"):
        await copied(source, Meddled())
    await target.close()
