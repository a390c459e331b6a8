"""What the moves of a batch look like as events in the fields of the Elastic Common Schema.

One move is one event. A batch carries all moves but only the last row of each task, so what an event tells
beside the move (worker, duration, error) is found in the row's list of attempts, which the row keeps for the
last twenty; the move of an older one is told without. A claim is told by its start: `task-claim` would be a
document more for each task that says nothing new.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from lineshaft.core.batch import Batch, Change
from lineshaft.core.task import Attempt, Lease, State, Task
from lineshaft.values.partitions import split_partition

ECS_VERSION = "8.11.0"

_LONGEST_MESSAGE = 8_192
_LONGEST_STACK = 32_768
_LONGEST_NAMESPACE = 100

_ILLEGAL = re.compile(r"[^a-z0-9_.]")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

# Moves back to queued or scheduled, by their reason; the words on the right are `event.action`.
_BACK = {
    "lease_lost": "lease-lost",
    "failed": "task-retry",
    "timeout": "task-retry",
    "released": "task-release",
    "snoozed": "task-snooze",
    "promoted": "task-promote",
    "patched": "task-update",
    "retry": "task-rerun",
}
_OUTCOMES = {State.COMPLETED: "success", State.FAILED: "failure", State.CANCELLED: "unknown"}
_TYPES = {
    "task-enqueue": ["creation"],
    "task-start": ["start"],
    "task-end": ["end"],
    "task-delete": ["deletion"],
    "lease-lost": ["error"],
    "task-retry": ["error"],
}
ACTIONS = ("task-enqueue", "task-start", "task-end", "task-delete", "task-due", *sorted(set(_BACK.values())))
"""All that `event.action` can be."""

_ENDS_ATTEMPT = frozenset({"task-end", "lease-lost", "task-retry", "task-release", "task-snooze"})
_GIVEN_BACK = frozenset({"task-release", "task-snooze"})


class Event(msgspec.Struct, frozen=True):
    """A document of the history: the same move always makes the same."""

    tenant: str
    id: str
    at: int
    document: dict[str, Any]


class _Error(msgspec.Struct):
    type: str | None = None
    message: str | None = None
    stack: str | None = None


_decode_error = msgspec.json.Decoder(_Error).decode


def namespace_of(tenant: str) -> str:
    """Return the tenant's name as it may stand in the name of a data stream, different for each tenant.

    One that had to be changed ends in a digest, and so does one that looks as if it did.
    """
    legal = _ILLEGAL.sub("_", tenant.lower())[:80]
    if legal == tenant and not re.fullmatch(r".*_[0-9a-f]{10}", tenant):
        return legal
    return f"{legal}_{hashlib.sha256(tenant.encode()).hexdigest()[:10]}"


def events_of(shard: int, batch: Batch, *, dataset: str) -> Iterator[Event]:
    """Yield an event for each move of the batch but claims, in order."""
    rows = {row.seq: row for row in batch.tasks}
    for number, change in enumerate(batch.changes):
        if change.state is not State.CLAIMED:
            id = f"{change.at:x}-{shard}-{batch.position:x}-{number}"
            document = _document(shard, batch.position, change, rows.get(change.seq), id, dataset)
            yield Event(split_partition(change.tenant)[0], id, change.at, document)


def instant(at: int) -> str:
    """Return milliseconds since the epoch as people read them."""
    try:
        moment = datetime.fromtimestamp(at / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime(9999, 12, 31, tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"


def _document(
    shard: int, position: int, change: Change, row: Task | None, id: str, dataset: str
) -> dict[str, Any]:
    action = _action(change, row)
    event = {
        "kind": "event",
        "category": ["process"],
        "type": _TYPES.get(action, ["change"]),
        "action": action,
        "id": id,
        "module": "lineshaft",
        "dataset": dataset,
        "sequence": position,
    }
    if change.reason is not None:
        event["reason"] = change.reason
    tenant, partition = split_partition(change.tenant)
    task: dict[str, Any] = {
        "id": change.task_id,
        "name": change.name,
        "queue": change.queue,
        "tenant": tenant,
        "shard": shard,
        "seq": change.seq,
        "attempt": change.attempt,
    }
    if change.state is not None:
        task["state"] = change.state.word
    if partition is not None:
        task["partition"] = partition
    document: dict[str, Any] = {
        "@timestamp": instant(change.at),
        "ecs": {"version": ECS_VERSION},
        "data_stream": {"type": "logs", "dataset": dataset, "namespace": namespace_of(tenant)},
        "service": {"type": "lineshaft"},
        "event": event,
        "task": task,
    }
    document["message"] = _message(action, change)
    if row is not None:
        _tell_row(document, change, row, action)
    if change.state in _OUTCOMES:
        event["outcome"] = _OUTCOMES[change.state]
    elif action in ("lease-lost", "task-retry"):
        event["outcome"] = "failure"
    return document


def _action(change: Change, row: Task | None) -> str:
    state = change.state
    if state is None:
        return "task-delete"
    if state.terminal:
        return "task-end"
    if state is State.RUNNING:
        return "task-start"
    if change.reason is not None:
        return _BACK.get(change.reason, "task-update")
    if state is State.QUEUED and row is not None and change.at > row.created_at:
        return "task-due"
    return "task-enqueue"


def _message(action: str, change: Change) -> str:
    verb = action.partition("-")[2] if action.startswith("task-") else action.replace("-", " ")
    told = f"{change.name} {change.task_id}: {verb}"
    if change.state is not None and change.state.terminal:
        told += f" {change.state.word}"
    return told if change.reason is None else f"{told} ({change.reason})"


def _tell_row(document: dict[str, Any], change: Change, row: Task, action: str) -> None:
    task, event = document["task"], document["event"]
    task["priority"] = row.spec.priority
    task["created"] = instant(row.created_at)
    if action in ("task-enqueue", "task-due", "task-retry", "task-snooze") and row.run_at >= change.at:
        task["run_at"] = instant(row.run_at)
    if row.tags:
        document["tags"] = list(row.tags)
    traced = _TRACE.fullmatch(row.traceparent or "")
    if traced:
        document["trace"], document["span"] = {"id": traced[1]}, {"id": traced[2]}
    if action == "task-start":
        _tell_start(document, change, row)
    if action in _ENDS_ATTEMPT:
        attempt = _attempt_ended(change, row, action)
        if attempt is not None:
            _tell_attempt(document, attempt)
        if action == "task-end":
            task["turnaround"] = max(0, change.at - row.created_at) * 1_000_000
    if change.state is State.FAILED and "error" not in document and row.run is not None:
        _tell_error(document, row.run.error)
    if change.state is State.FAILED and "error" not in document:
        document["error"] = {"type": change.reason or "failed"}
    if "duration" in event:
        event["end"] = instant(change.at)


def _tell_start(document: dict[str, Any], change: Change, row: Task) -> None:
    begun = _begun(change, row)
    if begun is not None and begun.worker_id is not None:
        document["task"]["worker"] = {"id": begun.worker_id}
    if row.run_at <= change.at:
        document["task"]["waited"] = (change.at - max(row.run_at, row.created_at)) * 1_000_000


def _begun(change: Change, row: Task) -> Attempt | Lease | None:
    run = row.run
    if run is None:
        return None
    if run.lease is not None and run.lease.started_at == change.at:
        return run.lease
    return next((attempt for attempt in run.attempts if attempt.started_at == change.at), None)


def _attempt_ended(change: Change, row: Task, action: str) -> Attempt | None:
    """Return the attempt that ended by this move: the one that ended then, of several by its number."""
    attempts = () if row.run is None else row.run.attempts
    ended = [attempt for attempt in attempts if attempt.ended_at == change.at]
    if len(ended) > 1:
        number = change.attempt + (action in _GIVEN_BACK)  # given back, so no more counted in the move
        ended = [attempt for attempt in ended if attempt.number == number] or ended
    return ended[-1] if ended else None


def _tell_attempt(document: dict[str, Any], attempt: Attempt) -> None:
    task, event = document["task"], document["event"]
    task["generation"] = attempt.generation
    task["attempt_outcome"] = attempt.outcome
    if attempt.worker_id is not None:
        task["worker"] = {"id": attempt.worker_id}
    if attempt.started_at is not None:
        event["start"] = instant(attempt.started_at)
        event["duration"] = max(0, attempt.ended_at - attempt.started_at) * 1_000_000
    _tell_error(document, attempt.error)
    if attempt.outcome == "lease_lost" and "error" not in document:
        document["error"] = {"type": "lease_lost"}


def _tell_error(document: dict[str, Any], error: bytes | None) -> None:
    if error is None or error == b"null":
        return
    try:
        told = _decode_error(error)
    except msgspec.MsgspecError:
        told = _Error(message=error.decode("utf-8", "replace"))
    fields = {
        "type": told.type and told.type[:1024],
        "message": told.message and told.message[:_LONGEST_MESSAGE],
        "stack_trace": told.stack and told.stack[:_LONGEST_STACK],
    }
    found = {name: value for name, value in fields.items() if value}
    if found:
        document["error"] = found
