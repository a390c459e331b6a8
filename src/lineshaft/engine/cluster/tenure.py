"""Until when a coordinator may believe that its shards are its own."""

from __future__ import annotations

import math


class Tenure:
    """For good: where the store is exclusive to this process nobody else can have a shard."""

    def __init__(self) -> None:
        self.until = math.inf
        """Until then (seconds of the monotonic clock) nobody else can have been given what is ours."""

    def ask(self) -> None:
        """See to it that it is extended at once: a reply waits for it."""

    async def stand(self, shard: int, owner: bytes) -> None:
        """Return when it is certain that the owner has the shard as of now.

        Raises `NotOwner` where it has not. To be asked before a shard is acquired in the store and again
        afterwards: an acquisition that was long on its way may have come when the shard was another's.
        """
