"""Heartbeats, from a thread of their own with a connection of their own.

A handler that blocks the worker's event loop must not lose the leases of all the others: so whatever keeps a
lease alive is here, and shares nothing with that loop but the list of what is held. What a heartbeat brings
back is carried to the loop; that a task shall end is told to its context at once, which plain functions read
in their threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from lineshaft.errors import LineshaftError
from lineshaft.sdk import reports
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.context import Context, News
from lineshaft.sdk.held import Held
from lineshaft.sdk.refusals import refusal
from lineshaft.sdk.transport import Transport
from lineshaft.wire import CALLS
from lineshaft.wire.workers import ItemAnswer, Report

MAX_ITEMS = 500
NEWS_EVERY = 0.2
"""Seconds between two heartbeats that only bring news of a handler."""
LONGEST_SLEEP = 1.0

_logger = logging.getLogger("lineshaft.worker")


class Heart:
    """Keeps the leases of everything that is held; `open_transport` is called in the thread."""

    def __init__(self, open_transport: Callable[[], Transport]) -> None:
        self._open_transport = open_transport
        self._held: dict[str, Held] = {}
        self._news: deque[Context] = deque()
        self._home: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._beating: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._sleep = LONGEST_SLEEP

    def start(self) -> None:
        """Start the thread; called in the loop that directives are carried to."""
        self._home = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="lineshaft-heart", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and its connection."""
        self._stopping = True
        if self._loop is not None and self._beating is not None:
            with contextlib.suppress(RuntimeError):  # the thread has just ended
                self._loop.call_soon_threadsafe(self._beating.cancel)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)

    def hold(self, held: Held) -> None:
        """Keep the lease of `held` from now on."""
        self._held[held.task.lease_token] = held
        if held.interval < self._sleep:
            self._sleep = held.interval / 2
            self._rouse()

    def let_go(self, held: Held) -> None:
        """Keep it no longer."""
        self._held.pop(held.task.lease_token, None)

    def notice(self, context: Context) -> None:
        """Send what a handler has just said soon, not only with its next heartbeat. Called in any thread."""
        self._news.append(context)
        self._rouse()

    def _rouse(self) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None and not wake.is_set():
            with contextlib.suppress(RuntimeError):  # the thread has just ended
                loop.call_soon_threadsafe(wake.set)

    # -- in the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._beating = asyncio.current_task()
        transport = self._open_transport()
        backoff = Backoff(base=0.1, cap=2.0)
        try:
            while not self._stopping:
                try:
                    await self._beat(transport)
                    pause = min(self._sleep, NEWS_EVERY) if self._news else self._sleep
                    backoff.succeeded()
                except LineshaftError as error:
                    pause = backoff.after_failure(error.retry_after)
                    if backoff.failures == 3:
                        _logger.warning("heartbeats do not get through: %s", error.reason)
                except Exception:
                    _logger.exception("heartbeats failed")
                    pause = backoff.after_failure()
                await self._rest(pause, failed=backoff.failures > 0)
        finally:
            self._loop = None
            await transport.close()

    async def _rest(self, pause: float, *, failed: bool) -> None:
        assert self._wake is not None
        if failed:
            await asyncio.sleep(pause)
            return
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(min(NEWS_EVERY, pause))
        except TimeoutError:
            pass

    async def _beat(self, transport: Transport) -> None:
        loop = asyncio.get_running_loop()
        with_news = {context._task.lease_token for context in self._drain_news()}
        now = loop.time()
        due = [
            held
            for held in list(self._held.values())
            if held.beat_at <= now or held.task.lease_token in with_news
        ]
        for at in range(0, len(due), MAX_ITEMS):
            await self._send(transport, due[at : at + MAX_ITEMS], sent_at=loop.time())

    def _drain_news(self) -> list[Context]:
        found: list[Context] = []
        while self._news:
            found.append(self._news.popleft())
        return found

    async def _send(self, transport: Transport, batch: list[Held], *, sent_at: float) -> None:
        news = [held.context._take_news() for held in batch]
        items: list[Any] = [
            reports.heartbeat(held.task, said) for held, said in zip(batch, news, strict=True)
        ]
        try:
            answer = await transport.call(CALLS["report"], body=Report(items=items), timeout=10.0)
        except BaseException as error:
            if isinstance(error, LineshaftError) and reports.is_about_content(error) and any(news):
                await self._send_apart(transport, batch, news, error=error)
                return
            for held, said in zip(batch, news, strict=True):
                if said is not None:
                    held.context._put_back(said)
                    self._news.append(held.context)
            raise
        for held, said, item in zip(batch, news, answer.items, strict=True):
            self._answered(held, said, item, sent_at)
        if answer.directive == "drain" and batch:
            self._carry(batch[0].pool.directive, batch[0], "drain", None)

    async def _send_apart(
        self, transport: Transport, batch: list[Held], news: list[News | None], *, error: LineshaftError
    ) -> None:
        """What one handler has said made the whole unacceptable: it must not cost the others their leases."""
        if len(batch) == 1 and news[0] is not None:
            _logger.error("task %s: its checkpoint is refused: %s", batch[0].task.task_id, error.reason)
            news[0].refused(error)
        else:
            for held, said in zip(batch, news, strict=True):
                if said is not None:
                    held.context._put_back(said)
        for held in batch:
            await self._send(transport, [held], sent_at=asyncio.get_running_loop().time())

    def _answered(self, held: Held, said: News | None, item: ItemAnswer, sent_at: float) -> None:
        if item.error is None:
            ttl = item.lease_ttl if item.lease_ttl is not None else held.task.lease_ttl
            held.interval = max(float(ttl) / 3, 0.1)
            held.beat_at = sent_at + held.interval
            if said is not None:
                said.delivered()
            if item.directive == "cancel" and not held.context.cancelled:
                held.context._stop(item.reason or "cancelled")
                self._carry(held.pool.directive, held, "cancel", item.reason)
            elif item.directive == "drain":
                self._carry(held.pool.directive, held, "drain", item.reason)
            return
        error = refusal(item.error, status=item.status)
        if reports.is_final(error):
            self._held.pop(held.task.lease_token, None)
            if not held.reported:
                held.context._stop("the lease is lost")
            self._carry(held.pool.lease_lost, held)
        elif reports.is_temporary(error):
            if said is not None:
                held.context._put_back(said)
                self._news.append(held.context)
        else:
            # A checkpoint that the coordinator does not take must not cost the lease: beat on without it.
            _logger.error("task %s: the coordinator refused a heartbeat: %s", held.task.task_id, error.reason)
            if said is not None:
                said.refused(error)

    def _carry(self, receiver: Callable[..., None], *arguments: Any) -> None:
        assert self._home is not None
        with contextlib.suppress(RuntimeError):  # the worker's loop has ended
            self._home.call_soon_threadsafe(receiver, *arguments)
