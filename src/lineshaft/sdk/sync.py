"""The synchronous facade: every method hands the coroutine of the same name to an event loop in a thread, and
waits.

There is no second copy of any logic here, and there must never be one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

from lineshaft.sdk.loop_thread import LoopThread
from lineshaft.sdk.outcomes import Duration
from lineshaft.sdk.task import Bound, Task

if TYPE_CHECKING:
    from lineshaft import wire
    from lineshaft.sdk.client import Client
    from lineshaft.sdk.handle import Handle

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class SyncClient:
    """What `app.sync` is: the App's calls for code that does not await."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._thread = LoopThread("lineshaft-sync")

    def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SyncHandle[R]:
        """Enqueue a task; see `App.enqueue`."""
        return SyncHandle(self.wait_for(lambda: self._client.enqueue(task, *args, **kwargs)), self)

    def enqueue_named(self, name: str, payload: Any = None, **options: Any) -> SyncHandle[Any]:
        """Enqueue a task of another program; see `App.enqueue_named`."""
        return SyncHandle(self.wait_for(lambda: self._client.enqueue_named(name, payload, **options)), self)

    def enqueue_many(self, calls: Iterable[Bound[R]]) -> list[SyncHandle[R]]:
        """Enqueue many tasks; see `App.enqueue_many`."""
        return [SyncHandle(one, self) for one in self.wait_for(lambda: self._client.enqueue_many(calls))]

    def enqueue_and_wait(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Enqueue a task and wait for its result; see `App.enqueue_and_wait`."""
        return self.wait_for(lambda: self._client.enqueue_and_wait(task, *args, **kwargs))

    @overload
    def handle(self, task_id: str, task: Task[Any, R]) -> SyncHandle[R]: ...
    @overload
    def handle(self, task_id: str, task: None = None) -> SyncHandle[Any]: ...
    def handle(self, task_id: str, task: Task[Any, Any] | None = None) -> SyncHandle[Any]:
        """Give the handle of a task that was enqueued before."""
        return SyncHandle(self._client.handle(task_id, task), self)

    def close(self) -> None:
        """Close the App and end the thread."""
        self.wait_for(self._client.close)
        self._thread.stop()

    def __enter__(self) -> Self:
        self._client.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end_thread(self) -> None:
        """End the thread; the next call starts another."""
        self._thread.stop()

    def wait_for(self, call: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Make a coroutine and wait for its result, as all calls here do."""
        # Checked before a thread is asked: after a fork there is none, and waiting for it would be for ever.
        self._client.check_usable()
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                "app.sync would block this event loop; await the same method of the App itself"
            )
        return self._thread.wait_for(call())


class SyncHandle(Generic[R_co]):
    """A handle whose methods wait; see `Handle`."""

    def __init__(self, handle: Handle[R_co], client: SyncClient) -> None:
        self._handle = handle
        self._client = client

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._handle.task_id

    @property
    def created(self) -> bool:
        """False where the id already named a task."""
        return self._handle.created

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the result; see `Handle.result`."""
        return self._client.wait_for(lambda: self._handle.result(timeout))

    def state(self) -> str:
        """Read the task's state."""
        return self._client.wait_for(self._handle.state)

    def info(self) -> wire.Task:
        """Read the whole task."""
        return self._client.wait_for(self._handle.info)

    def cancel(self, reason: str | None = None) -> wire.Task:
        """Cancel the task; see `Handle.cancel`."""
        return self._client.wait_for(lambda: self._handle.cancel(reason))

    def retry(self) -> wire.Task:
        """Run the finished task again; see `Handle.retry`."""
        return self._client.wait_for(self._handle.retry)

    def promote(self) -> wire.Task:
        """Run the scheduled task now."""
        return self._client.wait_for(self._handle.promote)

    def __repr__(self) -> str:
        return f"<SyncHandle {self.task_id}>"
