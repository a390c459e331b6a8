"""What a runner does when time alone has passed: tick the shard, see that the process did not stand still,
and answer those who have waited long enough.
"""

from __future__ import annotations

from collections.abc import Callable

from lineshaft.engine.clock import Clock, Timer
from lineshaft.engine.intake import Intake
from lineshaft.engine.shard_time import BEAT


class Deadline:
    """The one timer of a shard, set to its next deadline."""

    def __init__(self, clock: Clock, fire: Callable[[], None]) -> None:
        self._clock = clock
        self._fire_shard = fire
        self._timer: Timer | None = None
        self._set_for: tuple[int | None, int] | None = None

    def set(self, due: int | None, *, now: Callable[[], int], jumps: int) -> None:
        """Fire at the instant `due`; `jumps` (of the wall clock) tells whether what was set still holds."""
        if (due, jumps) == self._set_for:
            return
        self.cancel()
        self._set_for = (due, jumps)
        if due is not None:
            self._timer = self._clock.call_later(max(0, due - now()) / 1000, self._fire)

    def cancel(self) -> None:
        """Fire no more."""
        self._set_for = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = self._set_for = None
        self._fire_shard()


class Beat:
    """Asks for the time every `BEAT` seconds while leases are live, so that it is seen when nobody could."""

    def __init__(self, clock: Clock, intake: Intake) -> None:
        self._clock = clock
        self._intake = intake
        self._timer: Timer | None = None

    def keep(self) -> None:
        """Begin to beat, unless it does already or there is nothing to beat for."""
        if self._timer is None and self._intake.expect_beats():
            self._timer = self._clock.call_later(BEAT, self._beat)

    def cancel(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        self._timer = None
        self.keep()


class Patience:
    """Lets nobody wait for ever: what waited for one whole interval when it ends is answered with 503."""

    def __init__(self, clock: Clock, intake: Intake, interval: int) -> None:
        self._clock = clock
        self._intake = intake
        self._interval = interval / 1000
        self._timer: Timer | None = None
        self._marks = (0, 0)

    def begin(self) -> None:
        """Watch over a request; one timer is enough for all."""
        if self._timer is None:
            self._marks = (self._intake.barrier.mark, self._intake.serial)
            self._timer = self._clock.call_later(self._interval, self._end)

    def cancel(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self._intake.give_up(*self._marks)
        if self._intake.outstanding:
            self.begin()
