"""How the execution of a task ends: values for the worker, and exceptions by which a handler chooses one.

A handler returns its result, or raises: `Snooze` and `Cancel` say what shall become of the task, a
`TaskError` (or a class of one's own beneath it) fails it with a word on whether and when to try again,
anything else fails it as the task's `retry_on` and `discard_on` have it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

import msgspec

Duration = str | int | float | timedelta
"""`"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"`, a number of seconds, or a timedelta."""


class Snooze(Exception):
    """Run the task again after `delay`; no attempt is burned. May be raised or returned."""

    def __init__(self, delay: Duration) -> None:
        super().__init__(delay)
        self.delay = delay


class Cancel(Exception):
    """End the task as cancelled. May be raised or returned."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


class TaskError(Exception):
    """Fail the task; subclass it to give failures of your own a `retry` and a `type`.

    `retry` False ends the task at once; `retry_after` takes the place of the backoff; `data` (JSON) is kept
    with the error. `type` is the name of the class unless a subclass says otherwise.
    """

    type: ClassVar[str | None] = None
    retry: bool = True
    retry_after: Duration | None = None

    def __init__(
        self,
        message: str = "",
        *,
        retry: bool | None = None,
        retry_after: Duration | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        if retry is not None:
            self.retry = retry
        if retry_after is not None:
            self.retry_after = retry_after
        self.data = data


class Completed(msgspec.Struct, frozen=True):
    """The handler returned; `result_ttl` is how long the result is kept, None for the task's own."""

    result: Any = None
    result_ttl: Duration | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The handler raised. `retry` False: the task has failed for good."""

    type: str
    message: str
    stack: str | None = None
    data: Any = None
    retry: bool = True
    retry_after: Duration | None = None


class Snoozed(msgspec.Struct, frozen=True):
    """The task runs again after `delay`."""

    delay: Duration


class Cancelled(msgspec.Struct, frozen=True):
    """The task ends as cancelled."""

    reason: str | None = None


class Released(msgspec.Struct, frozen=True):
    """The task goes back unburned: this worker is shutting down."""


Outcome = Completed | Failed | Snoozed | Cancelled | Released
