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

from collections.abc import Iterable

import msgspec

from lineshaft.store.lost_tails import Known, LostTails
from lineshaft.values.instants import format_instant


class Cut(msgspec.Struct, frozen=True):
    """History ends at a position and goes on after another; `at` is when that was found (ms)."""

    end: int
    resumes: int
    at: int


class KnownCuts(Known):
    """What this process was answered of a shard, and the cuts that it has been told of."""

    epoch: int = 0
    seen: set[Cut] = msgspec.field(default_factory=set)


class History(LostTails):
    """What this process knows of every shard, and what it has found to be lost."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, KnownCuts] = {}

    def of(self, shard: int) -> KnownCuts:
        """Return what is known of a shard."""
        return self._known.setdefault(shard, KnownCuts())

    def look_at(self, shard: int, cuts: Iterable[bytes]) -> str | None:
        """Take the cuts that are in the store; return what this process has lost by new ones, and say it."""
        known = self.of(shard)
        lost = None
        for text in cuts:
            cut = Cut(*(int(part) for part in text.split()))
            if cut not in known.seen and cut.end < known.position:
                by = f"a failover or restart of the server, noticed {format_instant(cut.at)}"
                lost = self.lost(shard, cut.end, known.position, by=by)
                known.position = cut.end
            known.seen.add(cut)
        return lost

    def suspect(self, shard: int, end: int, *, tier: str) -> None:
        """Say that another process serves than before, which may have lost what came after `end`."""
        if tier != "power loss":
            because = f"its server was restarted or replaced since the last owner took it (tier {tier!r})"
            self.suspected(shard, end, because=because)
