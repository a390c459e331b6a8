"""How much has been accepted and is not yet durable, and what is refused because of it."""

from __future__ import annotations

from collections.abc import Callable

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

    def __init__(self, limits: Limits, congestion: Callable[[], str | None] = lambda: None) -> None:
        """`congestion` tells why the store wants no more new work for now, None where it does."""
        self._congestion = congestion
        share = 1.0 - limits.report_headroom
        self._room = (int(limits.pending_commands * share), int(limits.pending_bytes * share))
        self._room_of_reports = (limits.pending_commands, limits.pending_bytes)
        self.bytes = 0
        self.commands = 0
        self.refused = 0

    def refusal(self, handle: Handle, *, stalled: bool) -> Retryable | None:
        """Return the error to answer with, or None where there is room; one alone always has it."""
        if type(handle.command) is Enqueue and (reason := self._congestion()) is not None:
            self.refused += 1
            return Overloaded(reason, retry_after=1.0)
        commands, size = self._room_of_reports if type(handle.command) is Report else self._room
        if self.commands == 0 or (self.commands < commands and self.bytes + handle.weight <= size):
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
    if type(command) is Enqueue:
        weight = 0
        for task in command.tasks:
            weight += _BASE + len(task.payload)
            if task.metadata is not None:
                weight += len(task.metadata)
        return weight
    if type(command) is Report:
        weight = _BASE
        for op in command.items:
            weight += _weigh_op(op)
        return weight
    match command:
        case PutRecord(data=bytes(data)) | Patch(payload=bytes(data)):
            return _BASE + len(data)
        case Sweep(keys=keys):
            return _BASE + _BASE * len(keys)
        case _:
            return _BASE


def _weigh_op(op: Op) -> int:
    if type(op) is Complete:
        return _BASE + len(op.result) + (0 if op.carry is None else len(op.carry))
    match op:
        case Fail(error=data):
            return _BASE + len(data)
        case Heartbeat(checkpoint=data, usage=more):
            return len(data or b"") + len(more or b"") + 64
        case _:
            return _BASE
