"""An event loop in virtual time: where nothing is ready, time jumps to the next timer.

Nothing sleeps, so an hour of leases and retries takes milliseconds, and nothing depends on the machine, so
the same seed goes the same way again. What runs as part of a `Being` (an engine, in the simulator) is counted
step by step, so that it can be stopped between any two steps, and is held back while the being is frozen.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Stuck(AssertionError):
    """Everything waits for something that no timer will bring."""


class Step:
    """A callback that is to run; what asyncio calls a handle, with less in it."""

    __slots__ = ("args", "callback", "context", "when")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context, when: float
    ) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self.when = when

    def cancel(self) -> None:
        """Do not run."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Tell whether it was cancelled."""
        return self.callback is None


class Being:
    """Something whose steps are counted, and which may be frozen."""

    def __init__(self) -> None:
        self.frozen = False
        self.held: list[Step] = []
        """What would have run while it was frozen."""
        self.steps_left = -1
        """After so many steps `exhausted` is called; negative: never."""

    def exhausted(self) -> None:
        """The last step was taken."""


BEING: contextvars.ContextVar[Being | None] = contextvars.ContextVar("being", default=None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` is the virtual one."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._queue: deque[Step] = deque()
        self._timers: list[tuple[float, int, Step]] = []
        self._count = 0
        self.crashed: list[BaseException] = []
        """What callbacks have raised."""

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # a Step serves as a handle
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        step = Step(callback, args, contextvars.copy_context() if context is None else context, 0.0)
        self._queue.append(step)
        return step

    def call_later(  # type: ignore[override]  # a Step serves as a handle
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # a Step serves as a handle
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        step = Step(callback, args, contextvars.copy_context() if context is None else context, when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, step))
        return step

    def thaw(self, being: Being) -> None:
        """Let a frozen being go on, with all that it has missed."""
        being.frozen = False
        self._queue.extend(being.held)
        being.held.clear()

    def _run_once(self) -> None:
        """Run what is ready, and let time go on to what is next."""
        queue = self._queue
        while not self._stopping:  # type: ignore[attr-defined]  # of asyncio's own
            if not queue:
                self._jump()
            for _ in range(len(queue)):
                step = queue.popleft()
                callback = step.callback
                if callback is not None:
                    self._run(step, callback)

    def _run(self, step: Step, callback: Callable[..., Any]) -> None:
        being = step.context.get(BEING)
        if being is not None:
            if being.frozen:
                being.held.append(step)
                return
            being.steps_left -= 1
        try:
            step.context.run(callback, *step.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.crashed.append(error)
        if being is not None and being.steps_left == 0:
            being.exhausted()

    def _jump(self) -> None:
        timers, queue = self._timers, self._queue
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not timers:
            raise Stuck("nothing is ready and no timer is set")
        until = max(self._now, timers[0][0])
        self._now = until
        while timers and timers[0][0] <= until:
            queue.append(heapq.heappop(timers)[2])


def run(main: Coroutine[Any, Any, Any], *, until: float) -> Any:
    """Run a coroutine in a virtual loop of its own; `until` bounds the virtual seconds it may take."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(asyncio.wait_for(main, until))
    finally:
        try:
            _drop_all(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _drop_all(loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(5):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    raise Stuck(f"cancelled, but still there: {asyncio.all_tasks(loop)}")
