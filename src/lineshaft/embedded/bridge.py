"""Calls from one event loop to another in another thread, and their answers back: many with one wake-up each
way.

Waking a loop in another thread costs more than a call does. So what is called while a wake-up is on its way
goes with it, and what is answered in one round of the other loop comes back together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Any

from lineshaft.sdk.failures import AppClosed
from lineshaft.server.stepping import Stepper

_ROUNDS = 100
"""Of a loop that ends, given to what was under way in it."""


class _Job(Stepper):
    __slots__ = ("answer", "begun", "bridge", "error", "future", "work")

    def __init__(self, bridge: Bridge, work: Coroutine[Any, Any, Any], future: asyncio.Future[Any]) -> None:
        super().__init__(bridge.there)
        self.bridge = bridge
        self.work = work
        self.future = future
        self.begun = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def ended(self, value: Any) -> None:
        self.answer = value
        self.bridge.done(self)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = AppClosed("this App was closed before the coordinator had answered")
        self.error = error
        self.bridge.done(self)


class Bridge:
    """From the running loop to `there`. The flags are set before and cleared before the deques are emptied,
    so nothing is left lying: whoever adds after that sees the flag down and sends a wake-up of its own.
    """

    def __init__(self, there: asyncio.AbstractEventLoop) -> None:
        self._here = asyncio.get_running_loop()
        self.there = there
        self._going: deque[_Job] = deque()
        self._coming: deque[_Job] = deque()
        self._wake_there = False
        self._wake_here = False
        self._under_way: set[_Job] = set()

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` there and give its result; cancelling this cancels it."""
        job = _Job(self, work, self._here.create_future())
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
            self.there.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            while self._going:
                self._going.popleft().work.close()
            raise AppClosed("this App was closed") from None

    # -- there -------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        self._wake_there = False
        under_way = self._under_way = _under_way(self.there)
        while self._going:
            job = self._going.popleft()
            job.begun = True
            under_way.add(job)
            job.begin(job.work)

    def done(self, job: _Job) -> None:
        """Let an answer go back."""
        self._under_way.discard(job)
        self._coming.append(job)
        if not self._wake_here:
            self._wake_here = True
            # At the end of this round, so that whatever else is answered in it goes along.
            self.there.call_soon(self._send_back)

    def _cancel(self, job: _Job) -> None:
        if job.begun:
            job.cancel()

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


_jobs: dict[asyncio.AbstractEventLoop, tuple[set[_Job], asyncio.Task[None]]] = {}
"""What is under way in each loop that runs, and who sees to it; an entry ends with its loop."""


def _under_way(loop: asyncio.AbstractEventLoop) -> set[_Job]:
    known = _jobs.get(loop)
    if known is None:
        jobs: set[_Job] = set()
        seeing_to_it = loop.create_task(_refuse_at_the_end(loop, jobs), name="lineshaft-bridge")
        # A script may end without closing its App, and then this goes with the process.
        seeing_to_it._log_destroy_pending = False  # type: ignore[attr-defined]
        known = _jobs[loop] = jobs, seeing_to_it
    return known[0]


async def _refuse_at_the_end(loop: asyncio.AbstractEventLoop, jobs: set[_Job]) -> None:
    """Jobs are no tasks, which a loop that ends would cancel; so this is one, for all of them."""
    try:
        await loop.create_future()
    finally:
        _jobs.pop(loop, None)
        for job in list(jobs):
            job.cancel()
        for _ in range(_ROUNDS):
            if not jobs:
                break
            await asyncio.sleep(0)
