"""What a store that copies or writes asynchronously may lose: the end of a shard's history, with what was
acknowledged there.

Whoever was answered that something is stored knows it, and so can tell once it is there no more. How a store
finds out is its own; positions, arrivals and fences go on beyond all that can have been handed out.
"""

from __future__ import annotations

import logging

import msgspec

from lineshaft.core.batch import Counters

_LOG = logging.getLogger("lineshaft.store")

_KEPT = 20


class Known(msgspec.Struct):
    """What this process was answered of a shard."""

    position: int = 0
    counters: Counters = Counters()

    def reached(self, position: int, counters: Counters) -> None:
        """Note what was acknowledged or loaded."""
        self.position = max(self.position, position)
        self.counters = self.counters.or_later(counters)


class LostTails:
    """What was found to be lost, in the words in which people are told of it."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        """The latest last; only so many are kept."""

    def lost(self, shard: int, end: int, known: int, *, by: str) -> str:
        """Say that history ends at `end` and positions up to `known` were acknowledged; return what was said.

        `by` names what has happened, and may say when.
        """
        first = end + 1
        which = f"position {first}" if first == known else f"positions {first} to {known}"
        reason = (
            f"shard {shard}: {which}, acknowledged by this coordinator, gone after {by}: tasks enqueued there"
            " are lost, and what was reported there will be asked for again"
        )
        _LOG.error("%s", reason)
        self.notices = [*self.notices, reason][-_KEPT:]
        return reason

    def suspected(self, shard: int, end: int, *, because: str) -> None:
        """Say that what came after `end` may be lost: nobody is known to have been acknowledged it."""
        _LOG.warning(
            "shard %d: %s: history is whole up to position %d; whatever may have been acknowledged after is"
            " gone, and positions, arrivals and fences go on beyond it",
            shard,
            because,
            end,
        )
