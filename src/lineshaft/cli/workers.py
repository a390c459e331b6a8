"""`lineshaft workers`: who works, on what, and how to let one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.commands import command
from lineshaft.cli.completion import complete_worker
from lineshaft.cli.session import Session
from lineshaft.cli.spans import ago

if TYPE_CHECKING:
    from lineshaft import wire

app = typer.Typer(help="See workers, and let them go.", no_args_is_help=False)


async def list_workers(session: Session) -> None:
    """List the workers seen lately, and how many tasks each holds."""
    answer: wire.WorkerList = await session.call("workers")
    if session.out.as_json:
        session.out.document(answer)
    else:
        rows = [row(worker) for worker in answer.workers]
        session.out.table(
            COLUMNS, rows, empty="no worker has been seen lately; start one with `lineshaft worker`"
        )


command(app, "", group=True)(list_workers)
command(app, "list")(list_workers)


@command(app, "drain")
async def drain(
    session: Session,
    worker: Annotated[
        str,
        typer.Argument(metavar="WORKER", help="Its id.", autocompletion=complete_worker, show_default=False),
    ],
    incarnation: Annotated[
        str | None, typer.Option("--incarnation", help="Only this run of it.", show_default=False)
    ] = None,
) -> None:
    """Let a worker finish what it holds and claim no more."""
    from lineshaft import wire

    answer: wire.WorkerInfo = await session.call("drain", id=worker, body=wire.Drain(incarnation=incarnation))
    if session.out.as_json:
        session.out.document(answer)
    else:
        session.out.say(f"{worker} claims no more and finishes what it holds ({answer.held})")


COLUMNS = ("worker", "held#", "state", "queues~", "declares~?", "host?", "pid#?", "seen#")


def row(worker: wire.WorkerInfo) -> tuple[object, ...]:
    """Return a worker as a row under `COLUMNS`."""
    takes = ", ".join(worker.queues or worker.names or ()) or "any"
    state = (
        "draining" if worker.draining else "waiting" if worker.waiting else "busy" if worker.held else "idle"
    )
    return (
        worker.worker_id,
        worker.held,
        state,
        takes,
        _declares(worker),
        worker.host,
        worker.pid,
        ago(worker.seen_at),
    )


def _declares(worker: wire.WorkerInfo) -> str | None:
    amounts = [f"{name} {worker.free.get(name, 0):g}/{amount:g}" for name, amount in worker.resources.items()]
    return ", ".join([*worker.capabilities, *amounts]) or None
