from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lineshaft.server.protocol import EdgeProtocol
from lineshaft.server.serve import Coordinator, running
from lineshaft.server.settings import ServerSettings


class Worker:
    """The other end of a session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._others: list[Any] = []

    async def ask(self, type: str, body: Any, **more: Any) -> Any:
        """Send a message and return the body of its answer (of an error, what it says)."""
        await self.socket.send_str(json.dumps({"id": type, "type": type, "body": body} | more))
        answer = await self.next(lambda message: message.get("re") == type)
        return answer["body"]["error"] if answer["type"] == "error" else answer["body"]

    async def hello(self, **more: Any) -> Any:
        return await self.ask("hello", {"worker": {"id": "w", "incarnation": "1"}} | more)

    async def pushed(self, type: str = "tasks") -> Any:
        """Return what is pushed next."""
        body = (await self.next(lambda message: message["type"] == type))["body"]
        return body["tasks"] if type == "tasks" else body

    async def next(self, wanted: Any) -> Any:
        for message in self._others:
            if wanted(message):
                self._others.remove(message)
                return message
        while True:
            message = json.loads(await self.socket.receive_str(timeout=20))
            if wanted(message):
                return message
            self._others.append(message)

    async def closed(self) -> int | None:
        """Return the code with which the coordinator closes."""
        while (message := await self.socket.receive(timeout=20)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type is aiohttp.WSMsgType.CLOSE
        return self.socket.close_code


@pytest.fixture(name="coordinator")
async def give_coordinator() -> AsyncIterator[Coordinator]:
    async with running(ServerSettings(store="memory://", listen="127.0.0.1:0")) as coordinator:
        yield coordinator


@pytest.fixture(name="http")
async def give_http(coordinator: Coordinator) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(coordinator.url) as client:
        yield client


@contextlib.asynccontextmanager
async def session(http: aiohttp.ClientSession) -> AsyncIterator[Worker]:
    async with http.ws_connect("/_tasks/_session", protocols=("lineshaft.v1",)) as socket:
        yield Worker(socket)


async def enqueue(http: aiohttp.ClientSession, *ids: str, **more: Any) -> None:
    async with http.post("/_tasks/_bulk", json=[{"task_id": id, "name": "n"} | more for id in ids]) as answer:
        assert answer.status == 200


def ids(tasks: list[Any]) -> list[str]:
    return [task["task_id"] for task in tasks]


async def test_credit_is_the_number_in_flight(http: aiohttp.ClientSession) -> None:
    await enqueue(http, "a", "b", "c", "d")
    async with session(http) as worker:
        await worker.hello()
        await worker.ask("credit", {"max": 2})
        first, second = await worker.pushed()
        await worker.ask("complete", {"task_id": "a", "lease_token": first["lease_token"]})
        assert ids(await worker.pushed()) == ["c"]
        await worker.ask("credit", {"max": 0})
        await worker.ask("complete", {"task_id": "b", "lease_token": second["lease_token"]})
        await worker.ask("credit", {"max": 2})
        assert ids(await worker.pushed()) == ["d"]


async def test_what_ends_over_http_makes_room_too(http: aiohttp.ClientSession) -> None:
    await enqueue(http, "a", "b")
    async with session(http) as worker:
        await worker.hello()
        await worker.ask("credit", {"max": 1})
        [task] = await worker.pushed()
        async with http.post("/_tasks/a/_complete", json={"lease_token": task["lease_token"]}) as answer:
            assert answer.status == 200
        assert ids(await worker.pushed()) == ["b"]


async def test_a_session_leaves_alone_what_the_worker_claims_over_http(http: aiohttp.ClientSession) -> None:
    await enqueue(http, "a", "b")
    worker_info = {"id": "w", "incarnation": "1"}
    async with session(http) as worker:
        await worker.hello(queues=["default"])
        async with http.post("/_tasks/_claim", json={"worker": worker_info, "max": 1}) as answer:
            [own] = (await answer.json())["tasks"]
        await worker.ask("credit", {"max": 1})
        await worker.pushed()
        await enqueue(http, "c")
        async with http.post("/_tasks/a/_complete", json={"lease_token": own["lease_token"]}) as answer:
            assert answer.status == 200


async def test_reports_are_applied_in_order_and_may_claim(http: aiohttp.ClientSession) -> None:
    await enqueue(http, "a", "b")
    async with session(http) as worker:
        await worker.hello(start=False, lease="1m")
        await worker.ask("credit", {"max": 1})
        [task] = await worker.pushed()
        assert task["lease_ttl"] == 60
        held = {"task_id": "a", "lease_token": task["lease_token"]}
        items = [held | {"op": "start"}, held | {"op": "complete", "result": 1}]
        reported = await worker.ask("report", {"items": items, "claim": {"max": 1}})
        assert [item["status"] for item in reported["items"]] == [200, 200]
        assert ids(reported["tasks"]) == ["b"]


async def test_a_claim_under_way_is_given_up_with_the_session(http: aiohttp.ClientSession) -> None:
    async with session(http) as worker:
        await worker.hello()
        await worker.ask("credit", {"max": 5})
    await enqueue(http, "a")
    async with http.post("/_tasks/_claim", json={"wait": "10s"}) as answer:
        assert ((await answer.json())["task_id"], (await answer.json())["attempt"]) == ("a", 1)


async def test_directives_reach_only_whom_they_concern(http: aiohttp.ClientSession) -> None:
    await enqueue(http, "a")
    async with session(http) as worker, session(http) as other:
        await worker.hello()
        await other.ask("hello", {"worker": {"id": "w", "incarnation": "2"}})
        await worker.ask("credit", {"max": 1})
        await worker.pushed()
        async with http.post("/_tasks/a/_cancel", json={"reason": "why"}) as answer:
            assert answer.status == 200
        directive = await worker.pushed("directive")
        assert (directive["directive"], directive["task_id"], directive["reason"]) == ("cancel", "a", "why")
        async with http.post("/_workers/w/_drain", json={"incarnation": "2"}) as answer:
            assert answer.status == 200
        assert (await other.pushed("directive")) == {"directive": "drain"}


@pytest.mark.parametrize(
    ("type", "body", "error", "field"),
    [
        ("credit", {"max": 1001}, "invalid", "max"),
        ("credit", {}, "invalid", "max"),
        ("credit", [], "invalid", None),
        ("report", {}, "invalid", "items"),
        ("report", {"items": [], "colour": 1}, "invalid", "colour"),
        ("report", {"items": [], "claim": {"max": 0}}, "invalid", "claim.max"),
        ("complete", [], "invalid", "body"),
        ("hello", {}, "invalid", "type"),
        ("nonsense", {}, "invalid", "type"),
    ],
)
async def test_a_wrong_message_is_refused_and_the_session_goes_on(
    http: aiohttp.ClientSession, type: str, body: Any, error: str, field: str | None
) -> None:
    async with session(http) as worker:
        await worker.hello()
        told = await worker.ask(type, body)
        assert (told["type"], told.get("field")) == (error, field)
        assert await worker.ask("credit", {"max": 1}) == {"max": 1}


@pytest.mark.parametrize(
    "data", [b"\xff", b"", b"[]", b'{"type":"credit","type":"credit"}', b'{"type":"x","body":' + b"[" * 9999]
)
async def test_what_is_no_message_is_refused(http: aiohttp.ClientSession, data: bytes) -> None:
    async with session(http) as worker:
        await worker.hello()
        await worker.socket.send_bytes(data)
        told = (await worker.next(lambda message: message["type"] == "error"))["body"]["error"]
        assert told["type"] in ("malformed", "invalid")
        assert await worker.ask("credit", {"max": 1}) == {"max": 1}


@pytest.mark.parametrize(
    "hello",
    [
        {},
        {"worker": {}},
        {"worker": {"id": ""}},
        {"worker": {"id": "w"}, "queues": ["a b"]},
        {"worker": {"id": "w"}, "lease": "1ms"},
    ],
)
async def test_a_hello_that_is_none_ends_the_session(http: aiohttp.ClientSession, hello: Any) -> None:
    async with session(http) as worker:
        assert (await worker.ask("hello", hello))["type"] == "invalid"
        assert await worker.closed() == 1008


async def test_a_shutdown_closes_sessions(http: aiohttp.ClientSession, coordinator: Coordinator) -> None:
    async with session(http) as worker:
        await worker.hello()
        coordinator.stop()
        assert await worker.closed() == 1012


async def test_a_session_that_has_ended_leaves_nothing_behind(http: aiohttp.ClientSession) -> None:
    """The line's timer for idle HTTP kept all of it for another 75 s."""
    for _ in range(5):
        async with session(http) as worker:
            await worker.hello()
    async with asyncio.timeout(20):
        while True:
            if not lines_alive():
                break
            await asyncio.sleep(0)


def lines_alive() -> int:
    gc.collect()
    return sum(isinstance(each, EdgeProtocol) and each.transport.is_closing() for each in gc.get_objects())
