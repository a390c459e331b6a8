"""The HTTP transport against servers that fail in every way they can: what is repeated, and what it says at
last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from lineshaft.errors import (
    Forbidden,
    Invalid,
    LeaseLost,
    LineshaftError,
    NotFound,
    Overloaded,
    QueueClosed,
    Unavailable,
)
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.http import HttpTransport
from lineshaft.wire import CALLS, Enqueue, EnqueueQuery, Hello, Root, Task, Worker

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

GOOD = {"name": "lineshaft", "version": "1", "protocol": "1", "features": [], "unknown": 1}


@asynccontextmanager
async def serving(handler: Handler, **site: Any) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    if "path" in site:
        await web.UnixSite(runner, site["path"]).start()
        url = f"unix://{site['path']}"
    else:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield url
    finally:
        await runner.cleanup()


def answering(*answers: Callable[[web.Request], Any]) -> tuple[Handler, list[web.Request]]:
    """Answer each request with the next of `answers`, the last for ever."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()
        seen.append(request)
        answer = answers[min(len(seen), len(answers)) - 1](request)
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return]

    return handler, seen


def good(request: web.Request) -> web.Response:
    return web.json_response(GOOD)


def drop(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def refuse(status: int, type: str, **more: Any) -> Callable[[web.Request], web.Response]:
    headers = {"Retry-After": more.pop("retry_after")} if "retry_after" in more else {}
    body = {"error": {"type": type, "reason": "because", **more}}
    return lambda request: web.json_response(body, status=status, headers=headers)


@pytest.mark.parametrize(
    "first", [drop, refuse(503, "unavailable"), refuse(429, "overloaded"), lambda r: web.Response(status=502)]
)
async def test_what_may_pass_is_repeated(first: Callable[[web.Request], Any]) -> None:
    handler, seen = answering(first, first, good)
    async with serving(handler) as url, HttpTransport(url) as transport:
        answer = await transport.call(CALLS["root"])
    assert answer == Root(name="lineshaft", version="1", protocol="1", features=[])
    assert len(seen) == 3


async def test_a_repeated_write_is_the_same_request() -> None:
    handler, seen = answering(drop, lambda r: web.json_response(_enqueued(), status=201))
    async with serving(handler) as url, HttpTransport(url, api_key="ls_a_b") as transport:
        body = Enqueue(name="it", task_id="mine")
        answer = await transport.call(CALLS["enqueue"], query=EnqueueQuery(wait=1.5), body=body)
    assert answer.task_id == "mine"
    bodies = [await request.read() for request in seen]
    assert bodies[0] == bodies[1] == b'{"name":"it","task_id":"mine"}'
    assert seen[1].query_string == "wait=1.5"
    assert seen[1].headers["Authorization"] == "ApiKey ls_a_b"
    assert seen[1].headers["Content-Type"] == "application/json"


def _enqueued() -> dict[str, Any]:
    return {"task_id": "mine", "state": "queued", "created": True, "position": 3}


async def test_an_id_is_one_segment_of_the_path() -> None:
    handler, seen = answering(refuse(404, "not_found"))
    async with serving(handler) as url, HttpTransport(url) as transport:
        with pytest.raises(NotFound):
            await transport.call(CALLS["get"], id="a/b:c@d+e=f%")
    assert seen[0].raw_path == "/_tasks/a%2Fb%3Ac%40d%2Be%3Df%25"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refuse(409, "lease_lost", task_id="t"), LeaseLost),
        (refuse(409, "queue_closed"), QueueClosed),
        (refuse(422, "invalid", field="delay"), Invalid),
        (refuse(403, "of_a_later_version"), Forbidden),
        (lambda r: web.Response(status=403, text="<html>proxy"), Forbidden),
        (lambda r: web.Response(status=302, headers={"Location": "/elsewhere"}), LineshaftError),
        (lambda r: web.Response(text="<html>not lineshaft"), LineshaftError),
    ],
)
async def test_a_refusal_is_the_error_that_the_coordinator_meant(answer: Any, kind: type[Exception]) -> None:
    handler, seen = answering(answer)
    async with serving(handler) as url, HttpTransport(url) as transport:
        with pytest.raises(kind) as caught:
            await transport.call(CALLS["root"])
    assert type(caught.value) is kind
    assert len(seen) == 1


async def test_an_error_keeps_its_field_and_task() -> None:
    handler, _ = answering(refuse(422, "invalid", field="delay", task_id="t"))
    async with serving(handler) as url, HttpTransport(url) as transport:
        with pytest.raises(Invalid) as caught:
            await transport.call(CALLS["root"])
    assert (caught.value.reason, caught.value.field, caught.value.task_id) == ("because", "delay", "t")


async def test_retry_after_is_not_undercut() -> None:
    handler, seen = answering(refuse(429, "overloaded", retry_after="60"))
    async with serving(handler) as url, HttpTransport(url, retry_for=5) as transport:
        with pytest.raises(Overloaded) as caught:
            await transport.call(CALLS["root"])
    assert caught.value.retry_after == 60
    assert len(seen) == 1


async def test_nobody_there_says_what_to_do() -> None:
    async with serving(good) as url:
        pass
    transport = HttpTransport(url, retry_for=0)
    with pytest.raises(Unavailable, match="is `lineshaft serve` running there") as caught:
        await transport.call(CALLS["root"])
    assert url in caught.value.reason
    assert "LINESHAFT_URL" in caught.value.reason
    await transport.close()


async def test_no_answer_in_time_is_unavailable() -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(silent) as url, HttpTransport(url, retry_for=0) as transport:
        with pytest.raises(Unavailable, match="did not answer in time"):
            await transport.call(CALLS["root"], timeout=0.05)


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    handler, _ = answering(good)
    async with serving(handler, path=tmp_path / "socket") as url, HttpTransport(url) as transport:
        assert (await transport.call(CALLS["root"])).name == "lineshaft"


async def test_a_coordinator_without_push_sessions_gives_none() -> None:
    handler, _ = answering(refuse(404, "not_found"))
    async with serving(handler) as url, HttpTransport(url) as transport:
        assert await transport.session(Hello(worker=Worker(id="w"))) is None


async def test_unknown_fields_of_an_answer_are_ignored_and_raw_values_kept() -> None:
    raw = b'{"z": 1e400, "a": 123456789012345678901234567890}'
    task = {
        "task_id": "t", "name": "n", "queue": "q", "state": "completed", "priority": 0, "attempt": 1,
        "lost_leases": 0, "max_retries": 3, "created_at": "x", "run_at": "x", "novel": [1],
    }  # fmt: skip
    body = msgspec.json.encode({**task, "result": msgspec.Raw(raw)})
    handler, _ = answering(lambda r: web.Response(body=body, content_type="application/json"))
    async with serving(handler) as url, HttpTransport(url) as transport:
        answer: Task = await transport.call(CALLS["get"], id="t")
    assert bytes(answer.result) == raw  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["127.0.0.1:7077", "http://", "http://user:pass@host", "unix://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        HttpTransport(url)


def test_delays_double_with_jitter_up_to_a_bound() -> None:
    longest = Backoff(base=1, cap=8, draw=lambda: 1.0)
    assert [longest.after_failure() for _ in range(5)] == [1, 2, 4, 8, 8]
    shortest = Backoff(base=1, cap=8, draw=lambda: 0.0)
    assert [shortest.after_failure() for _ in range(3)] == [0.5, 1, 2]
    shortest.succeeded()
    assert shortest.after_failure(retry_after=30) == 30
