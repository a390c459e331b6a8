"""Requests with bytes changed, lost and put in get JSON below 500, and leave nothing in the log."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re

import pytest

from lineshaft.server.serve import Coordinator, running
from lineshaft.server.settings import Limits, ServerSettings

JSON = "Content-Type: application/json\r\n"
HEADS_AND_BODIES = [
    ("GET /", "", ""),
    ("POST /_tasks", JSON + "Content-Length: 12\r\n", '{"name":"n"}'),
    ("POST /_tasks/_claim?wait=20ms", JSON + "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
    ("PUT /_tasks/a%2Fb", JSON + "Expect: 100-continue\r\nContent-Length: 12\r\n", '{"name":"n"}'),
    (
        "GET /_tasks/_session",
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: lineshaft.v1\r\n"
        ),
        "",
    ),
]
REQUESTS = [
    f"{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}".encode()
    for line, headers, body in HEADS_AND_BODIES
]
PIECES = [
    b"\r\n",
    b"\n",
    b"\0",
    b"%",
    b": ",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\xff",
]
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)


def spoiled(chance: random.Random) -> bytes:
    data = bytearray(b"".join(chance.choices(REQUESTS, k=chance.randint(1, 3))))
    for _ in range(chance.randint(0, 4)):
        place = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                del data[place : place + chance.randint(1, 5)]
            case _:
                data[place:place] = chance.choice(PIECES)
    return bytes(data)


async def exchange(coordinator: Coordinator, data: bytes, cut: int = 0) -> bytes:
    """Send bytes in two pieces and return all that comes back."""
    host, port = coordinator.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    told = b""
    with contextlib.suppress(ConnectionError):
        for piece in (data[:cut], data[cut:]):
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(20):
            told = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return told


async def send_spoiled(coordinator: Coordinator, chance: random.Random) -> None:
    data = spoiled(chance)
    told = await exchange(coordinator, data, chance.randrange(len(data)))
    for status, head in STATUS.findall(told):
        assert status < b"500", (data, told)
        assert status in (b"100", b"101", b"204") or b"application/json" in head, (data, told)


@pytest.mark.parametrize("chance", range(8))
async def test_spoiled_requests(chance: int, caplog: pytest.LogCaptureFixture) -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0", limits=Limits(receive=0.3))
    source = random.Random(chance)
    async with running(settings) as coordinator:
        for _ in range(4):
            await asyncio.gather(*(send_spoiled(coordinator, source) for _ in range(25)))
        assert (await exchange(coordinator, REQUESTS[0])).startswith(b"HTTP/1.1 200 ")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
