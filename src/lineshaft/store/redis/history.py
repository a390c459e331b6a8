"""How the loss of what was acknowledged is noticed: after a failover, or a restart of a server that had not
written all of it.

A store that copies asynchronously may lose the end of its history. Each acquisition therefore compares which
process serves, and what the caller knows to be stored, with what is there. Where another process serves or
something is missing, positions, arrivals, fences and epochs go on beyond all that can have been handed out
(`functions.lua`), so that none is ever given twice, and the cut is kept: "history ends at `end`, and goes on
after `resumes`". Whoever acknowledged a position between has lost what it acknowledged, and learns it here,
also where somebody else has made the cut.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from lineshaft.core.batch import Counters
from lineshaft.values.instants import format_instant

_LOG = logging.getLogger("lineshaft.store")

_NOTICES_KEPT = 20


class Cut(msgspec.Struct, frozen=True):
    """History ends at a position and goes on after another; `at` is when that was found (ms)."""

    end: int
    resumes: int
    at: int


class Known(msgspec.Struct):
    """What this process knows to be stored of a shard, since it was answered so."""

    epoch: int = 0
    position: int = 0
    counters: Counters = Counters()
    seen: set[Cut] = set()

    def reached(self, position: int, counters: Counters) -> None:
        """Note what was acknowledged or loaded."""
        self.position = max(self.position, position)
        mine = self.counters
        self.counters = Counters(
            max(mine.now, counters.now), max(mine.seq, counters.seq), max(mine.fence, counters.fence)
        )


class History:
    """What this process knows of every shard, and what it has found to be lost."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._known: dict[int, Known] = {}

    def of(self, shard: int) -> Known:
        """Return what is known of a shard."""
        return self._known.setdefault(shard, Known())

    def look_at(self, shard: int, cuts: Iterable[bytes]) -> str | None:
        """Take the cuts that are in the store; return what this process has lost by new ones, and say it."""
        known = self.of(shard)
        lost = None
        for text in cuts:
            cut = Cut(*(int(part) for part in text.split()))
            if cut not in known.seen and cut.end < known.position:
                lost = self._say(shard, cut.end + 1, known.position, cut.at)
                known.position = cut.end
            known.seen.add(cut)
        return lost

    def suspect(self, shard: int, end: int, *, tier: str) -> None:
        """Say that another process serves than before, which may have lost what came after `end`."""
        if tier == "power loss":
            return
        _LOG.warning(
            "shard %d: its server was restarted or replaced since the last owner took it (tier %r): history"
            " is whole up to position %d; whatever may have been acknowledged after is gone, and positions,"
            " arrivals and fences go on beyond it",
            shard,
            tier,
            end,
        )

    def _say(self, shard: int, first: int, last: int, at: int) -> str:
        which = f"position {first}" if first == last else f"positions {first} to {last}"
        reason = (
            f"shard {shard}: {which}, acknowledged by this coordinator, gone after a failover or restart of"
            f" the server, noticed {format_instant(at)}: tasks enqueued there are lost, and what was reported"
            " there will be asked for again"
        )
        _LOG.error("%s", reason)
        self.notices = [*self.notices, reason][-_NOTICES_KEPT:]
        return reason
