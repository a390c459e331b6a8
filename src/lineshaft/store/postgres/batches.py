"""A batch as the parameters of the one statement that commits it."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from lineshaft.core.batch import Batch, Blob
from lineshaft.core.task import State, Task
from lineshaft.store.base import Ownership, Rejected
from lineshaft.store.postgres.arrays import NOTHING, byte_strings, integers, texts
from lineshaft.store.postgres.keys import key_of
from lineshaft.store.postgres.specs import NewSpec, SpecNumbers
from lineshaft.store.sqlite_rows import encode

PARAMETERS = 61
LARGEST = 512 * 1024 * 1024
"""Bytes of a statement; PostgreSQL takes no message of twice that."""

_NO_SPEC = ("",)
_WRITTEN_ONCE = (Blob.PAYLOAD, Blob.RESULT)


class Prepared(msgspec.Struct, frozen=True):
    """The parameters, and what is known once they are committed."""

    values: list[Any]
    new_specs: dict[tuple[str, bytes], NewSpec]
    highest_seq: int


def prepare(
    ownership: Ownership, batch: Batch, numbers: SpecNumbers, *, synchronous: str, taken: list[int]
) -> Prepared:
    """Encode a batch; `taken` are rows of the inbox that go with it. Raises `Rejected`."""
    try:
        return _prepare(ownership, batch, numbers, synchronous, taken)
    except (
        OverflowError,
        UnicodeEncodeError,
        ValueError,
        TypeError,
        struct.error,
        msgspec.MsgspecError,
    ) as error:
        raise Rejected(f"a value cannot be stored: {error}") from error


def _prepare(
    ownership: Ownership, batch: Batch, numbers: SpecNumbers, synchronous: str, taken: list[int]
) -> Prepared:
    new_specs: dict[tuple[str, bytes], NewSpec] = {}
    highest = numbers.highest_seq
    new, old, ended = _Rows(), _Rows(), _EndedRows()
    for task in batch.tasks:
        if task.state >= State.COMPLETED:
            ended.add(task, numbers.number(task, new_specs))
        elif task.seq > highest:
            new.add(task, numbers.number(task, new_specs))
        else:
            old.add(task, numbers.number(task, new_specs))
    values: list[Any] = [
        ownership.shard,
        ownership.epoch,
        ownership.owner,
        batch.position,
        batch.nonce,
        encode(batch.counters),
        batch.counters.now,
        encode(batch.changes),
        synchronous,
        *_specs(list(new_specs.values())),
        integers([gone.seq for gone in batch.forgotten]),
        *new.values(),
        *old.values(),
        *ended.values(),
        *_blobs(batch),
        *_records(batch),
        integers(taken),
    ]
    size = sum(len(value) for value in values if isinstance(value, bytes))
    if size > LARGEST:
        raise Rejected(f"a batch of {size} bytes is more than PostgreSQL takes at once")
    written = max((task.seq for task in batch.tasks), default=highest)
    return Prepared(values, new_specs, written)


class _Rows:
    """Columns of tasks."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.specs: list[int] = []
        self.finished_at: list[int] = []

    def add(self, task: Task, spec: int) -> None:
        self.tasks.append(task)
        self.specs.append(spec)
        run = task.run
        at = None if run is None else run.finished_at
        self.finished_at.append(NOTHING if at is None else at)

    def values(self) -> list[Any]:
        tasks = self.tasks
        if not tasks:
            return [None] * 8
        return [
            integers([task.seq for task in tasks]),
            integers(self.specs),
            integers([task.state for task in tasks]),
            integers([task.run_at for task in tasks]),
            integers(self.finished_at),
            integers([key_of(task.tenant, task.id) for task in tasks]),
            texts([task.id for task in tasks]),
            byte_strings([_encode_row(task) for task in tasks]),
        ]


class _EndedRows(_Rows):
    """Columns of tasks that are over."""

    def values(self) -> list[Any]:
        if not self.tasks:
            return [None] * 10
        return [
            *super().values(),
            integers([_or_nothing(task, "prune_at") for task in self.tasks]),
            integers([_or_nothing(task, "result_expires_at") for task in self.tasks]),
        ]


def _or_nothing(task: Task, field: str) -> int:
    value: int | None = getattr(task.run, field, None)
    return NOTHING if value is None else value


def _encode_row(task: Task) -> bytes:
    """Encode all of a task but its tenant, its id and its spec, which have their places."""
    return encode(
        (
            task.seq,
            "",
            "",
            _NO_SPEC,
            task.state,
            task.run_at,
            task.created_at,
            task.expires_at,
            task.tags,
            task.metadata,
            task.traceparent,
            task.fingerprint,
            task.payload_size,
            task.run,
        )
    )


def _specs(new: list[NewSpec]) -> list[Any]:
    return [
        integers([made.number for made in new]),
        texts([made.tenant for made in new]),
        texts([made.spec.queue for made in new]),
        texts([made.spec.name for made in new]),
        integers([made.spec.priority for made in new]),
        byte_strings([made.data for made in new]),
    ]


def _blobs(batch: Batch) -> list[Any]:
    last = {(seq, kind): data for kind, seq, data in batch.blobs}
    first = [
        (seq, kind, data) for (seq, kind), data in last.items() if data is not None and kind in _WRITTEN_ONCE
    ]
    again = [
        (seq, kind, data)
        for (seq, kind), data in last.items()
        if data is not None and kind not in _WRITTEN_ONCE
    ]
    lost = [key for key, data in last.items() if data is None]
    return [
        integers([seq for seq, _, _ in first]),
        integers([kind for _, kind, _ in first]),
        byte_strings([data for _, _, data in first]),
        integers([seq for seq, _, _ in again]),
        integers([kind for _, kind, _ in again]),
        byte_strings([data for _, _, data in again]),
        integers([seq for seq, _ in lost]),
        integers([kind for _, kind in lost]),
    ]


def _records(batch: Batch) -> list[Any]:
    last = {(record.kind, record.tenant, record.key): record.data for record in batch.records}
    kept = {key: data for key, data in last.items() if data is not None}
    lost = [key for key, data in last.items() if data is None]
    return [
        *(texts([key[part] for key in kept]) for part in range(3)),
        byte_strings(list(kept.values())),
        *(texts([key[part] for key in lost]) for part in range(3)),
    ]
