"""Calls from one event loop to another in another thread, and their answers back: many with one wake-up each
way.

Waking a loop in another thread costs more than a call does. So what is called while a wake-up is on its way
goes with it, and what is answered in one round of the other loop comes back together.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Coroutine
from typing import Any

from lineshaft.sdk.failures import AppClosed


class _Job:
    __slots__ = ("answer", "error", "future", "task", "work")

    def __init__(self, work: Coroutine[Any, Any, Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.task: asyncio.Task[Any] | None = None
        self.answer: Any = None
        self.error: BaseException | None = None


class Bridge:
    """From the running loop to `there`. The flags are set before and cleared before the deques are emptied,
    so nothing is left lying: whoever adds after that sees the flag down and sends a wake-up of its own.
    """

    def __init__(self, there: asyncio.AbstractEventLoop) -> None:
        self._here = asyncio.get_running_loop()
        self._there = there
        self._going: deque[_Job] = deque()
        self._coming: deque[_Job] = deque()
        self._wake_there = False
        self._wake_here = False

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` there and give its result; cancelling this cancels it."""
        job = _Job(work, self._here.create_future())
        self._going.append(job)
        if not self._wake_there:
            self._wake_there = True
            self._call_there(self._arrive)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._call_there(self._cancel, job)
            raise

    def _call_there(self, what: Any, *arguments: Any) -> None:
        try:
            self._there.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            while self._going:
                self._going.popleft().work.close()
            raise AppClosed("this App was closed") from None

    # -- there -------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        self._wake_there = False
        while self._going:
            job = self._going.popleft()
            job.task = self._there.create_task(job.work)
            job.task.add_done_callback(functools.partial(self._done, job))

    def _done(self, job: _Job, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            job.error = AppClosed("this App was closed before the coordinator had answered")
        elif (error := task.exception()) is not None:
            job.error = error
        else:
            job.answer = task.result()
        self._coming.append(job)
        if not self._wake_here:
            self._wake_here = True
            # At the end of this round, so that whatever else is answered in it goes along.
            self._there.call_soon(self._send_back)

    def _cancel(self, job: _Job) -> None:
        if job.task is not None:
            job.task.cancel()

    def _send_back(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop that called has ended
            self._here.call_soon_threadsafe(self._deliver)

    # -- here --------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        self._wake_here = False
        while self._coming:
            job = self._coming.popleft()
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.answer)
