"""Who is measured: how each is run, with which settings, and what its 2xx or `enqueue()` survives."""

from __future__ import annotations

import msgspec

POWER_LOSS = "power loss"
NOTHING = "nothing"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the tables.

    `runs` is the module (or for `node` the file) that drives it. `drain` is how many tasks its drain has, about
    three seconds' worth on two cores. `source` is where its documentation speaks of the settings.
    """

    key: str
    title: str
    runs: str
    interpreter: str = "peers"
    arguments: tuple[str, ...] = ()
    server: str | None = None
    drain: int
    survives: str
    settings: str
    source: str = ""
    once: bool = False


OWN = (
    Contender(
        key="lineshaft",
        title="Lineshaft",
        runs="bench.own.sdk",
        interpreter="own",
        drain=40_000,
        survives=POWER_LOSS,
        settings="`lineshaft serve` on SQLite (synchronous=FULL), Python SDK over HTTP, worker with 200 at once "
        "and 200 prefetched, bulk in batches of 100",
        source="docs/performance.md",
    ),
    Contender(
        key="lineshaft-embedded",
        title="Lineshaft, embedded",
        runs="bench.own.sdk",
        arguments=("embedded",),
        interpreter="own",
        drain=40_000,
        survives=POWER_LOSS,
        settings='`App("sqlite:///…")`: client, coordinator and worker in one process',
        source="docs/performance.md",
    ),
    Contender(
        key="lineshaft-protocol",
        title="Lineshaft, raw client",
        runs="bench.own.protocol",
        interpreter="own",
        drain=40_000,
        survives=POWER_LOSS,
        settings="prepared requests over plain sockets, one process; drain by `_report` with claim, 100 a request, "
        "4 connections",
        source="docs/protocol.md",
    ),
    Contender(
        key="lineshaft-standing",
        title="Lineshaft, standing",
        runs="bench.own.standing",
        interpreter="own",
        drain=0,
        survives=POWER_LOSS,
        settings="a coordinator that does nothing; one with a long queue of tasks of 1 KB",
        source="docs/performance.md",
        once=True,
    ),
)

PEERS: tuple[Contender, ...] = ()

ALL = OWN + PEERS
