"""Errors that only the SDK raises: what a caller, a handler's author or an operator can do about them.

LineshaftError
├── WrongArgument (also TypeError)     before enqueue: names the argument
├── WrongDefinition (also TypeError)   at the decorator: names the parameter
├── EnqueueFailed                      some items of a bulk were refused
├── TaskFailed · TaskCancelled         how the awaited task ended
├── ResultTimeout (also TimeoutError)  it has not ended yet
├── ForkedApp · AppClosed              the App cannot be used here (also RuntimeError)
└── CrashLoop                          worker processes die without a task to blame
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lineshaft.errors import Invalid, LineshaftError


class WrongArgument(Invalid, TypeError):
    """An argument does not fit the handler; `field` is its name. Nothing was enqueued."""


class WrongDefinition(Invalid, TypeError):
    """A function or option cannot make a task; `field` names the parameter or option."""


class EnqueueFailed(LineshaftError):
    """Some tasks of a bulk were refused; `errors` maps their index to the error, the others are enqueued."""

    type = "enqueue_failed"

    def __init__(self, reason: str, *, errors: Mapping[int, LineshaftError]) -> None:
        super().__init__(reason)
        self.errors = dict(errors)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(EnqueueFailed, errors=self.errors), (self.reason,)


class TaskFailed(LineshaftError):
    """The task ended as failed; `failure_type`, `stack` and `data` are what its last attempt reported."""

    type = "task_failed"

    def __init__(
        self, reason: str, *, task_id: str, failure_type: str, stack: str | None = None, data: Any = None
    ) -> None:
        super().__init__(reason, task_id=task_id)
        self.failure_type = failure_type
        self.stack = stack
        self.data = data

    def __reduce__(self) -> tuple[object, ...]:
        rest = {"failure_type": self.failure_type, "stack": self.stack, "data": self.data}
        return partial(TaskFailed, task_id=self.task_id or "", **rest), (self.reason,), self.__dict__


class TaskCancelled(LineshaftError):
    """The task was cancelled before it completed; there is no result."""

    type = "task_cancelled"


class ResultTimeout(LineshaftError, TimeoutError):
    """The task has not ended within the time given; it goes on, ask again later."""

    type = "result_timeout"


class ForkedApp(LineshaftError, RuntimeError):
    """An App whose tasks are in memory was open when the process forked, and is used in the child."""

    type = "forked_app"


class AppClosed(LineshaftError, RuntimeError):
    """The App was closed; make a new one, or keep it open longer."""

    type = "app_closed"


class CrashLoop(LineshaftError):
    """Worker processes crash while they hold no task, so restarting cannot help; `reason` says how often."""

    type = "crash_loop"
