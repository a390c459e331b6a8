"""`lineshaft bench`: a quick measurement, of a coordinator of its own or of one that runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from lineshaft.cli.processes import LocalCoordinator, Processes, ended_by_signals
from lineshaft.cli.session import Session

if TYPE_CHECKING:
    from rich.progress import Progress

    from lineshaft import wire
    from lineshaft.cli.measuring import Bench, Figure, Step


async def bench(
    session: Session,
    tasks: Annotated[
        int,
        typer.Option("--tasks", "-n", min=500, help="How many tasks go through in bulk; a tenth one by one."),
    ] = 20_000,
    connections: Annotated[
        int, typer.Option("--connections", "-c", min=1, max=1_000, help="Requests at once, one by one.")
    ] = 32,
) -> None:
    """Measure enqueues, drain and latencies: of a temporary coordinator, or with --url of that one."""
    with ended_by_signals():
        if session.source("url") != "default":
            await _measure(session, session.url, tasks, connections)
            return
        with Processes() as processes:
            local = LocalCoordinator(processes)
            await local.start()
            await _measure(session, local.url, tasks, connections)


async def _measure(session: Session, url: str, tasks: int, connections: int) -> None:
    from lineshaft import wire
    from lineshaft.cli.measuring import Bench
    from lineshaft.sdk.http import HttpTransport

    # Repeated while measuring, since a full coordinator says 429; but not before we know that there is one.
    at_once = HttpTransport(url, api_key=session.api_key, retry_for=0)
    transport = HttpTransport(url, api_key=session.api_key, retry_for=10)
    try:
        stats: wire.Stats = await at_once.call(wire.CALLS["stats"])
        bench = Bench(transport, connections=connections)
        with session.out.progress() as progress:
            figures = await _all(bench, progress, tasks)
        await bench.clean_up()
    finally:
        await at_once.close()
        await transport.close()
    _show(session, stats, figures)


async def _all(bench: Bench, progress: Progress, tasks: int) -> list[Figure]:
    from lineshaft.cli.measuring import SAMPLES

    singles, bulk = tasks // 10, tasks // 500 * 500

    async def measure(name: str, total: int, run: Callable[[Step], Awaitable[Figure]]) -> Figure:
        bar = progress.add_task(name, total=total)
        figure = await run(lambda count: progress.advance(bar, count))
        progress.remove_task(bar)
        return figure

    return [
        await measure("pick-up", SAMPLES, bench.pick_up),
        await measure("round trip", SAMPLES, bench.round_trip),
        await measure("enqueue", singles, lambda step: bench.enqueue(singles, step)),
        await measure("bulk enqueue", bulk, lambda step: bench.bulk(bulk, step)),
        await measure("drain", singles + bulk, lambda step: bench.drain(singles + bulk, step)),
    ]


def _show(session: Session, stats: wire.Stats, figures: list[Figure]) -> None:
    if session.out.as_json:
        session.out.document(
            {"store": stats.store, "tier": stats.tier, "version": stats.version, "figures": figures}
        )
        return
    session.out.say(f"{stats.store} (survives: {stats.tier}), lineshaft {stats.version}")
    rows = [
        (
            figure.name,
            figure.count,
            None if figure.per_second is None else f"{figure.per_second:.0f}",
            *(None if ms is None else f"{ms:.2f}" for ms in (figure.p50_ms, figure.p99_ms, figure.worst_ms)),
        )
        for figure in figures
    ]
    session.out.table(("measured~", "count#?", "per second#", "p50 ms#", "p99 ms#", "worst ms#"), rows)
    session.out.note("one Python client on the same machine: a floor, not the limit", style="dim")
