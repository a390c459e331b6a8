"""How the server is set up, and what follows for what is stored there."""

from __future__ import annotations

import msgspec

from lineshaft.store.base import StoreUnusable
from lineshaft.store.postgres.connections import Connection

OLDEST = 14
"""The oldest major version that is supported."""


class Facts(msgspec.Struct, frozen=True):
    """What `open` must know of the server and of the store in it."""

    server_version: int
    encoding: str
    is_standby: bool
    synchronous_commit: str
    fsync: bool
    standby_names: str
    standbys: int
    version: int
    """Of the schema; 0 where there is none."""
    shards: int


async def look(connection: Connection, schema: str) -> Facts:
    """Read how the server is set up, and which version the store has."""
    cursor = connection.cursor()
    await cursor.execute(
        "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'),"
        " pg_is_in_recovery(), current_setting('synchronous_commit'), current_setting('fsync')::bool,"
        " current_setting('synchronous_standby_names'),"
        " (SELECT count(*) FROM pg_stat_replication)::int4, to_regclass($1) IS NOT NULL",
        (f"{schema}.meta",),
    )
    [row] = await cursor.fetchall()
    *setup, exists = row
    meta: dict[str, str] = {}
    if exists:
        cursor = await connection.execute(f"SELECT key, value FROM {schema}.meta")
        meta = dict(await cursor.fetchall())
    noted = (int(meta.get(key, 0)) for key in ("schema_version", "shards"))
    return Facts(*setup, *noted)


def require_fit(url: str, facts: Facts) -> None:
    """Raise `StoreUnusable` where no store can be kept there."""
    if facts.server_version < OLDEST * 10_000:
        raise StoreUnusable(
            f"{url} is PostgreSQL {facts.server_version // 10_000}: Lineshaft needs {OLDEST} or a newer one"
        )
    if facts.is_standby:
        raise StoreUnusable(
            f"{url} is a standby, on which nothing can be written: name the primary, or several hosts and "
            "target_session_attrs=read-write"
        )
    if facts.encoding != "UTF8":
        raise StoreUnusable(
            f"the database of {url} has encoding {facts.encoding}: make one with ENCODING 'UTF8'"
        )


def tier_of(facts: Facts, synchronous: str) -> tuple[str, list[str]]:
    """Return what a commit survives, and what people should know."""
    notices = []
    if not facts.fsync:
        notices.append(
            "the server runs with fsync=off: a crash of its machine may destroy the database; turn it on"
        )
    if facts.standbys and (not facts.standby_names or synchronous in ("local", "off")):
        notices.append(
            "the server is replicated asynchronously: what a failover loses is noticed and said, not "
            "prevented; name the standby in synchronous_standby_names to prevent it"
        )
    if not facts.fsync or synchronous == "off":
        return "process crash", notices
    return ("asynchronous replica" if notices else "power loss"), notices
