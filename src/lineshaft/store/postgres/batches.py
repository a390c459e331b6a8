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
from lineshaft.store.rows import encode, encode_row

LARGEST = 512 * 1024 * 1024
"""Bytes of a statement; PostgreSQL takes no message of twice that."""

_WRITTEN_ONCE = (Blob.PAYLOAD, Blob.RESULT)


class Prepared(msgspec.Struct, frozen=True):
    """The parameters, and what is known once they are committed."""

    values: dict[str, Any]
    """By the name of the parameter, without those that have nothing to say."""
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
    values: dict[str, Any] = {
        "p_shard": ownership.shard,
        "p_epoch": ownership.epoch,
        "p_owner": ownership.owner,
        "p_position": batch.position,
        "p_nonce": batch.nonce,
        "p_counters": encode(batch.counters),
        "p_at": batch.counters.now,
        "p_changes": encode(batch.changes),
        "p_synchronous": synchronous,
        **new.columns("new"),
        **old.columns("old"),
        **ended.columns("ended"),
    }
    if new_specs:
        values |= _specs(list(new_specs.values()))
    if batch.forgotten:
        values["gone"] = integers([gone.seq for gone in batch.forgotten])
    if batch.blobs:
        values |= _blobs(batch)
    if batch.records:
        values |= _records(batch)
    if taken:
        values["taken"] = integers(taken)
    size = sum(len(value) for value in values.values() if isinstance(value, bytes))
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

    def columns(self, group: str) -> dict[str, Any]:
        tasks = self.tasks
        if not tasks:
            return {}
        return {
            f"{group}_seq": integers([task.seq for task in tasks]),
            f"{group}_spec": integers(self.specs),
            f"{group}_state": integers([task.state for task in tasks]),
            f"{group}_run_at": integers([task.run_at for task in tasks]),
            f"{group}_finished_at": integers(self.finished_at),
            f"{group}_key": integers([key_of(task.tenant, task.id) for task in tasks]),
            f"{group}_id": texts([task.id for task in tasks]),
            f"{group}_data": byte_strings([encode_row(task, "") for task in tasks]),
        }


class _EndedRows(_Rows):
    """Columns of tasks that are over."""

    def columns(self, group: str) -> dict[str, Any]:
        if not self.tasks:
            return {}
        return super().columns(group) | {
            f"{group}_prune_at": integers([_or_nothing(task, "prune_at") for task in self.tasks]),
            f"{group}_result_expires_at": integers(
                [_or_nothing(task, "result_expires_at") for task in self.tasks]
            ),
        }


def _or_nothing(task: Task, field: str) -> int:
    value: int | None = getattr(task.run, field, None)
    return NOTHING if value is None else value


def _specs(new: list[NewSpec]) -> dict[str, Any]:
    return {
        "spec_id": integers([made.number for made in new]),
        "spec_tenant": texts([made.tenant for made in new]),
        "spec_queue": texts([made.spec.queue for made in new]),
        "spec_name": texts([made.spec.name for made in new]),
        "spec_priority": integers([made.spec.priority for made in new]),
        "spec_data": byte_strings([made.data for made in new]),
    }


def _blobs(batch: Batch) -> dict[str, Any]:
    last = {(seq, kind): data for kind, seq, data in batch.blobs}
    groups: dict[str, list[tuple[int, Blob, bytes]]] = {"first": [], "blob": []}
    lost = []
    for (seq, kind), data in last.items():
        if data is None:
            lost.append((seq, kind))
        else:
            groups["first" if kind in _WRITTEN_ONCE else "blob"].append((seq, kind, data))
    values: dict[str, Any] = {}
    for name, rows in groups.items():
        if rows:
            values[f"{name}_seq"] = integers([seq for seq, _, _ in rows])
            values[f"{name}_kind"] = integers([kind for _, kind, _ in rows])
            values[f"{name}_data"] = byte_strings([data for _, _, data in rows])
    if lost:
        values["lost_seq"] = integers([seq for seq, _ in lost])
        values["lost_kind"] = integers([kind for _, kind in lost])
    return values


def _records(batch: Batch) -> dict[str, Any]:
    last = {(record.kind, record.tenant, record.key): record.data for record in batch.records}
    kept = {key: data for key, data in last.items() if data is not None}
    lost = [key for key, data in last.items() if data is None]
    values: dict[str, Any] = {}
    for name, keys in (("record", list(kept)), ("lost_record", lost)):
        if keys:
            for part, column in enumerate(("kind", "tenant", "key")):
                values[f"{name}_{column}"] = texts([key[part] for key in keys])
    if kept:
        values["record_data"] = byte_strings(list(kept.values()))
    return values
