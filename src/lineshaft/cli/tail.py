"""`lineshaft tasks tail`: follow what happens to tasks, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.arguments import Name, Queue, State
from lineshaft.cli.commands import command
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.output import STYLES, console, visible
from lineshaft.cli.session import Session
from lineshaft.cli.spans import clock
from lineshaft.cli.tasks import app
from lineshaft.cli.trouble import judge
from lineshaft.errors import LineshaftError

if TYPE_CHECKING:
    from lineshaft import wire

_POLL = 30.0
_PAUSE = 0.5


@command(app, "tail")
async def tail(
    session: Session,
    queue: Queue = None,
    state: State = None,
    name: Name = None,
    after: Annotated[
        str | None, typer.Option("--after", help="Start after this cursor, not now.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="End after so many changes.", show_default=False),
    ] = None,
) -> None:
    """Follow changes of state until Ctrl-C; waits for a coordinator that goes away and comes back."""
    left = limit
    async for change in follow(session, after):
        if _left_out(change, queue, state, name):
            continue
        if session.out.as_json:
            session.out.line(change)
        else:
            _print(change)
        if left is not None:
            left -= 1
            if not left:
                return


async def follow(session: Session, after: str | None) -> AsyncIterator[wire.TaskChange]:
    """Yield changes after a cursor (or from now on), in order per task."""
    from lineshaft import wire

    cursor = after
    lost = False
    while True:
        query = wire.ChangesQuery(after=cursor, wait=None if cursor is None or lost else _POLL)
        try:
            found: wire.Changes = await session.call("changes", query=query, timeout=_POLL + 10)
        except LineshaftError as error:
            passing = judge(error).code in (ExitCode.UNREACHABLE, ExitCode.UNAVAILABLE)
            if cursor is None or not passing:
                raise
            if not lost:
                session.out.note("the coordinator is away; waiting for it …", style="yellow")
            lost = True
            await asyncio.sleep(_PAUSE)
            continue
        if lost:
            session.out.note("the coordinator is back", style="green")
            lost = False
        if cursor is None:
            session.out.note("following what happens from now on; Ctrl-C ends it", style="dim")
        cursor = found.next
        for change in found.changes:
            yield change


def _left_out(
    change: wire.TaskChange, queue: list[str] | None, state: list[str] | None, name: list[str] | None
) -> bool:
    wanted = ((change.queue, queue), (change.state, state), (change.name, name))
    return any(allowed and value not in allowed for value, allowed in wanted)


def _print(change: wire.TaskChange) -> None:
    from rich.text import Text

    attempt = f" attempt {change.attempt}" if change.attempt else ""
    reason = f" ({change.reason})" if change.reason else ""
    line = Text.assemble(
        (f"{clock(change.at)} ", "dim"),
        (f"{change.state:<10}", STYLES.get(change.state, "")),
        visible(f" {change.task_id} {change.name} [{change.queue}]{attempt}{reason}"),
    )
    console().print(line, soft_wrap=True)
