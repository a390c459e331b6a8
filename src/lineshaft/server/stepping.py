"""Coroutines run without a task.

A task costs as much as a whole enqueue: it is scheduled, switched to, watched and thrown away. Here the
coroutine runs at once up to its first wait, and what it waits for runs it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Stepper:
    """Steps one coroutine to its end; whoever derives from it says what happens then.

    In the coroutine `asyncio.current_task()` is None, so nothing in it may use `asyncio.timeout`.
    """

    __slots__ = ("_awaited", "_cancelled", "_coroutine", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._cancelled = False

    def ended(self, value: Any) -> None:
        """The coroutine has returned a value."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        """The coroutine has raised an error: `CancelledError` where it was cancelled."""
        raise error

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run the coroutine as far as it goes; what it waits for runs it on."""
        self._coroutine = coroutine
        self._step()

    def cancel(self) -> None:
        """Let the coroutine end with `CancelledError`, as a task would."""
        if self._awaited is None or not self._awaited.cancel():
            self._cancelled = True  # at its next wait; what it waited for and has come is not lost

    def _step(self, _: Any = None) -> None:
        coroutine = self._coroutine
        assert coroutine is not None
        self._awaited = None
        try:
            awaited = coroutine.send(None)
        except StopIteration as end:
            self._coroutine = None
            self.ended(end.value)
            return
        except (Exception, asyncio.CancelledError) as error:
            self._coroutine = None
            self.failed(error)
            return
        if awaited is None:
            self._loop.call_soon(self._step)
            return
        # As a task does it: the future wants to see that whoever yielded it was understood.
        awaited._asyncio_future_blocking = False
        awaited.add_done_callback(self._step)
        self._awaited = awaited
        if self._cancelled:
            self._cancelled = False
            awaited.cancel()
