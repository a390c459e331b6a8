"""Who is measured: how each is run, with which settings, and what its 2xx or `enqueue()` survives."""

from __future__ import annotations

import msgspec

POWER_LOSS = "power loss"
NOTHING = "nothing"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the tables.

    `runs` is the class, module or (for `node`) file that drives it. `drain` is how many tasks its drain has,
    about three seconds' worth on two cores. `source` is where its documentation speaks of the settings.
    """

    key: str
    title: str
    runs: str
    interpreter: str = "peers"
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
        runs="bench.own.sdk:OverHTTP",
        interpreter="own",
        drain=40_000,
        survives=POWER_LOSS,
        settings="`lineshaft serve` on SQLite (synchronous=FULL), Python SDK over HTTP, worker with 500 at "
        "once, bulk in batches of 1,000 (as all that have one)",
        source="docs/performance.md",
    ),
    Contender(
        key="lineshaft-embedded",
        title="Lineshaft, embedded",
        runs="bench.own.sdk:Embedded",
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
        settings="prepared requests over plain sockets, one process; drain by `_report` with claim, 100 a "
        "request, 8 connections",
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

VALKEY = "Valkey without persistence"
POSTGRES = "PostgreSQL as it comes (fsync and synchronous_commit on)"

PEERS = (
    Contender(
        key="celery",
        title="Celery",
        runs="bench.peers.celery_jobs:Celery",
        server="valkey",
        drain=5_000,
        survives=NOTHING,
        settings=f"{VALKEY}; `--pool=solo`, prefetch multiplier 128, no results but in the round trip, no "
        "events, no gossip, a pool of 64 connections",
        source="https://docs.celeryq.dev/en/stable/userguide/optimizing.html",
    ),
    Contender(
        key="dramatiq",
        title="Dramatiq",
        runs="bench.peers.dramatiq_jobs:Dramatiq",
        server="valkey",
        drain=5_000,
        survives=NOTHING,
        settings=f"{VALKEY}; one process of 8 threads (the default), results only in the round trip",
        source="https://dramatiq.io/advanced.html",
    ),
    Contender(
        key="huey",
        title="Huey",
        runs="bench.peers.huey_jobs:Huey",
        server="valkey",
        drain=20_000,
        survives=NOTHING,
        settings=f"{VALKEY}; `RedisHuey` that blocks and notifies of results, one worker thread",
        source="https://huey.readthedocs.io/en/latest/api.html",
    ),
    Contender(
        key="huey-sqlite",
        title="Huey on SQLite",
        runs="bench.peers.huey_jobs:Huey",
        drain=10_000,
        survives=POWER_LOSS,
        settings="`SqliteHuey(fsync=True)`, one worker thread that polls every 5 ms",
        source="https://huey.readthedocs.io/en/latest/api.html",
    ),
    Contender(
        key="saq",
        title="saq",
        runs="bench.peers.saq_jobs:Saq",
        server="valkey",
        drain=5_000,
        survives=NOTHING,
        settings=f"{VALKEY}; hiredis, 10 at once (100 are no faster), results asked for every 0.5 ms",
        source="https://saq-py.readthedocs.io/en/latest/",
    ),
    Contender(
        key="rq",
        title="RQ",
        runs="bench.peers.rq_jobs:Rq",
        server="valkey",
        drain=2_000,
        survives=NOTHING,
        settings=f"{VALKEY}; hiredis, `SimpleWorker` (does not fork), results only in the round trip",
        source="https://python-rq.org/docs/workers/",
    ),
    Contender(
        key="bullmq",
        title="BullMQ",
        runs="bullmq.mjs",
        interpreter="node",
        server="valkey",
        drain=50_000,
        survives=NOTHING,
        settings=f"{VALKEY}; 100 at once, finished jobs removed",
        source="https://docs.bullmq.io/guide/workers/concurrency",
    ),
    Contender(
        key="bullmq-durable",
        title="BullMQ, durable",
        runs="bullmq.mjs",
        interpreter="node",
        server="valkey-always",
        drain=20_000,
        survives=POWER_LOSS,
        settings="Valkey with `appendonly yes`, `appendfsync always`; else the same",
        source="https://docs.bullmq.io/guide/going-to-production",
    ),
    Contender(
        key="graphile",
        title="Graphile Worker",
        runs="graphile.mjs",
        interpreter="node",
        server="postgres",
        drain=50_000,
        survives=POWER_LOSS,
        settings=f"{POSTGRES}; 24 at once, local queue of 500, completions in batches",
        source="https://worker.graphile.org/docs/performance",
    ),
    Contender(
        key="pgboss",
        title="pg-boss",
        runs="pgboss.mjs",
        interpreter="node",
        server="postgres",
        drain=20_000,
        survives=POWER_LOSS,
        settings=f"{POSTGRES}; `work` in batches of 1,000, polled every 0.5 s (the least that it takes)",
        source="https://timgit.github.io/pg-boss/",
    ),
    Contender(
        key="procrastinate",
        title="Procrastinate",
        runs="bench.peers.procrastinate_jobs:Procrastinate",
        server="postgres",
        drain=1_000,
        survives=POWER_LOSS,
        settings=f"{POSTGRES}; 20 at once, listens, finished jobs deleted",
        source="https://procrastinate.readthedocs.io/en/stable/howto/production/tuning.html",
    ),
)

ALL = OWN + PEERS
