"""An event loop in virtual time: where nothing is ready, time jumps to the next timer.

Nothing sleeps, so an hour of leases and retries takes milliseconds, and nothing depends on the machine, so
the same seed goes the same way again.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class Stuck(AssertionError):
    """Everything waits for something that no timer will bring."""


class _Jump(selectors.SelectSelector):
    """A selector that never blocks: a wait for a timer moves time instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` is the virtual one."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


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
