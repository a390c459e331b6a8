"""When a coordinator could hear its workers: only silence in that time may cost a lease."""

from __future__ import annotations

from bisect import bisect_right

STALL = 1.05
"""A commit that takes longer (seconds) suspends leases; until then some may still run out."""

STANDSTILL = 1.6
"""A coordinator that stands still for longer notices it."""


class Hearing:
    """Follows stalls, standstills and loads, in seconds of the loop."""

    def __init__(self) -> None:
        self._deaf: list[tuple[float, float]] = []
        self._loads: list[float] = []
        self.spared = 0
        """How many leases outlived their length for one of these reasons, and were lost only then."""

    def stalled(self, began: float, ended: float) -> None:
        """A commit was under way."""
        if ended - began > STALL:
            self._deaf.append((began + STALL, ended))

    def stood_still(self, began: float, ended: float) -> None:
        """The owner's process was frozen."""
        if ended - began > STANDSTILL:
            self._deaf.append((began, ended))

    def loaded(self, now: float) -> None:
        """The shard was loaded by somebody."""
        self._loads.append(now)

    def silence(self, contact: float, now: float, *, most_loads: int) -> float:
        """Return for how long (seconds) a worker was heard not to speak.

        A load counts as a sign of life, as often in a row as `most_loads` says; beyond that it forgets what
        was granted for the time before.
        """
        since = bisect_right(self._loads, contact)
        loads = len(self._loads) - since
        began = until = contact
        if 0 < loads <= most_loads:
            began = until = self._loads[-1]
        elif loads > most_loads:
            began, until = self._loads[since + most_loads - 1], self._loads[-1]
        heard = now - began
        for start, end in sorted(self._deaf):
            start = max(start, until)
            if end > start:
                heard -= min(end, now) - start
                until = end
        return heard
