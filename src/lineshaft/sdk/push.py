"""A push session over WebSocket: envelopes with ids, answers matched to them, pushes in a queue."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aiohttp
import msgspec

from lineshaft.errors import Unavailable
from lineshaft.sdk.refusals import refusal
from lineshaft.wire import (
    SUBPROTOCOL,
    Credit,
    ErrorBody,
    Hello,
    PushedDirective,
    PushedTasks,
    Report,
    Reported,
    Welcome,
)
from lineshaft.wire.session import Envelope

MAX_MESSAGE = 64 * 1024 * 1024
ANSWER_TIMEOUT = 30.0

_ANSWERS: dict[str, Any] = {"welcome": Welcome, "reported": Reported}
_encoder = msgspec.json.Encoder()
_envelopes = msgspec.json.Decoder(Envelope)


class WebSocketSession:
    """See `PushSession`. One reader task; whoever waits is told when the line is lost."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._pushes: asyncio.Queue[PushedTasks | PushedDirective | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())
        self.welcome = Welcome(kept=[], lost=[])

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, url: str, hello: Hello, headers: dict[str, str]
    ) -> WebSocketSession:
        """Connect and say hello."""
        socket = await session.ws_connect(
            url, protocols=(SUBPROTOCOL,), headers=headers, heartbeat=20.0, max_msg_size=MAX_MESSAGE
        )
        self = cls(socket)
        try:
            self.welcome = await self._ask("hello", hello)
        except BaseException:
            await self.close()
            raise
        return self

    async def credit(self, credit: Credit) -> None:
        """See `PushSession.credit`."""
        await self._send(Envelope(type="credit", body=msgspec.Raw(_encoder.encode(credit))))

    async def report(self, report: Report) -> Reported:
        """See `PushSession.report`."""
        answer: Reported = await self._ask("report", report)
        return answer

    async def receive(self) -> PushedTasks | PushedDirective:
        """See `PushSession.receive`."""
        pushed = await self._pushes.get()
        if pushed is None:
            self._pushes.put_nowait(None)
            raise Unavailable("the push session was lost")
        return pushed

    async def close(self) -> None:
        """See `PushSession.close`."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()

    async def _ask(self, type: str, body: msgspec.Struct) -> Any:
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._send(Envelope(type=type, id=number, body=msgspec.Raw(_encoder.encode(body))))
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise Unavailable("the push session did not answer in time") from None
        finally:
            self._answers.pop(number, None)

    async def _send(self, envelope: Envelope) -> None:
        if self._reader.done():
            raise Unavailable("the push session was lost")
        try:
            await self._socket.send_str(_encoder.encode(envelope).decode())
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise Unavailable(f"the push session was lost: {error}") from None

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    break
                self._received(_envelopes.decode(message.data))
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError):
            pass  # a line that says nonsense is as good as lost: the long poll takes over
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(Unavailable("the push session was lost before the answer"))
            self._pushes.put_nowait(None)

    def _received(self, envelope: Envelope) -> None:
        body = b"{}" if isinstance(envelope.body, msgspec.UnsetType) else envelope.body
        if envelope.type == "tasks":
            self._pushes.put_nowait(msgspec.json.decode(body, type=PushedTasks))
        elif envelope.type == "directive":
            self._pushes.put_nowait(msgspec.json.decode(body, type=PushedDirective))
        else:
            answer = self._answers.get(envelope.re) if isinstance(envelope.re, int) else None
            if answer is not None and not answer.done():
                self._settle(answer, envelope.type, body)

    def _settle(self, answer: asyncio.Future[Any], type: str, body: msgspec.Raw | bytes) -> None:
        if type == "error":
            told = msgspec.json.decode(body, type=ErrorBody)
            answer.set_exception(refusal(told.error, retry_after=told.retry_after))
        else:
            expected = _ANSWERS.get(type)
            answer.set_result(None if expected is None else msgspec.json.decode(body, type=expected))
