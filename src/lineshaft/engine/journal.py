"""The commands that were applied and are not durable, in order, so that they can be applied again."""

from __future__ import annotations

import msgspec

from lineshaft.engine.handle import Handle
from lineshaft.engine.limits import Limits


class Dropped(msgspec.Struct, frozen=True):
    """The unanswered commands of a shard whose memory was dropped, each in order of application."""

    parked: list[Handle]
    """Durable, and waiting."""
    batch: list[Handle]
    """In the batch that was in flight."""
    later: list[Handle]
    """Applied since."""


class Journal:
    """Commands of the batch in flight, and of the one that gathers."""

    __slots__ = ("_bytes", "_gathering", "_in_flight", "_in_flight_since", "_since")

    def __init__(self) -> None:
        self._gathering: list[Handle] = []
        self._bytes = 0
        self._since: int | None = None
        self._in_flight: list[Handle] | None = None
        self._in_flight_since: int | None = None

    def __len__(self) -> int:
        """Return how many gather for the next batch."""
        return len(self._gathering)

    @property
    def oldest(self) -> int | None:
        """Return the instant before which everything applied is durable; None where everything is."""
        return self._since if self._in_flight_since is None else self._in_flight_since

    def is_full(self, limits: Limits) -> bool:
        """Tell whether the next batch has all that it may."""
        return len(self._gathering) >= limits.batch_commands or self._bytes >= limits.batch_bytes

    def add(self, handle: Handle, now: int) -> None:
        """Note a command that was applied."""
        self._gathering.append(handle)
        self._bytes += handle.weight
        if self._since is None:
            self._since = now

    def cut(self) -> None:
        """What has gathered is in flight now."""
        self._in_flight, self._gathering, self._bytes = self._gathering, [], 0
        self._in_flight_since, self._since = self._since, None

    def landed(self) -> list[Handle]:
        """Return what was in flight and is durable."""
        landed, self._in_flight, self._in_flight_since = self._in_flight or [], None, None
        return landed

    def take_answered(self) -> list[Handle]:
        """Return and forget what was answered already, for want of anything to commit."""
        if self._in_flight is not None:
            return []
        answered = [handle for handle in self._gathering if handle.done()]
        self._gathering = [handle for handle in self._gathering if not handle.done()]
        self._bytes = sum(handle.weight for handle in self._gathering)
        if not self._gathering:
            self._since = None
        return answered

    def take_all(self, waited: list[Handle], durable: int) -> Dropped:
        """Empty the journal and sort out what is unanswered; `waited` are those parked, or answered since."""
        in_flight, gathering = self._in_flight or [], self._gathering
        parked = {
            id(handle): handle
            for handle in waited
            if handle.parked_at is not None and handle.parked_at <= durable and not handle.done()
        }
        self.__init__()  # type: ignore[misc]  # as new
        return Dropped(
            parked=sorted(parked.values(), key=lambda handle: handle.serial),
            batch=[h for h in in_flight if id(h) not in parked],
            later=[h for h in gathering if id(h) not in parked],
        )
