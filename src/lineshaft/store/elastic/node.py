"""A node of the cluster, as the client library knows it, over connections of our own (`connection`)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import msgspec
from elastic_transport import (
    AiohttpHttpNode,
    ApiResponseMeta,
    ConnectionError,
    ConnectionTimeout,
    HttpHeaders,
    NodeConfig,
    TlsError,
)

from lineshaft.store.elastic.connection import Broken, Connection, Response, TimedOut

CONNECT = 2.0
"""Seconds until a node that takes no connection counts as absent."""
_KEPT = 32
"""Connections that are kept for the next request."""


class _Answered(msgspec.Struct):
    """Status and headers, and the body, by the names that the library asks for."""

    meta: ApiResponseMeta
    body: bytes


class Node(AiohttpHttpNode):
    """Takes from the library what it knows of addresses and certificates, and sends requests itself."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._place = f"{config.path_prefix}".rstrip("/")
        self._host_line = f"host: {config.host}:{config.port}\r\n"

    async def perform_request(  # type: ignore[override]  # the library says so itself
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: float = 10.0,
    ) -> Any:
        """Send a request, again where a kept connection turns out to be closed. Raises `TransportError`."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        length = f"content-length: {len(body)}\r\n" if body is not None else ""
        head = f"{method} {self._place}{target} HTTP/1.1\r\n{self._host_line}{lines}{length}\r\n".encode()
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = await self._answer(head, body, request_timeout)
        meta = ApiResponseMeta(
            node=self.config,
            duration=loop.time() - started,
            http_version="1.1",
            status=response.status,
            headers=HttpHeaders(response.headers),
        )
        return _Answered(meta, response.body)

    async def close(self) -> None:  # type: ignore[override]  # the library says so itself
        """Close all connections; whoever waits for an answer is told."""
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # until the sockets are closed

    async def _answer(self, head: bytes, body: bytes | None, timeout: float) -> Response:
        while True:
            connection, is_new = self._take(), False
            if connection is None:
                connection, is_new = await self._connect(), True
            self._busy.add(connection)
            try:
                response = await connection.request(head, body, timeout)
            except Broken as broken:
                if is_new or broken.begun:
                    raise ConnectionError(str(broken)) from None
                continue  # it was closed while nobody looked
            except TimedOut as error:
                raise ConnectionTimeout(str(error)) from None
            finally:
                self._busy.discard(connection)
            if connection.reusable and len(self._idle) < _KEPT:
                self._idle.append(connection)
            else:
                connection.close()
            return response

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> Connection:
        config = self.config
        loop = asyncio.get_running_loop()
        host = config.host.strip("[]")
        opening = loop.create_task(
            loop.create_connection(Connection, host, config.port, ssl=self._ssl_context)
        )
        timer = loop.call_later(CONNECT, opening.cancel)
        try:
            _, connection = await opening
        except asyncio.CancelledError:
            if not opening.done() or timer.when() > loop.time():
                opening.cancel()
                raise
            raise ConnectionTimeout(f"no connection within {CONNECT:g} s") from None
        except ssl.SSLError as error:
            raise TlsError(str(error)) from error
        except OSError as error:
            raise ConnectionError(str(error)) from error
        finally:
            timer.cancel()
        return connection
