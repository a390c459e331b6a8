"""The signals that ask a process to stop, and which of them count as asking again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

ECHO = 0.25
"""Seconds after the first signal within which others count as the same: `timeout` and process managers signal
a process and then its group, so that one request arrives twice.
"""


class StopSignals:
    """Calls `stop` in the running loop for each SIGTERM and SIGINT but the echoes of the first."""

    def __init__(self, stop: Callable[[signal.Signals], None], *, echo: float = ECHO) -> None:
        self._stop = stop
        self._echo = echo
        self._first_at: float | None = None

    def listen(self) -> None:
        """Take the signals from now on; only in the main thread."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came_now, number)

    def leave(self) -> None:
        """Leave the signals to Python again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def came(self, number: signal.Signals, now: float) -> None:
        """Take one signal; `now` is in seconds of the loop's clock."""
        if self._first_at is None:
            self._first_at = now
        elif now - self._first_at < self._echo:
            return
        self._stop(number)

    def _came_now(self, number: signal.Signals) -> None:
        self.came(number, asyncio.get_running_loop().time())
