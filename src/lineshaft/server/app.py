"""The HTTP edge, an ASGI application: parse, call, encode; nothing else happens here.

Order of judgement: Host and Origin (403), path (404), method (405), API key (401, 403), content type (415),
size (413), syntax (400), meaning (422), and then what the call itself finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Protocol

import aiohttp
import msgspec
from uvicorn.protocols.utils import ClientDisconnected

from lineshaft.errors import Forbidden, LineshaftError, Malformed, NotOwner, TooLarge, Unavailable
from lineshaft.server.answering import ClientGone
from lineshaft.server.calls import Calls
from lineshaft.server.cluster import Cluster, pass_through
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.exchange import Request
from lineshaft.server.fields import traceparent
from lineshaft.server.forwarding import Ask
from lineshaft.server.headers import Headers
from lineshaft.server.hosts import AllowedHosts
from lineshaft.server.identity import SYSTEM_TENANT, Identity, KeyRing
from lineshaft.server.metrics import RequestMetrics
from lineshaft.server.responses import INTERNAL, Response, refusal
from lineshaft.server.router import NoSuchMethod, Router
from lineshaft.server.session import Session
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


class Line(Protocol):
    """The connection that a request came by."""

    def mind_leaving(self) -> None:
        """Take the end of what the client says for its leaving. Raises `ClientGone` where it has."""

    async def reach(self) -> None:
        """Wait until an answer could be written. Raises `ClientGone` where the client hangs up instead."""

    def leave(self) -> None:
        """End the request being served without an answer."""


class Cancellable(Protocol):
    """What serves a request: a task or an exchange."""

    def cancel(self) -> Any:
        """End it with `CancelledError`."""


class Application:
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
        self._calls = calls
        self._cluster = cluster
        if cluster is not None:
            cluster.on_move = self._end_sessions_elsewhere
        self._keys = keys
        self._hosts = hosts
        self._limits = limits
        self._router = Router(CALLS.values())
        self._endpoints = {name: Endpoint(call, limits) for name, call in CALLS.items()}
        self._waiting: dict[Cancellable, str | None] = {}
        """What lasts, with the id of the key that it was begun with."""
        self._sessions: dict[asyncio.Task[Any], str] = {}
        """Push sessions that are served here, with their tenants."""
        self._moved: set[Cancellable] = set()
        """Sessions that were ended because their shard is another's now."""
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
            serving.cancel()

    def _end_what_began_with(self, key_id: str | None) -> None:
        for serving in [serving for serving, began in self._waiting.items() if began == key_id]:
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
        asked = None
        try:
            headers = Headers(request.headers)
            told = None if headers.forwarded is None else self._believed(headers.forwarded)
            if told is None:
                self._screen(headers, request.version)
            elif request.path.startswith(b"/_cluster/"):
                return await self._answer_coordinator(request, headers, body)
            endpoint, id = self._matched(request)
            identity = self._identified(endpoint.call.scope, headers, told)
            asked = (endpoint, id, identity, headers)
            response = await self._serve(request, body, asked, line, serving, send)
        except LineshaftError as error:
            position = None if asked is None else self._durable(asked[0], asked[2])
            response = refusal(error, position=position)
        except (ClientGone, asyncio.CancelledError) as cut:
            reason = None if asked is None else self._sent_away(cut, asked[2], asked[3])
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

    def _durable(self, endpoint: Endpoint, identity: Identity) -> int | None:
        """Return the position that an answer to a write tells where it has no other; of reads None."""
        if not endpoint.writes or not self._calls.engine.has(identity.tenant):
            return None
        return self._calls.engine.position(identity.tenant)

    async def _serve(
        self,
        request: Request,
        body: bytes | Receive,
        asked: tuple[Endpoint, str | None, Identity, Headers],
        line: Line | None,
        serving: Cancellable,
        send: Send | None,
    ) -> Response | None:
        endpoint, _, identity, headers = asked
        elsewhere = endpoint.placed and self._cluster is not None and not self._is_here(endpoint, identity)
        # What is forwarded is judged where it is served.
        media = None if elsewhere else endpoint.checked_media(headers)
        if not isinstance(body, bytes):
            body = await self._body(endpoint.limit, headers, body)
        elif len(body) > endpoint.limit:
            raise TooLarge(f"the body is above the limit of {endpoint.limit} bytes")
        if self._cluster is None or not endpoint.placed:
            return await self._serve_here(request, body, media, asked, line, serving, send)
        return await self._serve_where_it_is(request, body, asked, line, serving, send)

    async def _serve_here(
        self,
        request: Request,
        body: bytes,
        media: str | None,
        asked: tuple[Endpoint, str | None, Identity, Headers],
        line: Line | None,
        serving: Cancellable,
        send: Send | None,
    ) -> Response | None:
        endpoint, id, identity, headers = asked
        message = endpoint.read_body(body, media)
        query = endpoint.read_query(request.query)
        if headers.hurries and headers.forwarded is not None:
            endpoint.hurried(query, message)
        streams = (
            send is not None
            and endpoint.call.stream is not None
            and headers.wants_events
            and request.method == "GET"
        )
        waits = endpoint.waits(query, message)
        if line is not None and (streams or waits or endpoint.leases(message)):
            line.mind_leaving()
        if streams:
            assert send is not None
            with self._wait(serving, identity, headers):
                await self._stream(identity, query, headers.last_event_id, send)
            return None
        with self._wait(serving, identity, headers) if waits else _AT_ONCE:
            answer = await self._calls.call(
                endpoint.call,
                identity,
                id=id,
                query=query,
                body=message,
                traceparent=_traceparent(headers),
                requester=line,
            )
        if answer is None:
            position = self._durable(endpoint, identity)
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

    # -- several coordinators ----------------------------------------------------------------------

    async def _serve_where_it_is(
        self,
        request: Request,
        body: bytes,
        asked: tuple[Endpoint, str | None, Identity, Headers],
        line: Line | None,
        serving: Cancellable,
        send: Send | None,
    ) -> Response | None:
        """Serve a request here or at its shard's owner, wherever that comes to be meanwhile."""
        cluster, (endpoint, _, identity, headers) = self._cluster, asked
        assert cluster is not None
        tenant = _place_of(endpoint, identity)
        while True:
            if cluster.is_here(tenant):
                media = endpoint.checked_media(headers)
                try:
                    return await self._serve_here(request, body, media, asked, line, serving, send)
                except NotOwner:
                    # It has moved meanwhile, and nothing was done.
                    if tenant in self._calls.partitioned:
                        raise Unavailable("a shard of this tenant is moving", retry_after=1.0) from None
            if headers.forwarded is not None:
                if not await cluster.catch_up(tenant, headers.roster_version):
                    raise NotOwner("this coordinator does not have the shard")
                continue
            ask = Ask(
                tenant=tenant,
                identity=identity,
                method=request.method,
                target=_target(request),
                headers=request.headers,
                body=body,
                may_repeat=lambda: _may_repeat(endpoint, headers, body),
                send=send if headers.wants_events else None,
                hurry=self._closing,
            )
            response = await self._forward(ask, endpoint, headers, line, serving)
            if response is not None or ask.streamed:
                return response

    def _is_here(self, endpoint: Endpoint, identity: Identity) -> bool:
        return self._cluster is None or self._cluster.is_here(_place_of(endpoint, identity))

    async def _forward(
        self, ask: Ask, endpoint: Endpoint, headers: Headers, line: Line | None, serving: Cancellable
    ) -> Response | None:
        """Forward a request; one that waits while we shut down is sent once more, not to wait."""
        assert self._cluster is not None
        if line is not None and (endpoint.call.name in ("claim", "report") or "wait=" in ask.target):
            line.mind_leaving()
        loop = asyncio.get_running_loop()
        try:
            with self._wait(serving, ask.identity, headers):
                response = await loop.create_task(self._cluster.forward(ask))
        except asyncio.CancelledError:
            if not self._closing or ask.hurry or ask.streamed or not ask.may_repeat():
                raise
            ask.hurry = True
            response = await loop.create_task(self._cluster.forward(ask))
        if response is not None and line is not None and endpoint.call.name in ("claim", "report"):
            try:
                await line.reach()
            except BaseException:
                self._cluster.give_back(ask, response)
                raise
        return response

    async def _answer_coordinator(
        self, request: Request, headers: Headers, body: bytes | Receive
    ) -> Response | None:
        assert self._cluster is not None
        if not isinstance(body, bytes):
            body = await self._body(self._limits.batch, headers, body)
        return await self._cluster.answer(request.path, body)

    def _believed(self, header: bytes) -> Identity:
        if self._cluster is None:
            raise Forbidden("there are no other coordinators on this store")
        return self._cluster.believe(header)

    def _end_sessions_elsewhere(self) -> None:
        """End the push sessions of shards that have moved: their workers come back, and are forwarded."""
        for task, tenant in list(self._sessions.items()):
            if self._cluster is not None and not self._cluster.is_here(tenant):
                self._moved.add(task)
                task.cancel()

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
            there = await self._session_elsewhere(identity, headers)
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

    async def _session_elsewhere(
        self, identity: Identity, headers: Headers
    ) -> aiohttp.ClientWebSocketResponse | None:
        """Open the session at the owner of the tenant's shard; None where that is us."""
        cluster, tenant = self._cluster, identity.tenant
        if cluster is None or cluster.is_here(tenant):
            return None
        if headers.forwarded is None:
            return await cluster.session(identity, SESSION_PATH, max_size=self._limits.batch)
        if await cluster.catch_up(tenant, headers.roster_version):
            return None
        raise NotOwner("this coordinator does not have the shard")

    def _farewell(
        self, task: asyncio.Task[Any], cut: BaseException, identity: Identity, headers: Headers
    ) -> int:
        """Return the code with which a session that was cancelled is closed."""
        if self._closing or task in self._moved:
            return 1012
        return 1008 if self._sent_away(cut, identity, headers) else 1006


def _place_of(endpoint: Endpoint, identity: Identity) -> str:
    """Return the tenant whose shard a request is about."""
    return SYSTEM_TENANT if endpoint.of_all_tenants else identity.tenant


def _may_repeat(endpoint: Endpoint, headers: Headers, body: bytes) -> bool:
    try:
        return endpoint.may_repeat(endpoint.read_body(body, endpoint.checked_media(headers)))
    except LineshaftError:
        return True  # it is refused, wherever it goes


def _target(request: Request) -> str:
    """Return path and query as they came."""
    path = request.path.decode("ascii")
    return f"{path}?{request.query.decode('latin-1')}" if request.query else path


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
