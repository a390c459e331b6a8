"""A line to the server that can be cut at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes on until told to lose the answers: then the next one ends the connection instead."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._url = url
        self._server: asyncio.Server
        self._lines: set[asyncio.Task[None]] = set()
        self.answers_to_lose = 0
        self.lost = 0

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return self._url.replace(f"{self._target[0]}:{self._target[1]}", f"127.0.0.1:{port}")

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)
        there, back = await asyncio.open_connection(*self._target)
        asking = asyncio.create_task(self._pass_on(reader, back, loses=False))
        try:
            await self._pass_on(there, writer, loses=True)
        finally:
            asking.cancel()
            for end in (writer, back):
                end.close()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, loses: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if loses and self.answers_to_lose:
                    self.answers_to_lose -= 1
                    self.lost += 1
                    return
                target.write(data)
                await target.drain()
