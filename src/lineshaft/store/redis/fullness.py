"""How full a server's memory is, which its commits bring along once in a while: nothing asks for it alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

MOST = 0.9
"""The part of `maxmemory` beyond which no new tasks are taken, so that reports still find room."""

_COMMITS = 200
_SECONDS = 1.0


class Fullness:
    """What the server of one shard has told last."""

    def __init__(self) -> None:
        self.used = 0
        self.limit = 0
        self._commits = _COMMITS
        self._told_at = 0.0

    def is_due(self) -> bool:
        """Tell whether the next commit should ask."""
        self._commits += 1
        if self._commits >= _COMMITS:
            return True
        return self.is_over() and time.monotonic() - self._told_at >= _SECONDS

    def learn(self, told: Sequence[int]) -> None:
        """Take what a commit was answered: used and most; nothing where it did not ask."""
        if told:
            self.used, self.limit = told
            self._commits, self._told_at = 0, time.monotonic()

    def is_over(self) -> bool:
        """Tell whether no new tasks should be taken."""
        return self.limit > 0 and self.used > MOST * self.limit

    def congestion(self) -> str | None:
        """Say why no new tasks should be taken."""
        if not self.is_over():
            return None
        if time.monotonic() - self._told_at >= 60:
            return None  # nothing was committed since; the next commit tells how it is now
        return (
            f"the memory of the store's server is {self.used / self.limit:.0%} full, and the rest is kept for"
            " the reports of tasks: raise maxmemory, or let finished tasks go sooner (their retention)"
        )
