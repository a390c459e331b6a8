"""Waiting for a task to end, through long polls, and through a coordinator that is restarted meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.session import Session
from lineshaft.cli.trouble import Trouble, judge
from lineshaft.errors import LineshaftError

if TYPE_CHECKING:
    from lineshaft import wire

POLL = 45.0
"""Seconds of one long poll; the coordinator allows 50."""
TERMINAL = ("completed", "failed", "cancelled")
_PAUSE = 0.5


async def wait_for_end(
    session: Session, task_id: str, seconds: float | None, *, answered: bool = False
) -> wire.Task:
    """Return the task once it has ended. Raises Trouble (exit code 5) where `seconds` pass before.

    A coordinator that was there once (`answered` tells that it was before) may go away and come back; one
    that never answered is an error at once.
    """
    from lineshaft import wire

    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        # The first is no wait, so that one knows soon whether there is a coordinator, and the task.
        left = 0.0 if not answered else _left(deadline)
        try:
            query = wire.GetQuery(wait=round(left, 3))
            task: wire.Task = await session.call("get", id=task_id, query=query, timeout=left + 10)
            answered = True
        except LineshaftError as error:
            passing = judge(error).code in (ExitCode.UNREACHABLE, ExitCode.UNAVAILABLE)
            if not passing or not answered or _over(deadline):
                raise
            await asyncio.sleep(_PAUSE)
            continue
        if task.state in TERMINAL:
            return task
        if _over(deadline):
            raise Trouble(
                f"task {task_id} is still {task.state}",
                code=ExitCode.UNAVAILABLE,
                hint=f"the task goes on: `lineshaft tasks get {task_id} --wait`, or see `tasks explain`",
                task_id=task_id,
            )


def exit_code(task: wire.Task) -> ExitCode:
    """Return the exit code of a command that waited for this task."""
    return ExitCode.OK if task.state == "completed" else ExitCode.FAILED


def _left(deadline: float | None) -> float:
    return POLL if deadline is None else max(0.0, min(POLL, deadline - time.monotonic()))


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
