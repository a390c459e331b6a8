"""The tables: made once, by whoever may, brought up to date, and never used by who does not know them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import psycopg
import pytest

from lineshaft.errors import Invalid
from lineshaft.store.base import SchemaTooNew, StoreUnusable
from lineshaft.store.conformance.harness import acquire, finished, row
from lineshaft.store.postgres.schema import VERSION
from lineshaft.store.urls import open_store
from tests.cli.runs import run


async def test_of_many_that_open_a_new_store_at_once_one_makes_it(store_url: Callable[..., str]) -> None:
    stores = [open_store(store_url(shards=3)) for _ in range(6)]
    await asyncio.gather(*(store.open(address="a") for store in stores))
    assert {store.shards for store in stores} == {3}
    for store in stores:
        await store.close()


async def test_the_number_of_shards_is_fixed(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    store = open_store(f"{database}?schema={schema}")
    await store.open(address="a")
    assert store.shards == 16
    await store.close()
    with pytest.raises(Invalid, match="made with 16 shards") as refused:
        await open_store(store_url(shards=4)).open(address="a")
    assert refused.value.field == "shards"


async def test_a_newer_schema_is_left_alone(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    store = open_store(store_url())
    await store.open(address="a")
    await store.close()
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE {schema}.meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(SchemaTooNew, match="version 99"):
        await open_store(store_url()).open(address="a")


@pytest.fixture
def humble(database: str, schema: str) -> Iterator[str]:
    """Give the name of a role that may connect and nothing else."""
    name = f"humble_{schema}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        yield name
        connection.execute(f"DROP OWNED BY {name}")
        connection.execute(f"DROP ROLE {name}")


async def test_a_role_that_may_not_make_tables_is_told_the_command(
    store_url: Callable[..., str], database: str, schema: str, humble: str
) -> None:
    url = store_url().replace("postgres@", f"{humble}@")
    with pytest.raises(StoreUnusable, match="lineshaft migrate STORE-URL"):
        await open_store(url).open(address="a")
    ended = await asyncio.to_thread(run, "migrate", store_url())
    assert (ended.code, ended.err) == (0, "")
    assert f"were made, at version {VERSION}" in ended.out
    again = await asyncio.to_thread(run, "migrate", store_url(), "--json")
    assert again.document["before"] == again.document["version"] == VERSION
    with pytest.raises(StoreUnusable, match="grant it"):
        await open_store(url).open(address="a")
    with psycopg.connect(database) as connection:
        for grant in GRANTS:
            connection.execute(grant.format(schema=schema, role=humble))
    store = open_store(url)
    await store.open(address="a")
    owner = await acquire(store)
    await owner.put(row(1), finished(row(2), prune_at=1))
    await store.prune(owner.ownership, before=2, log_before=1 << 50)
    await store.close()


GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}",
)
"""What docs/postgresql.md lists for the role of a coordinator."""


async def test_whoever_enqueues_needs_the_function_only(
    store_url: Callable[..., str], database: str, schema: str, humble: str
) -> None:
    store = open_store(store_url())
    await store.open(address="a")
    await store.close()
    with psycopg.connect(database) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {humble}")
    with psycopg.connect(database.replace("postgres@", f"{humble}@")) as connection:
        connection.execute(f"SELECT {schema}.enqueue('mail', '{{}}')")
        connection.execute(f"SELECT {schema}.enqueue('mail', '{{}}'::jsonb)")
    with psycopg.connect(database.replace("postgres@", f"{humble}@")) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT * FROM {schema}.inbox")
        connection.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT {schema}.acquire(0::int2, 'x')")


async def test_people_can_look_at_the_tasks(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    store = open_store(store_url())
    await store.open(address="a")
    owner = await acquire(store)
    await owner.put(row(1, queue="mail"), finished(row(2)))
    with psycopg.connect(database) as connection:
        rows = connection.execute(f"SELECT id, queue, state FROM {schema}.tasks ORDER BY seq").fetchall()
    assert rows == [("task-1", "mail", "queued"), ("task-2", "default", "completed")]
    await store.close()


async def test_the_log_goes_by_whole_slots(store_url: Callable[..., str], database: str, schema: str) -> None:
    store = open_store(store_url(shards=1))
    await store.open(address="a")
    owner = await acquire(store)
    with psycopg.connect(database, autocommit=True) as connection:
        # As if 20 MB had been written.
        connection.execute(
            f"CREATE OR REPLACE FUNCTION {schema}.slot_size(p_slot int) RETURNS int8 LANGUAGE sql AS"
            f" $$ SELECT 20000000 * count(*) FROM {schema}.log WHERE slot = p_slot $$"
        )

        def slots() -> dict[int, int]:
            return dict(
                connection.execute(f"SELECT slot, count(*) FROM {schema}.log GROUP BY slot").fetchall()
            )

        for number in range(12):
            await owner.put(row(number))
            await store.prune(owner.ownership, before=0, log_before=0)
        assert slots() == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 3}
        keep = (await store.log(0, 8)).records[0].at
        for _ in range(9):
            await store.prune(owner.ownership, before=0, log_before=keep)
        assert slots() == {6: 2, 7: 3}
        assert (await store.log(0, 0)).earliest == 9
        await owner.put(row(99))
        assert slots() == {6: 2, 7: 3, 0: 1}
    await store.close()


def test_there_is_nothing_to_migrate_elsewhere() -> None:
    ended = run("migrate", "sqlite:///x.db")
    assert ended.code == 2
    assert "nothing to migrate" in ended.err
