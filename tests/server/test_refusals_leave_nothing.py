"""Requests that were refused leave nothing behind in memory."""

from __future__ import annotations

import gc
from typing import Any

import aiohttp

from lineshaft.engine.handle import Handle
from lineshaft.errors import LineshaftError
from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings


def alive() -> int:
    gc.collect()
    return sum(isinstance(each, LineshaftError | Handle) for each in gc.get_objects())


async def post(http: aiohttp.ClientSession, path: str, body: Any, expect: int) -> Any:
    async with http.post(path, json=body) as answer:
        assert answer.status == expect, await answer.text()
        return await answer.json()


async def refuse(http: aiohttp.ClientSession, number: int) -> None:
    """Provoke refusals of single calls, of items of a report, and of items of a bulk."""
    task = {"task_id": f"t{number}", "name": "n"}
    await post(http, "/_tasks", task, 201)
    await post(http, "/_tasks?conflict=error", task | {"payload": 1}, 409)
    claimed = await post(http, "/_tasks/_claim", {"max": 1}, 200)
    late = {"lease_token": claimed["tasks"][0]["lease_token"]}
    await post(http, f"/_tasks/t{number}/_complete", late, 200)
    await post(http, f"/_tasks/t{number}/_complete", late | {"result": "another"}, 409)
    await post(http, f"/_tasks/t{number}/_heartbeat", late, 409)
    item = {"op": "fail", "task_id": f"t{number}", "error": {"type": "E", "message": "m"}} | late
    await post(http, "/_tasks/_report", {"items": [item]}, 200)
    await post(http, "/_tasks/_bulk", [{"task_id": "u", "name": "n", "queue": "closed"}], 200)
    await post(http, "/_tasks/missing/_complete", late, 404)


async def test_refused_requests_leave_nothing_behind() -> None:
    """Errors in a reply that the collector did not know of kept each late worker's whole request for ever."""
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0")
    async with running(settings) as coordinator, aiohttp.ClientSession(coordinator.url) as http:
        await post(http, "/_queues/closed/_close", {}, 200)
        await refuse(http, 0)
        before = alive()
        for number in range(1, 20):
            await refuse(http, number)
        assert alive() <= before + 2
