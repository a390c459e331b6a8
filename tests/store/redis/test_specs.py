"""What tasks share is kept once, comes with the first that needs it, and goes when none has it any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft.core.task import Task
from lineshaft.store.conformance.harness import NOW, TENANT, Owner, acquire, finished, row
from lineshaft.store.redis import RedisStore, confirmed
from tests.servers import KeyValueServer
from tests.store.redis.test_faults import opened


def various(seq: int) -> Task:
    return row(seq, name=f"name-{seq}")


async def kept(store: RedisStore) -> int:
    [count] = await store._client.call("", ("HLEN", f"{store._tag(0)}s"))
    return int(count)


def test_specs_that_no_task_has_are_swept_beside_commits(
    valkey_server: KeyValueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "MANY", 500)

    async def story() -> None:
        async with opened(valkey_server.fresh(), shards="1") as store:
            owner = await acquire(store)
            await owner.put(*(finished(various(seq), prune_at=NOW) for seq in range(3_000)))
            await owner.put(*(various(seq) for seq in range(3_000, 3_100)))
            assert await kept(store) == 3_100
            await store.prune(owner.ownership, before=NOW, log_before=0)
            committing = asyncio.create_task(commit_beside(owner))
            await store.prune(owner.ownership, before=NOW, log_before=0)
            await committing
            # Those of the first hundred were used again meanwhile, or brought again after they had gone.
            assert await kept(store) == 200
            again = await acquire(store)
            assert {task.spec.name for task in (await again.load()).tasks} == {
                f"name-{seq}" for seq in (*range(100), *range(3_000, 3_100))
            }
            found = await store.get(0, [(TENANT, f"task-{seq}") for seq in range(100)])
            assert all(task is not None and task.spec.name == f"name-{task.seq}" for task in found)

    async def commit_beside(owner: Owner) -> None:
        for seq in range(100):
            await owner.put(various(seq))

    asyncio.run(story())


def test_a_spec_is_brought_again_by_whoever_acquires_anew(valkey_server: KeyValueServer) -> None:
    async def story() -> None:
        place = valkey_server.fresh()
        async with opened(place) as one, opened(place) as two:
            tasks: Any = [various(1), various(2)]
            await (await acquire(one)).put(*tasks)
            other = await acquire(two, b"other")
            await other.put(*tasks, various(3))
            # Without a load nothing is known of what the server has.
            blind = Owner(one, await one.acquire(0, b"blind"), other.position)
            await blind.put(*tasks, various(4))
            assert [task.seq for task in (await blind.load()).tasks] == [1, 2, 3, 4]

    asyncio.run(story())
