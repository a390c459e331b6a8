"""An engine lives through the failover of its server, and nothing that was lost comes back by accident."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft.core.commands import Claim, Command, Complete, Enqueue, Get, NewTask, Report
from lineshaft.core.task import Spec, Task, lease_token
from lineshaft.engine import Engine
from lineshaft.errors import NotFound, Retryable
from lineshaft.store.base import notices_of
from lineshaft.store.urls import open_store
from tests.servers import KeyValueServer, promote, valkey, valkey_pair
from tests.store.redis.relay import Relay

T = "acme"


def test_a_failover_that_loses_the_end_under_an_engine() -> None:
    primary, replica = valkey_pair()
    with primary, replica:
        asyncio.run(fail_over(primary, replica))


async def fail_over(primary: KeyValueServer, replica: KeyValueServer) -> None:
    async with Relay(primary.port) as relay:
        store = open_store(f"valkey://127.0.0.1:{relay.port}", shards="2", timeout="1")
        async with Engine(store, address="http://127.0.0.1:7077") as engine:
            await enqueue(engine, "kept")
            kept = await claim(engine, "kept")
            with primary.client() as client:
                await asyncio.to_thread(client.wait, 1, 10_000)
            await asyncio.to_thread(promote, replica)
            await enqueue(engine, "lost")
            lost = await claim(engine, "lost")
            primary.kill()
            relay.lead_to(replica.port)
            await enqueue(engine, "later")
            later = await claim(engine, "later")
            assert [task.id for task in (kept, lost, later)] == ["kept", "lost", "later"]
            assert fence(later) > fence(lost) > fence(kept)
            with pytest.raises(NotFound):
                await ask(engine, Get(tenant=T, id="lost"))
            done = Complete(task_id=kept.id, token=lease_token(kept), result=b"1")
            late = Complete(task_id=lost.id, token=lease_token(lost), result=b"1")
            reported = await ask(engine, Report(tenant=T, items=(done, late)))
            first, second = reported.items
            assert first.state.word == "completed"
            assert isinstance(second, NotFound)
            found = await ask(engine, Get(tenant=T, id="kept"))
            assert found.task.state.word == "completed"
            [notice] = notices_of(store)
            assert "acknowledged by this coordinator, gone" in notice


def test_everything_acknowledged_is_done_over_kills_and_freezes_of_the_server() -> None:
    with valkey(private=True) as server:
        asyncio.run(work_through_trouble(server))


async def work_through_trouble(server: KeyValueServer) -> None:
    store = open_store(server.fresh(), shards="2", timeout="0.5")
    async with Engine(store, address="http://127.0.0.1:7077") as engine:
        ids = [f"task-{number}" for number in range(300)]
        enough = asyncio.Event()
        done: set[str] = set()

        async def produce(part: list[str]) -> None:
            for id in part:
                await enqueue(engine, id)

        async def work(name: str) -> None:
            while not done.issuperset(ids):
                claimed = await ask(engine, Claim(tenant=T, claim_id=f"{name}-{len(done)}", max=5))
                ops = [Complete(task_id=t.id, token=lease_token(t), result=b"1") for t in claimed.tasks]
                if ops:
                    await ask(engine, Report(tenant=T, items=tuple(ops)))
                    done.update(op.task_id for op in ops)
                else:
                    await asyncio.sleep(0.01)  # what was leased and not heard of comes back with its claim id
                if len(done) > 50:
                    enough.set()

        working = [asyncio.create_task(each) for each in (*(produce(ids[n::4]) for n in range(4)), work("w"))]
        await enough.wait()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        server.freeze()
        more = asyncio.create_task(enqueue(engine, "more"))
        while all(shard.not_answering_since is None for shard in engine.health().shards):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # until an answer has taken longer than it may
        server.thaw()
        await more
        await asyncio.gather(*working)
        for id in ids:
            assert (await ask(engine, Get(tenant=T, id=id))).task.state.word == "completed"
        assert notices_of(store) == []


def fence(task: Task) -> int:
    assert task.lease is not None
    return task.lease.fence


async def enqueue(engine: Engine, id: str) -> None:
    await ask(engine, Enqueue(tenant=T, tasks=(NewTask(id=id, spec=Spec(name="mail"), given=True),)))


async def claim(engine: Engine, claim_id: str) -> Task:
    claimed = await ask(engine, Claim(tenant=T, claim_id=claim_id))
    task: Task = claimed.tasks[0]
    return task


async def ask(engine: Engine, command: Command) -> Any:
    """Repeat the command until its outcome is known, as a client does."""
    for _ in range(600):
        try:
            return await engine.submit(command)
        except Retryable:
            await asyncio.sleep(0.05)  # the servers are other processes
    raise AssertionError("the engine has not come back")
