"""The HTTP edge, an ASGI application: parse, call, encode; nothing else happens here.

Order of judgement: Host and Origin (403), path (404), method (405), API key (401, 403), content type (415),
size (413), syntax (400), meaning (422), and then what the call itself finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from uvicorn.protocols.utils import ClientDisconnected

from lineshaft.errors import Forbidden, LineshaftError, Malformed, Retryable, TooLarge, Unavailable
from lineshaft.server.calls import Calls
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.headers import Headers
from lineshaft.server.hosts import AllowedHosts
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.server.intake import traceparent
from lineshaft.server.metrics import RequestMetrics
from lineshaft.server.protocol import ClientGone
from lineshaft.server.router import NoSuchMethod, Router
from lineshaft.server.session import Session
from lineshaft.server.settings import Limits
from lineshaft.server.stream import stream_changes
from lineshaft.server.views import error_info
from lineshaft.wire import CALLS, SESSION_PATH, ErrorBody

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("lineshaft.server")
_encode = msgspec.json.Encoder().encode
_JSON = b"application/json"
_GUEST = Identity(scopes=frozenset())


class Response(msgspec.Struct, frozen=True):
    """What goes out: `media` None for none, as with 204."""

    status: int
    body: bytes = b""
    media: bytes | None = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Application:
    """Serves the calls of the protocol over HTTP, and the push session over WebSocket."""

    def __init__(self, calls: Calls, keys: KeyRing, *, hosts: AllowedHosts, limits: Limits) -> None:
        self._calls = calls
        self._keys = keys
        self._hosts = hosts
        self._limits = limits
        self._router = Router(CALLS.values())
        self._endpoints = {name: Endpoint(call, limits) for name, call in CALLS.items()}
        self._waiting: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.metrics = RequestMetrics()
        calls.responses = self.metrics.by_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    def close(self) -> None:
        """Send away whoever waits, and end streams and sessions: the coordinator shuts down."""
        self._closing = True
        for task in self._waiting:
            task.cancel()

    # -- HTTP --------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response | None
        try:
            response = await self._respond(scope, receive, send)
        except LineshaftError as error:
            response = refusal(error)
        except (ClientGone, asyncio.CancelledError):
            if not self._closing:
                if (protocol := scope.get("lineshaft.protocol")) is not None:
                    protocol.leave()
                return
            response = refusal(Unavailable("the coordinator is shutting down", retry_after=1))
        except Exception:
            _log.exception("internal error at %s %s", scope["method"], scope["path"])
            response = _INTERNAL
        if response is not None:
            self.metrics.count(response.status)
            with contextlib.suppress(asyncio.CancelledError):  # gone while it was sent
                await _send(scope, send, response)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        headers = self._screened(scope)
        endpoint, id = self._matched(scope)
        identity = self._identified(endpoint.call.scope, headers)
        media = endpoint.checked_media(headers)
        body = await self._body(endpoint.limit, headers, receive)
        message = endpoint.read_body(body, media)
        query = endpoint.read_query(scope["query_string"])
        streams = endpoint.call.stream is not None and headers.wants_events and scope["method"] == "GET"
        waits = endpoint.waits(query, message)
        leases = endpoint.leases(message)
        protocol = scope.get("lineshaft.protocol")
        if protocol is not None and (streams or waits or leases):
            protocol.mind_leaving()
        if streams:
            with self._wait():
                await self._stream(identity, query, headers.last_event_id, send)
            return None
        call = self._calls.call(
            endpoint.call, identity, id=id, query=query, body=message, traceparent=_traceparent(headers)
        )
        if waits:
            with self._wait():
                answer = await call
        else:
            answer = await call
        if leases and protocol is not None and protocol.gone:
            await self._calls.give_back(identity, answer)
            raise ClientGone
        return _response(endpoint, query, answer)

    async def _stream(self, identity: Identity, query: Any, last_event_id: str | None, send: Send) -> None:
        query.after = last_event_id or query.after
        try:
            await stream_changes(self._calls, identity, query, send)
        except LineshaftError as error:
            if last_event_id and error.field == "after":
                error.field = "Last-Event-ID"
            raise

    def _screened(self, scope: Scope) -> Headers:
        headers = Headers(scope["headers"])
        if headers.host is None:
            if scope["http_version"] != "1.0":
                raise Malformed("a request needs a Host header")
        elif not self._hosts.allows(headers.host):
            raise Forbidden("this Host is not served here (see the option for allowed hosts)")
        origin = headers.origin_host
        if origin is not None and not self._hosts.allows(origin):
            raise Forbidden("pages of this Origin may not call (see the option for allowed hosts)")
        return headers

    def _matched(self, scope: Scope) -> tuple[Endpoint, str | None]:
        raw_path: bytes = scope["raw_path"]
        if not raw_path.isascii():
            raise Malformed("a path must be percent-encoded")
        path = raw_path.decode()
        if path == SESSION_PATH:
            if scope["method"] != "GET":
                raise NoSuchMethod(f"{SESSION_PATH} does not take {scope['method']}", ["GET"])
            raise Malformed("the push session needs a WebSocket handshake")
        call, id = self._router.match(scope["method"], path)
        return self._endpoints[call.name], id

    def _identified(self, scope: str, headers: Headers) -> Identity:
        if not scope:
            return _GUEST
        identity = self._keys.identify(headers.authorization)
        identity.require(scope)
        return identity

    async def _body(self, limit: int, headers: Headers, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message["body"]
        if not message["more_body"] and len(body) <= limit:
            return body
        chunks, size, more = [body], len(body), message["more_body"]
        while more and size <= max(limit, self._limits.drain):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message["more_body"]
            size += len(message["body"])
            if size <= limit:
                chunks.append(message["body"])
        if size > limit:
            raise TooLarge(f"the body is above the limit of {limit} bytes")
        return b"".join(chunks)

    def _wait(self) -> _Waiting:
        return _Waiting(self._waiting)

    # -- WebSocket ---------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = self._screened(scope)
            path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "replace")
            if path.partition("?")[0] != SESSION_PATH:
                self._router.match("GET", path)
                raise Malformed("this is not a WebSocket")
            identity = self._identified("work", headers)
            session = Session(self._calls, identity, limits=self._limits, receive=receive, send=send)
            session.negotiate(scope)
        except LineshaftError as error:
            await _deny(receive, send, refusal(error))
            return
        with self._wait():
            try:
                await session.run()
            except asyncio.CancelledError:
                await session.hang_up(1012 if self._closing else 1006)


class _Waiting:
    """While the block runs, a shutdown cancels it."""

    def __init__(self, waiting: set[asyncio.Task[Any]]) -> None:
        self._waiting = waiting

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._waiting.add(self._task)

    def __exit__(self, *error: object) -> None:
        assert self._task is not None
        self._waiting.discard(self._task)


def _traceparent(headers: Headers) -> str | None:
    return traceparent(headers.traceparent)


def refusal(error: LineshaftError) -> Response:
    """Return the answer that an error amounts to."""
    more: list[tuple[bytes, bytes]] = []
    retry_after = None
    if isinstance(error, Retryable):
        retry_after = 1.0 if error.retry_after is None else error.retry_after
        more.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after))))
    if isinstance(error, NoSuchMethod):
        more.append((b"allow", ", ".join(error.allowed).encode()))
    if error.status == 401:
        more.append((b"www-authenticate", b"ApiKey"))
    body = _encode(ErrorBody(error=error_info(error), retry_after=retry_after))
    return Response(error.status, body, headers=tuple(more))


_SOON = ((b"retry-after", b"1"),)
_INTERNAL = Response(
    500, b'{"error":{"type":"internal","reason":"an internal error; the coordinator\'s log tells more"}}'
)


def _response(endpoint: Endpoint, query: Any, answer: Any) -> Response:
    if answer is None:
        return Response(204, media=None)
    if isinstance(answer, str):
        return Response(200, answer.encode(), endpoint.media)
    status = endpoint.status(query, answer)
    return Response(status, _encode(answer), endpoint.media, _SOON if status == 503 else ())


async def _send(scope: Scope, send: Send, response: Response) -> None:
    headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
    if response.media is not None:
        headers.append((b"content-type", response.media))
    protocol = scope.get("lineshaft.protocol")
    if protocol is not None:
        await protocol.respond(response.status, headers, response.body)
        return
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _deny(receive: Receive, send: Send, response: Response) -> None:
    await receive()
    assert response.media is not None
    headers = [
        *response.headers,
        (b"content-type", response.media),
        (b"content-length", b"%d" % len(response.body)),
    ]
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})
    raise ClientDisconnected  # else uvicorn complains that there was no handshake
