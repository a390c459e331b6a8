"""How much has been accepted and is not yet durable, and what is refused because of it."""

from __future__ import annotations

from lineshaft.core.commands import (
    Command,
    Complete,
    Enqueue,
    Fail,
    Heartbeat,
    Op,
    Patch,
    PutRecord,
    Report,
    Sweep,
)
from lineshaft.engine.handle import Handle
from lineshaft.engine.limits import Limits
from lineshaft.errors import Overloaded, Retryable, Unavailable

_BASE = 256
"""About what a command or a row costs beside its JSON."""


class Admission:
    """Counts pending commands and bytes of one shard."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.bytes = 0
        self.commands = 0
        self.refused = 0

    def refusal(self, handle: Handle, *, stalled: bool) -> Retryable | None:
        """Return the error to answer with, or None where there is room; one alone always has it."""
        limits = self._limits
        share = 1.0 if isinstance(handle.command, Report) else 1.0 - limits.report_headroom
        if self.commands == 0 or (
            self.commands < limits.pending_commands * share
            and self.bytes + handle.weight <= limits.pending_bytes * share
        ):
            return None
        self.refused += 1
        if stalled:
            return Unavailable(
                "the store is not answering and what waits for it has filled up", retry_after=5.0
            )
        return Overloaded("more is waiting to be stored than the coordinator may hold", retry_after=1.0)

    def count(self, handle: Handle) -> None:
        """Take a command in."""
        self.bytes += handle.weight
        self.commands += 1

    def discount(self, handle: Handle) -> None:
        """Let go of a command that is durable or over; idempotent."""
        if handle.weight:
            self.bytes -= handle.weight
            self.commands -= 1
            handle.weight = 0


def weigh(command: Command) -> int:
    """Return about how many bytes a command adds to what is pending."""
    match command:
        case Enqueue(tasks=tasks):
            return sum(_BASE + len(task.payload) + len(task.metadata or b"") for task in tasks)
        case Report(items=items):
            return sum(map(_weigh_op, items), _BASE)
        case PutRecord(data=bytes(data)) | Patch(payload=bytes(data)):
            return _BASE + len(data)
        case Sweep(keys=keys):
            return _BASE + _BASE * len(keys)
        case _:
            return _BASE


def _weigh_op(op: Op) -> int:
    match op:
        case Complete(result=data, carry=more):
            return _BASE + len(data) + len(more or b"")
        case Fail(error=data):
            return _BASE + len(data)
        case Heartbeat(checkpoint=data, usage=more):
            return len(data or b"") + len(more or b"") + 64
        case _:
            return _BASE
