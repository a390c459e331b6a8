"""All that the HTTP edge knows of the other coordinators: what goes to them, and what comes from them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from lineshaft.engine.cluster.roster import Member
from lineshaft.engine.engine import Engine
from lineshaft.errors import LineshaftError, Malformed, NotFound, Unavailable
from lineshaft.server.calls import Calls
from lineshaft.server.elsewhere import RemoteCalls
from lineshaft.server.forwarding import CHANGED_PATH, Ask, Forwarder
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.server.key_sync import KEYS_PATH, KeySync
from lineshaft.server.lines import Lines, Refused, Unsent
from lineshaft.server.partitions.telling import DIRECTIVES_PATH, Relay
from lineshaft.server.responses import Response
from lineshaft.wire import SUBPROTOCOL

if TYPE_CHECKING:
    import aiohttp

_MSGPACK = b"application/msgpack"


class _Leased(msgspec.Struct):
    task_id: str
    lease_token: str


class _Handed(msgspec.Struct):
    tasks: list[_Leased] = []
    task_id: str | None = None
    lease_token: str | None = None


_handed = msgspec.json.Decoder(_Handed)


class Cluster:
    """The other coordinators, as the edge of this one sees them."""

    def __init__(self, engine: Engine, forwarder: Forwarder, keys: KeySync) -> None:
        self._engine = engine
        self._forwarder = forwarder
        self._keys = keys
        self.on_move: Callable[[], None] = lambda: None
        """Called when shards may have moved."""
        self._relay = Relay(engine, forwarder)
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: Calls | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def join(
        cls, engine: Engine, keys: KeyRing, *, lines: Lines | None = None
    ) -> AsyncIterator[Cluster]:
        """Know the others, and the API keys, for the length of the block; the engine is open.

        Raises `Unavailable` where the keys cannot be had.
        """
        async with Forwarder(engine, lines=lines) as forwarder, KeySync(engine, keys, forwarder) as sync:
            cluster = cls(engine, forwarder, sync)
            engine.holdings.on_change.append(cluster._changed)
            try:
                with cluster._relay.running():
                    yield cluster
            finally:
                engine.holdings.on_change.remove(cluster._changed)
                if cluster._tasks:
                    await asyncio.wait(cluster._tasks)

    @property
    def forwarder(self) -> Forwarder:
        """Return the way to the others."""
        return self._forwarder

    def _changed(self) -> None:
        self.on_move()

    def serve(self, calls: Calls) -> None:
        """Let calls that concern several shards reach those of the others."""
        self._calls = calls
        calls.elsewhere = RemoteCalls(self._forwarder, calls)
        calls.forwarded = self._forwarder.counts

    # -- requests that are another's ---------------------------------------------------------------

    def is_here(self, tenant: str) -> bool:
        """Tell whether we are to serve the tenant: its shard is ours, as far as we know, or it has partitions
        in several, which we ask.
        """
        if self._calls is not None and tenant in self._calls.partitioned:
            return True
        return self._engine.has(tenant)

    async def forward(self, ask: Ask) -> Response | None:
        """See `Forwarder.forward`."""
        return await self._forwarder.forward(ask)

    def give_back(self, ask: Ask, response: Response) -> None:
        """Release what an answer leases, unburned: whoever asked has gone."""
        if response.status != 200:
            return
        try:
            handed = _handed.decode(response.body)
        except msgspec.MsgspecError:
            return
        leased = list(handed.tasks)
        if handed.task_id is not None and handed.lease_token is not None:
            leased.append(_Leased(handed.task_id, handed.lease_token))
        if not leased:
            return
        items = [
            {"op": "release", "task_id": task.task_id, "lease_token": task.lease_token} for task in leased
        ]
        release = Ask(
            tenant=ask.tenant,
            identity=ask.identity,
            method="POST",
            target="/_tasks/_report",
            headers=[(b"content-type", b"application/json")],
            body=msgspec.json.encode({"items": items}),
            may_repeat=lambda: True,
        )
        self._spawn(self._release(release))

    async def _release(self, ask: Ask) -> None:
        with contextlib.suppress(LineshaftError):  # their leases run out
            await self._forwarder.forward(ask)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- requests that come from another -----------------------------------------------------------

    def believe(self, header: bytes) -> Identity:
        """Return for whom another coordinator asks. Raises `Forbidden`."""
        return self._forwarder.trust.believe(header)

    async def catch_up(self, tenant: str, version: int) -> bool:
        """See `Forwarder.catch_up`."""
        return await self._forwarder.catch_up(tenant, version)

    async def answer(self, path: bytes, body: bytes) -> Response:
        """Answer what another coordinator asks for itself. Raises `NotFound`, `Malformed`."""
        if path == CHANGED_PATH.encode():
            if self._engine.membership is not None:
                self._engine.membership.look()
            return Response(200, b"", _MSGPACK)
        if path == KEYS_PATH.encode():
            try:
                return Response(200, await self._keys.answer(body), _MSGPACK)
            except msgspec.MsgspecError as error:
                raise Malformed(f"these are no keys: {error}") from None
        if path == DIRECTIVES_PATH.encode():
            try:
                self._relay.hear(body)
            except msgspec.MsgspecError as error:
                raise Malformed(f"these are no directives: {error}") from None
            return Response(200, b"", _MSGPACK)
        raise NotFound("coordinators are not asked for this")

    # -- push sessions -----------------------------------------------------------------------------

    async def session(
        self, identity: Identity, target: str, *, max_size: int
    ) -> aiohttp.ClientWebSocketResponse | None:
        """Open a push session at the owner; None where the shard is ours by now. Raises `Unavailable`."""
        opened: list[aiohttp.ClientWebSocketResponse] = []

        async def attempt(member: Member) -> bool:
            headers = self._forwarder.headers(identity, [])
            try:
                line = await self._forwarder.lines.websocket(
                    member.address, target, headers, protocol=SUBPROTOCOL, max_size=max_size
                )
            except Refused as refused:
                if refused.status == 421:
                    return False
                if refused.status == 503:
                    raise Unsent("it is busy") from None
                raise Unavailable(
                    f"the shard's coordinator answered with status {refused.status}", retry_after=1.0
                ) from None
            opened.append(line)
            return True

        if not await self._forwarder.reach(identity.tenant, attempt, may_repeat=lambda: True):
            return None
        return opened[0]
