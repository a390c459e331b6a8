"""How many partitions a tenant has: who may say it, when, and that it stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft import wire
from lineshaft.errors import Conflict, Forbidden, Invalid, Unavailable
from lineshaft.server.identity import Identity
from lineshaft.store.memory import MemoryStore
from lineshaft.wire import PutTenant
from tests.server.partitions.split import Split, split, until

ACME = Identity("acme")


async def put(split: Split, tenant: str, partitions: int, *, who: Identity | None = None) -> Any:
    split.identity = who or Identity()
    return await split.call("put_tenant", tenant, body=PutTenant(partitions=partitions))


async def test_partitions_are_fixed_once_there_is_a_task_in_whatever_state(split: Split) -> None:
    answer = await put(split, "acme", 4)
    assert (answer.tenant, answer.partitions, sorted(answer.shards)) == ("acme", 4, [0, 1, 2, 3])
    assert (await put(split, "acme", 2)).partitions == 2
    split.identity = ACME
    await split.enqueue("a")
    await split.call("cancel", "a", body=wire.Cancel())
    with pytest.raises(Conflict, match="has 1 tasks") as caught:
        await put(split, "acme", 3)
    assert caught.value.field == "partitions"
    assert (await put(split, "acme", 2)).partitions == 2
    split.identity = ACME
    await split.call("delete", "a")
    assert (await put(split, "acme", 1)).partitions == 1
    assert "acme" not in split.calls.partitioned


async def test_a_tenant_with_tasks_is_not_split(split: Split) -> None:
    split.identity = ACME
    await split.enqueue("a")
    with pytest.raises(Conflict):
        await put(split, "acme", 2)
    split.identity = ACME
    assert await split.states() == {"a": "queued"}


@pytest.mark.parametrize("partitions", [0, 5])
async def test_there_are_no_more_partitions_than_shards(split: Split, partitions: int) -> None:
    with pytest.raises(Invalid, match="1 to 4, the shards of this store") as caught:
        await put(split, "acme", partitions)
    assert caught.value.field == "partitions"


@pytest.mark.parametrize("tenant", ["_system", "a#1", "a b", ""])
async def test_only_tenants_that_people_can_name_are_split(split: Split, tenant: str) -> None:
    with pytest.raises(Invalid) as caught:
        await put(split, tenant, 2)
    assert caught.value.field == "tenant"


async def test_others_are_arranged_by_the_default_tenant_only(split: Split) -> None:
    assert (await put(split, "acme", 2, who=ACME)).partitions == 2
    with pytest.raises(Forbidden):
        await put(split, "other", 2, who=ACME)
    split.identity = ACME
    assert [tenant.tenant for tenant in (await split.call("tenants")).tenants] == ["acme"]
    split.identity = Identity()
    listed = (await split.call("tenants")).tenants
    assert [(tenant.tenant, tenant.partitions) for tenant in listed] == [("acme", 2), ("default", 3)]


async def test_partitions_are_known_again_after_a_restart() -> None:
    store = MemoryStore(shards=4)
    async with split(store=store) as before:
        ids = [id for partition in range(3) for id in before.ids_in(partition, 2)]
        for id in ids:
            await before.enqueue(id)
    async with split(store=store) as after:
        assert sorted(await after.states()) == sorted(ids)
        assert len(await after.claim(max=10)) == len(ids)


async def test_switches_of_queues_stay_when_a_tenant_is_split(split: Split) -> None:
    split.identity = ACME
    await split.call("pause_queue", "p")
    await split.call("close_queue", "c")
    await split.call("queue", "plain")
    await put(split, "acme", 3)
    split.identity = ACME
    for partition in range(3):
        queues = (await split.calls.queues(split.inside(partition))).queues
        assert [(queue.queue, queue.paused, queue.closed) for queue in queues] == [
            ("c", False, True),
            ("p", True, False),
        ]


async def test_nothing_is_enqueued_while_a_tenant_is_arranged(split: Split) -> None:
    arranging = asyncio.create_task(put(split, "acme", 2))

    async def begun() -> bool:
        return "acme" in split.calls.partitioned

    await until(begun)
    split.identity = ACME
    with pytest.raises(Unavailable, match="being arranged"):
        await split.enqueue("a")
    split.identity = Identity()
    with pytest.raises(Conflict):
        await split.call("put_tenant", "acme", body=PutTenant(partitions=3))
    await arranging
    split.identity = ACME
    await split.enqueue("a")
    assert await split.states() == {"a": "queued"}


async def test_counts_are_those_of_the_whole(split: Split) -> None:
    for partition in range(3):
        for id in split.ids_in(partition, 2):
            await split.enqueue(id, queue="q")
    await split.claim(max=3, worker=wire.Worker(id="w"))
    stats = await split.call("stats")
    assert (stats.counts["queued"], stats.counts["running"], stats.queues, stats.workers) == (3, 3, 1, 1)
    [queue] = (await split.call("queues")).queues
    assert (queue.backlog, queue.running, queue.workers) == (3, 3, 1)
    scale = await split.call("scale", "q")
    assert (scale.backlog, scale.running, scale.wanted, scale.workers) == (3, 3, 6, 1)
    assert 'lineshaft_tasks{queue="q",state="running"} 3' in await split.call("metrics")
    swept = await split.call("cancel_many", body=wire.Sweep(queue="q", state="queued"))
    assert (swept.matched, swept.changed) == (3, 3)
    page = await split.call("find", query=wire.Search(state="cancelled", limit=2))
    rest = await split.call("find", query=wire.Search(state="cancelled", limit=2, after=page.next))
    assert len({task.task_id for task in page.tasks + rest.tasks}) == 3


async def test_a_change_feed_tells_of_all_partitions(split: Split) -> None:
    start = (await split.call("changes")).next
    ids = [id for partition in range(3) for id in split.ids_in(partition, 3)]
    poll = asyncio.create_task(
        split.call("changes", query=wire.ChangesQuery(after=start, wait="20s", limit=100))
    )
    await asyncio.sleep(0)
    for id in ids:
        await split.enqueue(id)
        await split.call("cancel", id, body=wire.Cancel())
    assert (await poll).changes
    for limit in (1, 2, 5, 100):
        seen, after = [], start
        while (
            page := await split.call("changes", query=wire.ChangesQuery(after=after, limit=limit))
        ).changes:
            seen += [(change.task_id, change.state) for change in page.changes]
            after = page.next
        assert sorted(seen) == sorted((id, state) for id in ids for state in ("queued", "cancelled"))
        for id in ids:
            assert seen.index((id, "queued")) < seen.index((id, "cancelled"))


async def test_an_id_that_was_made_here_is_told_with_the_task_only(split: Split) -> None:
    await split.call("close_queue", "shut")
    body = [wire.Enqueue(name="n"), wire.Enqueue(name="n", queue="shut"), Invalid("bad", field="name")]
    answer = await split.call("bulk", body=body)
    assert [item.status for item in answer.items] == [201, 409, 422]
    assert answer.items[0].task_id in await split.states()
    assert answer.items[1].task_id is None
    assert b"task_id" not in bytes(answer.items[1].error)
    with pytest.raises(Conflict) as caught:
        await split.call("enqueue", body=wire.Enqueue(name="n", queue="shut"))
    assert caught.value.task_id is None
    assert (await split.call("bulk", body=[])).items == []
