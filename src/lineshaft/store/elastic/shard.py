"""What is known of one shard: how far its log goes, who owns it, and what is not in the documents yet."""

from __future__ import annotations

import asyncio
import time

import msgspec

from lineshaft.core.batch import Batch, Counters
from lineshaft.core.task import Task
from lineshaft.store.elastic.overlay import BlobKey, Ident, Overlay
from lineshaft.store.elastic.records import LogDocument, batch_of
from lineshaft.store.elastic.watermarks import Marks


class Checkpoint(msgspec.Struct, kw_only=True):
    """The state of a shard after one slot, up to which its documents are written.

    Kept in the control index as a hint where a replay begins; an older one is as right, only slower.
    """

    slot: int = 0
    epoch: int = 0
    owner: bytes | None = None
    position: int = 0
    nonce: bytes = b""
    counters: Counters = Counters()
    at: int = 0
    generations: list[tuple[int, int]] = msgspec.field(default_factory=lambda: [(1, 1)])
    """(first slot, generation) of what the log still holds, in order."""
    earliest: int = 1
    slot_of_earliest: int = 1
    pruned: Marks = Marks()
    expired: Marks = Marks()


class Pending(msgspec.Struct, frozen=True):
    """A record, its bytes, and the slot that it is to take."""

    slot: int
    document: LogDocument
    body: bytes


class Shard:
    """One shard, as one store object knows it."""

    def __init__(self, number: int, *, keep_history: bool) -> None:
        self.number = number
        self.lock = asyncio.Lock()
        """Held while a slot is written: one is in flight, never two."""
        self.attached = False
        """Whether the state is that of the store, as of some time ago."""
        self.is_ours = False
        """Whether it was acquired here last: then nobody but us changes it, or we find out by a fence."""
        self.pending: Pending | None = None
        """The record whose outcome is unknown. Nothing else is written before it."""
        self.writes_begun = 0
        self.last_confirmed = 0
        """The number of the last write that is known to have taken its slot."""
        self.drops = 0
        """How often an overlay was dropped because the documents have what was in it."""
        self._keep_history = keep_history
        self.reset(Checkpoint())

    def reset(self, checkpoint: Checkpoint) -> None:
        """Begin anew with what a checkpoint says."""
        self.head = checkpoint.slot
        self.epoch = checkpoint.epoch
        self.owner = checkpoint.owner
        self.position = checkpoint.position
        self.nonce = checkpoint.nonce
        self.counters = checkpoint.counters
        self.at = checkpoint.at
        self.generations = list(checkpoint.generations)
        self.earliest = checkpoint.earliest
        self.slot_of_earliest = checkpoint.slot_of_earliest
        self.pruned = checkpoint.pruned
        self.expired = checkpoint.expired
        self.fresh = Overlay()
        self.writing = Overlay()
        self.fresh_since: float | None = None
        self.taken_at = 0.0
        self.projected = checkpoint.slot
        self.at_earliest: int | None = None
        """When the earliest record was written, where that is known."""
        self.last_read: tuple[int, int] | None = None
        """A position of the log and its slot, for whoever reads on."""
        self.drops = self.drops + 1

    def checkpoint(self) -> Checkpoint:
        """Return the state at the head."""
        return Checkpoint(
            slot=self.head,
            epoch=self.epoch,
            owner=self.owner,
            position=self.position,
            nonce=self.nonce,
            counters=self.counters,
            at=self.at,
            generations=list(self.generations),
            earliest=self.earliest,
            slot_of_earliest=self.slot_of_earliest,
            pruned=self.pruned,
            expired=self.expired,
        )

    @property
    def generation(self) -> int:
        """Return the generation that the next record goes to."""
        return self.generations[-1][1]

    @property
    def slots_in_generation(self) -> int:
        """Return how many slots of the generation it has filled."""
        return self.head + 1 - self.generations[-1][0]

    @property
    def first_slot(self) -> int:
        """Return the first slot that the log still holds."""
        return self.generations[0][0]

    def generation_of(self, slot: int) -> int:
        """Return the generation that a slot is in."""
        for first, generation in reversed(self.generations):
            if slot >= first:
                return generation
        return self.generations[0][1]

    def apply(self, slot: int, document: LogDocument, batch: Batch | None = None) -> None:
        """Take over what stands in the next slot; `batch` where it need not be made from the record."""
        self.head = slot
        if document.epoch < self.epoch:
            return  # of an owner who did not know yet that it was none any more
        match document.kind:
            case "batch":
                again = batch is None
                self._apply_batch(slot, document, batch or batch_of(document), again=again)
            case "epoch":
                self.epoch, self.owner = document.epoch, document.owner
            case "release":
                self.owner = None
            case "prune":
                self._apply_pruning(slot, document)
            case "leap":
                self.position, self.nonce = document.position, b""
                self.earliest, self.at_earliest, self.slot_of_earliest = document.position + 1, None, slot + 1
                self.last_read = None
        if self.fresh_since is None:
            self.fresh_since = time.monotonic()
        if document.next_generation:
            self.generations.append((slot + 1, document.next_generation))

    def _apply_batch(self, slot: int, document: LogDocument, batch: Batch, *, again: bool) -> None:
        self.position, self.nonce, self.at = document.position, document.nonce, document.at
        self.counters = batch.counters
        fresh = self.fresh
        for gone in batch.forgotten:
            fresh.forget(slot, gone.seq, (gone.tenant, gone.id), self.writing, batch.counters.now)
        if batch.tasks:
            fresh.put_tasks(slot, batch.tasks)
        if batch.blobs:
            fresh.put_blobs(slot, batch)
        if batch.records:
            fresh.put_records(slot, batch.records)
        if self._keep_history and batch.changes:
            fresh.history.append((msgspec.structs.replace(batch, blobs=[]), again))

    def _apply_pruning(self, slot: int, document: LogDocument) -> None:
        assert document.rows is not None
        pruned = document.rows.pruned
        assert pruned is not None
        if pruned.tasks is not None:
            self.pruned = self.pruned.and_(pruned.tasks)
        if pruned.results is not None:
            self.expired = self.expired.and_(pruned.results)
        for seq, created_at in pruned.expired:
            self.fresh.expire_result(slot, seq, created_at)
        if pruned.earliest > self.earliest:
            self.earliest, self.at_earliest = pruned.earliest, None
            self.slot_of_earliest = pruned.earliest_slot
            while len(self.generations) > 1 and self.generations[1][0] <= pruned.earliest_slot:
                del self.generations[0]

    def take(self) -> Overlay:
        """Begin to write what is fresh; return it."""
        self.writing, self.fresh = self.fresh, Overlay()
        self.taken_at = time.monotonic()
        return self.writing

    def written(self, up_to: int) -> None:
        """The documents have all up to a slot."""
        self.writing = Overlay()
        self.projected = up_to
        self.drops += 1
        self.fresh_since = None if not self.fresh else self.taken_at

    def lookup(self, ident: Ident) -> tuple[int, Task] | None:
        """Return a row, and its slot, that is in memory; None where the documents are to be asked."""
        return self.fresh.tasks.get(ident) or self.writing.tasks.get(ident)

    def task(self, ident: Ident, document: tuple[int, Task] | None) -> Task | None:
        """Return a copy of a task: from memory, or else from its document."""
        found = self.lookup(ident) or document
        if found is None or self.is_gone(*found):
            return None
        return found[1].snapshot()

    def value(self, key: BlobKey) -> tuple[int, bytes | None, Task | str] | None:
        """Return a blob in memory, whose data may be None; None where the documents are to be asked."""
        return self.fresh.blobs.get(key) or self.writing.blobs.get(key)

    def is_gone(self, slot: int, task: Task) -> bool:
        """Tell whether a row that was written in a slot was pruned or forgotten since."""
        for overlay in (self.fresh, self.writing):
            forgotten = overlay.forgotten.get(task.seq)
            if forgotten is not None and forgotten[0] > slot:
                return True
        run = task.run
        return (
            run is not None
            and run.prune_at is not None
            and task.state.terminal
            and self.pruned.covers(run.prune_at, task.seq, slot)
        )
