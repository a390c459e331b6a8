"""`lineshaft serve`: the coordinator."""

from __future__ import annotations

from typing import Annotated

import typer

from lineshaft.cli.arguments import seconds_of
from lineshaft.cli.logs import LogLevel, start_logging
from lineshaft.cli.session import Session


async def serve(
    session: Session,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="LINESHAFT_STORE",
            metavar="URL",
            help="sqlite:///jobs.db (relative), sqlite:////srv/jobs.db (absolute), memory:// (forgets).",
        ),
    ] = "memory://",
    listen: Annotated[
        str,
        typer.Option(
            "--listen", envvar="LINESHAFT_LISTEN", metavar="HOST:PORT", help="Port 0 takes any free one."
        ),
    ] = "127.0.0.1:7077",
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen beyond this machine although there is no API key."),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host", metavar="NAME", help="Also serve this `Host` (may be repeated; * serves all)."
        ),
    ] = None,
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="DURATION", help="How long requests may take to finish at SIGTERM."),
    ] = "10s",
    log_level: LogLevel = "info",
) -> None:
    """Run a coordinator until SIGTERM or Ctrl-C."""
    from lineshaft.server.serve import serve as run
    from lineshaft.server.settings import ServerSettings

    settings = ServerSettings(
        store=store,
        listen=listen,
        allowed_hosts=tuple(allowed_host or ()),
        insecure=insecure,
        grace=seconds_of(grace, "--grace"),
    )
    start_logging(log_level, as_json=session.out.as_json)
    await run(settings)
