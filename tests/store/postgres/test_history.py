"""What a failover or a restored backup loses is noticed and said, and nothing is ever given out twice."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import psycopg
import pytest

from lineshaft.core.batch import Counters
from lineshaft.errors import Fenced
from lineshaft.store.conformance.harness import SHARD, Owner, acquire, row
from lineshaft.store.postgres.store import PostgresStore
from lineshaft.store.urls import open_store
from tests.servers import PostgresServer, postgres, run
from tests.servers.postgres import programs


class Standby(PostgresServer):
    """A server that follows another."""

    primary: PostgresServer

    def initialize(self) -> None:
        data, uid = self.folder / "data", self.user()
        data.mkdir(mode=0o700)
        run.give(data, uid)
        subprocess.run(
            [
                *(programs() / "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast"),
                *("-d", f"{self.primary.url}/postgres"),
            ],
            cwd="/",
            check=True,
            capture_output=True,
            **({} if uid < 0 else {"user": uid, "group": uid, "extra_groups": []}),  # type: ignore[call-overload]
        )


def standby_of(primary: PostgresServer) -> Standby:
    port = run.Port()
    server = Standby(port=port.number, folder=run.new_folder("postgres"), claims=(port,))
    server.primary = primary
    server.initialize()
    server.start()
    return server


def make(url: str) -> PostgresStore:
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    return store


def tell(server: PostgresServer, *statements: str) -> None:
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.faults
async def test_a_failover_to_a_standby_that_lags_is_noticed_and_said() -> None:
    with postgres(private=True) as primary:
        database = primary.fresh().rpartition("/")[2]
        with standby_of(primary) as standby:
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            url = f"postgresql://postgres@{hosts}/{database}?shards=1&target_session_attrs=read-write"
            store = make(url)
            await store.open(address="a")
            assert store.tier == "asynchronous replica"
            assert "asynchronously" in store.notices()[0]
            owner = await acquire(store)
            await owner.commit(tasks=[row(1)], counters=Counters(1_000, 2, 5))
            await wait_until_it_has_followed(primary, standby)
            tell(standby, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
            await wait_until_it_is_alone(primary)
            await owner.commit(tasks=[row(2)], counters=Counters(2_000, 3, 9))
            primary.kill()
            tell(standby, "SELECT pg_promote()")
            with pytest.raises(Fenced, match="position 1, so 3 is not the next"):
                await owner.put(row(3))
            after = await acquire(store, b"again")
            snapshot = await after.load()
            assert [task.seq for task in snapshot.tasks] == [1]
            assert snapshot.position > 2
            assert snapshot.counters.fence > 9
            assert snapshot.counters.seq > 3
            assert "position 2, acknowledged by this coordinator, gone" in store.notices()[-1]
            await after.put(row(4))
            await store.close()


async def wait_until_it_has_followed(primary: PostgresServer, standby: PostgresServer) -> None:
    with psycopg.connect(f"{primary.url}/postgres", autocommit=True) as one:
        row = one.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert row is not None
        with psycopg.connect(f"{standby.url}/postgres", autocommit=True) as other:
            deadline = "SELECT pg_sleep(0.01)"
            for _ in range(2_000):
                if other.execute("SELECT pg_last_wal_replay_lsn() >= %s", row).fetchone() == (True,):
                    return
                other.execute(deadline)
    raise AssertionError("the standby does not follow")


async def wait_until_it_is_alone(primary: PostgresServer) -> None:
    with psycopg.connect(f"{primary.url}/postgres", autocommit=True) as one:
        for _ in range(2_000):
            if one.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (0,):
                return
            one.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("the standby does not go")


async def test_another_history_is_noticed_also_by_who_was_not_there(
    store_url: Callable[..., str], database: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(store_url(shards=1))
    await store.open(address="a")
    owner = await acquire(store)
    await owner.commit(tasks=[row(1)], counters=Counters(1_000, 2, 5))
    await store.close()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"UPDATE {schema}.shard SET history = 'as of a backup'")
    store = make(store_url(shards=1))
    await store.open(address="a")
    snapshot = await (await acquire(store, b"b")).load()
    assert snapshot.position > 1 << 20
    assert snapshot.counters.fence > 1 << 20
    assert "history is whole up to position 1" in caplog.text
    again: Owner = await acquire(store, b"c")
    assert (await again.load()).position == snapshot.position
    assert [record.position for record in (await store.log(SHARD, 0)).records] == [1]
    await store.close()


async def test_a_backup_that_is_put_back_is_noticed_by_who_knows_more(
    store_url: Callable[..., str], database: str, schema: str
) -> None:
    store = make(store_url(shards=1))
    await store.open(address="a")
    owner = await acquire(store)
    await owner.put(row(1))
    await owner.put(row(2))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"UPDATE {schema}.shard SET position = 1; DELETE FROM {schema}.task_open WHERE seq = 2"
        )
    with pytest.raises(Fenced):
        await owner.put(row(3))
    snapshot = await (await acquire(store)).load()
    assert snapshot.position > 2
    assert "position 2, acknowledged by this coordinator" in store.notices()[-1]
    await store.close()


async def test_the_tier_is_told_by_what_is_waited_for(store_url: Callable[..., str]) -> None:
    for synchronous, tier in (("on", "power loss"), ("local", "power loss"), ("off", "process crash")):
        store = make(store_url(synchronous_commit=synchronous))
        assert await store.inspect() == tier
        assert store.notices() == []


@pytest.mark.faults
async def test_a_server_without_fsync_says_so() -> None:
    with postgres(private=True, settings={"fsync": "off"}) as server:
        store = make(server.fresh())
        await store.open(address="a")
        assert store.tier == "process crash"
        assert "fsync=off" in store.notices()[0]
        await store.close()
