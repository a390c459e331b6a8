"""The part of the HTTP edge that serves requests where their shards are, perhaps at another coordinator."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from lineshaft.errors import Forbidden, LineshaftError, NotOwner, Unavailable
from lineshaft.server.asked import Asked, Cancellable
from lineshaft.server.calls import Calls
from lineshaft.server.cluster import Cluster
from lineshaft.server.exchange import Request
from lineshaft.server.forwarding import Ask
from lineshaft.server.headers import Headers
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.server.responses import Response
from lineshaft.wire import SESSION_PATH

if TYPE_CHECKING:
    import aiohttp


class ServingElsewhere:
    """What `Application` does where there may be other coordinators."""

    _calls: Calls
    _keys: KeyRing
    _closing: bool

    def __init__(self, cluster: Cluster | None) -> None:
        self._cluster = cluster
        self._forwarding: dict[Cancellable, tuple[Asked, Ask]] = {}
        self._sessions: dict[asyncio.Task[Any], str] = {}
        """Push sessions that are served here, with their tenants."""
        self._moved: set[Cancellable] = set()
        """Sessions that were ended because their shard is another's now."""
        if cluster is not None:
            cluster.on_move = self._end_sessions_elsewhere

    async def _serve_here(self, asked: Asked, body: bytes, media: str | None) -> Response | None:
        raise NotImplementedError

    def _wait(
        self, serving: Cancellable, identity: Identity, headers: Headers
    ) -> contextlib.AbstractContextManager[None]:
        raise NotImplementedError

    # -- requests ----------------------------------------------------------------------------------

    def _is_elsewhere(self, asked: Asked) -> bool:
        cluster = self._cluster
        return cluster is not None and asked.endpoint.placed and not cluster.is_here(asked.tenant)

    async def _serve_where_it_is(self, asked: Asked, body: bytes) -> Response | None:
        """Serve a request here or at its shard's owner, wherever that comes to be meanwhile."""
        cluster, headers, tenant = self._cluster, asked.headers, asked.tenant
        assert cluster is not None
        while True:
            if cluster.is_here(tenant):
                try:
                    return await self._serve_here(asked, body, asked.endpoint.checked_media(headers))
                except NotOwner:
                    # It has moved meanwhile, and nothing was done.
                    if tenant in self._calls.partitioned:
                        raise Unavailable("a shard of this tenant is moving", retry_after=1.0) from None
            if headers.forwarded is None:
                ask = self._ask(asked, body)
                response = await self._forward(asked, ask)
                if response is not None or ask.streamed:
                    return response
            elif not await cluster.catch_up(tenant, headers.roster_version):
                raise NotOwner("this coordinator does not have the shard")

    def _ask(self, asked: Asked, body: bytes) -> Ask:
        request = asked.request
        return Ask(
            tenant=asked.tenant,
            identity=asked.identity,
            method=request.method,
            target=_target(request),
            headers=request.headers,
            body=body,
            may_repeat=lambda: _may_repeat(asked, body),
            send=asked.send if asked.headers.wants_events else None,
            hurry=self._closing,
        )

    async def _forward(self, asked: Asked, ask: Ask) -> Response | None:
        """Forward a request; one that waits while we shut down is sent once more, not to wait."""
        cluster, line, loop = self._cluster, asked.line, asyncio.get_running_loop()
        assert cluster is not None
        if line is not None and _may_last(asked):
            line.mind_leaving()
        self._forwarding[asked.serving] = (asked, ask)
        try:
            with self._wait(asked.serving, asked.identity, asked.headers):
                # In a task of its own: what serves a request may be none.
                response = await loop.create_task(cluster.forward(ask))
        except asyncio.CancelledError:
            if not self._closing or ask.hurry or ask.streamed:
                raise
            ask.hurry = True
            response = await loop.create_task(cluster.forward(ask))
        finally:
            del self._forwarding[asked.serving]
        if response is not None and line is not None and asked.leases:
            try:
                await line.reach()
            except BaseException:
                cluster.give_back(ask, response)
                raise
        return response

    def _is_to_finish(self, serving: Cancellable) -> bool:
        """Tell whether a shutdown lets a forwarded request be: it will not last, or cannot be sent again."""
        forwarded = self._forwarding.get(serving)
        if forwarded is None:
            return False
        asked, ask = forwarded
        return not _may_last(asked) or not (asked.headers.wants_events or ask.may_repeat())

    def _changes_keys(self, serving: Cancellable) -> bool:
        """Tell whether what is forwarded makes or revokes a key: it is answered, even if that was its own."""
        forwarded = self._forwarding.get(serving)
        return forwarded is not None and forwarded[0].endpoint.call.name in ("new_key", "revoke_key")

    # -- coordinators ------------------------------------------------------------------------------

    def _believed(self, header: bytes) -> Identity:
        """Return for whom another coordinator asks. Raises `Forbidden`."""
        if self._cluster is None:
            raise Forbidden("there are no other coordinators on this store")
        return self._cluster.believe(header)

    async def _answer_coordinator(self, request: Request, body: bytes) -> Response:
        """Answer what another coordinator asks for itself. Raises `NotFound`, `Malformed`."""
        assert self._cluster is not None
        return await self._cluster.answer(request.path, body)

    # -- sessions ----------------------------------------------------------------------------------

    async def _session_elsewhere(
        self, identity: Identity, headers: Headers, *, max_size: int
    ) -> aiohttp.ClientWebSocketResponse | None:
        """Open the session at the owner of the tenant's shard; None where that is us."""
        cluster, tenant = self._cluster, identity.tenant
        if cluster is None or cluster.is_here(tenant):
            return None
        if headers.forwarded is None:
            return await cluster.session(identity, SESSION_PATH, max_size=max_size)
        if await cluster.catch_up(tenant, headers.roster_version):
            return None
        raise NotOwner("this coordinator does not have the shard")

    def _end_sessions_elsewhere(self) -> None:
        """End the push sessions of shards that have moved: their workers come back, and are forwarded."""
        for task, tenant in list(self._sessions.items()):
            if self._cluster is not None and not self._cluster.is_here(tenant):
                self._moved.add(task)
                task.cancel()


def _may_last(asked: Asked) -> bool:
    """Tell whether the answer may be long in coming, as far as one can tell without reading the body."""
    return asked.leases or asked.headers.wants_events or b"wait=" in asked.request.query


def _may_repeat(asked: Asked, body: bytes) -> bool:
    endpoint = asked.endpoint
    try:
        return endpoint.may_repeat(endpoint.read_body(body, endpoint.checked_media(asked.headers)))
    except LineshaftError:
        return True  # it is refused, wherever it goes


def _target(request: Request) -> str:
    """Return path and query as they came."""
    path = request.path.decode("ascii")
    return f"{path}?{request.query.decode('latin-1')}" if request.query else path
