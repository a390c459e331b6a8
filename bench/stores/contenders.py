"""What is measured on the stores: Lineshaft on each, bare stores, and who else runs on the same servers."""

from __future__ import annotations

import msgspec

from bench.contenders import NOTHING, PEERS, POWER_LOSS, Contender

SERVERS = {
    "memory": "memory",
    "sqlite": "SQLite",
    "opensearch": "OpenSearch",
    "postgres": "PostgreSQL",
    "valkey-always": "Valkey",
    "valkey": "Valkey, no fsync",
}
"""How the tables call what a contender runs on."""

SETTINGS = {
    "memory": "`memory://`",
    "sqlite": "SQLite in WAL mode, synchronous=FULL",
    "opensearch": "one node of OpenSearch with a heap of 1 GB, fsync of the translog with each request",
    "postgres": "PostgreSQL as it comes (fsync and synchronous_commit on)",
    "valkey-always": "Valkey with `appendonly yes`, `appendfsync always`",
}
SHARED = ("opensearch", "postgres", "valkey-always")


def on(contender: Contender) -> str:
    """Return what a contender runs on, as a key of SERVERS."""
    return contender.server or "sqlite"


def _own(kind: str, where: str, drain: int, *, once: bool = False) -> Contender:
    runs, title, how = {
        "raw": ("bench.own.protocol", "Lineshaft, raw client", "prepared requests over plain sockets"),
        "sdk": ("bench.own.sdk:OverHTTP", "Lineshaft, Python worker", "the SDK over HTTP, 500 at once"),
        "bare": ("bench.stores.bare", "Bare commits", "one writer, one commit after the other"),
        "standing": ("bench.stores.standing", "Lineshaft, standing", "tasks of 100 bytes"),
    }[kind]
    return Contender(
        key=f"{kind}-{where}",
        title=title,
        runs=runs,
        interpreter="own",
        server=None if where == "sqlite" else where,
        drain=drain,
        survives=NOTHING if where == "memory" else POWER_LOSS,
        settings=f"{SETTINGS[where]}; {how}",
        source="docs/performance.md",
        once=once,
    )


RAW = tuple(
    _own("raw", where, drain)
    for where, drain in (
        ("memory", 40_000),
        ("sqlite", 40_000),
        ("opensearch", 20_000),
        ("postgres", 40_000),
        ("valkey-always", 40_000),
    )
)
SDK = tuple(
    _own("sdk", where, drain) for where, drain in (("sqlite", 40_000), *((one, 20_000) for one in SHARED))
)
BARE = tuple(_own("bare", where, 0) for where in ("sqlite", *SHARED))
STANDING = tuple(_own("standing", where, 0, once=True) for where in ("memory", "sqlite", *SHARED))

OBVIOUS = tuple(
    Contender(
        key=f"obvious-{order}",
        title=f"Obvious mapping, {order.replace('-', ' ')}",
        runs=f"bench.stores.obvious:{name}",
        interpreter="own",
        server="opensearch",
        drain=drain,
        survives=POWER_LOSS,
        settings="a document a job, 16 workers in one process that `_search` for queued ones and `_update` "
        f"with `if_seq_no`; {how}",
        source="docs/performance.md",
    )
    for order, name, drain, how in (
        (
            "in-order",
            "InOrder",
            400,
            "pages of 32 in order, the next one after a conflict; refreshed every 20 ms",
        ),
        ("out-of-order", "OutOfOrder", 1_000, "a random one of a page of 100; refreshed every 100 ms"),
    )
)
OTHERS = tuple(
    msgspec.structs.replace(one, drain=min(one.drain, 30_000))
    for key in ("graphile", "pgboss", "procrastinate", "bullmq", "bullmq-durable")
    for one in PEERS
    if one.key == key
)

ALL = (*RAW, *SDK, *OBVIOUS, *OTHERS, *BARE, *STANDING)
