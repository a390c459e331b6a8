"""The harness for tests that do not await: the same, in the thread of `app.sync`."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from lineshaft.embedded.harness import Enqueued, Executed, Harness
from lineshaft.sdk.client import Client
from lineshaft.sdk.handle import Handle
from lineshaft.sdk.outcomes import Duration
from lineshaft.sdk.sync import SyncHandle
from lineshaft.sdk.task import Task
from lineshaft.wire import tasks as wire


class SyncHarness:
    """`with SyncHarness(app) as test:`, and `app.sync` inside; see `Harness`."""

    def __init__(self, app: Client, **settings: Any) -> None:
        self._app = app
        self._harness = Harness(app, **settings)

    def run_until_idle(self) -> list[Executed]:
        """See `Harness.run_until_idle`."""
        return self._app.sync.wait_for(self._harness.run_until_idle)

    drain = run_until_idle

    def advance(self, duration: Duration) -> list[Executed]:
        """See `Harness.advance`."""
        return self._app.sync.wait_for(lambda: self._harness.advance(duration))

    def skip(self, duration: Duration) -> None:
        """See `Harness.skip`."""
        self._app.sync.wait_for(lambda: self._harness.skip(duration))

    @property
    def now(self) -> float:
        """See `Harness.now`."""
        return self._harness.now

    @property
    def enqueued(self) -> list[Enqueued]:
        """What was enqueued during the test."""
        return self._harness.enqueued

    @property
    def executed(self) -> list[Executed]:
        """The attempts made during the test."""
        return self._harness.executed

    def task(self, task: str | Handle[Any] | SyncHandle[Any]) -> wire.Task:
        """See `Harness.task`."""
        return self._app.sync.wait_for(lambda: self._harness.task(task))

    def assert_enqueued(self, task: Task[Any, Any] | str, /, **arguments: Any) -> Enqueued:
        """See `Harness.assert_enqueued`."""
        return self._harness.assert_enqueued(task, **arguments)

    def assert_not_enqueued(self, task: Task[Any, Any] | str, /, **arguments: Any) -> None:
        """See `Harness.assert_not_enqueued`."""
        self._harness.assert_not_enqueued(task, **arguments)

    def assert_state(self, task: str | Handle[Any] | SyncHandle[Any], state: str) -> wire.Task:
        """See `Harness.assert_state`."""
        return self._app.sync.wait_for(lambda: self._harness.assert_state(task, state))

    def __enter__(self) -> Self:
        self._app.sync.wait_for(self._harness.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._app.sync.wait_for(lambda: self._harness.__aexit__(kind, error, trace))
        self._app.sync.end_thread()
