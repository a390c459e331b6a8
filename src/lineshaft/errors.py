"""Every error that Lineshaft raises or answers, in one tree.

An error carries its contract: `type` (the word on the wire), `status` (HTTP) and, in its docstring,
what the reader should do. The same classes are raised by the coordinator, sent as
`{"error": {"type", "reason", "field", "task_id"}}`, and raised again by the SDK.

    LineshaftError
    ├── Malformed 400 ── RequestTimeout 408 · TooLarge 413 · UnsupportedMediaType 415
    ├── Unauthorized 401 · Forbidden 403
    ├── NotFound 404 · MethodNotAllowed 405
    ├── Conflict 409 ── LeaseLost · QueueClosed
    ├── CursorExpired 410
    ├── NotOwner 421
    ├── Invalid 422 ── NotSupported
    └── Retryable ── Overloaded 429 · Unavailable 503 ── Fenced
"""

from __future__ import annotations

from typing import ClassVar


class LineshaftError(Exception):
    """Base of all errors; `reason` is for people, `type` for programs."""

    type: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        reason: str,
        *,
        field: str | None = None,
        task_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.task_id = task_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.reason, self.field, self.task_id, self.retry_after))


def _rebuild(
    cls: type[LineshaftError],
    reason: str,
    field: str | None,
    task_id: str | None,
    retry_after: float | None,
) -> LineshaftError:
    return cls(reason, field=field, task_id=task_id, retry_after=retry_after)


class Malformed(LineshaftError):
    """The request cannot be read (syntax, encoding, framing): correct it before sending again."""

    type = "malformed"
    status = 400


class RequestTimeout(Malformed):
    """The request did not arrive whole in time: send it again on a better connection."""

    type = "request_timeout"
    status = 408


class TooLarge(Malformed):
    """A body, payload or header is above the limit that `reason` names: send less."""

    type = "too_large"
    status = 413


class UnsupportedMediaType(Malformed):
    """A write must say `Content-Type: application/json` (or `application/x-ndjson` in bulk)."""

    type = "unsupported_media_type"
    status = 415


class Unauthorized(LineshaftError):
    """No valid API key: send `Authorization: ApiKey …`."""

    type = "unauthorized"
    status = 401


class Forbidden(LineshaftError):
    """The key lacks the scope, or the `Host` is not one that this coordinator serves."""

    type = "forbidden"
    status = 403


class NotFound(LineshaftError):
    """There is nothing of that name or id (it may have been pruned)."""

    type = "not_found"
    status = 404


class MethodNotAllowed(LineshaftError):
    """The path exists, but not with this method."""

    type = "method_not_allowed"
    status = 405


class Conflict(LineshaftError):
    """The task is in a state in which this cannot be done; read it and decide again."""

    type = "conflict"
    status = 409


class LeaseLost(Conflict):
    """The lease token is not current: somebody else may hold the task. Stop working on it."""

    type = "lease_lost"


class QueueClosed(Conflict):
    """The queue takes no new tasks until it is opened again."""

    type = "queue_closed"


class CursorExpired(LineshaftError):
    """The cursor is older than the log: start again from the earliest one, named in `reason`."""

    type = "cursor_expired"
    status = 410


class NotOwner(LineshaftError):
    """This coordinator does not own the shard and cannot forward; ask the owner."""

    type = "not_owner"
    status = 421


class Invalid(LineshaftError):
    """Well-formed but not acceptable; `field` names the culprit, `reason` what was expected."""

    type = "invalid"
    status = 422


class NotSupported(Invalid):
    """A field or feature of the protocol that this version does not have yet."""

    type = "not_supported"


class Retryable(LineshaftError):
    """Nothing was changed for certain: repeat the same request (same ids) after `retry_after` seconds."""


class Overloaded(Retryable):
    """Over a quota, a rate or the bound of pending work: slow down and repeat."""

    type = "overloaded"
    status = 429


class Unavailable(Retryable):
    """Not durable yet or no owner; the outcome is unknown: repeat with the same ids."""

    type = "unavailable"
    status = 503


class Fenced(Unavailable):
    """Another owner took the shard; this owner has committed nothing since."""


def _tree(cls: type[LineshaftError]) -> dict[str, type[LineshaftError]]:
    found = {cls.type: cls}
    for child in cls.__subclasses__():
        for name, error in _tree(child).items():
            found.setdefault(name, error)
    return found


BY_TYPE: dict[str, type[LineshaftError]] = _tree(LineshaftError)
"""The class for each `type` on the wire; an SDK raises the same error that the coordinator meant."""
