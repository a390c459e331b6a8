"""Takes requests to whoever owns the shard that they are about, as they are, and their answers back.

One hop only: whoever is asked by a coordinator and does not own the shard says so (421), and the one that
asked looks at the roster again. While a shard moves, or its owner has died and nobody has taken it over yet,
the request waits, for a while: what was never sent, and what may be repeated, goes to the next owner then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

import msgspec

from lineshaft.engine.cluster.holdings import Unreached
from lineshaft.engine.cluster.membership import Membership
from lineshaft.engine.cluster.roster import Member
from lineshaft.engine.engine import Engine
from lineshaft.errors import NotOwner, Unavailable
from lineshaft.server.headers import FORWARDED, HURRY, ROSTER
from lineshaft.server.identity import Identity
from lineshaft.server.lines import Answer, Broken, HttpLines, Lines, Unsent
from lineshaft.server.responses import Response
from lineshaft.server.trust import Trust

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Result = TypeVar("Result")

CHANGED_PATH = "/_cluster/changed"
_log = logging.getLogger("lineshaft.server")
_NOTICE = 2.0
"""Seconds that somebody may take to hear that something has changed."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_PASSED_ON = frozenset(
    {b"content-type", b"content-encoding", b"accept", b"traceparent", b"tracestate", b"last-event-id"}
)
_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"date", b"content-length"}
    | {b"content-type", b"server"}
)
_EVENTS = b"text/event-stream"


class Gone(Exception):
    """The coordinator that was asked takes part no more: what the request did is unknown."""


class Ask(msgspec.Struct, kw_only=True):
    """A request to be forwarded."""

    tenant: str
    """Whose shard it is about."""
    identity: Identity
    method: str
    target: str
    """Path and query, as they came."""
    headers: list[tuple[bytes, bytes]]
    body: bytes
    may_repeat: Callable[[], bool]
    """Tells whether it does no harm to send it twice."""
    send: Send | None = None
    """Where an answer goes that is a stream; None where the whole is returned."""
    hurry: bool = False
    """It is not to wait for anything."""
    streamed: bool = False
    """Its answer was a stream, and has gone out."""


class Forwarder:
    """The way from this coordinator to the others; use it as `async with`, while the engine is open.

    It is also how the engine tells the others that the roster has changed (`Peers`).
    """

    def __init__(self, engine: Engine, *, lines: Lines | None = None, patience: float | None = None) -> None:
        """`patience` is how long (seconds) a request may wait for an owner; default two ownership leases."""
        membership = engine.membership
        if membership is None:
            raise ValueError("the store is exclusive: there is nobody to forward to")
        self._engine = engine
        self._membership: Membership = membership
        self._lines: Lines = lines or HttpLines()
        self._patience = membership.lease / 500 if patience is None else patience
        self._under_way: dict[bytes, set[asyncio.Future[Any]]] = {}
        self._notices: set[asyncio.Task[None]] = set()
        self._changed: asyncio.Future[None] | None = None
        self.trust = Trust(lambda: membership.roster.secret)
        self.counts: Counter[str] = Counter()
        """Requests by how they ended: "answered", "repeated" (each time), "unanswered"."""

    async def __aenter__(self) -> Forwarder:
        self._engine.holdings.peers = self
        self._engine.holdings.on_change.append(self._look)
        self._engine.holdings.announce()  # who could not be told before
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what others should hear arrive, and hang up; idempotent."""
        if self._look in self._engine.holdings.on_change:
            self._engine.holdings.on_change.remove(self._look)
            self._engine.holdings.peers = Unreached()
        if self._notices:
            await asyncio.wait(self._notices)
        await self._lines.close()

    # -- where a shard is ------------------------------------------------------------------------

    def is_here(self, tenant: str) -> bool:
        """Tell whether the tenant's shard is ours, as far as we know."""
        return self._engine.has(tenant)

    async def catch_up(self, tenant: str, version: int) -> bool:
        """Tell whether the tenant's shard is ours, having seen the roster of that version at least."""
        await self._engine.holdings.settled(self._engine.shard_of(tenant))
        if version > self._membership.version:
            await self._look_at_roster()
        return self._engine.has(tenant)

    def address_of(self, tenant: str) -> str | None:
        """Return where the owner of the tenant's shard is reached; None where it is us, or nobody."""
        holder = self._membership.holder(self._engine.shard_of(tenant))
        if holder is None or holder.id == self._membership.id:
            return None
        return holder.address or None

    # -- requests --------------------------------------------------------------------------------

    async def forward(self, ask: Ask) -> Response | None:
        """Send a request to the owner; None where the shard is ours by now, or the answer was a stream.

        To be awaited in a task. Raises `NotOwner` where the owner cannot be reached by anybody, `Unavailable`
        where there was none in time, or it died and the request must not be repeated.
        """
        answered: list[Response | None] = []

        async def attempt(member: Member) -> bool:
            response = await self._send(member, ask)
            if response is not None and response.status == NotOwner.status:
                return False
            answered.append(response)
            return True

        if not await self.reach(ask.tenant, attempt, may_repeat=ask.may_repeat):
            return None
        self.counts["answered"] += 1
        return answered[0]

    async def reach(
        self,
        tenant: str,
        attempt: Callable[[Member], Awaitable[bool]],
        *,
        may_repeat: Callable[[], bool],
    ) -> bool:
        """Try with the owner of the tenant's shard, whoever that is, until an attempt succeeds.

        An attempt returns False where the member says that it is not the owner. Returns False as soon as the
        shard is ours. Raises what `forward` does.
        """
        shard, loop = self._engine.shard_of(tenant), asyncio.get_running_loop()
        until, pause = loop.time() + self._patience, _FIRST_PAUSE
        while True:
            await self._engine.holdings.settled(shard)
            if self._engine.has(tenant):
                return False
            holder, reason = self._membership.holder(shard), "nobody has taken the shard yet"
            if holder is not None and holder.id != self._membership.id:
                if not holder.address:
                    raise NotOwner("the shard's coordinator cannot be reached by others")
                try:
                    if await self._with_member(holder, attempt(holder)):
                        return True
                    reason = f"{holder.address} does not have the shard"
                except Unsent as error:
                    reason = f"{holder.address} cannot be reached: {error}"
                except (Broken, Gone) as error:
                    if not may_repeat():
                        self.counts["unanswered"] += 1
                        raise Unavailable(
                            f"the coordinator at {holder.address} went away before it had answered; what the "
                            "request did is not known",
                            retry_after=1.0,
                        ) from None
                    reason = f"{holder.address} went away: {error}"
            if loop.time() >= until:
                self.counts["unanswered"] += 1
                raise Unavailable(f"{reason}; repeat the request with the same ids", retry_after=1.0)
            self.counts["repeated"] += 1
            pause = await self._pause(pause)

    async def _pause(self, pause: float) -> float:
        """Look at the roster; wait a little where it says the same as before."""
        before = self._membership.roster.shape
        await self._look_at_roster()
        if self._membership.roster.shape != before:
            return _FIRST_PAUSE
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._changed], timeout=pause)
        return min(2 * pause, _LONGEST_PAUSE)

    async def _look_at_roster(self) -> None:
        await asyncio.wait([self._membership.look()], timeout=_LONGEST_PAUSE)

    async def _with_member(self, member: Member, work: Awaitable[Result]) -> Result:
        """Do something with a member for as long as it takes part. Raises `Gone`."""
        task = asyncio.ensure_future(work)
        under_way = self._under_way.setdefault(member.id, set())
        under_way.add(task)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise Gone("the others took it for dead")
            return task.result()
        finally:
            under_way.discard(task)
            if not under_way:
                self._under_way.pop(member.id, None)
            task.cancel()

    async def _send(self, member: Member, ask: Ask) -> Response | None:
        headers = self.headers(ask.identity, ask.headers, hurry=ask.hurry)
        method = "GET" if ask.method == "HEAD" else ask.method
        async with self._lines.request(member.address, method, ask.target, headers, ask.body) as answer:
            media, others = _sorted(answer)
            if ask.send is not None and answer.status == 200 and media == _EVENTS:
                ask.streamed = True
                await _relay(answer, others, ask.send)
                return None
            return Response(answer.status, await answer.read(), media, others)

    def headers(
        self, identity: Identity, given: list[tuple[bytes, bytes]], *, hurry: bool = False
    ) -> list[tuple[str, str]]:
        """Return the headers of a request that is made for somebody."""
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in given if name in _PASSED_ON
        ]
        headers.append((FORWARDED.decode(), self.trust.sign(identity).decode()))
        headers.append((ROSTER.decode(), str(self._membership.version)))
        if hurry:
            headers.append((HURRY.decode(), "1"))
        return headers

    @property
    def lines(self) -> Lines:
        """Return how the others are reached."""
        return self._lines

    # -- telling ---------------------------------------------------------------------------------

    def tell_changed(self, member: Member) -> None:
        """See `Peers`."""
        if member.address:
            self._notice(self.post(member, CHANGED_PATH, b""))

    async def tell_all(self, path: str, body: bytes) -> None:
        """Tell something, once, to each of the others that can be reached soon."""
        others = [member for member in self._membership.roster.members if member.id != self._membership.id]
        await asyncio.gather(
            *(self._told(self.post(member, path, body)) for member in others if member.address)
        )

    async def post(self, member: Member, path: str, body: bytes) -> bytes:
        """Ask a coordinator something of its own. Raises `Unsent`, `Broken`."""
        headers = self.headers(_NOBODY, [(b"content-type", b"application/msgpack")])
        async with self._lines.request(member.address, "POST", path, headers, body) as answer:
            data = await answer.read()
            if answer.status != 200:
                raise Broken(f"{member.address} answered {answer.status}")
            return data

    def _notice(self, telling: Awaitable[bytes]) -> None:
        task = asyncio.get_running_loop().create_task(self._told(telling))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    async def _told(self, telling: Awaitable[bytes]) -> None:
        try:
            await asyncio.wait_for(telling, _NOTICE)
        except (Unsent, Broken, TimeoutError) as error:
            _log.debug("a coordinator could not be told: %s", error)

    def _look(self) -> None:
        """The roster has changed: let those who wait look again, and wait no longer for who has gone."""
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
        for id in [id for id in self._under_way if self._membership.roster.member(id) is None]:
            for task in list(self._under_way[id]):
                task.cancel()


_NOBODY = Identity(tenant="_system", scopes=frozenset())
"""For whom coordinators ask where they ask for themselves."""


def _sorted(answer: Answer) -> tuple[bytes | None, tuple[tuple[bytes, bytes], ...]]:
    """Return the media type and the headers that go back as they are."""
    media, others = None, []
    for name, value in answer.raw_headers:
        name = name.lower()
        if name == b"content-type":
            media = value
        elif name not in _HOP:
            others.append((name, value))
    return media, tuple(others)


async def _relay(answer: Answer, headers: tuple[tuple[bytes, bytes], ...], send: Send) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", _EVENTS), *headers]}
    await send(start)
    try:
        async for chunk in answer.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (Broken, asyncio.CancelledError):
        pass  # whoever follows comes back with the last id it has seen
    await send({"type": "http.response.body", "body": b""})
