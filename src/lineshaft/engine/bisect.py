"""What happens to a batch that the store rejects for good because of something in it.

The shard's memory is dropped, for it holds what the store does not. It is loaded again, and the batch's
commands are applied again in their order, in halves, until the culprit is alone: it gets 422, the others
their replies. A culprit that is itself many things (a bulk of enqueues, a report) is cut in two in the
same way. What had gathered since comes after, in order; parked commands wait on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from lineshaft.core.commands import Enqueue, Report
from lineshaft.core.replies import Enqueued, Reported
from lineshaft.engine.handle import Handle
from lineshaft.engine.journal import Dropped
from lineshaft.errors import Invalid, LineshaftError
from lineshaft.store.base import Rejected

if TYPE_CHECKING:
    from lineshaft.engine.runner import Runner

_LOG = logging.getLogger("lineshaft.engine")


async def settle_rejected(runner: Runner, rejection: Rejected) -> None:
    """Find what the store rejects, refuse it, and commit the rest.

    Raises what ends the shard's life: `Fenced`, or `Rejected` where no command is to blame.
    """
    intake, metrics = runner.intake, runner.metrics
    _LOG.warning("shard %d: the store rejects a batch: %s", runner.shard_number, rejection)
    metrics.bisects += 1
    intake.exclusive = True
    dropped = intake.drop()
    if not dropped.batch:
        intake.return_to_line(dropped.later)
        intake.fail(dropped.parked, "the store rejects what no command has asked for")
        raise rejection
    groups = deque(_halves(dropped.batch))
    parked = dropped.parked
    try:
        await _load(runner, parked, new_outage=True)
        parked = []
        while groups:
            parked = await _try_group(runner, groups, parked)
    except BaseException:
        intake.fail([*parked, *(h for group in groups for h in group)], "the shard was lost")
        intake.return_to_line(dropped.later)
        raise
    intake.return_to_line(dropped.later)
    if intake.shard is None:
        await _load(runner, parked)
    runner.open_for_all()


async def _try_group(runner: Runner, groups: deque[list[Handle]], parked: list[Handle]) -> list[Handle]:
    """Commit the first group; return who is to be parked again because it was rejected."""
    intake = runner.intake
    if intake.shard is None:
        await _load(runner, parked)
    group = groups[0]
    for handle in group:
        intake.apply(handle)
    await intake.look_ups.settled()
    try:
        await _commit_pending(runner)
    except Rejected as rejection:
        dropped = intake.drop()
        groups.popleft()
        groups.extendleft(reversed(_narrow(runner, dropped, rejection)))
        return dropped.parked
    groups.popleft()
    return []


def _narrow(runner: Runner, dropped: Dropped, rejection: Rejected) -> list[list[Handle]]:
    suspects = [*dropped.batch, *dropped.later]
    if len(suspects) > 1:
        return _halves(suspects)
    if not suspects:
        raise rejection
    pieces = split(suspects[0])
    if pieces:
        return [[piece] for piece in pieces]
    runner.intake.drop_unapplied(suspects[0], Invalid(f"the store cannot keep this: {rejection.reason}"))
    return []


async def _load(runner: Runner, parked: list[Handle], *, new_outage: bool = False) -> None:
    """Load the shard, and commit by itself what the load changes: no command is to blame for that.

    However often it is loaded until the culprits are found, that is one outage to those who hold leases.
    """
    await runner.take_over_patiently(exclusive=True, new_outage=new_outage)
    await _commit_pending(runner)
    runner.intake.park_again(parked)
    await runner.intake.look_ups.settled()


async def _commit_pending(runner: Runner) -> None:
    shard = runner.intake.shard
    assert shard is not None
    while shard.dirty:
        await runner.commit()


def _halves(handles: list[Handle]) -> list[list[Handle]]:
    middle = len(handles) // 2
    return [handles[:middle], handles[middle:]] if middle else [handles]


# -- one command that is many ------------------------------------------------------------------------


def split(handle: Handle) -> list[Handle]:
    """Return two commands whose answers together answer the handle, or nothing where it is one thing."""
    command = handle.command
    match command:
        case Enqueue(tasks=parts, wait_until=None) if len(parts) > 1:
            field = "tasks"
        case Report(items=parts) if len(parts) > 1 or (parts and command.claim is not None):
            field = "items"
        case _:
            return []
    middle = max(1, len(parts) // 2)
    first = msgspec.structs.replace(command, **{field: parts[:middle]})
    second = msgspec.structs.replace(command, **{field: parts[middle:]})
    if isinstance(first, Report):
        first = msgspec.structs.replace(first, claim=None)  # a report's claim comes after all its items
    pieces = [_piece(handle, first, middle), _piece(handle, second, len(parts) - middle)]
    asyncio.gather(*pieces).add_done_callback(lambda joined: _join(handle, joined))
    return pieces


def _piece(whole: Handle, command: Enqueue | Report, size: int) -> Handle:
    piece = _Piece(command, 0, whole.get_loop())
    piece.size = size
    piece.intake = whole.intake
    return piece


class _Piece(Handle):
    """A part of a command; a refusal of it becomes the answer of each of its items."""

    __slots__ = ("size",)
    size: int

    def settle(self, answer: Any) -> None:
        if isinstance(answer, Invalid):
            errors: list[Any] = [answer] * self.size
            if isinstance(self.command, Report):
                answer = Reported(items=errors, tasks=[], position=0)
            else:
                answer = Enqueued(items=errors, position=0)
        super().settle(answer)


def _join(whole: Handle, joined: asyncio.Future[list[Any]]) -> None:
    assert whole.intake is not None
    whole.intake.admission.discount(whole)
    if joined.cancelled():
        return
    error = joined.exception()
    if error is not None:
        whole.settle(error if isinstance(error, LineshaftError) else LineshaftError(str(error)))
        return
    first, second = joined.result()
    # A part that was refused has changed nothing and names no position of its own.
    position = max(first.position, second.position, whole.intake.barrier.durable)
    answer = msgspec.structs.replace(second, items=[*first.items, *second.items], position=position)
    whole.answer = answer
    whole.settle(answer)
