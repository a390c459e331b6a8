"""How long to wait before repeating what failed: exponential with full jitter, so that many do not come at
once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lineshaft.errors import Retryable

T = TypeVar("T")


class Backoff:
    """A series of delays in seconds, each random up to a bound that doubles from `base` to `cap`."""

    def __init__(
        self, *, base: float = 0.05, cap: float = 5.0, draw: Callable[[], float] = random.random
    ) -> None:
        self._base = base
        self._cap = cap
        self._draw = draw
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many failures there were since the last success."""
        return self._failures

    def after_failure(self, retry_after: float | None = None) -> float:
        """Count a failure and give the delay; `retry_after` (what the other side asked for) is its least."""
        bound = min(self._cap, self._base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        if retry_after is not None:
            return retry_after + self._draw() * min(bound, 1.0)
        # Half of it is certain: a draw near zero would hammer a coordinator that is just coming up.
        return bound / 2 + self._draw() * bound / 2

    def succeeded(self) -> None:
        """Begin from `base` again."""
        self._failures = 0


async def repeat(
    once: Callable[[], Awaitable[T]],
    *,
    retry_for: float,
    on_failure: Callable[[int, Retryable], None] | None = None,
) -> T:
    """Call `once` until it succeeds; Retryable errors are raised only after about `retry_for` seconds of
    them.

    `on_failure` is told each failure and how many there were.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + retry_for
    backoff = Backoff()
    while True:
        try:
            return await once()
        except Retryable as error:
            pause = backoff.after_failure(error.retry_after)
            if on_failure is not None:
                on_failure(backoff.failures, error)
            if loop.time() + pause >= until:
                raise
            await asyncio.sleep(pause)
