"""`lineshaft serve`: the coordinator."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.arguments import seconds_of
from lineshaft.cli.logs import LogLevel, start_logging
from lineshaft.cli.session import Session
from lineshaft.cli.version import version

if TYPE_CHECKING:
    from lineshaft.server.serve import Coordinator


async def serve(
    session: Session,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="LINESHAFT_STORE",
            metavar="URL",
            help="sqlite:///jobs.db (relative), sqlite:////srv/jobs.db (absolute), memory:// (forgets), "
            "postgresql://…, redis://… or valkey://…, elasticsearch://… or opensearch://….",
        ),
    ] = "sqlite:///lineshaft.db",
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
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar="LINESHAFT_ADDRESS",
            metavar="URL",
            help="Where other coordinators on the same store reach this one (http://HOST:PORT); default: "
            "where it listens.",
            show_default=False,
        ),
    ] = None,
    ownership_lease: Annotated[
        str,
        typer.Option(
            "--ownership-lease",
            metavar="DURATION",
            help="How long other coordinators wait for this one before they take its shards over.",
        ),
    ] = "5s",
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
        address=address,
        ownership_lease=seconds_of(ownership_lease, "--ownership-lease"),
        grace=seconds_of(grace, "--grace"),
    )
    start_logging(log_level, as_json=session.out.as_json)
    # Uvicorn's lines about itself say nothing that ours does not; the store's client tells of every request.
    for talkative in ("uvicorn.error", "elastic_transport"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    logging.getLogger("elastic_transport.node_pool").addFilter(_is_news)

    def announce(coordinator: Coordinator) -> None:
        if session.out.as_json:
            session.out.line(_described(coordinator))
        else:
            session.out.say(coordinator.startup_line)

    await run(settings, announce=announce)


def _is_news(record: logging.LogRecord) -> bool:
    """Tell that a node of the cluster is gone when it goes, not with each request that finds it gone."""
    times = record.args[1] if isinstance(record.args, tuple) and len(record.args) == 3 else 1
    return times == 1


def _described(coordinator: Coordinator) -> dict[str, object]:
    store, membership = coordinator.engine.store, coordinator.engine.membership
    shared = (
        {}
        if membership is None
        else {"address": coordinator.engine.address, "coordinators": len(membership.roster.members)}
    )
    return {
        "url": coordinator.url,
        "store": store.url,
        "tier": store.tier,
        "version": version(),
        "pid": os.getpid(),
        **shared,
    }
