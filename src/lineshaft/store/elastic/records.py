"""Records of the log: what stands in one slot, as JSON that the cluster stores and does not look into.

Payloads and results stand as JSON strings, spelled as they were given; where bytes are no text, all of the
batch are base64. Rows are arrays, so no key can occur twice in what the cluster parses.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lineshaft.core.batch import Batch, Blob, Change, Counters, Forgotten, Record
from lineshaft.core.task import Task
from lineshaft.store.elastic.watermarks import Mark

Kind = Literal["batch", "epoch", "release", "renewal", "prune", "move", "leap"]


class Pruned(msgspec.Struct, array_like=True, frozen=True):
    """What a pruning removed: tasks up to a mark, results of some tasks, the beginning of the log."""

    tasks: Mark | None
    results: Mark | None
    expired: list[tuple[int, int]]
    """(seq, created_at) of the tasks whose result goes."""
    earliest: int
    earliest_slot: int
    """Where the log begins then."""


class Rows(msgspec.Struct, omit_defaults=True):
    """What a batch changes; the cluster stores it as it is."""

    counters: Counters = Counters()
    tasks: list[Task] = []
    blobs: list[tuple[Blob, int, str | None]] = []
    raw: list[tuple[Blob, int, bytes | None]] = []
    """In place of `blobs` where one of them is no text."""
    forgotten: list[Forgotten] = []
    records: list[Record] = []
    changes: list[Change] = []
    pruned: Pruned | None = None


class LogDocument(msgspec.Struct, omit_defaults=True):
    """One record. `position` and `at` are those after it, also where it is no batch."""

    kind: Kind
    epoch: int
    owner: bytes
    nonce: bytes
    position: int
    at: int
    next_generation: int = 0
    """The generation in which the shard goes on behind this record; 0: in the same."""
    rows: Rows | None = None


class Place(msgspec.Struct):
    """The part of a record that says where in the log one is."""

    position: int
    at: int


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(LogDocument).decode
decode_place = msgspec.json.Decoder(Place).decode


def rows_of(batch: Batch) -> Rows:
    """Return what is written of a batch."""
    rows = Rows(
        counters=batch.counters,
        tasks=batch.tasks,
        forgotten=batch.forgotten,
        records=batch.records,
        changes=batch.changes,
    )
    if batch.blobs:
        try:
            rows.blobs = [(k, seq, None if data is None else data.decode()) for k, seq, data in batch.blobs]
        except UnicodeDecodeError:
            rows.raw = batch.blobs
    return rows


def batch_of(document: LogDocument) -> Batch:
    """Return the batch that a record was made from."""
    rows = document.rows
    assert rows is not None
    return Batch(
        position=document.position,
        nonce=document.nonce,
        counters=rows.counters,
        tasks=rows.tasks,
        blobs=rows.raw or [(k, seq, None if text is None else text.encode()) for k, seq, text in rows.blobs],
        forgotten=rows.forgotten,
        records=rows.records,
        changes=rows.changes,
    )
