"""Enqueues of many callers at once, sent together: what comes while requests are under way shares the next.

One by one, a request each, the client would be busier than the coordinator. A single caller, or one by one in
turn, does not wait for anybody.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from typing import Any

from lineshaft.errors import TooLarge
from lineshaft.sdk.enqueueing import BULK_TRY, ONE_TRY, chunks, refused
from lineshaft.sdk.failures import AppClosed
from lineshaft.sdk.tracing import traceparent
from lineshaft.sdk.transport import Transport
from lineshaft.wire import CALLS
from lineshaft.wire import tasks as wire

UNDER_WAY = 2
"""Requests beyond which callers are gathered."""

LINGER = 0.002
"""Seconds for which a caller is gathered at most: where answers take long, requests must overlap."""


class Coalescer:
    """The enqueues of one event loop over one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._under_way = 0
        self._waiting: deque[tuple[wire.Enqueue, asyncio.Future[wire.Enqueued]]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def enqueue(self, body: wire.Enqueue) -> wire.Enqueued:
        """Enqueue a task, which names its id. Raises LineshaftError."""
        if traceparent.get() is not None:
            return await self._send_one(body)  # a request belongs to one trace
        if self._under_way < UNDER_WAY and not self._waiting:
            self._under_way += 1
            try:
                return await self._send_one(body)
            finally:
                self._under_way -= 1
                self._send_waiting()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[wire.Enqueued] = loop.create_future()
        self._waiting.append((body, answered))
        if self._timer is None:
            self._timer = loop.call_later(LINGER, self._send_waiting)
        return await answered

    def close(self) -> None:
        """Let nobody wait any more: raises AppClosed to those whose task was not sent."""
        self._stop_timer()
        while self._waiting:
            _settle(self._waiting.popleft()[1], AppClosed("this App was closed before the task was sent"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_waiting(self) -> None:
        self._stop_timer()
        waiting = [(body, answered) for body, answered in self._waiting if not answered.done()]
        self._waiting.clear()
        callers = iter(waiting)
        for chunk in chunks([body for body, _ in waiting]):
            self._under_way += 1
            together = [next(callers) for _ in chunk]
            sending = asyncio.get_running_loop().create_task(self._send(together))
            self._sending.add(sending)
            sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        self._under_way -= 1
        self._send_waiting()

    async def _send(self, callers: list[tuple[wire.Enqueue, asyncio.Future[wire.Enqueued]]]) -> None:
        try:
            if len(callers) > 1:
                answers = await self._send_many([body for body, _ in callers])
            else:
                answers = [await self._send_one(callers[0][0])]
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, TooLarge) and len(callers) > 1:
                middle = len(callers) // 2
                await self._send(callers[:middle])
                await self._send(callers[middle:])
                return
            for _, answered in callers:
                _settle(answered, error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, answered), answer in zip(callers, answers, strict=True):
            _settle(answered, answer)

    async def _send_one(self, body: wire.Enqueue) -> wire.Enqueued:
        answer: wire.Enqueued = await self._transport.call(CALLS["enqueue"], body=body, timeout=ONE_TRY)
        return answer

    async def _send_many(self, bodies: list[wire.Enqueue]) -> list[wire.Enqueued | BaseException]:
        answer: wire.BulkAnswer = await self._transport.call(CALLS["bulk"], body=bodies, timeout=BULK_TRY)
        return [
            refused(item) if item.status >= 400 else _enqueued(item, answer.position) for item in answer.items
        ]


def _enqueued(item: wire.BulkItem, position: int) -> wire.Enqueued:
    assert item.task_id is not None
    assert item.state is not None
    return wire.Enqueued(
        task_id=item.task_id,
        state=item.state,
        created=item.created is not False,
        position=position,
        result=item.result,
        error=item.error,
    )


def _settle(answered: asyncio.Future[Any], answer: wire.Enqueued | BaseException) -> None:
    if answered.done():
        return
    if isinstance(answer, asyncio.CancelledError):
        answered.cancel()
    elif isinstance(answer, BaseException):
        # Each caller raises its own, or they would share a traceback that grows.
        answered.set_exception(copy.copy(answer))
    else:
        answered.set_result(answer)
