"""`lineshaft tasks`: find tasks, look into one, change it, follow them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from lineshaft.cli.arguments import Name, Queue, State, Tag, TaskId, Text, Wait, WaitFor, seconds_of
from lineshaft.cli.commands import command
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.session import Session
from lineshaft.cli.spans import ago, between, clock, span
from lineshaft.cli.waiting import exit_code, wait_for_end

if TYPE_CHECKING:
    from lineshaft import wire
    from lineshaft.wire import tasks as wire_tasks

app = typer.Typer(help="Find tasks, look into one, change it, follow them all.", no_args_is_help=True)

PAGE = 1000


@command(app, "list")
async def list_tasks(
    session: Session,
    queue: Queue = None,
    state: State = None,
    name: Name = None,
    tag: Tag = None,
    text: Text = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort", help="created_at, run_at, finished_at or priority; - before it for descending."
        ),
    ] = "-created_at",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=PAGE, help="At most so many.")] = 50,
    after: Annotated[
        str | None, typer.Option("--after", help="Cursor of the next page.", show_default=False)
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All pages; with --json one task a line.")
    ] = False,
) -> None:
    """Find tasks, the newest first."""
    from lineshaft import wire

    search = wire.Search(
        queue=queue,
        state=state,
        name=name,
        tag=tag,
        q=text,
        sort=sort,
        limit=PAGE if everything else limit,
        after=after,
    )
    if everything and session.out.as_json:
        async for task in find_all(session, search):
            session.out.line(task)
    elif everything:
        session.out.table(COLUMNS, [row(task) async for task in find_all(session, search)], empty=NO_TASKS)
    else:
        await _one_page(session, search)


async def find_all(session: Session, search: wire.Search) -> AsyncIterator[wire.Task]:
    """Yield every task of a search, page after page."""
    while True:
        page: wire.TaskPage = await session.call("search", body=search)
        for task in page.tasks:
            yield task
        if page.next is None:
            return
        search = msgspec.structs.replace(search, after=page.next)


async def _one_page(session: Session, search: wire.Search) -> None:
    page: wire.TaskPage = await session.call("search", body=search)
    if session.out.as_json:
        session.out.document(page)
        return
    session.out.table(COLUMNS, [row(task) for task in page.tasks], empty=NO_TASKS)
    if page.next is not None:
        session.out.note(f"there are more: --after {page.next}, or --all", style="dim")


COLUMNS = ("id", "name~", "queue?", "state", "attempt#", "created#", "took#?")
NO_TASKS = "no task matches"


def row(task: wire.Task) -> tuple[object, ...]:
    """Return a task as a row under `COLUMNS`."""
    attempts = f"{task.attempt}/{task.max_retries + 1}"
    took = span(between(task.started_at, task.finished_at))
    return (task.task_id, task.name, task.queue, task.state, attempts, ago(task.created_at), took)


@command(app, "get")
async def get(session: Session, task_id: TaskId, wait: Wait = False, wait_for: WaitFor = None) -> ExitCode:
    """Show a task; with --wait once it has ended (exit code 1 where it did not complete)."""
    if not wait and wait_for is None:
        show_task(session, await session.call("get", id=task_id))
        return ExitCode.OK
    limit = None if wait_for is None else seconds_of(wait_for, "--wait-for")
    task = await wait_for_end(session, task_id, limit)
    show_task(session, task)
    return exit_code(task)


def show_task(session: Session, task: wire.Task) -> None:
    """Print everything that is known of a task."""
    if session.out.as_json:
        session.out.document(task)
        return
    fields: dict[str, Any] = msgspec.structs.asdict(task)
    del fields["attempts"]
    fields["progress"] = _progress(task.progress)
    fields |= _error(task)
    for name in ("lease", "timeout", "retention", "result_ttl"):
        fields[name] = span(fields[name])
    session.out.pairs((name, _shown(value)) for name, value in fields.items() if _is_there(name, value))
    if task.attempts:
        _attempts(session, task.attempts)


def _error(task: wire.Task) -> dict[str, Any]:
    """Show an error's stack in lines of its own."""
    error = None if task.error is None else msgspec.json.decode(task.error)
    if not isinstance(error, dict) or not isinstance(error.get("stack"), str):
        return {}
    stack = error.pop("stack")
    return {"error": msgspec.Raw(msgspec.json.encode(error)), "stack": stack.rstrip()}


def _is_there(name: str, value: Any) -> bool:
    """Tell whether there is something to show; that a payload or a result is null says something."""
    if isinstance(value, msgspec.Raw) and name not in ("payload", "result"):
        return bytes(value) != b"null"
    return value not in (None, msgspec.UNSET, [])


def _progress(progress: wire_tasks.ProgressInfo | None) -> str | None:
    if progress is None or progress.done is None:
        return None
    total = f" of {progress.total:g}" if progress.total is not None else ""
    return f"{progress.done:g}{total}" + (f" ({progress.message})" if progress.message else "")


def _shown(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value).decode()
    return str(value)


def _attempts(session: Session, attempts: list[wire.AttemptInfo]) -> None:
    rows = [
        (
            attempt.attempt if attempt.generation == 1 else f"{attempt.attempt} (gen. {attempt.generation})",
            attempt.outcome or "running",
            attempt.worker_id,
            clock(attempt.started_at or attempt.claimed_at),
            span(between(attempt.started_at or attempt.claimed_at, attempt.ended_at)),
            None if attempt.error is None else error_text(attempt.error),
        )
        for attempt in attempts
    ]
    session.out.table(("attempt#", "outcome", "worker?", "started", "took#", "error~"), rows)


def error_text(raw: msgspec.Raw) -> str:
    """Return a task's error as `type: message`."""
    try:
        error = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return bytes(raw).decode("utf-8", "replace")
    if not isinstance(error, dict):
        return str(error)
    return ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))


@command(app, "explain")
async def explain(session: Session, task_id: TaskId) -> None:
    """Say why a task is not running."""
    answer: wire.Explanation = await session.call("explain", id=task_id)
    if session.out.as_json:
        session.out.document(answer)
        return
    session.out.say(f"{answer.task_id} is {answer.state}")
    for reason in answer.reasons:
        until = f" (until {reason.until}, {ago(reason.until)})" if reason.until else ""
        missing = f" (missing: {', '.join(reason.missing)})" if reason.missing else ""
        session.out.say(f"  {reason.code}: {reason.detail}{until}{missing}")
    if answer.ahead:
        session.out.say(
            f"  about {answer.ahead} {'task' if answer.ahead == 1 else 'tasks'} of its queue go first"
        )


@command(app, "history")
async def history(session: Session, task_id: TaskId) -> None:
    """Tell what happened to a task, from its enqueue on."""
    answer: wire.History = await session.call("history", id=task_id)
    if session.out.as_json:
        session.out.document(answer)
        return
    if answer.dropped_attempts:
        older = answer.dropped_attempts
        what = "1 older attempt is" if older == 1 else f"{older} older attempts are"
        session.out.note(f"{what} only counted", style="dim")
    rows = [
        (clock(event.at), event.event, event.attempt or None, event.worker_id, event.reason)
        for event in answer.events
    ]
    session.out.table(("at", "event", "attempt#", "worker?", "reason~"), rows)
