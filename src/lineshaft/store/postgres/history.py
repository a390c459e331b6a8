"""How the loss of what was acknowledged is noticed: after a failover, a restored backup, or a crash of a
server that had not written all of it.

A shard remembers in which history it was last taken over: the system, its timeline (each promotion of
a standby and each recovery to a point in time begins a new one) and, where commits are not waited for, the
start of the server. Where that is another, or what is stored ends before what this process knows of,
positions, arrivals and fences go on beyond all that can have been handed out: none is ever given twice.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from lineshaft.core.batch import Counters
from lineshaft.store.base import Ownership
from lineshaft.store.postgres.connections import Connection
from lineshaft.store.rows import decode_counters, encode

GAP = 1 << 24
"""By how much they go on: more than a shard hands out within the time that a replica may lag."""

_KEPT = 20

_LOG = logging.getLogger("lineshaft.store")


class _Known(msgspec.Struct):
    """What this process was answered of a shard."""

    position: int = 0
    counters: Counters = Counters()


class History:
    """What this process knows of every shard, and what it has found to be lost."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self._known: dict[int, _Known] = {}

    def reached(self, shard: int, position: int, counters: Counters) -> None:
        """Note what was acknowledged or loaded."""
        known = self._known.get(shard)
        if known is None:
            self._known[shard] = _Known(position, counters)
        elif position > known.position:
            known.position, known.counters = position, counters

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
        known = self._known.get(ownership.shard) or _Known()
        lost = known.position > position
        if before == now and not lost:
            return
        set_to: list[Any] = [now]
        columns = "history = $4"
        if before or lost:
            stored = decode_counters(counters) if counters else Counters()
            set_to += [max(position, known.position) + GAP, encode(_beyond(stored, known.counters))]
            columns += ", position = $5, counters = $6, nonce = ''"
            self._say(ownership.shard, position, known if lost else None)
        await cursor.execute(
            f"UPDATE {schema}.shard SET {columns} WHERE id = $1 AND epoch = $2 AND owner = $3",
            (*_named(ownership), *set_to),
        )

    def _say(self, shard: int, end: int, known: _Known | None) -> None:
        if known is None:
            _LOG.warning(
                "shard %d: the server was replaced, restored or restarted since the shard was taken over:"
                " its history is whole up to position %d; whatever may have been acknowledged after is gone,"
                " and positions, arrivals and fences go on beyond it",
                shard,
                end,
            )
            return
        first = end + 1
        which = f"position {first}" if first == known.position else f"positions {first} to {known.position}"
        reason = (
            f"shard {shard}: {which}, acknowledged by this coordinator, gone after a failover, a crash or"
            " a restored backup of the server: tasks enqueued there are lost, and what was reported there"
            " will be asked for again"
        )
        _LOG.error("%s", reason)
        self.notices = [*self.notices, reason][-_KEPT:]


def _beyond(stored: Counters, known: Counters) -> Counters:
    return Counters(
        max(stored.now, known.now), max(stored.seq, known.seq) + GAP, max(stored.fence, known.fence) + GAP
    )


def _named(ownership: Ownership) -> tuple[Any, ...]:
    return ownership.shard, ownership.epoch, ownership.owner
