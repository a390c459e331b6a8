"""From request structs to commands: what users spelled is read, checked and filled up with defaults.

Every refusal is `Invalid` (422) or `NotSupported` and names the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from lineshaft.core import commands
from lineshaft.core.commands import NewTask
from lineshaft.core.task import (
    DEFAULT_LEASE,
    DEFAULT_RETENTION,
    FINGERPRINTS,
    MAX_LEASE,
    MIN_LEASE,
    STATES_BY_WORD,
    Affinity,
    RetryPolicy,
    Spec,
    State,
)
from lineshaft.errors import Invalid, NotSupported, TooLarge
from lineshaft.values.durations import parse_duration
from lineshaft.values.ids import check_name, check_task_id, is_name
from lineshaft.values.instants import parse_instant
from lineshaft.values.sizes import parse_amount
from lineshaft.wire import UNSET, Enqueue, Filter, Raw, Sweep, SweepQuery, Worker
from lineshaft.wire.messages import Amount, Duration, UnsetType

MAX_WAIT = 50_000
MAX_TAGS = 100
MAX_TAG = 256
MAX_WORDS = 1_000
MAX_TEXT = 4_096
MAX_ERROR = 64 * 1024
"""Errors, metadata and usage stand in the task's row, which every change of state rewrites."""
MAX_METADATA = 16 * 1024
MAX_USAGE = 4 * 1024
_RESERVED = ("unique", "group", "limits", "depends_on")
_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_encode = msgspec.msgpack.Encoder().encode
_NO_AFFINITY = Affinity()
_DEFAULT_POLICY = RetryPolicy()


def new_task(
    body: Enqueue, *, task_id: str, given: bool, max_payload: int, traceparent: str | None
) -> NewTask:
    """Return the task to enqueue; `given` where the client chose the id. Raises `Invalid`, `TooLarge`."""
    if body.unique or body.group or body.limits or body.depends_on:
        refuse_reserved(body, _RESERVED)
    if body.run_at is not None and body.delay is not None:
        raise Invalid("say run_at or delay, not both", field="delay")
    if given:
        check_task_id(task_id, field="task_id")
    task = NewTask(
        id=task_id,
        spec=_spec(body),
        payload=b"null" if body.payload is UNSET else json_bytes(body.payload, "payload", max_payload),
        run_at=None if body.run_at is None else parse_instant(body.run_at, field="run_at"),
        delay=None if body.delay is None else parse_duration(body.delay, field="delay"),
        expires_at=None if body.expires_at is None else parse_instant(body.expires_at, field="expires_at"),
        tags=() if body.tags is None else tags(body.tags, "tags"),
        metadata=None if body.metadata is None else _metadata(body.metadata, min(max_payload, MAX_METADATA)),
        traceparent=traceparent,
        given=given,
    )
    return msgspec.structs.replace(task, fingerprint=_fingerprint(task)) if given else task


def refuse_reserved(body: Any, fields: Iterable[str]) -> None:
    """Raise `NotSupported` where a field is given that is part of the protocol but not of this version."""
    for field in fields:
        given = getattr(body, field)
        if given is not None and bytes(given) != b"null":
            raise NotSupported(f"{field!r} is not supported yet", field=field)


def _spec(body: Enqueue) -> Spec:
    """Return what the task shares with others: most are enqueued just like one before."""
    if body.retry_policy is not None or body.worker_affinity is not None:
        return _new_spec(body)
    told = (
        body.name,
        body.queue,
        body.priority,
        body.max_retries,
        body.lease,
        body.timeout,
        body.retention,
        body.result_ttl,
    )
    spec = _specs.get(told)
    if spec is None:
        if len(_specs) >= _KEPT_SPECS:
            _specs.clear()
        spec = _specs[told] = _new_spec(body)
    return spec


_specs: dict[tuple[Any, ...], Spec] = {}
_KEPT_SPECS = 1_000


def _new_spec(body: Enqueue) -> Spec:
    timeout = optional_duration(body.timeout, "timeout")
    if timeout == 0:
        raise Invalid("a timeout must be more than 0", field="timeout")
    retention = optional_duration(body.retention, "retention")
    return Spec(
        name=check_name(body.name, field="name"),
        queue="default" if body.queue is None else check_name(body.queue, field="queue"),
        priority=body.priority or 0,
        max_retries=3 if body.max_retries is None else body.max_retries,
        retry_policy=_policy(body),
        lease=DEFAULT_LEASE if body.lease is None else lease(body.lease),
        timeout=timeout,
        affinity=_affinity(body),
        retention=DEFAULT_RETENTION if retention is None else retention,
        result_ttl=optional_duration(body.result_ttl, "result_ttl"),
    )


def _policy(body: Enqueue) -> RetryPolicy:
    given = body.retry_policy
    if given is None:
        return _DEFAULT_POLICY
    base = optional_duration(given.base, "retry_policy.base")
    cap = optional_duration(given.cap, "retry_policy.cap")
    return RetryPolicy(
        backoff=given.backoff or _DEFAULT_POLICY.backoff,
        base=_DEFAULT_POLICY.base if base is None else base,
        factor=_DEFAULT_POLICY.factor if given.factor is None else given.factor,
        cap=_DEFAULT_POLICY.cap if cap is None else cap,
        jitter=_DEFAULT_POLICY.jitter if given.jitter is None else given.jitter,
    )


def _affinity(body: Enqueue) -> Affinity:
    given = body.worker_affinity
    if given is None:
        return _NO_AFFINITY
    return Affinity(
        capability=tuple(sorted(set(names(given.capability or (), "worker_affinity.capability")))),
        resources=resources(given.resources, "worker_affinity.resources"),
    )


def resources(given: dict[str, Amount] | None, field: str) -> tuple[tuple[str, float], ...]:
    """Return amounts by name, sorted; sizes as bytes."""
    if not given:
        return ()
    if len(given) > MAX_TAGS:
        raise Invalid(f"at most {MAX_TAGS} resources", field=field)
    for name in given:
        if is_name(name) is None:
            raise Invalid("a resource's name is 1 to 128 of the letters, digits and . _ - : /", field=field)
    return tuple(
        sorted((name, parse_amount(amount, field=f"{field}.{name}")) for name, amount in given.items())
    )


def _metadata(given: Raw, limit: int) -> bytes | None:
    metadata = json_bytes(given, "metadata", limit)
    if metadata == b"null":
        return None
    if not metadata.startswith(b"{"):
        raise Invalid("expected an object", field="metadata")
    return metadata


def _fingerprint(task: NewTask) -> int:
    body = (task.spec, task.payload, task.run_at, task.delay, task.expires_at, task.tags, task.metadata)
    return int.from_bytes(blake2b(_encode(body), digest_size=8).digest(), "big") % FINGERPRINTS or 1


def json_bytes(given: Raw, field: str, limit: int) -> bytes:
    """Return the bytes of a JSON value. Raises `TooLarge` above `limit` bytes."""
    value = bytes(given)
    if value[:1] <= b" " or value[-1:] <= b" ":
        value = value.strip(b" \t\r\n")
    return value if len(value) <= limit else limited(value, field, limit)


def limited(value: bytes, field: str, limit: int) -> bytes:
    """Return the value. Raises `TooLarge` above `limit` bytes."""
    if len(value) > limit:
        raise TooLarge(f"{field} is {len(value)} bytes, the limit is {limit}", field=field)
    return value


def optional_json(given: Raw | UnsetType | None, field: str, limit: int) -> bytes | None:
    """Return the bytes of a JSON value, None where there is none."""
    return None if given is None or given is UNSET else json_bytes(given, field, limit)


def optional_duration(given: Duration | None, field: str) -> int | None:
    """Return milliseconds, or None where nothing was given."""
    return None if given is None else parse_duration(given, field=field)


def lease(given: Duration, field: str = "lease") -> int:
    """Return the duration of a lease: 1 s to 24 h."""
    duration = parse_duration(given, field=field)
    if not MIN_LEASE <= duration <= MAX_LEASE:
        raise Invalid("a lease is 1 s to 24 h", field=field)
    return duration


def wait(given: Duration | None, field: str = "wait") -> int:
    """Return how long to wait: 0 to 50 s."""
    duration = 0 if given is None else parse_duration(given, field=field)
    if duration > MAX_WAIT:
        raise Invalid("a wait is at most 50 s", field=field)
    return duration


def tags(given: Sequence[str], field: str) -> tuple[str, ...]:
    """Return tags without repetition: at most 100 of 1 to 256 characters, none of them control characters."""
    if len(given) > MAX_TAGS:
        raise Invalid(f"at most {MAX_TAGS} tags", field=field)
    for tag in given:
        if not 0 < len(tag) <= MAX_TAG or _CONTROL.search(tag):
            raise Invalid(f"a tag is 1 to {MAX_TAG} characters, none of them control characters", field=field)
    return tuple(dict.fromkeys(given))


def names(given: Iterable[str], field: str) -> tuple[str, ...]:
    """Return names (of queues, task types, capabilities) without repetition."""
    checked = tuple(dict.fromkeys(check_name(name, field=field) for name in given))
    if len(checked) > MAX_WORDS:
        raise Invalid(f"at most {MAX_WORDS} names", field=field)
    return checked


def text(given: str | None, field: str, limit: int = MAX_TEXT) -> str | None:
    """Return free text of at most `limit` characters."""
    if given is not None and len(given) > limit:
        raise Invalid(f"at most {limit} characters", field=field)
    return given


def words(given: str | list[str] | None, field: str) -> tuple[str, ...] | None:
    """Return the words of a filter: a list, or a string with commas between. None where nothing was given."""
    if given is None:
        return None
    split = given.split(",") if isinstance(given, str) else given
    if not split or not all(split):
        raise Invalid("expected one or more words", field=field)
    if len(split) > MAX_WORDS:
        raise Invalid(f"at most {MAX_WORDS} words", field=field)
    return tuple(split)


def traceparent(header: str | None) -> str | None:
    """Return the header if it is a W3C trace context; what is not is ignored, as that standard asks."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


def worker_info(given: Worker | None) -> commands.WorkerInfo | None:
    """Return what a worker says of itself, checked."""
    if given is None:
        return None
    _identifier(given.id, "worker.id")
    if given.incarnation is not None:
        _identifier(given.incarnation, "worker.incarnation")
    return commands.WorkerInfo(
        id=given.id,
        incarnation=given.incarnation,
        name=text(given.name, "worker.name", 256),
        version=text(given.version, "worker.version", 256),
        capabilities=names(given.capabilities or (), "worker.capabilities"),
        resources=resources(given.resources, "worker.resources"),
        host=text(given.host, "worker.host", 256),
        pid=given.pid,
    )


def _identifier(given: str, field: str) -> None:
    if not 0 < len(given) <= 256 or _CONTROL.search(given):
        raise Invalid("expected 1 to 256 characters, none of them control characters", field=field)


def claim_id(given: str | None) -> str | None:
    """Return the claim's id: 1 to 256 characters."""
    if given is not None:
        _identifier(given, "claim_id")
    return given


def task_filter(given: Filter) -> commands.Filter:
    """Return the filter; its fields and-ed, their values or-ed."""
    states = words(given.state, "state")
    queues = words(given.queue, "queue")
    type_names = words(given.name, "name")
    tag = [given.tag] if isinstance(given.tag, str) else given.tag
    return commands.Filter(
        states=None if states is None else frozenset(_state(word) for word in states),
        queues=None if queues is None else frozenset(names(queues, "queue")),
        names=None if type_names is None else frozenset(names(type_names, "name")),
        tags=() if tag is None else tags(tag, "tag"),
        text=text(given.q, "q", 256) or None,
    )


def _state(word: str) -> State:
    state = STATES_BY_WORD.get(word)
    if state is None:
        raise Invalid(f"expected one of {', '.join(STATES_BY_WORD)}", field="state")
    return state


def sweep_filter(query: SweepQuery, body: Sweep) -> Filter:
    """Return the one filter that a bulk call brings: in the query, in the body or in the body's `filter`."""
    nested = Filter() if body.filter is None else body.filter
    merged = Filter()
    for field in ("queue", "state", "name", "tag", "q"):
        given = [
            value for value in (getattr(part, field) for part in (query, body, nested)) if value is not None
        ]
        if len(given) > 1:
            raise Invalid("given twice", field=field)
        if given:
            setattr(merged, field, given[0])
    return merged


def once(field: str, in_query: object, in_body: object) -> object:
    """Return the value given in the query or the body. Raises `Invalid` where it is in both."""
    if in_query is not None and in_body is not None:
        raise Invalid("given twice, in the query and in the body", field=field)
    return in_body if in_query is None else in_query
