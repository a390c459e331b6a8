"""What happens on the wire: malformed and slow requests, pipelining, clients that hang up, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lineshaft.core import commands
from lineshaft.server.serve import Coordinator, running
from lineshaft.server.settings import Limits, ServerSettings


class Line:
    """A connection on which bytes are written and answers read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self, *, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = 0 if head_only else int(headers.get("content-length", "0"))
        return int(status_line.split()[1]), headers, await self.reader.readexactly(size)

    async def exchange(self, sent: bytes) -> tuple[int, Any]:
        """Send bytes and return status and decoded body of the next answer."""
        self.writer.write(sent)
        status, headers, body = await self.answer()
        assert status == 204 or headers["content-type"].startswith("application/json"), (headers, body)
        return status, json.loads(body) if body else None

    async def ended(self) -> bool:
        return await self.reader.read() == b""


Connect = Any


@pytest.fixture(name="limits")
def give_limits() -> Limits:
    return Limits(receive=0.3)


@pytest.fixture(name="coordinator")
async def give_coordinator(limits: Limits) -> AsyncIterator[Coordinator]:
    async with running(ServerSettings(store="memory://", listen="127.0.0.1:0", limits=limits)) as coordinator:
        yield coordinator


@pytest.fixture(name="line")
async def give_line(coordinator: Coordinator) -> AsyncIterator[Line]:
    async with connected(coordinator) as line:
        yield line


@contextlib.asynccontextmanager
async def connected(coordinator: Coordinator) -> AsyncIterator[Line]:
    host, port = coordinator.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    try:
        async with asyncio.timeout(20):
            yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def post(path: str, body: bytes = b"{}", *headers: bytes) -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" % path.encode()
    return (
        head
        + b"".join(header + b"\r\n" for header in headers)
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = (
    b"POST /_tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /_tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /_tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /_tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: nonsense\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_a_malformed_request_is_answered_with_400_in_json(line: Line, sent: bytes) -> None:
    status, body = await line.exchange(sent)
    assert status == 400
    assert body["error"]["type"] == "malformed"


async def test_a_connection_serves_many_requests_also_pipelined(line: Line) -> None:
    enqueue = post("/_tasks", b'{"name":"n"}')
    line.writer.write(GET + enqueue + GET)
    assert [(await line.answer())[0] for _ in range(3)] == [200, 201, 200]
    assert (await line.exchange(GET))[0] == 200


async def test_head_has_the_headers_of_get_and_no_body(line: Line) -> None:
    line.writer.write(GET.replace(b"GET", b"HEAD"))
    status, headers, _ = await line.answer(head_only=True)
    assert status == 200
    assert int(headers["content-length"]) > 0
    assert (await line.exchange(GET))[0] == 200


async def test_a_body_may_come_in_chunks(line: Line) -> None:
    assert (await line.exchange(CHUNKED + b'6\r\n{"name\r\n6\r\n":"n"}\r\n0\r\n\r\n'))[0] == 201


async def test_who_expects_100_continue_is_told_to_go_on(line: Line) -> None:
    body = b'{"name":"n"}'
    line.writer.write(post("/_tasks", body, b"Expect: 100-continue")[: -len(body)])
    assert (await line.answer())[0] == 100
    assert (await line.exchange(body))[0] == 201


async def test_every_answer_carries_content_length(line: Line) -> None:
    line.writer.write(post("/_tasks/_claim", b"{}"))
    status, headers, _ = await line.answer()
    assert (status, headers["content-length"]) == (204, "0")


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_head_that_is_too_large_is_431(line: Line, in_pieces: bool) -> None:
    line.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    if in_pieces:
        for _ in range(5):
            line.writer.write(b"X: " + b"x" * 8_000)
            await line.writer.drain()
    else:
        line.writer.write(b"X: " + b"x" * 33_000 + b"\r\n\r\n")
    status, body = await line.exchange(b"")
    assert (status, body["error"]["type"]) == (431, "too_large")
    assert await line.ended()


async def test_a_body_above_the_limit_is_read_before_it_is_refused(line: Line) -> None:
    status, body = await line.exchange(post("/_tasks", b'{"name":"n","payload":"%s"}' % (b"x" * 5_000_000)))
    assert (status, body["error"]["type"]) == (413, "too_large")
    assert (await line.exchange(GET))[0] == 200


async def test_an_endless_body_is_refused(line: Line) -> None:
    line.writer.write(
        post("/_tasks", b"", b"Content-Length: 100000000").replace(b"Content-Length: 0\r\n", b"")
    )
    line.writer.write(b"x" * 9_000_000)
    status, body = await line.exchange(b"")
    assert (status, body["error"]["type"]) == (413, "too_large")


@pytest.mark.parametrize(
    "sent", [b"G", b"GET / HTTP/1.1\r\nHost: loc", post("/_tasks", b'{"name":"n"}')[:-1]]
)
async def test_a_request_that_does_not_arrive_in_time_is_408(line: Line, sent: bytes) -> None:
    status, body = await line.exchange(sent)
    assert (status, body["error"]["type"]) == (408, "request_timeout")
    assert await line.ended()


async def test_the_deadline_is_for_the_whole_request_however_it_drips(line: Line) -> None:
    async def drip() -> None:
        with contextlib.suppress(OSError):
            while True:
                line.writer.write(b"X: y\r\n")
                await asyncio.sleep(0.05)

    line.writer.write(GET[:-2])
    dripping = asyncio.create_task(drip())
    status, body = await line.exchange(b"")
    dripping.cancel()
    assert (status, body["error"]["type"]) == (408, "request_timeout")


async def test_a_wait_may_take_longer_than_the_deadline_for_receiving(line: Line) -> None:
    status, _ = await line.exchange(post("/_tasks/_claim", b'{"wait": "500ms"}'))
    assert status == 204


async def test_a_line_is_not_idle_where_a_request_began_before_the_answer_to_the_last() -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0", limits=Limits(keep_alive=1))
    claim = post("/_tasks/_claim", b'{"wait": "2s"}')
    async with running(settings) as coordinator, connected(coordinator) as line:
        assert (await line.exchange(GET + claim[:20]))[0] == 200
        assert (await line.exchange(claim[20:]))[0] == 204


async def test_nonsense_after_a_request_lets_its_answer_go_first(
    coordinator: Coordinator, line: Line
) -> None:
    line.writer.write(post("/_tasks/_claim", b'{"wait": "20s", "queues": ["q"]}') + b"nonsense\r\n\r\n")
    await parked(coordinator, 1)
    async with connected(coordinator) as other:
        assert (await other.exchange(post("/_tasks", b'{"name": "n", "queue": "q"}')))[0] == 201
    status, _, _ = await line.answer()
    assert status == 200
    assert await line.ended()


# Clients that hang up.


async def parked(coordinator: Coordinator, count: int) -> None:
    """Wait until so many claims are parked."""
    await waiting(coordinator, "waiting_claims", count)


async def waiting(coordinator: Coordinator, gauge: str, count: int) -> None:
    async with asyncio.timeout(10):
        while True:
            stats = await coordinator.engine.submit(commands.Stats(tenant="default"))
            if getattr(stats, gauge) == count:
                return
            await asyncio.sleep(0)


async def test_a_claimer_that_hangs_up_is_unparked_and_gets_no_task(coordinator: Coordinator) -> None:
    async with connected(coordinator) as gone:
        gone.writer.write(post("/_tasks/_claim", b'{"wait": "50s"}'))
        await parked(coordinator, 1)
    await parked(coordinator, 0)
    async with connected(coordinator) as line:
        assert (await line.exchange(post("/_tasks", b'{"name": "n", "task_id": "a"}')))[0] == 201
        status, task = await line.exchange(post("/_tasks/_claim"))
        assert (status, task["task_id"], task["attempt"]) == (200, "a", 1)


async def test_a_claimer_that_reads_nothing_and_hangs_up_holds_nothing(coordinator: Coordinator) -> None:
    known = set(coordinator._server.server_state.connections)
    async with connected(coordinator) as line, connected(coordinator) as deaf:
        big = b'{"name": "n", "queue": "big", "payload": "%s"}' % (b"x" * 900_000)
        assert (await line.exchange(post("/_tasks", big.replace(b"{", b'{"task_id": "big",', 1))))[0] == 201
        assert (await line.exchange(post("/_tasks", b'{"name": "n", "queue": "q", "task_id": "a"}')))[
            0
        ] == 201
        protocols: list[Any] = list(set(coordinator._server.server_state.connections) - known)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def stuck() -> bool:
            """Tell whether nothing more goes out, also when the kernel has had time to take it."""
            for _ in range(50):
                if not any(protocol.flow.write_paused for protocol in protocols):
                    return False
                await line.exchange(GET)
            return True

        while not await stuck():
            answered = coordinator.calls.responses[200]
            deaf.writer.write(b"GET /_tasks/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while coordinator.calls.responses[200] <= answered:
                await line.exchange(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deaf.writer.write(post("/_tasks/_claim", b'{"queues": ["q"]}'))
        await state(line, "a", "running")
        deaf.writer.transport.abort()
        task = await state(line, "a", "queued")
        assert (task["attempt"], task["lost_leases"]) == (0, 0)


async def state(line: Line, task_id: str, wanted: str) -> Any:
    """Wait until a task is in a state."""
    while True:
        status, task = await line.exchange(
            f"GET /_tasks/{task_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        assert status == 200
        if task["state"] == wanted:
            return task


async def test_who_waits_for_a_result_and_hangs_up_is_forgotten(coordinator: Coordinator) -> None:
    async with connected(coordinator) as gone:
        gone.writer.write(post("/_tasks?wait=50s", b'{"name": "n"}'))
        await waiting(coordinator, "waiting_results", 1)
    await waiting(coordinator, "waiting_results", 0)


# Shutdown.


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/_tasks/_claim", b'{"wait": "50s"}'),
        ("/_tasks/_claim?wait=50s", b"{}"),
        ("/_tasks/_report", b'{"items": [], "claim": {"wait": "50s"}}'),
    ],
)
async def test_a_shutdown_answers_whoever_waits(limits: Limits, path: str, body: bytes) -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0", limits=limits)
    async with contextlib.AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(running(settings))
        async with connected(coordinator) as line:
            line.writer.write(post(path, body))
            await parked(coordinator, 1)
            coordinator.stop()
            status, headers, told = await line.answer()
            assert (status, json.loads(told)["error"]["type"]) == (503, "unavailable")
            assert headers["retry-after"] == "1"
            assert await line.ended()


async def test_an_offer_to_speak_another_protocol_is_passed_over(line: Line) -> None:
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    )
    assert (await line.exchange(upgrade))[0] == 200
    line.writer.write(post("/_tasks", b'{"name":"n"}', b"Connection: Upgrade", b"Upgrade: h2c") + GET)
    assert [(await line.answer())[0] for _ in range(2)] == [201, 200]
    line.writer.write(
        GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n") + GET
    )
    assert [(await line.answer())[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "spoiled",
    [
        (b"Version: 13", b"Version: 8"),
        (b"Key: dGhl", b"Key: x"),
        (b"Sec-WebSocket-Key", b"X-Key"),
        (b"lineshaft.v1", b"v9"),
    ],
)
async def test_a_handshake_that_is_none_is_refused_in_json(line: Line, spoiled: tuple[bytes, bytes]) -> None:
    handshake = (
        b"GET /_tasks/_session HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: lineshaft.v1\r\n\r\n"
    )
    status, body = await line.exchange(handshake.replace(*spoiled))
    assert (status, body["error"]["type"]) == (400, "malformed")


async def test_http_1_0_is_served_and_closed(line: Line) -> None:
    assert (await line.exchange(b"GET / HTTP/1.0\r\n\r\n"))[0] == 200
    assert await line.ended()


async def test_who_says_no_more_still_gets_the_answer(line: Line) -> None:
    line.writer.write(GET + post("/_tasks", b'{"name":"n"}'))
    line.writer.write_eof()
    assert [(await line.answer())[0] for _ in range(2)] == [200, 201]
    assert await line.ended()


async def test_who_says_no_more_gets_no_lease(coordinator: Coordinator, line: Line) -> None:
    """It may have gone altogether, and a task must not go with it."""
    async with connected(coordinator) as other:
        assert (await other.exchange(post("/_tasks", b'{"name":"n"}')))[0] == 201
        line.writer.write(post("/_tasks/_claim"))
        line.writer.write_eof()
        assert await line.ended()
        status, task = await other.exchange(post("/_tasks/_claim", b'{"wait":"10s"}'))
        assert (status, task["attempt"]) == (200, 1)


async def test_nobody_waits_who_has_said_no_more_before(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.writer.write(GET + post("/_tasks/_claim", b'{"wait":"50s"}'))
    line.writer.write_eof()
    assert (await line.answer())[0] == 200
    assert await line.ended()
    assert "ASGI" not in caplog.text


async def test_a_shutdown_ends_streams(limits: Limits) -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0", limits=limits)
    async with running(settings) as coordinator, connected(coordinator) as line:
        line.writer.write(
            b"GET /_tasks/_changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        assert (await line.answer(head_only=True))[0] == 200
        await line.reader.readuntil(b"id: 0\n\n")
        coordinator.stop()
        assert (await line.reader.read()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("early", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"", b"\r\n\r\n", None])
async def test_an_idle_line_is_closed(early: bytes | None) -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0", limits=Limits(keep_alive=1))
    async with running(settings) as coordinator, connected(coordinator) as line:
        if early is None:
            # Refused before its body has come whole.
            line.writer.write(post("/nothing", b" " * (1 << 20) + b"{}")[:-1])
            assert (await line.answer())[0] == 404
            line.writer.write(b"}")
        elif early.isspace():
            line.writer.write(early)
        elif early:
            line.writer.write(early)
            assert (await line.answer())[0] == 200
        assert await line.ended()


async def test_a_claimer_that_has_sent_more_is_seen_to_leave_too(coordinator: Coordinator) -> None:
    async with connected(coordinator) as gone:
        gone.writer.write(post("/_tasks/_claim", b'{"wait": "50s"}') + GET)
        await parked(coordinator, 1)
        gone.writer.write(GET)
    await parked(coordinator, 0)


async def test_what_is_sent_while_one_waits_is_answered_in_order(
    coordinator: Coordinator, line: Line
) -> None:
    line.writer.write(post("/_tasks/_claim", b'{"wait": "300ms"}') + GET * 30)
    assert [(await line.answer())[0] for _ in range(31)] == [204] + [200] * 30


@pytest.mark.parametrize("limits", [Limits(connections=2)])
async def test_beyond_the_limit_connections_are_refused_and_those_that_stand_go_on(
    coordinator: Coordinator,
) -> None:
    async with connected(coordinator) as first:
        async with connected(coordinator) as second:
            assert (await first.exchange(GET))[0] == (await second.exchange(GET))[0] == 200
            async with connected(coordinator) as third:
                status, headers, body = await third.answer()
                assert (status, headers["retry-after"]) == (503, "1")
                assert json.loads(body)["error"]["type"] == "unavailable"
                assert await third.ended()
            assert (await first.exchange(GET))[0] == 200
            second.writer.close()
        async with connected(coordinator) as again:
            assert (await again.exchange(GET))[0] == 200


async def test_who_follows_the_changes_and_leaves_is_seen_to_go(coordinator: Coordinator) -> None:
    async with connected(coordinator) as line:
        line.writer.write(
            b"GET /_tasks/_changes HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        assert (await line.answer(head_only=True))[0] == 200
        line.writer.write_eof()
        assert not (await line.reader.read()).endswith(b"0\r\n\r\n"), "cut off, not ended in good order"


async def test_thousands_sent_ahead_are_too_many(coordinator: Coordinator, line: Line) -> None:
    line.writer.write(GET * 1_000)
    answered = (await line.reader.read()).count(b"HTTP/1.1 200 ")
    assert 256 <= answered <= 258, "those within the bound are answered, and then the line ends"


async def test_who_takes_nothing_of_the_answers_is_given_up() -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0", limits=Limits(keep_alive=1))
    async with running(settings) as coordinator, connected(coordinator) as line:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        described = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        line.writer.write(described * 250)
        async with asyncio.timeout(10):
            while True:
                await asyncio.sleep(0)
                if not coordinator._server.server_state.connections:
                    return


async def test_nothing_may_follow_a_handshake_before_it_is_answered(line: Line) -> None:
    line.writer.write(
        b"GET /_tasks/_session HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x00"
    )
    assert (await line.answer())[0] == 400
    assert await line.ended()
