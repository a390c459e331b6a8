"""`lineshaft enqueue`: one task from the command line, with its result if wanted."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from lineshaft.cli.arguments import Wait, WaitFor, amounts_of, pairs_of, payload_of, seconds_of, spelled
from lineshaft.cli.completion import complete_queue
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.session import Session
from lineshaft.cli.spans import between, span
from lineshaft.cli.tasks import error_text
from lineshaft.cli.waiting import exit_code, wait_for_end
from lineshaft.values.durations import parse_duration
from lineshaft.values.ids import TimeOrderedIds, check_name, check_task_id
from lineshaft.values.instants import parse_instant

if TYPE_CHECKING:
    from lineshaft import wire

_PANEL = "How it runs"


_CHECKS = {"DURATION": parse_duration, "INSTANT": parse_instant}
"""What an option with that metavar must be."""


def _option(name: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:
    check = _CHECKS.get(metavar or "")
    option: typer.models.OptionInfo = typer.Option(
        name,
        help=help,
        metavar=metavar,
        show_default=False,
        rich_help_panel=_PANEL,
        callback=check and spelled(check, name.removeprefix("--").replace("-", "_")),
    )
    return option


async def enqueue(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The type of the task.",
            show_default=False,
            callback=spelled(check_name, "name"),
        ),
    ],
    payload: Annotated[
        str, typer.Argument(metavar="[JSON]", help="Its payload; - reads standard input, @FILE a file.")
    ] = "null",
    task_id: Annotated[
        str | None,
        typer.Option(
            "--task-id",
            help="Its id: the same id again enqueues nothing.",
            show_default=False,
            callback=spelled(check_task_id, "task_id"),
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            "-q",
            help="Its queue.",
            show_default="default",
            autocompletion=complete_queue,
            callback=spelled(check_name, "queue"),
        ),
    ] = None,
    delay: Annotated[
        str | None, _option("--delay", "Run not before so long from now, such as 10m.", "DURATION")
    ] = None,
    run_at: Annotated[
        str | None, _option("--run-at", "Run not before this instant (RFC 3339).", "INSTANT")
    ] = None,
    expires_at: Annotated[
        str | None, _option("--expires-at", "Cancel it where it has not started by then.", "INSTANT")
    ] = None,
    priority: Annotated[int | None, _option("--priority", "Lower runs first.")] = None,
    timeout: Annotated[str | None, _option("--timeout", "End an attempt after so long.", "DURATION")] = None,
    lease: Annotated[str | None, _option("--lease", "How long a silent worker keeps it.", "DURATION")] = None,
    max_retries: Annotated[
        int | None, _option("--max-retries", "How many attempts may follow the first.")
    ] = None,
    tag: Annotated[list[str] | None, _option("--tag", "A tag (may be repeated).")] = None,
    capability: Annotated[
        list[str] | None, _option("--capability", "What its worker must have (may be repeated).")
    ] = None,
    resource: Annotated[
        list[str] | None, _option("--resource", "What it takes of its worker, such as gpu=1.", "NAME=AMOUNT")
    ] = None,
    wait: Wait = False,
    wait_for: WaitFor = None,
) -> ExitCode:
    """Enqueue a task, and print its id; with --wait its result (exit code 1 where it does not complete)."""
    from lineshaft import wire

    limit = None if wait_for is None else seconds_of(wait_for, "--wait-for")
    resources = pairs_of(resource, "--resource")
    needs = (
        wire.WorkerAffinity(capability=capability, resources=amounts_of(resources))
        if capability or resources
        else None
    )
    body = wire.Enqueue(
        name=name,
        payload=msgspec.Raw(payload_of(payload)),
        # An id of our own, so that the request may be repeated after an unknown outcome.
        task_id=task_id or new_id(),
        queue=queue,
        delay=delay,
        run_at=run_at,
        expires_at=expires_at,
        priority=priority,
        timeout=timeout,
        lease=lease,
        max_retries=max_retries,
        tags=tag,
        worker_affinity=needs,
    )
    answer: wire.Enqueued = await session.call("enqueue", body=body)
    if not answer.created:
        session.out.note(f"{answer.task_id} was there already ({answer.state})", style="yellow")
    if wait or wait_for is not None:
        return await _await(session, answer.task_id, limit)
    if session.out.as_json:
        session.out.document(answer)
    else:
        session.out.say(answer.task_id)
    return ExitCode.OK


def new_id() -> str:
    """Make an id that sorts by time."""
    return TimeOrderedIds(random.getrandbits).next(time.time_ns() // 1_000_000)


async def _await(session: Session, task_id: str, limit: float | None) -> ExitCode:
    with session.out.progress() as progress:
        progress.add_task(f"waiting for {task_id}", total=None)
        task = await wait_for_end(session, task_id, limit, answered=True)
    show_result(session, task)
    return exit_code(task)


def show_result(session: Session, task: wire.Task) -> None:
    """Print the result of a task that has ended: to standard output only where it completed."""
    if session.out.as_json:
        session.out.document(task)
        return
    took = span(between(task.created_at, task.finished_at))
    if task.state == "completed":
        session.out.note(f"{task.task_id} completed after {took}", style="green")
        result = b"null" if task.result is msgspec.UNSET else bytes(task.result)
        session.out.say(result.decode("utf-8", "replace"))
        return
    why = f": {error_text(task.error)}" if task.error is not None else ""
    session.out.note(f"{task.task_id} {task.state} after {took}, attempt {task.attempt}{why}", style="red")
