"""`lineshaft tenants` against a coordinator whose store has several shards."""

from __future__ import annotations

import asyncio

from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from lineshaft.store.memory import MemoryStore
from tests.cli.runs import Ended, run


async def test_a_tenant_is_spread_before_its_first_task_and_not_after() -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0")
    async with running(settings, store=MemoryStore(shards=4)) as coordinator:

        async def lineshaft(*arguments: str) -> Ended:
            return await asyncio.to_thread(run, *arguments, url=coordinator.url)

        ended = await lineshaft("tenants", "partition", "default", "3")
        assert (ended.code, ended.out.startswith("default has 3 partitions, in shard ")) == (0, True)
        listed = await lineshaft("tenants", "list", "--json")
        [tenant] = listed.document["tenants"]
        assert (tenant["tenant"], tenant["partitions"], len(set(tenant["shards"]))) == ("default", 3, 3)
        assert "partitions" in (await lineshaft("tenants", "list")).out
        assert (await lineshaft("enqueue", "mail", "--task-id", "a")).code == 0
        refused = await lineshaft("tenants", "partition", "default", "2")
        assert refused.code != 0
        assert "has 1 tasks" in refused.err
        again = await lineshaft("tenants", "partition", "default", "3", "--json")
        assert again.document == tenant
        too_many = await lineshaft("tenants", "partition", "default", "9")
        assert too_many.code != 0
        assert "1 to 4" in too_many.err
