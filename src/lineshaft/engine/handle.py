"""The requester's end of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from lineshaft.core.commands import Command
from lineshaft.core.replies import Claimed, Reported
from lineshaft.core.task import Task
from lineshaft.errors import LineshaftError

if TYPE_CHECKING:
    from lineshaft.engine.intake import Intake


class Handle(asyncio.Future[Any]):
    """The reply to come. Cancelling it says that the requester has gone: nothing is leased to nobody."""

    __slots__ = (
        "answer",
        "command",
        "created",
        "intake",
        "keys",
        "parked_at",
        "serial",
        "superseded",
        "weight",
    )

    def __init__(self, command: Command, weight: int, loop: asyncio.AbstractEventLoop) -> None:
        # To look for the running loop costs more than all the rest of this: it asks for the pid.
        super().__init__(loop=loop)
        self.command = command
        self.intake: Intake | None = None
        self.weight = weight
        """Bytes counted as pending for it; 0 when it is not counted."""
        self.serial = 0
        """Order of application; also its ticket where it may park."""
        self.answer: Any = None
        """The reply or error computed, before it may be shown."""
        self.parked_at: int | None = None
        """The position that makes durable what it did before it parked."""
        self.created = False
        """It is an enqueue that waits and has created its task."""
        self.keys: list[tuple[str, str]] = []
        """Rows that it was found to need."""
        self.superseded = False
        """A later claim with its `claim_id` was given the same tasks."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Await the answer; where it is there already, the event loop has its turn first.

        So whoever asks in a loop stops neither commits nor time.
        """
        if self.done():
            yield
            return self.result()
        return (yield from super().__await__())

    __iter__ = __await__

    def cancel(self, msg: Any = None) -> bool:
        """Abandon the command; a no-op where it is answered. What it has done is not undone, but for
        leases.
        """
        if not super().cancel(msg):
            return False
        if self.intake is not None:
            self.intake.forsake(self)
        return True

    def abandon(self) -> None:
        """Say that the requester has gone, at any time: what an answer leased is released, no attempt
        burned.
        """
        if not self.cancel() and self.intake is not None:
            if not self.cancelled():
                self.exception()  # nobody else will ask for it
            self.intake.forsake(self)

    def settle(self, answer: Any) -> None:
        """Give the requester the answer, if there still is one."""
        if self.done():
            return
        if isinstance(answer, LineshaftError):
            self.set_exception(answer)
        else:
            self.set_result(answer)

    @property
    def leased(self) -> list[Task]:
        """Return the tasks that the answer hands out."""
        return self.answer.tasks if isinstance(self.answer, Claimed | Reported) else []

    @property
    def claim_id(self) -> str | None:
        """Return the id of the claim that it is or carries."""
        claim = getattr(self.command, "claim", self.command)
        return getattr(claim, "claim_id", None)
