"""Through PgBouncer in transaction mode everything works as without it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator

import psycopg
import pytest

from lineshaft.engine.engine import Engine
from lineshaft.store.base import Store, notices_of
from lineshaft.store.conformance.commits import CommitPromises
from lineshaft.store.conformance.ownership import OwnershipPromises
from lineshaft.store.conformance.pruning import PruningPromises
from lineshaft.store.postgres import inbox
from lineshaft.store.urls import open_store
from tests.servers import PostgresServer
from tests.store.postgres.pooler import pgbouncer
from tests.store.postgres.test_inbox import User, arrived

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def pooled(
    database: str, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with pgbouncer(postgres_server, tmp_path_factory.mktemp("pgbouncer")) as url:
        yield f"{url}/{database.rpartition('/')[2]}"


class TestPostgresStoreBehindPgBouncer(OwnershipPromises, CommitPromises, PruningPromises):
    @pytest.fixture(autouse=True)
    def place(self, pooled: str) -> None:
        self.pooled = pooled

    async def make_store(self) -> Store:
        return open_store(f"{self.pooled}?shards=2&schema=pooled_{next(_NUMBERS)}")


async def test_the_inbox_is_looked_into_and_that_is_said(
    pooled: str, database: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inbox, "LOOK_EVERY", 0.01)
    with caplog.at_level(logging.WARNING):
        async with Engine(open_store(f"{pooled}?schema={schema}&shards=2")) as engine:
            await _enqueue_twice(engine, database, schema)
            assert "listen=postgresql://" in notices_of(engine.store)[0]
    assert "passes no notifications on" in caplog.text


async def test_notifications_are_heard_where_the_url_says(
    pooled: str, database: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with Engine(open_store(f"{pooled}?schema={schema}&shards=2&listen={database}")) as engine:
            await _enqueue_twice(engine, database, schema)
    assert "notifications" not in caplog.text


async def _enqueue_twice(engine: Engine, database: str, schema: str) -> None:
    user = User(database, schema)
    with user.connection:
        for _ in range(2):
            await arrived(engine, await asyncio.to_thread(user.enqueue))
        with psycopg.connect(database) as connection:
            assert connection.execute(f"SELECT count(*) FROM {schema}.inbox").fetchone() == (0,)
