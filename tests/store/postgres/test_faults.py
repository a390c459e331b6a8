"""What happens to the server, and to the way there: nothing acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from lineshaft.core.batch import Blob
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.base import Rejected, Store, StoreUnusable
from lineshaft.store.conformance.harness import SHARD, TENANT, Owner, acquire, change, finished, row
from lineshaft.store.urls import open_store
from tests.servers import PostgresServer, postgres
from tests.store.postgres.proxy import Proxy

SOON = 60


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresServer]:
    """Give a server that may be killed."""
    with postgres(private=True) as server:
        yield server


async def opened(url: str) -> Store:
    store = open_store(url)
    await store.open(address="a")
    return store


async def commit_until_it_is(owner: Owner, seqs: list[int], *, noted: list[Exception]) -> None:
    """Commit as the engine does: the same batch again until its outcome is known."""
    tasks = [row(seq) for seq in seqs]
    batch = owner.batch(
        tasks=tasks,
        changes=[change(task) for task in tasks],
        blobs=[(Blob.PAYLOAD, seq, b"x" * 3_000) for seq in seqs],
    )
    async with asyncio.timeout(SOON):
        while True:
            try:
                await owner.store.commit(owner.ownership, batch)
                break
            except (Fenced, Rejected):
                raise
            except Exception as error:
                noted.append(error)
                await asyncio.sleep(0.02)
    owner.position = batch.position


@pytest.mark.faults
async def test_the_server_is_killed_and_started_again_during_commits(fragile: PostgresServer) -> None:
    chance = random.Random(seed := random.randrange(1 << 32))
    print("seed", seed)
    url = fragile.fresh() + "?shards=1"
    store = await opened(url)
    owner, noted = await acquire(store), list[Exception]()
    for _ in range(3):
        kill_at = owner.position + chance.randrange(1, 40)
        while owner.position < kill_at + 20:
            first = owner.position * 10
            commit = asyncio.create_task(
                commit_until_it_is(owner, list(range(first, first + 10)), noted=noted)
            )
            if owner.position == kill_at:
                await asyncio.sleep(chance.random() * 0.003)
                await asyncio.to_thread(fragile.kill)
                await asyncio.to_thread(fragile.restart)
            await commit
    assert all(isinstance(error, Unavailable) for error in noted), noted
    snapshot = await owner.load()
    assert snapshot.position == owner.position
    assert [task.seq for task in snapshot.tasks] == list(range(10 * owner.position))
    keys = [(Blob.PAYLOAD, task.seq) for task in snapshot.tasks]
    assert await store.read(SHARD, keys) == [b"x" * 3_000] * len(keys)
    assert None not in await store.get(SHARD, [(TENANT, task.id) for task in snapshot.tasks])
    log = await store.log(SHARD, 0, limit=10_000)
    assert [record.position for record in log.records] == list(range(1, owner.position + 1))
    await store.close()


async def test_answers_that_are_lost_are_asked_for_again(database: str, schema: str) -> None:
    async with Proxy(database) as proxy:
        store = await opened(f"{proxy.url}?shards=1&schema={schema}")
        owner, noted = await acquire(store), list[Exception]()
        for number in range(30):
            proxy.answers_to_lose = number % 3
            await commit_until_it_is(owner, [number], noted=noted)
        assert proxy.lost == 30
        snapshot = await owner.load()
        assert (snapshot.position, [task.seq for task in snapshot.tasks]) == (30, list(range(30)))
        await store.close()


async def test_what_is_pruned_is_told_once_whatever_answer_is_lost(database: str, schema: str) -> None:
    async with Proxy(database) as proxy:
        store = await opened(f"{proxy.url}?shards=1&schema={schema}")
        owner = await acquire(store)
        await owner.put(*(finished(row(seq), prune_at=seq) for seq in range(1, 61)))
        told = 0
        for number in range(60):
            proxy.answers_to_lose = number % 4
            try:
                for census in await store.prune(owner.ownership, before=number + 1, log_before=0, limit=3):
                    told += census.count
            except Unavailable:
                continue
        proxy.answers_to_lose = 0
        for census in await store.prune(owner.ownership, before=100, log_before=0):
            told += census.count
        assert told == 60
        assert (await owner.load()).finished == []
        await store.close()


async def test_a_shard_taken_over_while_the_answer_is_lost_is_fenced(database: str, schema: str) -> None:
    async with Proxy(database) as proxy:
        store, other = [await opened(f"{url}?shards=1&schema={schema}") for url in (proxy.url, database)]
        owner = await acquire(store)
        await owner.put(row(1))
        proxy.answers_to_lose = 2
        batch = owner.batch(tasks=[row(2)])
        with pytest.raises(Unavailable):
            await store.commit(owner.ownership, batch)
        after = await acquire(other, b"other")
        with pytest.raises(Fenced):
            await store.commit(owner.ownership, batch)
        assert [task.seq for task in (await after.load()).tasks] == [1, 2]
        await store.close()
        await other.close()


async def test_of_two_owners_that_race_each_commit_is_of_one(store_url: Callable[..., str]) -> None:
    stores = [await opened(store_url(shards=1)) for _ in range(2)]
    written: list[int] = []

    async def contend(store: Store, name: bytes) -> int:
        fences = 0
        for _ in range(15):
            try:
                owner = await acquire(store, name)
                for _ in range(4):
                    seq = owner.position + 1
                    await owner.put(row(seq))
                    written.append(seq)
            except Fenced:
                fences += 1
        return fences

    fences = await asyncio.gather(contend(stores[0], b"a"), contend(stores[1], b"b"))
    last = await acquire(stores[0])
    assert [task.seq for task in (await last.load()).tasks] == sorted(written)
    assert len(set(written)) == len(written)
    assert sum(fences) > 0
    for store in stores:
        await store.close()


async def test_of_many_processes_that_swap_the_roster_one_does(store_url: Callable[..., str]) -> None:
    stores = [await opened(store_url(shards=1)) for _ in range(4)]
    for version in range(10):
        answers = await asyncio.gather(
            *(
                store.swap_roster(version, b"%d of %d" % (number, version))
                for number, store in enumerate(stores)
            )
        )
        assert len({answer.data for answer in answers}) == 1
        assert {answer.version for answer in answers} == {version + 1}
    for store in stores:
        await store.close()


@pytest.mark.faults
async def test_a_server_that_is_down_or_starts_is_unavailable_with_advice(fragile: PostgresServer) -> None:
    url = fragile.fresh() + "?shards=1"
    store = await opened(url)
    owner = await acquire(store)
    await owner.put(row(1))
    batch = owner.batch(tasks=[row(2)])
    fragile.stop()
    with pytest.raises(Unavailable, match="it is tried again"):
        await store.commit(owner.ownership, batch)
    with pytest.raises(Unavailable, match="Check that the server runs"):
        await opened(url)
    fragile.restart()
    await store.commit(owner.ownership, batch)
    assert (await owner.load()).position == 2
    await store.close()


@pytest.mark.faults
async def test_a_frozen_server_goes_on_when_it_thaws(fragile: PostgresServer) -> None:
    store = await opened(fragile.fresh() + "?shards=1")
    owner = await acquire(store)
    await owner.put(row(1))
    fragile.freeze()
    commit = asyncio.create_task(owner.put(row(2)))
    done, _ = await asyncio.wait([commit], timeout=0.3)
    fragile.thaw()
    assert not done
    await asyncio.wait_for(commit, SOON)
    assert (await owner.load()).position == 2
    await store.close()


@pytest.mark.faults
async def test_closing_does_not_wait_for_a_frozen_server(fragile: PostgresServer) -> None:
    store = await opened(fragile.fresh() + "?shards=1")
    owner = await acquire(store)
    await owner.put(row(1))
    fragile.freeze()
    try:
        commit = asyncio.create_task(owner.put(row(2)))
        await asyncio.wait([commit], timeout=0.1)
        await asyncio.wait_for(store.close(), SOON)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(commit, SOON)
    finally:
        fragile.thaw()


async def test_a_statement_that_runs_into_its_time_limit_is_unavailable(
    fragile: PostgresServer,
) -> None:
    url = fragile.fresh()
    store = await opened(f"{url}?shards=1")
    owner = await acquire(store)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET statement_timeout = '50ms'")
    await store.close()
    store = await opened(f"{url}?shards=1")
    owner = await acquire(store)
    batch = owner.batch(tasks=[row(1)])
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE lineshaft.task_open IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="raise the timeout"):
            await store.commit(owner.ownership, batch)
    await store.commit(owner.ownership, batch)
    await store.close()


async def test_a_server_that_was_demoted_is_connected_to_anew(postgres_url: str) -> None:
    store = await opened(f"{postgres_url}?shards=1")
    owner = await acquire(store)
    await owner.put(row(1))
    await store.close()
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await store.open(address="a")
        batch = owner.batch(tasks=[row(2)])
        with pytest.raises(Unavailable, match="target_session_attrs"):
            await store.commit(owner.ownership, batch)
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await store.commit(owner.ownership, batch)
    await store.close()


async def test_tables_that_are_gone_are_named(
    database: str, store_url: Callable[..., str], schema: str
) -> None:
    store = await opened(store_url())
    owner = await acquire(store)
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(Unavailable, match="lineshaft migrate"):
        await owner.put(row(1))
    await store.close()


async def test_what_can_never_be_stored_is_rejected_and_the_next_is_taken(
    store_url: Callable[..., str],
) -> None:
    store = await opened(store_url())
    owner = await acquire(store)
    for task in (row(1, "a\0b"), row(1, "\ud800"), row(1, queue="a\0b"), row(2**63)):
        with pytest.raises(Rejected):
            await owner.put(task)
    assert (await owner.load()).tasks == []
    await owner.put(row(1))
    await store.close()


@pytest.fixture
def small_disk(fragile: PostgresServer) -> Iterator[Path]:
    """Give a disk of 24 MB for a tablespace."""
    with tempfile.TemporaryDirectory(prefix="lineshaft-small-") as place:
        os.chmod(place, 0o755)  # the server is another user
        if os.geteuid() != 0 or _mounts("mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", place):
            pytest.skip("only root can mount a small disk here")
        yield Path(place)
        assert not _mounts("umount", "-l", place)


def _mounts(*command: str) -> int:
    return subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.faults
async def test_a_full_disk_is_unavailable_until_there_is_room(
    fragile: PostgresServer, small_disk: Path
) -> None:
    place = small_disk / "space"
    place.mkdir()
    os.chown(place, fragile.user(), -1)
    with psycopg.connect(f"{fragile.url}/postgres", autocommit=True) as other:
        other.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        other.execute("CREATE DATABASE small TABLESPACE small")
    store = await opened(f"{fragile.url}/small?shards=1")
    owner = await acquire(store)
    await owner.put(row(1))
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(32 << 20))
    batch = owner.batch(tasks=[row(2)], blobs=[(Blob.PAYLOAD, 2, os.urandom(1 << 20))])
    with pytest.raises(Unavailable, match="Free some space"):
        await store.commit(owner.ownership, batch)
    ballast.unlink()
    await store.commit(owner.ownership, batch)
    assert [task.seq for task in (await owner.load()).tasks] == [1, 2]
    await store.close()
    with psycopg.connect(f"{fragile.url}/postgres", autocommit=True) as other:
        other.execute("DROP DATABASE small WITH (FORCE)")
        other.execute("DROP TABLESPACE small")


async def test_nobody_is_let_in_with_a_wrong_name(database: str) -> None:
    with pytest.raises(StoreUnusable, match=r"does not exist\. The server refuses this user"):
        await opened(database.replace("postgres@", "nobody_known@"))
    with pytest.raises(StoreUnusable, match="createdb"):
        await opened(f"{database}_that_is_not")
