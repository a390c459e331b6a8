"""Lineshaft: a durable task coordinator, and the SDK for its clients and workers.

The names are loaded when they are first used, so that the coordinator does not import the SDK, nor the SDK
it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lineshaft.embedded.app import App as App
    from lineshaft.errors import LineshaftError as LineshaftError
    from lineshaft.sdk.context import Context as Context
    from lineshaft.sdk.failures import AppClosed as AppClosed
    from lineshaft.sdk.failures import CrashLoop as CrashLoop
    from lineshaft.sdk.failures import EnqueueFailed as EnqueueFailed
    from lineshaft.sdk.failures import ForkedApp as ForkedApp
    from lineshaft.sdk.failures import ResultTimeout as ResultTimeout
    from lineshaft.sdk.failures import TaskCancelled as TaskCancelled
    from lineshaft.sdk.failures import TaskFailed as TaskFailed
    from lineshaft.sdk.failures import WrongArgument as WrongArgument
    from lineshaft.sdk.failures import WrongDefinition as WrongDefinition
    from lineshaft.sdk.handle import Handle as Handle
    from lineshaft.sdk.outcomes import Cancel as Cancel
    from lineshaft.sdk.outcomes import Completed as Completed
    from lineshaft.sdk.outcomes import Failed as Failed
    from lineshaft.sdk.outcomes import Snooze as Snooze
    from lineshaft.sdk.outcomes import TaskError as TaskError
    from lineshaft.sdk.task import Task as Task
    from lineshaft.sdk.worker import Worker as Worker
    from lineshaft.version import __version__ as __version__

_HOMES = {
    "App": "lineshaft.embedded.app",
    "AppClosed": "lineshaft.sdk.failures",
    "Cancel": "lineshaft.sdk.outcomes",
    "Completed": "lineshaft.sdk.outcomes",
    "Context": "lineshaft.sdk.context",
    "CrashLoop": "lineshaft.sdk.failures",
    "EnqueueFailed": "lineshaft.sdk.failures",
    "Failed": "lineshaft.sdk.outcomes",
    "ForkedApp": "lineshaft.sdk.failures",
    "Handle": "lineshaft.sdk.handle",
    "LineshaftError": "lineshaft.errors",
    "ResultTimeout": "lineshaft.sdk.failures",
    "Snooze": "lineshaft.sdk.outcomes",
    "Task": "lineshaft.sdk.task",
    "TaskCancelled": "lineshaft.sdk.failures",
    "TaskError": "lineshaft.sdk.outcomes",
    "TaskFailed": "lineshaft.sdk.failures",
    "Worker": "lineshaft.sdk.worker",
    "WrongArgument": "lineshaft.sdk.failures",
    "WrongDefinition": "lineshaft.sdk.failures",
    "__version__": "lineshaft.version",
}

__all__ = [  # noqa: PLE0604 (one list of names, of which this is the order)
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lineshaft' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
