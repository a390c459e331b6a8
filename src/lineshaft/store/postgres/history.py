"""How the loss of what was acknowledged is noticed: after a failover, a restored backup, or a crash of a
server that had not written all of it.

A shard remembers in which history it was last taken over: the system, its timeline (each promotion of
a standby and each recovery to a point in time begins a new one) and, where commits are not waited for, the
start of the server. Where that is another, or what is stored ends before what this process knows of,
positions, arrivals and fences go on beyond all that can have been handed out: none is ever given twice.
"""

from __future__ import annotations

from typing import Any

from lineshaft.core.batch import Counters
from lineshaft.store.base import Ownership
from lineshaft.store.lost_tails import Known, LostTails
from lineshaft.store.postgres.connections import Connection
from lineshaft.store.rows import decode_counters, encode

GAP = 1 << 24
"""By how much they go on: more than a shard hands out within the time that a replica may lag."""


class History(LostTails):
    """What this process knows of every shard, and what it has found to be lost."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, Known] = {}

    def of(self, shard: int) -> Known:
        """Return what is known of a shard."""
        return self._known.setdefault(shard, Known())

    async def settle(
        self, connection: Connection, schema: str, ownership: Ownership, synchronous: str
    ) -> None:
        """Compare what is stored of the shard, whose owner we are, with what is known; go on beyond a loss.

        To be called within a transaction.
        """
        cursor = connection.cursor(binary=True)
        await cursor.execute(
            f"SELECT s.position, s.counters, s.history, {schema}.history($4) FROM {schema}.shard AS s"
            " WHERE s.id = $1 AND s.epoch = $2 AND s.owner = $3 FOR UPDATE",
            (*_named(ownership), synchronous),
        )
        rows = await cursor.fetchall()
        if not rows:
            return  # fenced, as whoever loads is told
        [(position, counters, before, now)] = rows
        known = self.of(ownership.shard)
        lost = known.position > position
        if before == now and not lost:
            return
        set_to: list[Any] = [now]
        columns = "history = $4"
        if before or lost:
            stored = decode_counters(counters) if counters else Counters()
            set_to += [max(position, known.position) + GAP, encode(_leap(stored.or_later(known.counters)))]
            columns += ", position = $5, counters = $6, nonce = ''"
            if lost:
                by = "a failover, a crash or a restored backup of the server"
                self.lost(ownership.shard, position, known.position, by=by)
            else:
                because = "the server was replaced, restored or restarted since the shard was taken over"
                self.suspected(ownership.shard, position, because=because)
        await cursor.execute(
            f"UPDATE {schema}.shard SET {columns} WHERE id = $1 AND epoch = $2 AND owner = $3",
            (*_named(ownership), *set_to),
        )


def _leap(counters: Counters) -> Counters:
    return Counters(counters.now, counters.seq + GAP, counters.fence + GAP)


def _named(ownership: Ownership) -> tuple[Any, ...]:
    return ownership.shard, ownership.epoch, ownership.owner
