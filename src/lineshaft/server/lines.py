"""Connections to other coordinators: kept open, one pool for each of their addresses."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

if TYPE_CHECKING:
    import aiohttp  # loaded where it is needed: a coordinator that is alone starts without

_CONNECT = 2.0
_KEEP_ALIVE = 30.0
"""Seconds after which an idle connection is closed; before the other side would."""
_LARGE = 1 << 20
_SILENT = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Unsent(Exception):
    """Nobody was reached: the request did nothing."""


class Broken(Exception):
    """The connection broke before the answer had come: what the request did is unknown."""


class Answer(Protocol):
    """What came back, as it comes."""

    status: int

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers as they were sent."""

    async def read(self) -> bytes:
        """Return the whole body. Raises `Broken`."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the body piece by piece. Raises `Broken`."""


class Lines(Protocol):
    """How other coordinators are reached; tests and simulators bring their own."""

    def request(
        self, address: str, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> contextlib.AbstractAsyncContextManager[Answer]:
        """Send a request. Raises `Unsent`, `Broken`."""

    async def websocket(
        self, address: str, target: str, headers: list[tuple[str, str]], *, protocol: str, max_size: int
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket. Raises `Unsent`; `Refused` where it is answered with a status."""

    async def close(self) -> None:
        """Hang up everywhere."""


class Refused(Exception):
    """A WebSocket was answered with a status instead."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class HttpLines:
    """Over HTTP, by `http://host:port` or `unix:///path/of/socket`."""

    def __init__(self) -> None:
        self._tcp: aiohttp.ClientSession | None = None
        self._unix: dict[str, aiohttp.ClientSession] = {}

    @contextlib.asynccontextmanager
    async def request(
        self, address: str, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> AsyncIterator[Answer]:
        """See `Lines`."""
        import aiohttp
        from yarl import URL

        session, base = self._session(address)
        try:
            response = await session.request(
                method,
                URL(base + target, encoded=True),
                # A large one is to be sent piece by piece, says aiohttp, so that others have their turn.
                data=io.BytesIO(body) if len(body) > _LARGE else body or None,
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unsent(str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Broken(str(error) or type(error).__name__) from error
        whole = False
        try:
            yield _HttpAnswer(response)
            whole = True
        finally:
            if whole:
                response.release()
            else:
                response.close()  # so that the other side sees that nobody waits any more

    async def websocket(
        self, address: str, target: str, headers: list[tuple[str, str]], *, protocol: str, max_size: int
    ) -> aiohttp.ClientWebSocketResponse:
        """See `Lines`."""
        import aiohttp
        from yarl import URL

        session, base = self._session(address)
        try:
            return await session.ws_connect(
                URL(base + target, encoded=True),
                protocols=(protocol,),
                headers=headers,
                max_msg_size=max_size,
                autoclose=True,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unsent(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """See `Lines`."""
        sessions = [*self._unix.values(), *([] if self._tcp is None else [self._tcp])]
        self._tcp = None
        self._unix.clear()
        for session in sessions:
            await session.close()

    def _session(self, address: str) -> tuple[aiohttp.ClientSession, str]:
        """Return the session for an address and what its URLs begin with."""
        import aiohttp

        if address.startswith("unix://"):
            path = unquote(address.removeprefix("unix://"))
            if path not in self._unix:
                self._unix[path] = _opened(
                    aiohttp.UnixConnector(path, limit=0, keepalive_timeout=_KEEP_ALIVE)
                )
            return self._unix[path], "http://localhost"
        if self._tcp is None:
            self._tcp = _opened(
                aiohttp.TCPConnector(limit=0, ttl_dns_cache=10, keepalive_timeout=_KEEP_ALIVE)
            )
        return self._tcp, address.rstrip("/")


def _opened(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_SILENT,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
    )


class _HttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """See `Answer`."""
        return self._response.raw_headers

    async def read(self) -> bytes:
        """See `Answer`."""
        import aiohttp

        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(str(error)) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `Answer`."""
        import aiohttp

        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(str(error)) from error
