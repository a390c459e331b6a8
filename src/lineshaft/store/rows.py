"""How a task becomes the bytes of its row, and back, where a store keeps elsewhere what tasks share.

Tasks that were enqueued alike have the same tenant and spec, which are most of what is told of them: a store
keeps those once, names them in its rows in its own way, and puts them back into what is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lineshaft.core.batch import Change, Counters
from lineshaft.core.task import Task

encode = msgspec.msgpack.Encoder().encode
decode_row = msgspec.msgpack.Decoder(Task).decode
"""Decode a row into a task without tenant and spec."""
decode_counters = msgspec.msgpack.Decoder(Counters).decode
decode_changes = msgspec.msgpack.Decoder(list[Change]).decode

_NO_SPEC = ("",)


def encode_row(task: Task, id: str) -> bytes:
    """Encode all of a task but its tenant and spec; `id` is its own, or empty where it has its own place."""
    return encode(
        (
            task.seq,
            "",
            id,
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


def share_numbers(tasks: Iterable[Task]) -> list[Task]:
    """Let numbers that many tasks have be one object, 96 bytes less for each."""
    sizes: dict[int, int] = {}
    created_at = 0
    shared = []
    for task in tasks:
        if task.created_at != created_at:
            created_at = task.created_at
        task.created_at = created_at
        if task.run_at == created_at:
            task.run_at = created_at
        task.payload_size = sizes.setdefault(task.payload_size, task.payload_size)
        shared.append(task)
    return shared
