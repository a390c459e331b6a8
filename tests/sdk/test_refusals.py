"""What a coordinator refuses is raised as the error that it meant, also by a client that is older than it."""

from __future__ import annotations

import pytest

from lineshaft.errors import BY_TYPE, Conflict, LineshaftError, Overloaded, TooLarge, Unavailable
from lineshaft.sdk.refusals import refusal
from lineshaft.wire import ErrorInfo


@pytest.mark.parametrize("type", sorted(BY_TYPE))
def test_a_known_type_is_its_class_whatever_the_status(type: str) -> None:
    told = ErrorInfo(type=type, reason="no", field="queue", task_id="a")
    error = refusal(told, status=418, retry_after=2.0)
    assert error.__class__ is BY_TYPE[type]
    assert (error.reason, error.field, error.task_id, error.retry_after) == ("no", "queue", "a", 2.0)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (409, Conflict),
        (413, TooLarge),
        (429, Overloaded),
        (503, Unavailable),
        (504, Unavailable),
        (500, LineshaftError),
        (None, LineshaftError),
    ],
)
def test_a_type_of_tomorrow_is_the_error_nearest_to_its_status(
    status: int | None, kind: type[LineshaftError]
) -> None:
    assert refusal(ErrorInfo(type="from_tomorrow", reason="no"), status=status).__class__ is kind
