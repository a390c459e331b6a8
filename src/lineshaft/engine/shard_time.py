"""The time by which a shard decides: it never runs backwards, and does not believe a leap at once.

It follows the wall clock, watched against the monotonic one:

* A small step (up to ten minutes) is believed. A large one is refused and said, and believed when it has
  stood for a minute: a laptop that slept is right, a mistyped date is corrected before that.
* Where the wall clock is behind what was decided by before, the shard's time goes on at half speed until
  the wall clock has caught up: nothing runs early for long, and no lease is cut short.
* A step forward is told to the runner, which lets every lease run longer by it: nobody lost that time to
  work. So is the time for which this process stood still (frozen, swapped out, its event loop blocked):
  workers did speak, but nobody listened. That is seen by a beat that fails to come, while somebody sees to
  one every second.
"""

from __future__ import annotations

import logging

from lineshaft.engine.clock import Clock
from lineshaft.store.base import StoreUnusable
from lineshaft.values.instants import format_instant

LARGE = 600_000
"""Milliseconds by which the wall clock may leave the monotonic one and still be believed at once."""

STANDING = 60.0
"""Seconds that a large jump must stand before it is believed."""

NOTICEABLE = 500
"""A step forward of fewer milliseconds is drift, not a step."""

BEAT = 1.0
"""Seconds after which time is asked for at the latest, where it is `beating`."""

_LOG = logging.getLogger("lineshaft.engine")


class ShardTime:
    """One shard's present."""

    def __init__(self, clock: Clock, *, max_ahead: int) -> None:
        """`max_ahead` is by how much (ms) what was decided by may be ahead of the wall clock at a load."""
        self._clock = clock
        self._max_ahead = max_ahead
        self._anchor_wall = clock.now()
        self._anchor = self._last_asked = clock.monotonic()
        self._now = float(self._anchor_wall)
        self._suspect: tuple[float, int] | None = None
        self._stepped = 0
        self.beating = False
        """Whether somebody sees to it that time is asked for every `BEAT` seconds."""
        self.jumps = 0
        """How often what was believed of the wall clock has changed at one go."""

    def reach(self, instant: int) -> None:
        """Go on from no earlier than the last instant that the store knows of.

        Raises `StoreUnusable` where that is too far ahead of the wall clock to be true.
        """
        wall = self._clock.now()
        if instant > wall + self._max_ahead:
            raise StoreUnusable(
                f"the store was last written at {format_instant(instant)}, but this machine's clock says "
                f"{format_instant(wall)}: set the clock right and start again (if the store's time is the "
                "wrong one, allow more with `max_ahead`; it then goes on at half speed until the clock has "
                "caught up)"
            )
        self._now = max(self._now, float(instant))

    def now(self) -> int:
        """Return the shard's present in milliseconds since the epoch."""
        asked = self._clock.monotonic()
        silent = asked - self._last_asked
        if self.beating and silent > BEAT + NOTICEABLE / 1000:
            _LOG.warning("nothing was heard for %.1f s: this process stood still", silent)
            self._stepped += int(silent * 1000)
        wall = self._clock.now()
        jump = wall - self._anchor_wall - int((asked - self._anchor) * 1000)
        if -NOTICEABLE < jump < NOTICEABLE and self._suspect is None:
            self._anchor, self._anchor_wall, trusted = asked, wall, wall
        else:
            trusted = self._trusted(asked, wall)
        if trusted >= self._now:
            self._now = float(trusted)
        else:
            self._now += (asked - self._last_asked) * 500
        self._last_asked = asked
        return int(self._now)

    @property
    def last(self) -> int:
        """Return the present as it was asked for last."""
        return int(self._now)

    @property
    def at_least(self) -> int:
        """Return a bound below the present, without asking for it, which might change it."""
        return int(self._now + (self._clock.monotonic() - self._last_asked) * 500)

    def take_step(self) -> int:
        """Return and forget the milliseconds that the wall clock leapt over or this process missed."""
        stepped, self._stepped = self._stepped, 0
        return stepped

    @property
    def refused_jump(self) -> int | None:
        """Return by how many milliseconds the wall clock has jumped, while that is not believed."""
        return None if self._suspect is None else self._suspect[1]

    def _trusted(self, asked: float, wall: int) -> int:
        expected = self._anchor_wall + int((asked - self._anchor) * 1000)
        jump = wall - expected
        if -LARGE <= jump <= LARGE:
            if self._suspect is not None:
                self._suspect = None
                _LOG.warning("the wall clock is right again")
            self._believe(asked, wall, jump)
            return wall
        if self._suspect is None or abs(self._suspect[1] - jump) > LARGE:
            self._suspect = (asked, jump)
            _LOG.warning(
                "the wall clock jumped by %.0f s: not believed unless it stands for %.0f s",
                jump / 1000,
                STANDING,
            )
        elif asked - self._suspect[0] >= STANDING:
            self._suspect = None
            _LOG.warning("the wall clock's jump by %.0f s has stood: it is believed now", jump / 1000)
            self._believe(asked, wall, jump)
            return wall
        return expected

    def _believe(self, asked: float, wall: int, jump: int) -> None:
        self._anchor, self._anchor_wall = asked, wall
        if jump >= NOTICEABLE and wall > self._now:
            self.jumps += 1
            self._stepped += min(jump, wall - int(self._now))
