"""The errors that a coordinator's refusals stand for: the same that the coordinator meant."""

from __future__ import annotations

from http import HTTPStatus

from lineshaft.errors import BY_TYPE, LineshaftError, Overloaded, Unavailable
from lineshaft.wire import ErrorInfo

_GATEWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})


def refusal(
    info: ErrorInfo, *, status: int | None = None, retry_after: float | None = None
) -> LineshaftError:
    """Make the error that is told of; one of a type that is not known is the nearest to its `status`.

    `retry_after` is in seconds.
    """
    kind = BY_TYPE.get(info.type) or (LineshaftError if status is None else error_of_status(status))
    return kind(info.reason, field=info.field, task_id=info.task_id, retry_after=retry_after)


def error_of_status(status: int) -> type[LineshaftError]:
    """Return the class of error nearest to an HTTP status."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Overloaded
    if status == HTTPStatus.SERVICE_UNAVAILABLE or status in _GATEWAY:
        return Unavailable
    for kind in BY_TYPE.values():
        if kind.status == status and kind is not LineshaftError:
            return kind
    return LineshaftError
