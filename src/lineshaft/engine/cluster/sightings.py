"""Who is dead: a member whose beat has stood still for long, as far as we could have seen it move."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from lineshaft.engine.cluster.roster import Member

VALID = 0.6
"""Share of its lease for which a member believes itself alive after a beat was sent."""
DEAD = 0.7
"""Share of its lease after which the others take it for dead, from when they saw its last beat first. What
is between the two allows for clocks that run apart."""
BEAT = 0.2
"""Share of its lease after which a member beats again."""
_BLIND = 2 * BEAT
"""Share of our own lease after which, having seen nothing, we do not know who was silent."""


class _Sighting(msgspec.Struct, frozen=True):
    beat: int
    since: float
    dead_at: float


class Sightings:
    """When each member's beat was first seen. All instants are seconds of our monotonic clock."""

    def __init__(self, lease: int) -> None:
        """`lease` (ms) is our own."""
        self._blind_after = lease * _BLIND / 1000
        self._seen: dict[bytes, _Sighting] = {}
        self._looked_at = -math.inf

    def see(self, others: Iterable[Member], now: float) -> None:
        """Look at the members besides ourselves."""
        known = {} if self._is_blind(now) else self._seen
        self._looked_at = now
        self._seen = {
            member.id: sighting
            if (sighting := known.get(member.id)) is not None and sighting.beat == member.beat
            else _Sighting(member.beat, now, now + member.lease * DEAD / 1000)
            for member in others
        }

    def dead(self, now: float) -> list[bytes]:
        """Return whom to take for dead; nobody where we have not looked for long: it may be we who slept."""
        if self._is_blind(now):
            return []
        return [id for id, sighting in self._seen.items() if sighting.dead_at <= now]

    @property
    def next_death(self) -> float:
        """Return when to look again whether somebody is dead."""
        return min((sighting.dead_at for sighting in self._seen.values()), default=math.inf)

    def silent_for(self, id: bytes, now: float) -> float:
        """Return for how many seconds nothing new was seen of a member."""
        sighting = self._seen.get(id)
        return 0.0 if sighting is None else now - sighting.since

    def _is_blind(self, now: float) -> bool:
        return now - self._looked_at > self._blind_after
