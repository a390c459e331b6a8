"""What the SDK asks of a way to a coordinator: over HTTP (`sdk.http`), or in the same process
(`embedded.transport`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, runtime_checkable

import msgspec

from lineshaft.wire import Call, Credit, Hello, PushedDirective, PushedTasks, Report, Reported, Welcome


class PushSession(Protocol):
    """A line by which the coordinator hands out tasks and directives without being asked each time."""

    welcome: Welcome

    async def credit(self, credit: Credit) -> None:
        """Say how many tasks this side takes in flight, as an absolute number."""

    async def report(self, report: Report) -> Reported:
        """Report outcomes over this line. Raises Unavailable where it is lost before the answer."""

    async def receive(self) -> PushedTasks | PushedDirective:
        """Wait for what is pushed next. Raises Unavailable once the line is lost."""

    async def close(self) -> None:
        """Hang up; idempotent."""


class Transport(Protocol):
    """A way to one coordinator, bound to the event loop that first uses it."""

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a call and return its answer struct; `timeout` is in seconds and for one try. Raises
        LineshaftError.
        """

    async def session(self, hello: Hello) -> PushSession | None:
        """Open a push session; None where this way has none."""

    async def close(self) -> None:
        """Give back connections; idempotent."""


@runtime_checkable
class TellsDirectives(Protocol):
    """A transport without sessions that tells of directives at once all the same."""

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """Tell of what concerns workers (id and incarnation), in any thread, until cancelled. Raises
        AppClosed.
        """
