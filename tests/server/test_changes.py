from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft.store.base import Log
from tests.server.asgi import Edge


async def changes(edge: Edge, after: str, **query: Any) -> Any:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    answer = await edge.send("GET", f"/_tasks/_changes?after={after}{more}")
    assert answer.status == 200, answer.body
    return answer.json


async def cursor(edge: Edge) -> str:
    answer = await edge.send("GET", "/_tasks/_changes")
    assert answer.json["changes"] == []
    return str(answer.json["next"])


async def test_every_cursor_goes_on_exactly_where_it_stands(edge: Edge) -> None:
    start = await cursor(edge)
    ids = [f"t{number}" for number in range(7)]
    await edge.send("POST", "/_tasks/_bulk", [{"name": "n", "task_id": id} for id in ids])
    await edge.send("POST", "/_tasks/t0/_cancel", {})
    expected = [(id, "queued") for id in ids] + [("t0", "cancelled")]
    for limit in (1, 2, 3, 7, 8, 100):
        seen, after = [], start
        while found := (page := await changes(edge, after, limit=limit))["changes"]:
            assert len(found) <= limit
            seen += [(change["task_id"], change["state"]) for change in found]
            after = page["next"]
        assert seen == expected


async def test_a_long_poll_ends_with_the_first_change_or_with_its_time(edge: Edge) -> None:
    start = await cursor(edge)
    assert (await changes(edge, start, wait="20ms"))["changes"] == []
    poll = asyncio.create_task(changes(edge, start, wait="20s"))
    await asyncio.sleep(0)
    await edge.send("PUT", "/_tasks/a", {"name": "n"})
    assert [change["task_id"] for change in (await poll)["changes"]] == ["a"]


async def test_a_cursor_older_than_the_log_is_410_with_the_earliest(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pruned(*_: Any, **__: Any) -> Log:
        return Log(records=[], earliest=8)

    monkeypatch.setattr(edge.calls.engine, "log", pruned)
    answer = await edge.send("GET", "/_tasks/_changes?after=0")
    assert answer.status == 410
    assert answer.json["error"]["type"] == "cursor_expired"
    assert answer.json["error"]["earliest"] == "7"
    stream = await edge.send("GET", "/_tasks/_changes?after=0", headers={"accept": "text/event-stream"})
    assert stream.status == 410
