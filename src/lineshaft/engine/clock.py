"""Time as the engine sees it: a wall clock that may jump, a monotonic one that may not, and timers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """All that the engine knows of time; tests and the simulator bring their own."""

    def now(self) -> int:
        """Return the wall clock's time in milliseconds since the epoch; people and NTP may move it."""

    def monotonic(self) -> float:
        """Return seconds since some instant; they only go forward, and stand still while a machine sleeps."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call after `delay` seconds of the monotonic clock."""

    async def sleep(self, delay: float) -> None:
        """Wait for `delay` seconds of the monotonic clock."""


def lasting(clock: Clock) -> Callable[[], float]:
    """Return a clock's monotonic seconds that go on while the machine sleeps, where it has such.

    By these a tenure ends: somebody who wakes up must not think that what it had for a while is its own.
    """
    own: Callable[[], float] | None = getattr(clock, "lasting", None)
    return clock.monotonic if own is None else own


def _clock_since_boot() -> Callable[[], float]:
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return time.monotonic
    return partial(time.clock_gettime, boottime)


_since_boot = _clock_since_boot()


class SystemClock:
    """The machine's own clocks, and the running event loop's timers."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def lasting(self) -> float:
        """Return seconds that go on while the machine sleeps, where it can tell."""
        return _since_boot()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)


class LoopClock:
    """Clocks that follow the running event loop, for a loop in virtual time; `wall` may be moved at will."""

    def __init__(self, wall: int) -> None:
        """`wall` is what the wall clock shows (ms) when the loop's time is 0."""
        self.wall = wall

    def now(self) -> int:
        return self.wall + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)


class ManualClock:
    """A clock that stands still until it is told to advance, beside an ordinary event loop."""

    def __init__(self, wall: int) -> None:
        self._wall = wall
        self._elapsed = 0
        self._timers: list[tuple[int, int, _ManualTimer]] = []
        self._count = itertools.count()

    def now(self) -> int:
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed / 1000

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = _ManualTimer(callback)
        at = self._elapsed + max(0, int(-(-delay * 1000 // 1)))
        heapq.heappush(self._timers, (at, next(self._count), timer))
        if at <= self._elapsed:
            asyncio.get_running_loop().call_soon(self._fire_due)
        return timer

    async def sleep(self, delay: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def next_timer(self) -> int | None:
        """Return in how many milliseconds the next timer is due, or None."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0, self._timers[0][0] - self._elapsed) if self._timers else None

    async def advance(self, duration: int) -> None:
        """Let `duration` milliseconds pass, timer by timer; what each sets off runs before the next."""
        until = self._elapsed + duration
        await self.settle()
        while (wait := self.next_timer()) is not None and self._elapsed + wait <= until:
            self._elapsed += wait
            self._fire_due()
            await self.settle()
        self._elapsed = until

    async def settle(self, rounds: int = 20) -> None:
        """Let the event loop run what is ready."""
        for _ in range(rounds):
            await asyncio.sleep(0)

    def _fire_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._elapsed:
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None
