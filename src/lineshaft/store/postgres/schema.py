"""The schema of the store: numbered migrations, each made of the files `sql/00n_*.sql`, under a lock."""

from __future__ import annotations

import re
from importlib import resources

import psycopg

from lineshaft.errors import Invalid
from lineshaft.store.base import SchemaTooNew, StoreUnusable
from lineshaft.store.postgres.address import DEFAULT_SHARDS
from lineshaft.store.postgres.connections import Connection
from lineshaft.store.postgres.server import look

VERSION = 1
MAX_PAYLOAD = 1 << 20


async def migrate(connection: Connection, schema: str, shards: int | None) -> int:
    """Make the tables, or bring those of an older version up to date; return the version there was.

    One transaction, of which there is one at a time. Raises `SchemaTooNew`, `Invalid` (field "shards"), and
    `psycopg.errors.InsufficientPrivilege` where the role may not.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", (f"lineshaft {schema}",))
        facts = await look(connection, schema)
        require_known(facts.version)
        if facts.version:
            require_shards(facts.shards, shards)
        if facts.version == VERSION:
            return facts.version
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        for number in range(facts.version + 1, VERSION + 1):
            for statements in _scripts(number, schema):
                await connection.execute(statements.encode())
        if not facts.version:
            await _begin(connection, schema, shards or DEFAULT_SHARDS)
        await connection.execute(
            f"UPDATE {schema}.meta SET value = $1 WHERE key = 'schema_version'", (str(VERSION),)
        )
        return facts.version


def require_known(version: int) -> None:
    """Raise `SchemaTooNew` where a newer Lineshaft made the schema."""
    if version > VERSION:
        raise SchemaTooNew(
            f"the store has schema version {version}, this Lineshaft knows up to {VERSION}: "
            "install the newer Lineshaft that wrote it, or restore a backup from before the upgrade"
        )


def require_shards(there: int, wanted: int | None) -> None:
    """Raise `Invalid` where another number of shards is wanted than there is."""
    if wanted is not None and wanted != there:
        raise Invalid(
            f"the store was made with {there} shards, which is fixed: leave out shards={wanted}, "
            "or copy the store to one with another number",
            field="shards",
        )


def may_not(schema: str, error: psycopg.Error) -> StoreUnusable:
    """Return what to say where the role of the coordinator may not make or change the tables."""
    said = str(error.diag.message_primary or error)
    return StoreUnusable(
        f"the tables of the store in schema {schema} are to be made or changed, and this role may not "
        f"({said}): run lineshaft migrate STORE-URL with a role that may, then grant this one what "
        "docs/postgresql.md lists"
    )


async def _begin(connection: Connection, schema: str, shards: int) -> None:
    await connection.execute(
        f"INSERT INTO {schema}.meta SELECT * FROM unnest($1::text[], $2::text[])",
        (["schema_version", "shards", "max_payload"], ["0", str(shards), str(MAX_PAYLOAD)]),
    )
    await connection.execute(
        f"INSERT INTO {schema}.shard (id) SELECT generate_series(0, $1::int4 - 1)", (shards,)
    )


def _scripts(number: int, schema: str) -> list[str]:
    folder = resources.files("lineshaft.store.postgres") / "sql"
    files = sorted(
        (file for file in folder.iterdir() if file.name.startswith(f"{number:03d}_")),
        key=lambda file: ("tables" not in file.name, file.name),
    )
    return [_placed(file.read_text(encoding="utf-8"), schema) for file in files]


def _placed(text: str, schema: str) -> str:
    return re.sub(r"@(?=\.)", schema, text.replace("@channel@", channel(schema)))


def channel(schema: str) -> str:
    """Return the name under which a notification says that there is something in the inbox."""
    return f"lineshaft:{schema}"
