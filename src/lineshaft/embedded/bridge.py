"""Calls from one event loop to another in another thread, and their answers back: many with one wake-up each
way.

Waking a loop in another thread costs more than a call does. So what is called while a wake-up is on its way
goes with it, and what is answered in one round of the other loop comes back together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from lineshaft.sdk.failures import AppClosed
from lineshaft.server.stepping import Stepper

_ROUNDS = 100
"""Of a loop that ends, given to what was under way in it."""


class _Job(Stepper):
    __slots__ = ("answer", "begun", "bridge", "error", "forsaken", "future", "over", "work")

    def __init__(self, bridge: Bridge, work: Coroutine[Any, Any, Any], future: asyncio.Future[Any]) -> None:
        super().__init__(bridge.there)
        self.bridge = bridge
        self.work = work
        self.future = future
        self.begun = False
        self.forsaken = False
        """Whoever called has gone."""
        self.over = False
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

    def forsake(self) -> None:
        """Let nothing come of it: whoever called has gone."""
        self.forsaken = True
        if not self.over:
            self.cancel()
        elif self.error is None:
            self.bridge.give_back(self.answer)


class Bridge:
    """From the running loop to `there`. The flags are set before and cleared before the deques are emptied,
    so nothing is left lying: whoever adds after that sees the flag down and sends a wake-up of its own.
    """

    def __init__(
        self, there: asyncio.AbstractEventLoop, give_back: Callable[[Any], None] = lambda answer: None
    ) -> None:
        """`give_back` is called there with an answer that came when whoever called had gone."""
        # Not the loop itself: an App keeps its bridges by loop, for as long as there is the loop.
        self._here = weakref.ref(asyncio.get_running_loop())
        self.there = there
        self.give_back = give_back
        self._going: deque[_Job] = deque()
        self._coming: deque[_Job] = deque()
        self._wake_there = False
        self._wake_here = False
        self._under_way: set[_Job] = set()
        with _lock:
            _bridges.setdefault(there, weakref.WeakSet()).add(self)

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` there and give its result; cancelling this cancels it."""
        job = _Job(self, work, asyncio.get_running_loop().create_future())
        self._send(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._send(job)  # once more: to be forsaken, before anything that is called after this begins
            raise

    def _send(self, job: _Job) -> None:
        self._going.append(job)
        if not self._wake_there:
            self._wake_there = True
            try:
                self.there.call_soon_threadsafe(self._arrive)
            except RuntimeError:
                self.refuse()

    def refuse(self) -> None:
        """Refuse what has not arrived there, where nothing will arrive any more."""
        self._wake_there = False
        while self._going:
            job = self._going.popleft()
            if not job.begun:
                job.begun = True
                job.work.close()
                if not job.future.done():
                    job.future.set_exception(AppClosed("this App was closed"))

    # -- there -------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        self._wake_there = False
        under_way = _under_way(self.there)
        if under_way is None:
            return  # what has come too late is refused as soon as the loop has ended
        self._under_way = under_way
        while self._going:
            job = self._going.popleft()
            if job.begun:
                job.forsake()
            else:
                job.begun = True
                under_way.add(job)
                job.begin(job.work)

    def done(self, job: _Job) -> None:
        """Let an answer go back."""
        job.over = True
        self._under_way.discard(job)
        if job.forsaken:
            if job.error is None:
                self.give_back(job.answer)
            return
        self._coming.append(job)
        if not self._wake_here:
            self._wake_here = True
            # At the end of this round, so that whatever else is answered in it goes along.
            self.there.call_soon(self._send_back)

    def _send_back(self) -> None:
        here = self._here()
        with contextlib.suppress(RuntimeError):
            if here is not None:
                here.call_soon_threadsafe(self._deliver)
                return
        # The loop that called has ended; its tasks were cancelled, and have forsaken what they called.
        self._wake_here = False
        self._coming.clear()

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


_lock = threading.Lock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.WeakSet[Bridge]]
_bridges = weakref.WeakKeyDictionary()
"""The bridges to each loop."""


def refuse_calls_to(there: asyncio.AbstractEventLoop) -> None:
    """Refuse what was called while a loop ended that now has ended, in whatever loops it was called."""
    with _lock:
        bridges = list(_bridges.get(there, ()))
    for bridge in bridges:
        here = bridge._here()
        with contextlib.suppress(RuntimeError):  # it has ended too
            if here is not None:
                here.call_soon_threadsafe(bridge.refuse)


_ending: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_jobs: dict[asyncio.AbstractEventLoop, tuple[set[_Job], asyncio.Task[None]]] = {}
"""What is under way in each loop that runs, and who sees to it; an entry ends with its loop."""


def _under_way(loop: asyncio.AbstractEventLoop) -> set[_Job] | None:
    """Return the jobs of a loop, None where it is about to end and must begin no more."""
    known = _jobs.get(loop)
    if known is None:
        if loop in _ending:
            return None
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
    except asyncio.CancelledError:
        _ending.add(loop)
        _jobs.pop(loop, None)
        for job in list(jobs):
            job.cancel()
        for _ in range(_ROUNDS):
            if not jobs:
                break
            await asyncio.sleep(0)
