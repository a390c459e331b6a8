"""The push session: the protocol's messages over one WebSocket, tasks and directives pushed.

One task reads and answers, one pushes: it claims as many tasks as the credit leaves room for, parked in the
engine like any other claim. A live socket extends no lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from uvicorn.protocols.utils import ClientDisconnected

from lineshaft.errors import Invalid, LineshaftError, Malformed, NotOwner, Retryable, Unavailable
from lineshaft.server.calls import Calls
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.identity import Identity
from lineshaft.server.reading import BodyReader
from lineshaft.server.settings import Limits
from lineshaft.server.views import error_info
from lineshaft.wire import (
    CALLS,
    SUBPROTOCOL,
    UNSET,
    CancelItem,
    Claim,
    ClaimedTasks,
    CompleteItem,
    Credit,
    Credited,
    Envelope,
    ErrorBody,
    FailItem,
    Hello,
    PushedDirective,
    PushedTasks,
    Raw,
    ReleaseItem,
    Report,
    Reported,
    SnoozeItem,
    Welcome,
    Worker,
)
from lineshaft.wire.session import MessageId

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PARKED_FOR = 50_000
_RECOUNT = 1.0
"""Seconds after which a full worker's tasks are counted again."""
_VERBS = ("start", "heartbeat", "complete", "fail", "release", "snooze", "cancel")
_ENDING = (CompleteItem, FailItem, ReleaseItem, SnoozeItem, CancelItem)
_MAX_BUSY = 256
"""Messages being answered at once; beyond it no more are read."""

_encode = msgspec.json.Encoder().encode
_envelope = BodyReader(Envelope, levels=5)
_hello = BodyReader(Hello)
_credit = BodyReader(Credit)


class Session:
    """One worker's line. `negotiate` before the handshake, then `run` until it ends."""

    def __init__(
        self, calls: Calls, identity: Identity, *, limits: Limits, receive: Receive, send: Send
    ) -> None:
        self._calls = calls
        self._identity = identity
        self._receive_event = receive
        self._send_event = send
        self._hello_within = limits.receive
        self._report = Endpoint(CALLS["report"], limits)
        self._hello = Hello(worker=Worker(id=""))
        self._in_flight: dict[str, str] = {}
        """Task ids by lease token."""
        self._credit = 0
        self._changed = asyncio.Event()
        """Something came that may make room."""
        self._shrunk = asyncio.Event()
        """The credit is less than a claim under way may have counted on."""
        self._busy: set[asyncio.Task[None]] = set()
        self._greeted = asyncio.Event()
        """The worker has been welcomed; what is told it goes out after that."""

    def negotiate(self, scope: MutableMapping[str, Any]) -> None:
        """Raise `Malformed` unless the client speaks our subprotocol."""
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            raise Malformed(f"the push session needs the subprotocol {SUBPROTOCOL}")

    async def run(self) -> None:
        """Serve the session until either side ends it; then raise `ClientDisconnected`, for uvicorn."""
        await self._receive_event()
        await self._send_event({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        pusher: asyncio.Task[None] | None = None
        try:
            # From before the hello on, whose claim tells again what was asked for while the line was down.
            with self._calls.directives(self._identity, self._is_for_us, self._push_directive):
                async with asyncio.timeout(self._hello_within):
                    if not await self._welcome(await self._next()):
                        raise ClientDisconnected
                pusher = asyncio.create_task(self._push())
                while True:
                    await self._handle(await self._next())
        except TimeoutError:
            await self.hang_up(1008)
            raise ClientDisconnected from None
        finally:
            for task in [*self._busy, *([pusher] if pusher is not None else [])]:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def hang_up(self, code: int) -> None:
        """Close from our side."""
        with contextlib.suppress(Exception):
            await self._send_event({"type": "websocket.close", "code": code})

    # -- hello -------------------------------------------------------------------------------------

    async def _welcome(self, envelope: Envelope | None) -> bool:
        if envelope is None or envelope.type != "hello":
            re = None if envelope is None else envelope.id
            await self._refuse(re, Invalid("the first message is hello", field="type"))
            await self.hang_up(1008)
            return False
        try:
            self._hello = _hello.read(_body(envelope))
            held, reply = await self._held()
        except LineshaftError as error:
            await self._refuse(envelope.id, error)
            await self.hang_up(1013 if isinstance(error, Retryable) else 1008)
            return False
        holding = self._hello.holding or []
        self._in_flight = dict.fromkeys(held, "")
        welcome = Welcome(
            kept=[token for token in holding if token in held],
            lost=[token for token in holding if token not in held],
            position=reply.position,
        )
        await self._say("welcome", welcome, re=envelope.id)
        self._greeted.set()
        if reply.directive == "drain":
            await self._say("directive", PushedDirective(directive="drain"))
        return True

    async def _held(self) -> tuple[list[str], ClaimedTasks]:
        """Return the tokens that the worker holds; what it holds and does not know of is released before.

        Where it does not say what it knows of, nothing is released, and names stand for the tokens.
        """
        holding = self._hello.holding
        held, reply = await self._calls.hold(self._identity, self._claim(holding=holding))
        if holding is None:
            return [f"unknown {number}" for number in range(await self._count_held())], reply
        return held, reply

    def _claim(self, *, holding: list[str] | None = None) -> Claim:
        hello = self._hello
        return Claim(
            worker=hello.worker,
            queues=hello.queues,
            names=hello.names,
            lease=hello.lease,
            start=hello.start,
            holding=holding,
        )

    # -- what comes in -----------------------------------------------------------------------------

    async def _next(self) -> Envelope | None:
        """Return the next message; None for one that cannot be read, which has been refused."""
        event = await self._receive_event()
        if event["type"] == "websocket.disconnect":
            raise ClientDisconnected  # which uvicorn takes for an end in good order
        text = event.get("text")
        data: bytes = event.get("bytes") or b"" if text is None else text.encode("utf-8", "surrogatepass")
        try:
            envelope: Envelope = _envelope.read(data)
        except LineshaftError as error:
            await self._refuse(_id_of(data) if isinstance(error, Invalid) else None, error)
            return None
        return envelope

    async def _handle(self, envelope: Envelope | None) -> None:
        if envelope is None:
            return
        if envelope.type == "credit":
            await self._answered(envelope, self._take_credit)
            return
        while len(self._busy) >= _MAX_BUSY:
            await asyncio.wait(self._busy, return_when=asyncio.FIRST_COMPLETED)
        # Each is submitted at the first step of its task: they are applied in the order in which they came.
        task = asyncio.create_task(self._answered(envelope, self._take_report))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _answered(
        self, envelope: Envelope, take: Callable[[Envelope], Awaitable[tuple[str, msgspec.Struct]]]
    ) -> None:
        try:
            type, body = await take(envelope)
        except NotOwner:
            moved = Unavailable("the shard is moving to another coordinator", retry_after=1.0)
            await self._refuse(envelope.id, moved)
        except LineshaftError as error:
            await self._refuse(envelope.id, error)
        else:
            await self._say(type, body, re=envelope.id)

    async def _take_credit(self, envelope: Envelope) -> tuple[str, msgspec.Struct]:
        credit: Credit = _credit.read(_body(envelope))
        if credit.max < self._credit:
            self._shrunk.set()
        self._credit = credit.max
        self._changed.set()
        return "credited", Credited(max=credit.max)

    async def _take_report(self, envelope: Envelope) -> tuple[str, msgspec.Struct]:
        if envelope.type == "report":
            report: Report = self._report.read_body(_body(envelope), "application/json")
            reported = await self._calls.take_report(self._identity, report)
            self._settle(report, reported)
            return "reported", reported
        if envelope.type in _VERBS:
            report = self._report.read_body(_as_report(envelope), "application/json")
            reported = await self._calls.take_report(self._identity, report)
            self._settle(report, reported)
            return envelope.type, msgspec.structs.replace(reported.items[0], position=reported.position)
        raise Invalid("expected hello, credit, report or what a report's item may be", field="type")

    def _settle(self, report: Report, reported: Reported) -> None:
        for item, answer in zip(report.items, reported.items, strict=True):
            lost = answer.status in (404, 409)
            if lost or (answer.status == 200 and type(item) in _ENDING):
                self._in_flight.pop(item.lease_token, None)
        for task in reported.tasks:
            self._in_flight[task.lease_token] = task.task_id
        self._changed.set()

    # -- what goes out -----------------------------------------------------------------------------

    async def _push(self) -> None:
        """Hand out tasks for as long as the session lasts."""
        while True:
            self._changed.clear()
            self._shrunk.clear()
            room = self._credit - len(self._in_flight)
            if room <= 0:
                await self._room()
                continue
            try:
                drained = await self._push_some(min(room, 1_000))
            except (NotOwner, Retryable) as error:
                await asyncio.sleep(error.retry_after or 1.0)
            else:
                if drained:
                    await self._say("directive", PushedDirective(directive="drain"))
                    return

    async def _room(self) -> None:
        """Wait until the worker may have room again."""
        if not await self._some_change(for_ever=not self._credit):
            held = await self._count_held()
            for token in list(self._in_flight)[: max(0, len(self._in_flight) - held)]:
                del self._in_flight[token]

    async def _some_change(self, *, for_ever: bool = False) -> bool:
        """Wait for word of the worker, though not for long: it may have spoken over HTTP."""
        try:
            async with asyncio.timeout(None if for_ever else _RECOUNT):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _count_held(self) -> int:
        return await self._calls.count_held(self._identity, self._hello.worker)

    async def _push_some(self, room: int) -> bool:
        """Claim and push; returns whether the worker is to go. Given up when the credit shrinks."""
        began = self._calls.now()
        pushed = self._calls.push(self._identity, self._claim(), most=room, wait=_PARKED_FOR)
        claim = asyncio.ensure_future(pushed)
        shrunk = asyncio.ensure_future(self._shrunk.wait())
        try:
            await asyncio.wait((claim, shrunk), return_when=asyncio.FIRST_COMPLETED)
            if not claim.done():
                claim.cancel()
                return False
            answer = claim.result()
        finally:
            shrunk.cancel()
            claim.cancel()
        if answer.tasks:
            self._in_flight |= {task.lease_token: task.task_id for task in answer.tasks}
            await self._say("tasks", PushedTasks(tasks=answer.tasks, position=answer.position))
        elif answer.directive != "drain" and self._calls.now() < began + _PARKED_FOR:
            # Sent away early: the worker has let a lease run out, and must give a sign of life first.
            await self._some_change()
        return answer.directive == "drain"

    def _is_for_us(self, worker_id: str, incarnation: str | None) -> bool:
        worker = self._hello.worker
        return (worker_id, incarnation) == (worker.id, worker.incarnation)

    def _push_directive(self, directive: PushedDirective) -> None:
        task = asyncio.create_task(self._tell(directive))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _tell(self, directive: PushedDirective) -> None:
        await self._greeted.wait()
        await self._say("directive", directive)

    async def _refuse(self, re: MessageId | None, error: LineshaftError) -> None:
        retry_after = (error.retry_after or 1.0) if isinstance(error, Retryable) else None
        await self._say("error", ErrorBody(error=error_info(error), retry_after=retry_after), re=re)

    async def _say(self, type: str, body: msgspec.Struct, *, re: MessageId | None = None) -> None:
        envelope = Envelope(type=type, re=re, body=Raw(_encode(body)))
        await self._send_event({"type": "websocket.send", "text": _encode(envelope).decode()})


class _Named(msgspec.Struct):
    id: MessageId | None = None


def _id_of(data: bytes) -> MessageId | None:
    """Return the id of a message that is no envelope, where it has one that can be read."""
    try:
        return msgspec.json.decode(data, type=_Named).id
    except msgspec.DecodeError:
        return None


def _body(envelope: Envelope) -> bytes:
    return b"{}" if envelope.body is UNSET else bytes(envelope.body)


def _as_report(envelope: Envelope) -> bytes:
    """Return the report whose one item the message is."""
    body = _body(envelope).strip()
    if not body.startswith(b"{"):
        raise Invalid("expected an object", field="body")
    inner = body[1:].lstrip()
    comma = b"" if inner.startswith(b"}") else b","
    return b'{"items":[{"op":"%s"%s%s]}' % (envelope.type.encode(), comma, inner)
