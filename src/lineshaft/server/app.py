"""The HTTP edge, an ASGI application: parse, call, encode; nothing else happens here.

Order of judgement: Host and Origin (403), path (404), method (405), API key (401, 403), content type (415),
size (413), syntax (400), meaning (422), and then what the call itself finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import msgspec
from uvicorn.protocols.utils import ClientDisconnected

from lineshaft.errors import Forbidden, LineshaftError, Malformed, TooLarge, Unavailable
from lineshaft.server.answering import ClientGone
from lineshaft.server.asked import Asked, Cancellable, Line
from lineshaft.server.calls import Calls
from lineshaft.server.cluster import Cluster
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.exchange import Request
from lineshaft.server.fields import traceparent
from lineshaft.server.headers import Headers
from lineshaft.server.hosts import AllowedHosts
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.server.metrics import RequestMetrics
from lineshaft.server.responses import INTERNAL, Response, refusal
from lineshaft.server.router import NoSuchMethod, Router
from lineshaft.server.serving_elsewhere import ServingElsewhere
from lineshaft.server.session import Session
from lineshaft.server.session_elsewhere import pass_through
from lineshaft.server.settings import Limits
from lineshaft.server.stream import stream_changes
from lineshaft.wire import CALLS, SESSION_PATH

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("lineshaft.server")
_encode = msgspec.json.Encoder().encode
_GUEST = Identity(scopes=frozenset())
_AT_ONCE = contextlib.nullcontext()


class Application(ServingElsewhere):
    """Serves the calls of the protocol over HTTP, and the push session over WebSocket."""

    def __init__(
        self,
        calls: Calls,
        keys: KeyRing,
        *,
        hosts: AllowedHosts,
        limits: Limits,
        cluster: Cluster | None = None,
    ) -> None:
        """`cluster` is the way to the other coordinators; None where the store is exclusive."""
        super().__init__(cluster)
        self._calls = calls
        self._keys = keys
        self._hosts = hosts
        self._limits = limits
        self._router = Router(CALLS.values())
        self._endpoints = {name: Endpoint(call, limits) for name, call in CALLS.items()}
        self._waiting: dict[Cancellable, str | None] = {}
        """What lasts, with the id of the key that it was begun with."""
        keys.on_void = self._end_what_began_with
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
        for serving in list(self._waiting):
            if not self._is_to_finish(serving):
                serving.cancel()

    def _end_what_began_with(self, key_id: str | None) -> None:
        for serving in [serving for serving, began in self._waiting.items() if began == key_id]:
            if not self._changes_keys(serving):
                serving.cancel()

    # -- HTTP --------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        line: Line | None = scope.get("lineshaft.protocol")
        response = await self.respond(_request_of(scope), receive, line=line, serving=task, send=send)
        if response is not None:
            with contextlib.suppress(asyncio.CancelledError):  # gone while it was sent
                await _send(scope, send, response)

    async def respond(
        self,
        request: Request,
        body: bytes | Receive,
        *,
        line: Line | None,
        serving: Cancellable,
        send: Send | None = None,
    ) -> Response | None:
        """Return the answer to a request, errors too; None where nobody is to be answered (any more).

        `body` is the whole or where it comes from; without `send` nothing is streamed.
        """
        asked: Asked | None = None
        try:
            headers = Headers(request.headers)
            told = None if headers.forwarded is None else self._believed(headers.forwarded)
            if told is None:
                self._screen(headers, request.version)
            elif request.path.startswith(b"/_cluster/"):
                whole = body if isinstance(body, bytes) else await self._body(self._limits.batch, body)
                return await self._answer_coordinator(request, whole)
            endpoint, id = self._matched(request)
            identity = self._identified(endpoint.call.scope, headers, told)
            asked = Asked(request, endpoint, id, identity, headers, line, serving, send)
            response = await self._serve(asked, body)
        except LineshaftError as error:
            position = None if asked is None else self._durable(asked)
            response = refusal(error, position=position)
        except (ClientGone, asyncio.CancelledError) as cut:
            reason = None if asked is None else self._sent_away(cut, asked.identity, asked.headers)
            if reason is None:
                if line is not None:
                    line.leave()
                return None
            response = refusal(reason)
        except Exception:
            _log.exception("internal error at %s %s", request.method, request.path.decode("ascii", "replace"))
            response = INTERNAL
        if response is not None:
            self.metrics.count(response.status)
        return response

    def _sent_away(self, cut: BaseException, identity: Identity, headers: Headers) -> LineshaftError | None:
        """Return why it was us who ended what was under way; None where it was the client."""
        if self._closing:
            return Unavailable("the coordinator is shutting down", retry_after=1)
        if isinstance(cut, ClientGone) or identity is _GUEST:
            return None
        try:
            self._confirm(identity, headers)
        except LineshaftError as error:
            return error
        return None

    def _confirm(self, identity: Identity, headers: Headers) -> None:
        """Raise `Unauthorized` where who was identified would not be any more."""
        if headers.forwarded is None:
            self._keys.confirm(identity)
        else:
            self._keys.confirm_told(identity)

    def _durable(self, asked: Asked) -> int | None:
        """Return the position that an answer to a write tells where it has no other; of reads None."""
        engine, tenant = self._calls.engine, asked.identity.tenant
        return engine.position(tenant) if asked.endpoint.writes and engine.has(tenant) else None

    async def _serve(self, asked: Asked, body: bytes | Receive) -> Response | None:
        endpoint = asked.endpoint
        # What is forwarded is judged where it is served.
        elsewhere = self._cluster is not None and self._is_elsewhere(asked)
        media = None if elsewhere else endpoint.checked_media(asked.headers)
        if not isinstance(body, bytes):
            body = await self._body(endpoint.limit, body)
        elif len(body) > endpoint.limit:
            raise TooLarge(f"the body is above the limit of {endpoint.limit} bytes")
        if self._cluster is None or not endpoint.placed:
            return await self._serve_here(asked, body, media)
        return await self._serve_where_it_is(asked, body)

    async def _serve_here(self, asked: Asked, body: bytes, media: str | None) -> Response | None:
        endpoint, identity, headers, line = asked.endpoint, asked.identity, asked.headers, asked.line
        message = endpoint.read_body(body, media)
        query = endpoint.read_query(asked.request.query)
        if self._cluster is not None and headers.forwarded is not None and headers.hurries:
            endpoint.hurried(query, message)
        streams = (
            asked.send is not None
            and endpoint.call.stream is not None
            and headers.wants_events
            and asked.request.method == "GET"
        )
        waits = endpoint.waits(query, message)
        if line is not None and (streams or waits or endpoint.leases(message)):
            line.mind_leaving()
        if streams:
            assert asked.send is not None
            with self._wait(asked.serving, identity, headers):
                await self._stream(identity, query, headers.last_event_id, asked.send)
            return None
        with self._wait(asked.serving, identity, headers) if waits else _AT_ONCE:
            answer = await self._calls.call(
                endpoint.call,
                identity,
                id=asked.id,
                query=query,
                body=message,
                traceparent=_traceparent(headers),
                requester=line,
            )
        if answer is None:
            position = self._durable(asked)
            return Response(204, media=None, headers=((b"lineshaft-position", b"%d" % (position or 0)),))
        return _response(endpoint, query, answer)

    async def _stream(self, identity: Identity, query: Any, last_event_id: str | None, send: Send) -> None:
        query.after = last_event_id or query.after
        try:
            await stream_changes(self._calls, identity, query, send)
        except LineshaftError as error:
            if last_event_id and error.field == "after":
                error.field = "Last-Event-ID"
            raise

    # -- judging -----------------------------------------------------------------------------------

    def _screen(self, headers: Headers, version: str) -> None:
        if headers.host is None:
            if version != "1.0":
                raise Malformed("a request needs a Host header")
        elif not self._hosts.allows(headers.host):
            raise Forbidden("this Host is not served here (see the option for allowed hosts)")
        origin = headers.origin_host
        if origin is not None and not self._hosts.allows(origin):
            raise Forbidden("pages of this Origin may not call (see the option for allowed hosts)")

    def _matched(self, request: Request) -> tuple[Endpoint, str | None]:
        if not request.path.isascii():
            raise Malformed("a path must be percent-encoded")
        path = request.path.decode()
        if path == SESSION_PATH:
            if request.method != "GET":
                raise NoSuchMethod(f"{SESSION_PATH} does not take {request.method}", ["GET"])
            raise Malformed("the push session needs a WebSocket handshake")
        call, id = self._router.match(request.method, path)
        return self._endpoints[call.name], id

    def _identified(self, scope: str, headers: Headers, told: Identity | None) -> Identity:
        """Return who calls, where another coordinator has not told."""
        if not scope:
            return _GUEST
        if told is None:
            identity = self._keys.identify(headers.authorization)
        else:
            self._keys.confirm_told(told)
            identity = told
        identity.require(scope)
        return identity

    async def _body(self, limit: int, receive: Receive) -> bytes:
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

    @contextlib.contextmanager
    def _wait(self, serving: Cancellable, identity: Identity, headers: Headers) -> Iterator[None]:
        """While the block runs, a shutdown cancels what serves, and so does the end of the key.

        Raises `Unauthorized` where the key has been revoked since it was looked at.
        """
        self._confirm(identity, headers)
        self._waiting[serving] = identity.key_id
        try:
            yield
        finally:
            del self._waiting[serving]

    # -- WebSocket ---------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = Headers(scope["headers"])
            told = None if headers.forwarded is None else self._believed(headers.forwarded)
            if told is None:
                self._screen(headers, scope["http_version"])
            path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "replace")
            if path.partition("?")[0] != SESSION_PATH:
                self._router.match("GET", path)
                raise Malformed("this is not a WebSocket")
            identity = self._identified("work", headers, told)
            session = Session(self._calls, identity, limits=self._limits, receive=receive, send=send)
            session.negotiate(scope)
            there = await self._session_elsewhere(identity, headers, max_size=self._limits.batch)
        except LineshaftError as error:
            await _deny(receive, send, refusal(error))
            return
        task = asyncio.current_task()
        assert task is not None
        with self._wait(task, identity, headers):
            try:
                if there is None:
                    self._sessions[task] = identity.tenant
                    await session.run()
                elif await pass_through(there, receive, send):
                    raise ClientDisconnected
            except asyncio.CancelledError as cut:
                await session.hang_up(self._farewell(task, cut, identity, headers))
            finally:
                self._sessions.pop(task, None)
                self._moved.discard(task)

    def _farewell(
        self, task: asyncio.Task[Any], cut: BaseException, identity: Identity, headers: Headers
    ) -> int:
        """Return the code with which a session that was cancelled is closed."""
        if self._closing or task in self._moved:
            return 1012
        return 1008 if self._sent_away(cut, identity, headers) else 1006


def _traceparent(headers: Headers) -> str | None:
    return traceparent(headers.traceparent)


_SOON = ((b"retry-after", b"1"),)


def _request_of(scope: Scope) -> Request:
    return Request(
        scope["method"], scope["raw_path"], scope["query_string"], scope["http_version"], scope["headers"]
    )


def _response(endpoint: Endpoint, query: Any, answer: Any) -> Response:
    if isinstance(answer, str):
        return Response(200, answer.encode(), endpoint.media)
    status = endpoint.status(query, answer)
    return Response(status, _encode(answer), endpoint.media, _SOON if status == 503 else ())


async def _send(scope: Scope, send: Send, response: Response) -> None:
    protocol = scope.get("lineshaft.protocol")
    if protocol is not None:
        await protocol.respond(response)
        return
    headers = response.all_headers
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _deny(receive: Receive, send: Send, response: Response) -> None:
    await receive()
    start = {"type": "websocket.http.response.start", "status": response.status}
    await send(start | {"headers": response.all_headers})
    await send({"type": "websocket.http.response.body", "body": response.body})
    raise ClientDisconnected  # else uvicorn complains that there was no handshake
