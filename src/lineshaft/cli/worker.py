"""`lineshaft worker`: execute the tasks of an App, or with `--exec` let any program execute them."""

from __future__ import annotations

import os
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lineshaft.cli.arguments import amounts_of, checked, pairs_of
from lineshaft.cli.completion import complete_queue
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.logs import LogLevel, start_logging
from lineshaft.cli.session import Session
from lineshaft.cli.trouble import Trouble
from lineshaft.values.ids import check_name

if TYPE_CHECKING:
    from lineshaft.sdk.client import Client
    from lineshaft.sdk.worker_settings import WorkerSettings

_EXEC = "Any program as a worker"


async def worker(
    session: Session,
    app: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODULE:APP]", help="The App, found from the current directory.", show_default=False
        ),
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option(
            "--queues",
            "-q",
            metavar="NAME[=N],…",
            help="From which queues, and how many of each at once [dim](else any queue)[/dim].",
            autocompletion=complete_queue,
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=10_000, help="How many tasks at once.")
    ] = 10,
    processes: Annotated[
        int, typer.Option("--processes", "-p", min=1, max=1_000, help="Supervised processes.")
    ] = 1,
    prefetch: Annotated[
        int,
        typer.Option("--prefetch", min=0, max=1_000, help="How many more tasks wait here, ready to start."),
    ] = 0,
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="DURATION", help="How long running tasks may take to finish at SIGTERM."
        ),
    ] = "30s",
    lease: Annotated[
        str | None,
        typer.Option(
            "--lease", metavar="DURATION", help="How long a silent worker keeps a task.", show_default=False
        ),
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option("--capability", help="What this worker can do (may be repeated).")
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option("--resource", metavar="NAME=AMOUNT", help="What it has, such as gpu=1 or memory=24GiB."),
    ] = None,
    worker_id: Annotated[
        str | None,
        typer.Option("--id", help="Its id [dim](else made of host and process)[/dim].", show_default=False),
    ] = None,
    push: Annotated[
        bool, typer.Option("--push/--no-push", help="Let tasks be pushed over a WebSocket.")
    ] = True,
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Start again when a source file changes.")
    ] = False,
    log_level: LogLevel = "info",
    program: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="'PROGRAM ARGS'",
            help="Payload on standard input, result on standard output; exit code 0 completes, 64 and 65 "
            "fail for good, 75 and all others are tried again.",
            show_default=False,
            rich_help_panel=_EXEC,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Only tasks of this type (may be repeated).", rich_help_panel=_EXEC),
    ] = None,
) -> None:
    """Execute tasks until SIGTERM: then finish what runs, give back the rest; at a second, end at once."""
    from lineshaft.sdk.worker_settings import worker_settings

    _refuse_contradictions(app, program, name, processes=processes, reload=reload)
    settings = checked(
        lambda: worker_settings(
            parse_queues(queues, concurrency),
            concurrency=concurrency,
            prefetch=prefetch,
            grace=grace,
            lease=lease,
            name=worker_id,
            capability=capability,
            resources=amounts_of(pairs_of(resource, "--resource")),
            push=push,
        )
    )
    start_logging(log_level, as_json=session.out.as_json)
    if reload:
        from lineshaft.cli.reloading import run_reloading

        await run_reloading(Path.cwd())
    elif program is not None:
        await _run_program(session, program, name, settings)
    else:
        assert app is not None
        await _run_app(session, app, settings, processes=processes, log_level=log_level)


def parse_queues(text: str | None, concurrency: int) -> dict[str, int] | list[str] | None:
    """Return `mail=10,default` as a mapping, `mail,default` as a list that shares the concurrency."""
    if text is None:
        return None
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not any("=" in item for item in items):
        return items
    found: dict[str, int] = {}
    for item in items:
        name, equals, number = item.partition("=")
        if equals and not number.isdigit():
            raise typer.BadParameter(
                f"{item!r}: expected NAME=N with how many at once, such as mail=10", param_hint="--queues"
            )
        found[name] = int(number) if equals else concurrency
    return found


def _refuse_contradictions(
    app: str | None, program: str | None, name: list[str] | None, *, processes: int, reload: bool
) -> None:
    if (app is None) == (program is None):
        raise typer.BadParameter("give either MODULE:APP, or --exec with a program", param_hint="MODULE:APP")
    if program is None:
        if name:
            raise typer.BadParameter(
                "goes with --exec; an App's tasks are chosen by --queues", param_hint="--name"
            )
        return
    for given, option in ((processes > 1, "--processes"), (reload, "--reload")):
        if given:
            raise typer.BadParameter(
                "has no meaning with --exec: every task is a process anyway", param_hint=option
            )


async def _run_app(
    session: Session, name: str, settings: WorkerSettings, *, processes: int, log_level: str
) -> None:
    from lineshaft.sdk.worker import Worker

    url = _tell_app(session)
    client = _load(name)
    if url is not None:
        client.served_at(url)
    try:
        if processes == 1:
            await Worker(client, settings).run(signals=True)
        else:
            await _supervise(name, client, settings, processes=processes, url=url, log_level=log_level)
    finally:
        await client.close()


def _load(name: str) -> Client:
    """Import the App. Raises Trouble (exit code 2) for a wrong name, and for whatever its module raises."""
    from lineshaft.sdk.loading import AppNotFound, load_app

    try:
        return load_app(name)
    except AppNotFound as error:
        raise Trouble(error.reason, code=ExitCode.USAGE, hint=_HOW_TO_NAME) from None
    except Exception as error:
        # From the module's own line on: how we came to import it says nothing to its author.
        frames = [
            one for one in traceback.extract_tb(error.__traceback__)[2:] if "importlib" not in one.filename
        ]
        trace = "".join(traceback.format_list(frames))
        raise Trouble(
            f"importing `{name.partition(':')[0]}` failed: {type(error).__name__}: {error}",
            code=ExitCode.USAGE,
            hint=trace.rstrip() or None,
        ) from None


_HOW_TO_NAME = "name a module and its App, such as `jobs:app`, from the directory that holds jobs.py"


def _tell_app(session: Session) -> str | None:
    """Tell an App without a URL of its own where to go; return the URL that overrides even its own."""
    source = session.source("url")
    if source != "default":
        os.environ["LINESHAFT_URL"] = session.url
    if session.api_key is not None:
        os.environ["LINESHAFT_API_KEY"] = session.api_key
    return session.url if source == "commandline" else None


async def _supervise(
    name: str, client: Client, settings: WorkerSettings, *, processes: int, url: str | None, log_level: str
) -> None:
    from lineshaft.sdk.supervisor import Supervisor

    # The store of an embedded App belongs to this process, which serves it to the others.
    async with client.serving_processes() as served:
        transport = client.open_transport()
        supervisor = Supervisor(
            name,
            settings,
            processes=processes,
            transport=transport,
            url=url or served,
            log_level=log_level.upper(),
        )
        try:
            await supervisor.run(signals=True)
        finally:
            await transport.close()


async def _run_program(
    session: Session, program: str, names: list[str] | None, settings: WorkerSettings
) -> None:
    from lineshaft.cli.program import ProgramExecutor, parse_program
    from lineshaft.sdk.client import Client
    from lineshaft.sdk.http import HttpTransport
    from lineshaft.sdk.worker import Worker

    try:
        argv = parse_program(program)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--exec") from None

    names = [checked(partial(check_name, name, field="name"), "--name") for name in names or ()]
    async with Client(lambda: HttpTransport(session.url, api_key=session.api_key)) as client:
        worker = Worker(client, settings)
        executor: Any = ProgramExecutor(argv, url=session.url, names=names or None)
        worker.executor = executor
        await worker.run(signals=True)
