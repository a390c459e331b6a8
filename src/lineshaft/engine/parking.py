"""Commands that wait in the shard, and how they go on where it is loaded anew or the engine closes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lineshaft.core.commands import Claim, Command, Enqueue, Get
from lineshaft.core.replies import Claimed, Found
from lineshaft.core.shard import Shard
from lineshaft.core.task import Task
from lineshaft.engine.handle import Handle
from lineshaft.errors import LineshaftError, NotFound

Rows = Mapping[tuple[str, str], Task | None]


def may_wait(command: Command) -> bool:
    """Tell whether a command asks to be parked."""
    return isinstance(command, (Claim, Get, Enqueue)) and command.wait_until is not None


def will_create(shard: Shard, command: Enqueue, now: int, found: Rows | None) -> bool:
    """Tell whether a waiting enqueue is about to create its task; its answer, much later, must say so."""
    [task] = command.tasks
    if not task.given:
        return True
    try:
        shard.apply(Get(tenant=command.tenant, id=task.id), now, found=found)
    except NotFound:
        return True
    return False


def as_asked(handle: Handle, answer: Any) -> Any:
    """Return the answer to a wait as its first command must be told."""
    if handle.created and isinstance(answer, Found) and not answer.created:
        return msgspec.structs.replace(answer, created=True)
    return answer


def waiting_part(command: Command) -> Command:
    """Return the command that waits on: what it did before it waited is done, and must not be done again."""
    match command:
        case Claim():
            return msgspec.structs.replace(command, holding=None)
        case Enqueue(tenant=tenant, tasks=(task,), wait_until=until):
            return Get(tenant=tenant, id=task.id, wait_until=until)
        case _:
            return command


def present_state(shard: Shard, handle: Handle, now: int) -> Any:
    """Return what to answer a parked command when it can wait no longer."""
    match waiting_part(handle.command):
        case Get(tenant=tenant, id=id):
            try:
                return as_asked(handle, shard.apply(Get(tenant=tenant, id=id), now))
            except LineshaftError as error:
                return error
        case _:
            return Claimed(tasks=[], position=shard.observed())
