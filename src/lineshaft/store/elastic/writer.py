"""Writes records for whoever owns a shard: one at a time, and each until it is known where it is."""

from __future__ import annotations

import os
from collections.abc import Callable

from lineshaft.core.batch import Batch
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.base import Ownership, Rejected
from lineshaft.store.elastic.records import Kind, LogDocument, Rows, decode, encode, rows_of
from lineshaft.store.elastic.shard import Pending, Shard
from lineshaft.store.elastic.slots import Slots


class Writer:
    """Writes records of all shards of one store."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.next_generation: Callable[[Shard], int] = lambda shard: 0
        """Tells the generation to go on in behind the next record of a shard; 0: the same."""

    async def acquire(self, shard: Shard, owner: bytes) -> Ownership:
        """Write an epoch record in the first free slot. The caller holds the lock and has attached."""
        shard.pending = None  # it is found in the log, or comes too late
        while True:
            await self._slots.follow(shard)
            if shard.head and shard.head >= shard.first_slot:
                await self._slots.touch(shard, shard.head)
            document = LogDocument("epoch", shard.epoch + 1, owner, os.urandom(16), shard.position, shard.at)
            if await self._slots.create(shard, shard.head + 1, encode(document)):
                shard.apply(shard.head + 1, document)
                return Ownership(shard.number, document.epoch, owner)

    async def commit(self, shard: Shard, ownership: Ownership, batch: Batch) -> None:
        """Write a batch, once. The caller holds the lock."""
        await self.settle(shard, but=batch)
        await self.require_owned(shard, ownership)
        if batch.position == shard.position and batch.nonce == shard.nonce:
            await self.write(shard, "renewal")  # that nobody has acquired it since must be sure
            return
        if batch.position != shard.position + 1:
            raise Fenced(f"the store is at position {shard.position}, so {batch.position} is not the next")
        pending = shard.pending
        if pending is None:
            document = LogDocument(
                "batch",
                ownership.epoch,
                ownership.owner,
                batch.nonce,
                batch.position,
                batch.counters.now,
                self.next_generation(shard),
                rows_of(batch),
            )
            pending = Pending(shard.head + 1, document, encode(document))
        await self._put(shard, pending, batch)

    async def renew(self, shard: Shard, ownership: Ownership) -> None:
        """Confirm by a write that nobody has acquired the shard. The caller does not hold the lock."""
        confirmed = shard.writes_begun
        async with shard.lock:
            if shard.last_confirmed > confirmed and _owns(shard, ownership):
                return  # by a commit that began after we were called
            await self.settle(shard)
            await self.require_owned(shard, ownership)
            await self.write(shard, "renewal")

    async def write(
        self, shard: Shard, kind: Kind, rows: Rows | None = None, *, next_generation: int = 0
    ) -> None:
        """Write a record that takes a slot and no position. The caller holds the lock and owns the shard."""
        assert shard.owner is not None
        document = LogDocument(
            kind,
            shard.epoch,
            shard.owner,
            os.urandom(16),
            shard.position,
            shard.at,
            next_generation or self.next_generation(shard),
            rows,
        )
        await self._put(shard, Pending(shard.head + 1, document, encode(document)), None)

    async def leap(self, shard: Shard, ownership: Ownership, position: int) -> None:
        """Write that positions go on beyond one. The caller holds the lock."""
        await self.settle(shard)
        await self.require_owned(shard, ownership)
        document = LogDocument(
            "leap",
            ownership.epoch,
            ownership.owner,
            os.urandom(16),
            position,
            shard.at,
            self.next_generation(shard),
        )
        await self._put(shard, Pending(shard.head + 1, document, encode(document)), None)

    async def settle(self, shard: Shard, but: Batch | None = None) -> None:
        """Find out what became of the record whose outcome is unknown, unless it is this batch."""
        if shard.pending is None:
            return
        document = shard.pending.document
        if but is None or (document.kind, document.nonce, document.position) != (
            "batch",
            but.nonce,
            but.position,
        ):
            await self._put(shard, shard.pending, None)

    async def require_owned(self, shard: Shard, ownership: Ownership) -> None:
        """Raise `Fenced` where the ownership is not the shard's, as far as is known."""
        if ownership.epoch > shard.epoch:
            await self._slots.follow(shard)
        if not _owns(shard, ownership):
            raise Fenced(
                f"shard {shard.number} is at epoch {shard.epoch}, not {ownership.epoch} of this owner"
            )

    async def _put(self, shard: Shard, pending: Pending, batch: Batch | None) -> None:
        shard.pending = pending
        shard.writes_begun += 1
        number = shard.writes_begun
        try:
            while not await self._slots.create(shard, pending.slot, pending.body):
                there = await self._who_is_there(shard, pending)
                if there is None:
                    break
                # Of an owner who did not know yet that it was none any more: nobody reads it.
                shard.apply(pending.slot, there)
                pending = shard.pending = Pending(shard.head + 1, pending.document, pending.body)
        except (Fenced, Rejected):
            shard.pending = None
            raise
        shard.pending = None
        shard.last_confirmed = number
        shard.apply(pending.slot, pending.document, batch)

    async def _who_is_there(self, shard: Shard, pending: Pending) -> LogDocument | None:
        """Return the record that is to be stepped over in a taken slot; None where it is our own.

        Raises `Fenced` where it is another owner's.
        """
        slot, ours = pending.slot, pending.document
        found = await self._slots.find(shard, slot)
        if found is None:
            raise Unavailable(
                f"slot {slot} of shard {shard.number} is said to be taken, but nothing is there: "
                "the write is repeated"
            )
        there = decode(found.source)
        if _same(there, ours):
            await self._slots.touch(shard, slot)
            return None
        if there.epoch < ours.epoch:
            return there
        shard.pending = None
        await self._slots.follow(shard)
        raise Fenced(
            f"slot {slot} of shard {shard.number} is taken by epoch {there.epoch}: "
            f"another owner than that of epoch {ours.epoch} writes"
        )


def _owns(shard: Shard, ownership: Ownership) -> bool:
    return (shard.epoch, shard.owner) == (ownership.epoch, ownership.owner)


def _same(one: LogDocument, other: LogDocument) -> bool:
    return (one.kind, one.nonce, one.epoch, one.owner, one.position) == (
        other.kind,
        other.nonce,
        other.epoch,
        other.owner,
        other.position,
    )
