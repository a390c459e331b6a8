"""What a handler may know and say of the task that it executes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lineshaft.sdk import encoding
from lineshaft.sdk.outcomes import Cancel

if TYPE_CHECKING:
    from lineshaft.sdk.client import Client
    from lineshaft.wire.workers import ClaimedTask

T = TypeVar("T")

_logger = logging.getLogger("lineshaft.task")


class Context:
    """The task at hand. A handler that wants it has a parameter annotated `Context`; every method may be
    called from coroutines and from threads.
    """

    __slots__ = (
        "_acknowledgements",
        "_cancel_reason",
        "_checkpoint",
        "_log",
        "_notify",
        "_progress",
        "_state",
        "_stopped",
        "_task",
        "app",
    )

    def __init__(
        self, task: ClaimedTask, app: Client, notify: Callable[[Context], None] | None = None
    ) -> None:
        self._task = task
        self.app = app
        self._notify = notify
        self._cancel_reason: str | None = None
        self._stopped = False
        self._progress: dict[str, Any] | None = None
        self._checkpoint: bytes | None = None
        self._acknowledgements: list[Acknowledgement] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._state: dict[str, Any] | None = None

    @property
    def task_id(self) -> str:
        """The task's id: the same in every attempt, so good as a key for side effects that must happen
        once.
        """
        return self._task.task_id

    @property
    def name(self) -> str:
        """The task's type."""
        return self._task.name

    @property
    def queue(self) -> str:
        """The queue that the task was claimed from."""
        return self._task.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._task.attempt

    @property
    def max_retries(self) -> int:
        """How many attempts may follow the first."""
        return self._task.max_retries

    @property
    def fence(self) -> int:
        """An integer that rises with every lease of the task: hand it to what you write to, to shut out
        latecomers.
        """
        return self._task.fence

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the client attached to the task."""
        metadata = self._task.metadata
        return (metadata is not None and msgspec.json.decode(metadata)) or {}

    @property
    def tags(self) -> tuple[str, ...]:
        """The task's tags."""
        return tuple(self._task.tags or ())

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context in which the task was enqueued."""
        return self._task.traceparent

    @property
    def state(self) -> dict[str, Any]:
        """A place for middleware and handler to share things during this attempt; nothing of it is kept."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (`lineshaft.task`) that adds task_id, task_name, queue and attempt to each record."""
        if self._log is None:
            extra = {
                "task_id": self.task_id,
                "task_name": self.name,
                "queue": self.queue,
                "attempt": self.attempt,
            }
            self._log = logging.LoggerAdapter(_logger, extra)
        return self._log

    @property
    def cancelled(self) -> bool:
        """True once the task shall end early: it was cancelled, timed out, its lease is lost, or the worker
        stops.

        Coroutines are interrupted besides; a plain function in a thread must look here from time to time.
        """
        return self._stopped

    @property
    def cancel_reason(self) -> str | None:
        """Why the task shall end early, where somebody said so."""
        return self._cancel_reason

    def raise_if_cancelled(self) -> None:
        """Raise `Cancel` once `cancelled` is true: a stopping point for plain functions."""
        if self._stopped:
            raise Cancel(self._cancel_reason)

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the task is; sent with the next heartbeat, within about a second."""
        self._progress = {
            "done": _number(done),
            "total": None if total is None else _number(total),
            "message": None if message is None else str(message).encode("utf-8", "replace").decode(),
        }
        self._changed()

    def checkpoint(self, value: Any) -> Acknowledgement:
        """Remember `value` (JSON) for the next attempt; sent with the next heartbeat, within about a second.

        The answer may be awaited (`await ctx.checkpoint(…)`) or, in a thread, waited for (`.wait()`) until
        the value is durable. TypeError or ValueError where it has no JSON form.
        """
        acknowledgement = Acknowledgement()
        if self._acknowledgements is None:
            self._acknowledgements = []
        self._acknowledgements.append(acknowledgement)
        self._checkpoint = encoding.encode(value)
        self._changed()
        return acknowledgement

    @property
    def previous_checkpoint(self) -> Any:
        """The last checkpoint of the attempts before this one, decoded from JSON; None where there is
        none.
        """
        raw = self._task.checkpoint
        return msgspec.json.decode(raw) if raw else None

    def resume(self, kind: type[T]) -> T | None:
        """Give the last checkpoint of the attempts before as `kind`; None where there is none."""
        raw = self._task.checkpoint
        if not raw or bytes(raw) == b"null":
            return None
        decoded: T = encoding.decoder(kind).decode(raw)
        return decoded

    # -- for whoever carries it; underscored, since handlers see this class ------------------------

    def _changed(self) -> None:
        if self._notify is not None:
            self._notify(self)

    def _stop(self, reason: str | None) -> None:
        if not self._stopped:
            self._cancel_reason = reason
            self._stopped = True

    def _take_news(self) -> News | None:
        """Take what is to be sent with a heartbeat; a later `_put_back` undoes it where sending failed."""
        if self._progress is None and self._checkpoint is None:
            return None
        progress, self._progress = self._progress, None
        checkpoint, self._checkpoint = self._checkpoint, None
        acknowledgements, self._acknowledgements = self._acknowledgements or [], None
        return News(progress, checkpoint, acknowledgements)

    def _put_back(self, news: News) -> None:
        # What the handler has said since then is newer and wins.
        self._progress = self._progress or news.progress
        self._checkpoint = self._checkpoint or news.checkpoint
        self._acknowledgements = [*news.acknowledgements, *(self._acknowledgements or [])]


def _number(value: Any) -> int | float:
    return value if type(value) in (int, float) else float(value)


class News(msgspec.Struct, frozen=True):
    """Progress and checkpoint on their way to the coordinator."""

    progress: dict[str, Any] | None
    checkpoint: bytes | None
    acknowledgements: list[Acknowledgement]

    def delivered(self) -> None:
        """Tell whoever waits for the checkpoint that it is durable."""
        for acknowledgement in self.acknowledgements:
            acknowledgement._settle(None)

    def refused(self, error: Exception) -> None:
        """Tell whoever waits for the checkpoint that the coordinator does not take it."""
        for acknowledgement in self.acknowledgements:
            acknowledgement._settle(error)


class Acknowledgement:
    """The promise that a checkpoint will be durable; await it, or wait for it in a thread."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done: Future[None] = Future()

    def wait(self, timeout: float | None = None) -> None:
        """Block until the checkpoint is durable; TimeoutError after `timeout` seconds, Invalid or TooLarge
        where it is refused.
        """
        self._done.result(timeout)

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.wrap_future(self._done).__await__()

    def _settle(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
