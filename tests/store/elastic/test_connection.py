"""One connection to a node: answers in pieces, in chunks, by half, none, and connections that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from lineshaft.errors import Unavailable
from lineshaft.store.elastic.address import read_address
from lineshaft.store.elastic.client import Client

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

JSON = b"content-type: application/json\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + JSON


@asynccontextmanager
async def node(speak: Speak) -> AsyncIterator[Client]:
    """Start a node that answers as it is told, and a client of it."""
    tasks = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        try:
            await speak(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client(read_address("opensearch", f"127.0.0.1:{server.sockets[0].getsockname()[1]}/x", {}))
    yield client
    await client.close()
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head + await reader.readexactly(length)


def answering(*pieces: bytes) -> Speak:
    """Answer every request with these pieces, each sent by itself."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    return speak


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b'content-length: 7\r\n\r\n{"a":1}',),
        (OK + b"Content-Le", b"ngth: 7\r\n\r", b'\n{"a"', b":1}"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{",
            b'"a\r\n4',
            b'\r\n":1}\r\n0\r\n\r\n',
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + JSON + b'content-length: 7\r\n\r\n{"a":1}',),
    ],
)
async def test_an_answer_is_whole_however_it_comes(pieces: tuple[bytes, ...]) -> None:
    async with node(answering(*pieces)) as client:
        for _ in range(3):
            answer = await client.send("PUT", "/x", b"{}")
            assert (answer.status, answer.body) == (200, b'{"a":1}')


async def test_a_kept_connection_that_was_closed_is_replaced() -> None:
    served = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(await read_request(reader))
        writer.write(OK + b"content-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()  # without having said so

    async with node(speak) as client:
        for _ in range(3):
            assert (await client.send("GET", "/")).ok
        assert len(served) == 3


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
async def test_half_an_answer_is_none(said: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)
        await writer.drain()

    async with node(speak) as client:
        with pytest.raises(Unavailable, match="no answer from the cluster"):
            await client.send("GET", "/")


async def test_silence_ends_in_time_and_the_connection_with_it() -> None:
    ended = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()
        ended.set()

    async with node(speak) as client:
        with pytest.raises(Unavailable, match="no answer within"):
            await client.send("GET", "/", timeout=0.05)
        await ended.wait()


async def test_who_gives_up_leaves_no_answer_to_the_next() -> None:
    release = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if b"GET /slow" in request:
                await release.wait()
            body = request.split(b" ")[1]
            writer.write(OK + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

    async with node(speak) as client:
        assert (await client.send("GET", "/first")).body == b"/first"
        slow = asyncio.ensure_future(client.send("GET", "/slow"))
        await asyncio.sleep(0)
        slow.cancel()
        await asyncio.wait([slow])
        release.set()
        assert (await client.send("GET", "/next")).body == b"/next"
