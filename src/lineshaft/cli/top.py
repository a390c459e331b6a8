"""`lineshaft top`: what the coordinator does right now, in one screen."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated, NoReturn

import msgspec
import typer

from lineshaft import wire
from lineshaft.cli.arguments import seconds_of
from lineshaft.cli.exits import ExitCode
from lineshaft.cli.output import console
from lineshaft.cli.session import Session
from lineshaft.cli.trouble import judge
from lineshaft.errors import LineshaftError

RATES = ("enqueued", "started", "completed", "failed", "retried", "lost")
SHOWN = 10
"""Running tasks on the screen."""
FAILED = 5


class Snapshot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Everything on the screen; `rates` are per second since the snapshot before, absent in the first."""

    stats: wire.Stats
    queues: list[wire.Queue]
    workers: list[wire.WorkerInfo]
    running: list[wire.Task]
    failed: list[wire.Task]
    rates: dict[str, float] | None = None


async def top(
    session: Session,
    interval: Annotated[
        str, typer.Option("--interval", "-i", metavar="DURATION", help="How often the view is renewed.")
    ] = "1s",
    once: Annotated[
        bool,
        typer.Option("--once", help="Show it once and end, as without a terminal; with --json one document."),
    ] = False,
) -> ExitCode:
    """Watch queues, workers and tasks until Ctrl-C; with --json one snapshot a line."""
    pause = max(0.1, seconds_of(interval, "--interval"))
    watch = Watch(session)
    # A pipe has no use for a screen that is drawn again, and a dumb terminal cannot.
    can_live = sys.stdout.isatty() and not console().is_dumb_terminal
    if once or not (session.out.as_json or can_live):
        snapshot = await watch.take()
        if session.out.as_json:
            session.out.document(snapshot)
        else:
            from lineshaft.cli.screen import view

            session.out.show(view(session.url, snapshot))
        return ExitCode.OK
    if session.out.as_json:
        while True:
            session.out.line(await watch.take())
            await asyncio.sleep(pause)
    return await _live(session, watch, pause)


class Watch:
    """Takes snapshots, each with the rates since the one before."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._totals: dict[str, int] | None = None
        self._taken_at = 0.0

    async def take(self) -> Snapshot:
        """Take one."""
        session = self._session
        stats, queues, workers, running, failed = await asyncio.gather(
            session.call("stats", timeout=5),
            session.call("queues", timeout=5),
            session.call("workers", timeout=5),
            session.call(
                "search", body=wire.Search(state="running", sort="created_at", limit=SHOWN), timeout=5
            ),
            session.call(
                "search", body=wire.Search(state="failed", sort="-finished_at", limit=FAILED), timeout=5
            ),
        )
        return Snapshot(
            stats=stats,
            queues=queues.queues,
            workers=workers.workers,
            running=running.tasks,
            failed=failed.tasks,
            rates=self._rates(stats.totals),
        )

    def _rates(self, totals: dict[str, int]) -> dict[str, float] | None:
        now = time.monotonic()
        before, self._totals = self._totals, totals
        passed, self._taken_at = now - self._taken_at, now
        # Totals begin anew with the coordinator; a rate across its restart would be negative.
        if before is None or any(totals.get(name, 0) < before.get(name, 0) for name in RATES):
            return None
        return {name: round((totals.get(name, 0) - before.get(name, 0)) / passed, 1) for name in RATES}


async def _live(session: Session, watch: Watch, pause: float) -> NoReturn:
    from rich.live import Live
    from rich.text import Text

    from lineshaft.cli.screen import live_view

    screen = console()
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        answered = False
        while True:
            try:
                snapshot = await watch.take()
                answered = True
                live.update(live_view(session.url, snapshot, screen), refresh=True)
            except LineshaftError as error:
                verdict = judge(error, url=session.url)
                passing = verdict.code in (ExitCode.UNREACHABLE, ExitCode.UNAVAILABLE)
                if not answered or not passing:
                    raise
                live.update(Text(f"{verdict.reason}; waiting for it …", style="yellow"), refresh=True)
            await asyncio.sleep(pause)
