"""What people search: a document for each task, and one for each payload, result, checkpoint and carry.

A task stays in one document for all its life, in the index of the month in which it was created; `row` is
the task itself, exactly, and what the store reads. Versions are slots of the log, so an older state never
replaces a later one, whoever writes it how late.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.core.batch import Blob, Record
from lineshaft.core.task import STATE_WORDS, Task
from lineshaft.store.elastic import names
from lineshaft.store.elastic.names import Names, alias
from lineshaft.values.partitions import split_partition

LONGEST_KEYWORD = 8_000
"""Characters that a term may have; longer text is cut into several."""
_OVERLAP = 500

_pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(Task).decode


class Action(msgspec.Struct, omit_defaults=True):
    """The first of the two lines that write a document in bulk."""

    index: Target


class Target(msgspec.Struct, omit_defaults=True):
    """Which document, and the version below which it is left alone."""

    index: str = msgspec.field(name="_index")
    id: str = msgspec.field(name="_id")
    version: int
    version_type: str = msgspec.field(name="version_type", default="")
    require_alias: bool = False


class TaskError(msgspec.Struct, omit_defaults=True):
    """Of the last failure."""

    type: str | None = None
    message: str | None = None


class TaskDocument(msgspec.Struct, omit_defaults=True):
    """One task as it is searched for."""

    slot: int
    shard: int | None = None
    seq: int | None = None
    tenant: str | None = None
    partition: int | None = None
    """Which one of its tenant's, where that has several."""
    task_id: str | None = None
    name: str | None = None
    queue: str | None = None
    state: str | None = None
    priority: int | None = None
    run_at: int | None = None
    created_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    prune_at: int | None = None
    result_expires_at: int | None = None
    tags: tuple[str, ...] = ()
    attempt: int | None = None
    lost_leases: int | None = None
    worker_id: str | None = None
    reason: str | None = None
    error: TaskError | None = None
    trace_id: str | None = msgspec.field(name="trace.id", default=None)
    text: list[str] = []
    """In lower case: what is otherwise not found whatever its case, and the error."""
    row: bytes | None = None
    gone: bool = False


class ValueDocument(msgspec.Struct, omit_defaults=True):
    """A payload, result, checkpoint or carry."""

    slot: int
    shard: int
    seq: int
    kind: str
    tenant: str | None = None
    task_id: str | None = None
    value: str | None = None
    raw: bytes | None = None
    """In place of `value` where it is no text."""
    gone: bool = False


class RecordDocument(msgspec.Struct, omit_defaults=True):
    """A small row that is not a task."""

    what: str
    slot: int
    shard: int
    kind: str
    tenant: str
    key: str
    data: bytes | None = None
    gone: bool = False


class Documents:
    """Makes documents of the rows of one store."""

    def __init__(self, of: Names) -> None:
        self._names = of
        self._aliases: dict[str, tuple[str, str]] = {}

    def task_alias(self, month: str) -> str:
        """Return where tasks of a month are written."""
        return self._both(month)[0]

    def value_alias(self, month: str) -> str:
        """Return where values of a month's tasks are written."""
        return self._both(month)[1]

    def task(self, shard: int, slot: int, task: Task) -> tuple[Action, TaskDocument]:
        """Return both lines that write a task."""
        index = self._both(names.month_of(task.created_at))[0]
        return _action(index, names.task_id(task.tenant, task.id), slot), task_document(shard, slot, task)

    def task_gone(self, month: str, ident: tuple[str, str], slot: int) -> tuple[Action, TaskDocument]:
        """Return both lines that say that a task is no more."""
        return _action(self._both(month)[0], names.task_id(*ident), slot), TaskDocument(slot=slot, gone=True)

    def value(
        self, shard: int, slot: int, key: tuple[Blob, int], data: bytes | None, of: Task | str
    ) -> tuple[Action, ValueDocument]:
        """Return both lines that write a value; `of` is its task, or the month."""
        kind, seq = key
        document = ValueDocument(slot, shard, seq, kind.name.lower())
        if isinstance(of, str):
            month = of
        else:
            month = names.month_of(of.created_at)
            document.tenant, document.task_id = split_partition(of.tenant)[0], of.id
        if data is None:
            document.gone = True
        else:
            try:
                document.value = data.decode()
            except UnicodeDecodeError:
                document.raw = data
        return _action(self._both(month)[1], names.value_id(shard, seq, kind), slot), document

    def record(self, shard: int, slot: int, record: Record) -> tuple[Action, RecordDocument]:
        """Return both lines that write a record, also one that is deleted: its document says so."""
        id = names.record_id(shard, record.kind, record.tenant, record.key)
        target = Target(self._names.control, id, slot, "external_gte")
        gone = record.data is None
        return Action(target), RecordDocument(
            "record", slot, shard, record.kind, record.tenant, record.key, record.data, gone
        )

    def _both(self, month: str) -> tuple[str, str]:
        found = self._aliases.get(month)
        if found is None:
            found = (alias(self._names.tasks(month)), alias(self._names.values(month)))
            self._aliases[month] = found
        return found


def _action(index: str, id: str, slot: int) -> Action:
    return Action(Target(index, id, slot, "external_gte", True))


def task_document(shard: int, slot: int, task: Task) -> TaskDocument:
    """Return what is searched for of a task, and its row."""
    spec, run = task.spec, task.run
    tenant, partition = split_partition(task.tenant)
    document = TaskDocument(
        slot,
        shard,
        task.seq,
        tenant,
        partition,
        task.id,
        spec.name,
        spec.queue,
        STATE_WORDS[task.state],
        spec.priority,
        task.run_at,
        task.created_at,
        tags=task.tags,
        row=_pack(task),
    )
    text = [lower for each in (task.id, spec.name, *task.tags) if (lower := each.lower()) != each]
    if run is not None:
        document.attempt = run.attempt
        document.lost_leases = run.lost_leases or None
        document.started_at, document.finished_at = run.started_at, run.finished_at
        document.reason = run.reason
        if task.state.terminal:
            document.prune_at, document.result_expires_at = run.prune_at, run.result_expires_at
        if run.lease is not None:
            document.worker_id = run.lease.worker_id
        elif run.attempts:
            document.worker_id = run.attempts[-1].worker_id
        if run.error is not None:
            text += _pieces(run.error.decode("utf-8", "replace").lower())
            document.error = _error(run.error)
    document.text = text
    if task.traceparent is not None:
        document.trace_id = task.traceparent[3:35]
    return document


def bare_document(shard: int, slot: int, task: Task) -> TaskDocument:
    """Return a document without what a cluster might refuse: it is loaded as well, but hardly found."""
    full = task_document(shard, slot, task)
    return TaskDocument(
        slot,
        shard,
        task.seq,
        state=full.state,
        run_at=None,
        prune_at=full.prune_at,
        row=full.row,
    )


def _pieces(text: str) -> list[str]:
    step = LONGEST_KEYWORD - _OVERLAP
    return [text[start : start + LONGEST_KEYWORD] for start in range(0, max(1, len(text) - _OVERLAP), step)]


class _Error(msgspec.Struct):
    type: Any = None
    message: Any = None


_decode_error = msgspec.json.Decoder(_Error).decode


def _error(raw: bytes) -> TaskError | None:
    try:
        error = _decode_error(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return TaskError(
        error.type if isinstance(error.type, str) else None,
        error.message[:LONGEST_KEYWORD] if isinstance(error.message, str) else None,
    )
