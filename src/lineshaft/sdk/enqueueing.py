"""What an enqueue says, one task or many: bodies, requests of a size that is taken, and what was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lineshaft.errors import LineshaftError
from lineshaft.sdk.failures import EnqueueFailed
from lineshaft.sdk.refusals import refusal
from lineshaft.sdk.task import Task
from lineshaft.wire import ErrorInfo
from lineshaft.wire import tasks as wire

MAX_BULK = 1_000
"""Tasks in one request; a coordinator takes no more."""

MAX_BULK_BYTES = 4 * 1024 * 1024
"""Bytes of payloads in one request."""

ONE_TRY = 15.0
"""Seconds that one try to enqueue a task may take, beyond what it waits for the result."""

BULK_TRY = 30.0
"""Seconds that one try to enqueue many may take."""

_REST_OF_BODY = 512
"""Bytes that a task's other fields are reckoned to take."""


def enqueue_body(task: Task[Any, Any], payload: bytes, new_id: Callable[[], str]) -> wire.Enqueue:
    """Return the body that enqueues a task; it always names an id, so that it may be sent again."""
    body = wire.Enqueue(name=task.definition.name, payload=msgspec.Raw(payload), **task.fields)
    if body.task_id is None:
        body.task_id = new_id()
    return body


def chunks(bodies: list[wire.Enqueue]) -> Iterable[list[wire.Enqueue]]:
    """Cut bodies into requests that a coordinator takes, in order."""
    chunk: list[wire.Enqueue] = []
    size = 0
    for body in bodies:
        length = _length(body.payload) + _REST_OF_BODY
        if chunk and (len(chunk) == MAX_BULK or size + length > MAX_BULK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(body)
        size += length
    if chunk:
        yield chunk


def check_all_enqueued(items: list[wire.BulkItem]) -> None:
    """Raise EnqueueFailed where some were refused; `errors` has them by their indexes."""
    errors = {at: refused(item) for at, item in enumerate(items) if item.status >= 400}
    if errors:
        first = min(errors)
        raise EnqueueFailed(
            f"{len(errors)} of {len(items)} tasks were refused, the first (number {first}): "
            f"{errors[first].reason}",
            errors=errors,
        )


def _length(raw: object) -> int:
    return len(raw) if isinstance(raw, bytes) else len(memoryview(raw)) if isinstance(raw, msgspec.Raw) else 0


def refused(item: wire.BulkItem) -> LineshaftError:
    """Return the error that refused an item."""
    if item.error is None:
        return LineshaftError(f"refused with status {item.status}", task_id=item.task_id)
    info = msgspec.json.decode(msgspec.json.encode(item.error), type=ErrorInfo)
    return refusal(info, status=item.status)
