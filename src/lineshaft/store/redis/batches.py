"""A batch as the server's `commit` takes it: grouped by the hashes that it goes into, in one call."""

from __future__ import annotations

import msgspec

from lineshaft.core.batch import Batch
from lineshaft.core.task import State, Task
from lineshaft.store.base import Ownership, Rejected
from lineshaft.store.redis.rows import (
    Specs,
    encode_headed,
    identity,
    pack_changes,
    place,
    record_key,
    shared,
)
from lineshaft.store.rows import encode

Values = list[str | bytes]


def message(
    ownership: Ownership, batch: Batch, specs: Specs, *, confirmed: set[bytes], measure: bool
) -> tuple[Values, set[bytes], set[bytes]]:
    """Return the arguments of `commit`, and the digests of the specs in it: new to the server, and all.

    `confirmed` are the digests that it has; `measure` asks how full it is. Raises `Rejected` for what cannot
    be encoded.
    """
    try:
        return _message(ownership, batch, _Rows(specs, confirmed), measure=measure)
    except (OverflowError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise Rejected(f"a row cannot be encoded: {error}") from error


def _message(
    ownership: Ownership, batch: Batch, rows: _Rows, *, measure: bool
) -> tuple[Values, set[bytes], set[bytes]]:
    for task in batch.tasks:
        rows.add(task)
    values: Values = [
        b"",
        ownership.owner,
        batch.nonce,
        encode(batch.counters),
        pack_changes(batch.changes),
    ]
    values += rows.new_specs
    forgotten = _add_forgotten(values, batch)
    opened = _add_rows(values, rows.open)
    ended = _add_rows(values, rows.ended)
    for key, count in rows.counted.items():
        values += (key, str(count))
    blobs = _add_blobs(values, batch)
    kept, gone = _add_records(values, batch)
    _add_due(values, rows.due)
    _add_due(values, rows.results_due)
    values[0] = encode(
        (
            str(ownership.epoch),
            str(batch.position - 1),
            str(batch.position),
            str(batch.counters.now),
            len(rows.new_digests),
            forgotten,
            opened,
            ended,
            len(rows.counted),
            blobs,
            kept,
            gone,
            len(rows.due),
            len(rows.results_due),
            int(measure),
        )
    )
    return values, rows.new_digests, rows.digests


class _Rows:
    """The rows of a batch by bucket, and what follows from them."""

    def __init__(self, specs: Specs, confirmed: set[bytes]) -> None:
        self.open: dict[str, list[bytes]] = {}
        self.ended: dict[str, list[bytes]] = {}
        self.counted: dict[bytes, int] = {}
        self.due: dict[tuple[int, str], list[bytes]] = {}
        self.results_due: dict[tuple[int, str], list[bytes]] = {}
        self.new_specs: list[bytes] = []
        self.new_digests: set[bytes] = set()
        self.digests: set[bytes] = set()
        self._specs = specs
        self._confirmed = confirmed

    def add(self, task: Task) -> None:
        digest = self._specs.digest(task)
        if digest not in self.digests:
            self.digests.add(digest)
            if digest not in self._confirmed:
                self.new_digests.add(digest)
                self.new_specs += (digest, shared(task))
        bucket, field = place(task.seq)
        row = encode_headed(task, digest)
        if task.state < State.COMPLETED:
            self.open.setdefault(bucket, []).extend((field, row))
            return
        self.ended.setdefault(bucket, []).extend((field, row))
        self.counted[row[:11]] = self.counted.get(row[:11], 0) + 1
        run = task.run
        if run is not None and run.prune_at is not None:
            self.due.setdefault((run.prune_at, bucket), []).append(field)
        if run is not None and run.result_expires_at is not None:
            self.results_due.setdefault((run.result_expires_at, bucket), []).append(field)


def _add_rows(values: Values, grouped: dict[str, list[bytes]]) -> list[tuple[str, int]]:
    for rows in grouped.values():
        values += rows
    return [(bucket, len(rows) // 2) for bucket, rows in grouped.items()]


def _add_forgotten(values: Values, batch: Batch) -> list[tuple[str, int]]:
    grouped: dict[str, tuple[list[bytes], list[bytes]]] = {}
    for gone in batch.forgotten:
        bucket, field = place(gone.seq)
        fields, idents = grouped.setdefault(bucket, ([], []))
        fields.append(field)
        idents.append(identity(gone.tenant, gone.id))
    for fields, idents in grouped.values():
        values += fields
        values += idents
    return [(bucket, len(fields)) for bucket, (fields, _) in grouped.items()]


def _add_blobs(values: Values, batch: Batch) -> list[tuple[str, int, int]]:
    last = {(kind, seq): data for kind, seq, data in batch.blobs}
    grouped: dict[str, tuple[list[bytes], list[bytes]]] = {}
    for (kind, seq), data in last.items():
        bucket, field = place(seq)
        kept, gone = grouped.setdefault(f"b{kind:d}:{bucket}", ([], []))
        if data is None:
            gone.append(field)
        else:
            kept += (field, data)
    for kept, gone in grouped.values():
        values += kept
        values += gone
    return [(key, len(kept) // 2, len(gone)) for key, (kept, gone) in grouped.items()]


def _add_records(values: Values, batch: Batch) -> tuple[int, int]:
    last = {record_key(each.kind, each.tenant, each.key): each.data for each in batch.records}
    gone = [key for key, data in last.items() if data is None]
    for key, data in last.items():
        if data is not None:
            values += (key, data)
    values += gone
    return len(last) - len(gone), len(gone)


def _add_due(values: Values, due: dict[tuple[int, str], list[bytes]]) -> None:
    for (at, bucket), fields in due.items():
        values += (str(at), f"{bucket}:".encode() + b"".join(fields))
