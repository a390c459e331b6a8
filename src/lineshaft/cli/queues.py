"""`lineshaft queues`: see queues, and stop or start what goes in and comes out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.commands import command
from lineshaft.cli.completion import complete_queue
from lineshaft.cli.session import Session
from lineshaft.cli.spans import span

if TYPE_CHECKING:
    from lineshaft import wire

app = typer.Typer(help="See queues; pause, resume, close and open them.", no_args_is_help=True)

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="QUEUE…", help="One or more queues.", autocompletion=complete_queue, show_default=False
    ),
]


@command(app, "list")
async def list_queues(session: Session) -> None:
    """List the queues with their backlog, and how long the oldest task has waited."""
    answer: wire.QueueList = await session.call("queues")
    if session.out.as_json:
        session.out.document(answer)
    else:
        session.out.table(
            COLUMNS, [row(queue) for queue in answer.queues], empty="no queue has been named yet"
        )


@command(app, "pause")
async def pause(session: Session, queues: Names) -> None:
    """Let no more tasks be claimed; what runs goes on."""
    await _each(session, "pause_queue", queues, "paused")


@command(app, "resume")
async def resume(session: Session, queues: Names) -> None:
    """Let tasks be claimed again."""
    await _each(session, "resume_queue", queues, "resumed")


@command(app, "close")
async def close(session: Session, queues: Names) -> None:
    """Refuse new tasks; what is there goes on."""
    await _each(session, "close_queue", queues, "closed")


@command(app, "open")
async def open_again(session: Session, queues: Names) -> None:
    """Take new tasks again."""
    await _each(session, "open_queue", queues, "opened")


COLUMNS = (
    "queue",
    "backlog#",
    "running#",
    "scheduled#?",
    "completed#?",
    "failed#?",
    "oldest#?",
    "workers#?",
    "state",
)


def row(queue: wire.Queue) -> tuple[object, ...]:
    """Return a queue as a row under `COLUMNS`."""
    counts = queue.counts
    shown = [counts.get(state, 0) for state in ("scheduled", "completed", "failed")]
    oldest = span(queue.oldest_age) if queue.backlog else None
    return (queue.queue, queue.backlog, queue.running, *shown, oldest, queue.workers, _state(queue))


def _state(queue: wire.Queue) -> str:
    words = [word for word, holds in (("paused", queue.paused), ("closed", queue.closed)) if holds]
    return ", ".join(words) or "open"


async def _each(session: Session, call: str, queues: list[str], done: str) -> None:
    from lineshaft import wire

    for name in queues:
        answer: wire.Queue = await session.call(call, id=name, body=wire.Nothing())
        if session.out.as_json:
            session.out.line(answer)
        else:
            session.out.say(f"{done} {name} ({answer.backlog} waiting, {answer.running} running)")
