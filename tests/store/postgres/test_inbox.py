"""A task that a user's own transaction enqueues exists exactly if that transaction commits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Json, Jsonb

from lineshaft.core.batch import Blob
from lineshaft.core.commands import Claim, Get, SetQueue
from lineshaft.core.task import State, Task
from lineshaft.engine.engine import Engine
from lineshaft.errors import NotFound
from lineshaft.server.identity import SYSTEM_TENANT
from lineshaft.server.partitions.layout import Layout
from lineshaft.store.postgres.store import PostgresStore
from lineshaft.store.urls import open_store
from lineshaft.values.partitions import partition_name, partition_of, shard_of

SOON = 20
"""Seconds within which everything must have happened; nothing waits for as long as that."""


class User:
    """Somebody with a transaction."""

    def __init__(self, database: str, schema: str) -> None:
        self.connection = psycopg.connect(database, autocommit=True)
        self.schema = schema

    def enqueue(self, name: str = "mail", **options: Any) -> str:
        arguments = "".join(f", {option} => %s" for option in options)
        row = self.connection.execute(
            f"SELECT {self.schema}.enqueue(%s{arguments})", (name, *options.values())
        ).fetchone()
        assert row is not None
        return str(row[0])

    def waiting(self) -> int:
        row = self.connection.execute(f"SELECT count(*) FROM {self.schema}.inbox").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
async def engine(store_url: Callable[..., str]) -> AsyncIterator[Engine]:
    async with Engine(open_store(store_url())) as engine:
        yield engine


@pytest.fixture
def user(engine: Engine, database: str, schema: str) -> AsyncIterator[User]:
    user = User(database, schema)
    yield user
    user.connection.close()


async def arrived(engine: Engine, task_id: str, tenant: str = "default") -> Task:
    """Return a task as soon as it is there."""
    async with asyncio.timeout(SOON):
        while True:
            before = engine.position(tenant)
            try:
                return (await engine.submit(Get(tenant=tenant, id=task_id))).task
            except NotFound:
                await engine.changed(tenant, before)


async def test_a_task_is_there_as_soon_as_the_transaction_is_committed(engine: Engine, user: User) -> None:
    claim = engine.submit(Claim(tenant="default", wait_until=engine.now("default") + SOON * 1_000))
    with user.connection.transaction():
        task_id = user.enqueue("mail", payload='{"to":  "a@b.c"}')
    [task] = (await asyncio.wait_for(claim, SOON)).tasks
    assert (task.id, task.spec.name, task.spec.queue, task.state) == (
        task_id,
        "mail",
        "default",
        State.RUNNING,
    )
    assert await engine.read("default", [(Blob.PAYLOAD, task.seq)]) == [b'{"to":  "a@b.c"}']
    assert user.waiting() == 0


async def test_nothing_is_there_where_the_transaction_is_rolled_back(engine: Engine, user: User) -> None:
    with user.connection.transaction(force_rollback=True):
        rolled_back = user.enqueue(task_id="never")
    await arrived(engine, user.enqueue())
    with pytest.raises(NotFound):
        await engine.submit(Get(tenant="default", id=rolled_back))


async def test_every_option_arrives(engine: Engine, user: User) -> None:
    task_id = user.enqueue(
        "render",
        payload=Json({"n": 1}),
        task_id="order/7",
        queue="video",
        priority=-3,
        run_at="2099-01-02T03:04:05.6789Z",
        expires_at="2099-02-01T00:00:00Z",
        tenant="acme",
        tags=["red", "größe", "red"],
        max_retries=7,
        lease="90 s",
        timeout="00:05",
        retention="1 day",
        result_ttl="250 ms",
        capability=["gpu", "cuda"],
        metadata=Json({"by": "me"}),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    task = await arrived(engine, task_id, "acme")
    spec = task.spec
    assert (task.id, task.tenant, task.state) == ("order/7", "acme", State.SCHEDULED)
    assert (task.run_at, task.expires_at) == (4_071_006_245_679, 4_073_587_200_000)
    assert (spec.name, spec.queue, spec.priority, spec.max_retries) == ("render", "video", -3, 7)
    assert (spec.lease, spec.timeout, spec.retention, spec.result_ttl) == (90_000, 300_000, 86_400_000, 250)
    assert spec.affinity.capability == ("cuda", "gpu")
    assert (task.tags, task.metadata) == (("red", "größe"), b'{"by": "me"}')
    assert task.traceparent is not None


async def test_a_delay_counts_from_the_call(engine: Engine, user: User) -> None:
    task = await arrived(engine, user.enqueue(delay="1 hour"))
    assert task.state is State.SCHEDULED
    assert abs(task.run_at - engine.now("default") - 3_600_000) < 60_000


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        (
            ' {"b": 1e400,\t"a":123456789012345678901234567890} ',
            b'{"b": 1e400,\t"a":123456789012345678901234567890}',
        ),
        (Json("ü"), json.dumps("ü").encode()),
        (Jsonb({"b": 1, "a": [2]}), b'{"a": [2], "b": 1}'),
        (r'"\ud83d\ude00 \\ud800 \u0000"', rb'"\ud83d\ude00 \\ud800 \u0000"'),
        ("[" * 64 + r'"\"[[[\\"' + "]" * 64, b"[" * 64 + rb'"\"[[[\\"' + b"]" * 64),
        ("null", b"null"),
    ],
)
async def test_a_payload_is_kept_as_it_is_spelled(
    engine: Engine, user: User, payload: Any, stored: bytes
) -> None:
    task = await arrived(engine, user.enqueue(payload=payload))
    assert (await engine.read("default", [(Blob.PAYLOAD, task.seq)]))[0] in (
        stored,
        None if stored == b"null" else stored,
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "no spaces"}, "name"),
        ({"name": None}, "name"),
        ({"queue": ""}, "queue"),
        ({"tenant": "_system"}, "tenant"),
        ({"tenant": "a#1"}, "tenant"),
        ({"task_id": "_x"}, "task_id"),
        ({"task_id": "x" * 257}, "task_id"),
        ({"payload": "{not json"}, "payload"),
        ({"payload": r'["\ud800"]'}, "payload"),
        ({"payload": r'"\ud83d\\\ude00"'}, "payload"),
        ({"payload": "[" * 65 + "]" * 65}, "payload"),
        ({"payload": '{"a":' * 64 + "[]" + "}" * 64}, "payload"),
        ({"metadata": r'{"x": "\ud800"}'}, "metadata"),
        ({"payload": '"' + "x" * (1 << 20) + '"'}, "payload"),
        ({"run_at": "now", "delay": "1 s"}, "delay"),
        ({"delay": "-1 s"}, "delay"),
        ({"run_at": "infinity"}, "run_at"),
        ({"expires_at": "1969-01-01"}, "expires_at"),
        ({"lease": "1 ms"}, "lease"),
        ({"timeout": "0"}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"tags": ["a\nb"]}, "tags"),
        ({"tags": [None]}, "tags"),
        ({"tags": ["x"] * 101}, "tags"),
        ({"capability": ["not a name"]}, "capability"),
        ({"metadata": Json([1])}, "metadata"),
        ({"metadata": Json({"x": "y" * 20_000})}, "metadata"),
        ({"traceparent": "nonsense"}, "traceparent"),
    ],
)
async def test_what_is_wrong_is_refused_in_the_transaction_and_named(
    user: User, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        user.enqueue(**options)
    assert f"enqueue: {field}: " in str(refused.value)
    assert refused.value.diag.column_name == field
    assert user.waiting() == 0


async def test_a_closed_queue_refuses_what_comes_and_takes_what_was_there(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    async with Engine(open_store(store_url())) as engine:
        await engine.submit(SetQueue(tenant="default", queue="shut", closed=True))
    user = User(database, schema)
    with user.connection, pytest.raises(psycopg.errors.InvalidParameterValue, match="closed"):
        user.enqueue(queue="shut")
    async with Engine(open_store(store_url())) as engine:
        await engine.submit(SetQueue(tenant="default", queue="shut", closed=False))
    user = User(database, schema)
    with user.connection:
        task_id = user.enqueue(queue="shut")
        user.connection.execute(f"UPDATE {schema}.record SET data = 'c' WHERE key = 'shut'")
    async with Engine(open_store(store_url())) as engine:
        assert (await arrived(engine, task_id)).state is State.QUEUED


async def test_an_id_that_names_a_task_already_makes_no_other(engine: Engine, user: User) -> None:
    first = await arrived(engine, user.enqueue(task_id="once", payload="1"))
    user.enqueue(task_id="once", payload="2")
    last = user.enqueue()
    await arrived(engine, last)
    again = await arrived(engine, "once")
    assert again.seq == first.seq
    async with asyncio.timeout(SOON):
        while user.waiting():  # noqa: ASYNC110  # what there was before is cleared after the answer, elsewhere
            await asyncio.sleep(0.01)


async def test_what_came_while_nobody_was_there_is_taken_at_the_next_start(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    async with Engine(open_store(store_url())):
        pass
    user = User(database, schema)
    with user.connection:
        with user.connection.transaction():
            ids = [user.enqueue(tenant=f"t{number % 7}") for number in range(1_203)]
        async with Engine(open_store(store_url())) as engine:
            tasks = [await arrived(engine, id, f"t{number % 7}") for number, id in enumerate(ids)]
            assert user.waiting() == 0
        by_tenant: dict[str, list[int]] = {}
        for task in tasks:
            by_tenant.setdefault(task.tenant, []).append(task.seq)
        assert all(seqs == sorted(seqs) for seqs in by_tenant.values())


async def test_a_tenant_is_sent_to_the_shard_in_which_it_lives(user: User, schema: str) -> None:
    names = ["default", "a", "tenant/7", "x" * 128, "A:b.c-d_e"]
    for name in names:
        row = user.connection.execute(
            f"SELECT name, shard FROM {schema}.place_of(%s, 'x')", (name,)
        ).fetchone()
        assert row == (name, shard_of(name, 2))


@pytest.mark.parametrize(
    ("tenant", "partitions"), [("acme", 2), ("n" * 31, 3), ("n" * 32, 127), ("m", 128), ("m", 300)]
)
async def test_a_task_is_sent_to_the_partition_that_has_its_id(
    store_url: Callable[..., str], database: str, schema: str, tenant: str, partitions: int
) -> None:
    async with Engine(open_store(store_url(shards=5))) as engine:
        await Layout(engine, system=SYSTEM_TENANT).put(tenant, partitions)
        user = User(database, schema)
        with user.connection:
            for number in range(5):
                task_id = user.enqueue(task_id=f"task-{number}", tenant=tenant)
                part = partition_name(tenant, partition_of(task_id, partitions))
                assert (await arrived(engine, task_id, part)).tenant == part


async def test_an_item_goes_with_the_commit_that_makes_its_task(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    """So also a task that is pruned before anybody could clear the inbox comes into being once."""
    store = open_store(store_url(shards=1))
    assert isinstance(store, PostgresStore)
    async with Engine(store) as engine:
        store.clear_inbox = None  # type: ignore[assignment,method-assign]  # nobody clears
        user = User(database, schema)
        with user.connection:
            ids = [user.enqueue() for _ in range(5)]
            for id in ids:
                await arrived(engine, id)
            assert user.waiting() == 0
