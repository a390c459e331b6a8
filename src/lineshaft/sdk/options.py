"""The options of a task: what the decorator and `configure` take, checked at once and turned into fields of
an enqueue.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict

import msgspec

from lineshaft.errors import Invalid, Malformed
from lineshaft.sdk import encoding
from lineshaft.sdk.failures import WrongDefinition
from lineshaft.sdk.outcomes import Duration
from lineshaft.values.durations import parse_duration
from lineshaft.values.ids import check_name, check_task_id
from lineshaft.values.instants import parse_instant
from lineshaft.values.sizes import parse_amount
from lineshaft.wire import tasks as wire

Instant = str | datetime
"""RFC 3339 in UTC or with an offset, or a datetime that knows its time zone."""


class RetryPolicy(TypedDict, total=False):
    """How long to wait before the next attempt; `base` and `cap` are durations, `jitter` is 0 to 1."""

    backoff: Literal["exponential", "linear", "fixed"]
    base: Duration
    factor: float
    cap: Duration
    jitter: float


DEFAULT_QUEUE = "default"
"""Where a task waits that names no queue."""


class TaskOptions(TypedDict, total=False):
    """What may be said of a task at its decorator, and for one call with `configure`."""

    queue: str
    priority: int
    delay: Duration
    run_at: Instant
    expires_at: Instant | timedelta
    timeout: Duration
    lease: Duration
    max_retries: int
    retry_policy: RetryPolicy
    task_id: str
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    retention: Duration
    result_ttl: Duration
    capability: Sequence[str]
    resources: Mapping[str, float | str]


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options and give them as fields of an enqueue; Invalid names the one that is wrong."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        check = _CHECKS.get(name)
        if check is None:
            raise WrongDefinition(f"unknown option `{name}`{_did_you_mean(name)}", field=name)
        if value is not None:
            fields[name] = named(check, value, name)
    if "delay" in fields and "run_at" in fields:
        raise Invalid("say `delay` or `run_at`, not both", field="delay")
    return _with_affinity(fields)


def named(check: Callable[[Any, str], Any], value: Any, name: str) -> Any:
    """Check an option; an error says its name also in words."""
    try:
        return check(value, name)
    except (Invalid, Malformed) as error:
        where = error.field or name
        if f"`{where}`" in error.reason:
            raise
        found = f" is {value!r}" if where == name else ""
        raise Invalid(f"`{where}`{found}: {error.reason}", field=where) from None


def duration(value: Duration, field: str) -> str | int | float:
    """Check a duration and give it in a form of the wire."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    parse_duration(value, field=field)
    return value


def seconds(value: Duration, field: str) -> float:
    """Give a duration in seconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return parse_duration(value, field=field) / 1000


def _with_affinity(fields: dict[str, Any]) -> dict[str, Any]:
    needs = {name: fields.pop(name) for name in ("capability", "resources") if name in fields}
    if needs:
        fields["worker_affinity"] = wire.WorkerAffinity(**needs)
    return fields


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, _CHECKS, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; options are {', '.join(_CHECKS)}"


def _instant(value: Instant, field: str) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Invalid(
                f"`{field}` is a datetime without a time zone; use datetime.now(UTC) or the like", field=field
            )
        value = value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    parse_instant(value, field=field)
    return value


def _expiry(value: Any, field: str) -> str | int | float:
    return duration(value, field) if isinstance(value, timedelta) else _instant(value, field)


def integer(low: int, high: int) -> Callable[[Any, str], int]:
    """Make a check for an integer of that range."""

    def check(value: Any, field: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Invalid(f"`{field}` must be an integer from {low} to {high}, not {value!r}", field=field)
        return value

    return check


def _name(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"`{field}` must be a string, not {value!r}", field=field)
    check_name(value, field=field)
    return value


def _task_id(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"`{field}` must be a string, not {value!r}", field=field)
    check_task_id(value, field=field)
    return value


def _strings(value: Any, field: str) -> list[str]:
    if isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise Invalid(f"`{field}` must be a list of strings, not {value!r}", field=field)
    return list(value)


def _metadata(value: Any, field: str) -> msgspec.Raw:
    return msgspec.Raw(encoding.encode(_object(value, field)))


def _object(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Invalid(f"`{field}` must be a mapping, not {value!r}", field=field)
    try:
        encoding.encode(dict(value))
    except (TypeError, ValueError) as error:
        raise Invalid(f"`{field}`: {error}", field=field) from None
    return dict(value)


def _resources(value: Any, field: str) -> dict[str, float | str]:
    for name, amount in _object(value, field).items():
        parse_amount(amount, field=f"{field}.{name}")
    return dict(value)


def _retry_policy(value: Any, field: str) -> wire.RetryPolicy:
    if not isinstance(value, Mapping):
        raise Invalid(
            f"`{field}` must be a mapping such as {{'backoff': 'fixed', 'base': '5s'}}", field=field
        )
    spelled = {
        name: duration(one, f"{field}.{name}") if name in ("base", "cap") else one
        for name, one in value.items()
    }
    try:
        return msgspec.convert(spelled, wire.RetryPolicy)
    except msgspec.ValidationError as error:
        what, path = encoding.split_path(str(error))
        where = f"{field}.{path}" if path else field
        raise Invalid(f"`{where}`: {what[:1].lower()}{what[1:]}", field=where) from None


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "queue": _name,
    "priority": integer(-(2**31), 2**31 - 1),
    "delay": duration,
    "run_at": _instant,
    "expires_at": _expiry,
    "timeout": duration,
    "lease": duration,
    "max_retries": integer(0, 2**31 - 1),
    "retry_policy": _retry_policy,
    "task_id": _task_id,
    "tags": _strings,
    "metadata": _metadata,
    "retention": duration,
    "result_ttl": duration,
    "capability": _strings,
    "resources": _resources,
}
