"""What is acknowledged survives; what is not is settled by the same batch again; what is lost is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from typer.testing import CliRunner

from lineshaft.cli.main import app
from lineshaft.core.batch import Batch, Blob, Counters
from lineshaft.errors import Fenced, Retryable, Unavailable
from lineshaft.store.base import Roster, Store, StoreUnusable
from lineshaft.store.conformance.harness import NOW, SHARD, TENANT, Owner, acquire, change, finished, row
from lineshaft.store.redis import RedisStore
from lineshaft.store.urls import open_store
from tests.servers import KeyValueServer, promote, valkey, valkey_pair, valkey_sentinels
from tests.store.redis.relay import Relay

FENCE = 1_000


@asynccontextmanager
async def opened(url: str, **options: str) -> AsyncIterator[RedisStore]:
    store = open_store(url, **options)
    assert isinstance(store, RedisStore)
    await store.open(address="http://127.0.0.1:7077")
    try:
        yield store
    finally:
        await store.close()


async def put(owner: Owner, seq: int) -> Batch:
    """Commit one row, whose lease has a fence of its own."""
    counters = Counters(now=1_767_312_245_678 + seq, seq=seq + 1, fence=FENCE + seq)
    return await owner.commit(tasks=[row(seq)], changes=[change(row(seq))], counters=counters)


async def until_settled(owner: Owner, batch: Batch) -> int:
    """Send the same batch until its outcome is known, as the engine does; return how often it was."""
    for attempt in range(1, 400):
        try:
            await owner.store.commit(owner.ownership, batch)
        except Fenced:
            raise
        except Retryable:
            await asyncio.sleep(0.05)  # the server is another process
        else:
            owner.position = batch.position
            return attempt
    raise AssertionError("the server has not come back")


class TestKill:
    def test_nothing_acknowledged_is_lost_with_a_killed_server(self) -> None:
        with valkey(private=True) as server:
            asyncio.run(self.kill_amid_commits(server))

    async def kill_amid_commits(self, server: KeyValueServer) -> None:
        async with opened(server.fresh(), shards="1") as store:
            assert store.tier == "power loss"
            owner = await acquire(store)
            moments = {seq: asyncio.Event() for seq in (30, 97, 151)}
            attempts = 0

            async def commit_all() -> None:
                nonlocal attempts
                for seq in range(200):
                    if seq in moments:
                        moments[seq].set()
                    attempts += await until_settled(owner, owner.batch(tasks=[row(seq)]))

            committing = asyncio.create_task(commit_all())
            for moment in moments.values():
                await moment.wait()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
            await committing
            assert attempts > 200
            assert [task.seq for task in (await owner.load()).tasks] == list(range(200))
            assert owner.position == 200
            assert store.notices() == []

    def test_a_frozen_server_is_waited_for(self) -> None:
        with valkey(private=True) as server:
            asyncio.run(self.freeze_and_thaw(server))

    async def freeze_and_thaw(self, server: KeyValueServer) -> None:
        async with opened(server.fresh(), timeout="0.3") as store:
            owner = await acquire(store)
            await owner.put(row(1))
            server.freeze()
            batch = owner.batch(tasks=[row(2)])
            with pytest.raises(Unavailable, match="has not answered in time"):
                await store.commit(owner.ownership, batch)
            server.thaw()
            await until_settled(owner, batch)
            assert [task.seq for task in (await owner.load()).tasks] == [1, 2]


class TestConnections:
    @pytest.fixture
    def server(self, valkey_server: KeyValueServer) -> KeyValueServer:
        return valkey_server

    def test_a_commit_whose_answer_is_lost_is_applied_once(self, server: KeyValueServer) -> None:
        async def story() -> None:
            async with Relay(server.port) as relay:
                place = server.fresh().replace(str(server.port), str(relay.port))
                async with opened(place, shards="1") as store:
                    owner = await acquire(store)
                    for seq in range(20):
                        relay.lose_answers = seq % 3
                        await until_settled(owner, owner.batch(tasks=[row(seq)], changes=[change(row(seq))]))
                    assert [task.seq for task in (await owner.load()).tasks] == list(range(20))
                    log = await store.log(SHARD, 0)
                    assert [record.position for record in log.records] == list(range(1, 21))

        asyncio.run(story())

    def test_idle_connections_that_were_cut_are_replaced(self, server: KeyValueServer) -> None:
        async def story() -> None:
            async with Relay(server.port) as relay:
                place = server.fresh().replace(str(server.port), str(relay.port))
                async with opened(place) as store:
                    owner = await acquire(store)
                    await owner.put(row(1))
                    relay.cut()
                    await owner.put(row(2))
                    relay.cut()
                    assert len((await owner.load()).tasks) == 2

        asyncio.run(story())

    def test_a_cancelled_commit_leaves_no_answer_to_the_next(self, server: KeyValueServer) -> None:
        async def story() -> None:
            async with opened(server.fresh(), shards="1") as store:
                owner = await acquire(store)
                for seq in range(30):
                    batch = owner.batch(tasks=[row(seq)])
                    first = asyncio.create_task(store.commit(owner.ownership, batch))
                    for _ in range(seq % 5):
                        await asyncio.sleep(0)
                    first.cancel()
                    await asyncio.gather(first, return_exceptions=True)
                    await until_settled(owner, batch)
                    [task] = await store.get(SHARD, [(TENANT, f"task-{seq}")])
                    assert task is not None

        asyncio.run(story())

    def test_functions_that_were_flushed_are_brought_again(self, server: KeyValueServer) -> None:
        async def story() -> None:
            async with opened(server.fresh()) as store:
                owner = await acquire(store)
                for as_script in (False, True):
                    store._functions.as_script = as_script
                    await owner.put(row(owner.position))
                    await store._client.everywhere(("SCRIPT" if as_script else "FUNCTION", "FLUSH"))
                    await owner.put(row(owner.position))
                assert len((await owner.load()).tasks) == 4

        asyncio.run(story())


class TestOwners:
    def test_of_two_racing_owners_one_commits_each_position(self, valkey_server: KeyValueServer) -> None:
        async def story() -> None:
            place = valkey_server.fresh()
            async with opened(place, shards="1") as one, opened(place) as two:
                committed: list[int] = []

                async def own(store: Store, name: bytes) -> None:
                    while len(committed) < 60:
                        try:
                            owner = await acquire(store, name)
                            for _ in range(7):
                                batch = owner.batch(tasks=[row(owner.position)])
                                await store.commit(owner.ownership, batch)
                                committed.append(batch.position)
                                owner.position = batch.position
                        except Fenced:
                            goal = min(60, len(committed) + 4)
                            while len(committed) < goal:  # noqa: ASYNC110  # the other's turn, in this loop
                                await asyncio.sleep(0)

                await asyncio.gather(own(one, b"one"), own(two, b"two"))
                assert sorted(committed) == list(range(1, len(committed) + 1))
                log = await one.log(SHARD, 0)
                assert [record.position for record in log.records] == sorted(committed)

        asyncio.run(story())

    def test_of_many_who_swap_the_roster_at_once_each_version_is_one_s(
        self, valkey_server: KeyValueServer
    ) -> None:
        async def story() -> None:
            place = valkey_server.fresh()
            async with opened(place) as one, opened(place) as two, opened(place) as three:
                mine: list[Roster] = []

                async def take_part(store: Store, name: bytes) -> None:
                    roster = await store.read_roster()
                    for number in range(30):
                        data = b"%s %d" % (name, number)
                        expected = roster.version
                        roster = await store.swap_roster(expected, data)
                        if roster == Roster(expected + 1, data):
                            mine.append(roster)

                await asyncio.gather(take_part(one, b"1"), take_part(two, b"2"), take_part(three, b"3"))
                versions = sorted(roster.version for roster in mine)
                assert versions == list(range(1, len(mine) + 1))
                assert await one.read_roster() == max(mine, key=lambda roster: roster.version)

        asyncio.run(story())


@contextmanager
def split_pair() -> Iterator[tuple[KeyValueServer, KeyValueServer]]:
    primary, replica = valkey_pair()
    with primary, replica:
        yield primary, replica


class TestFailover:
    """The replica is promoted while the primary goes on for a while: what that acknowledges is lost."""

    def test_what_a_failover_has_lost_is_said_and_nothing_is_given_twice(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with split_pair() as (primary, replica):
            asyncio.run(self.lose_a_tail(primary, replica))
        assert "positions 4 to 6, acknowledged by this coordinator, gone" in caplog.text

    async def lose_a_tail(self, primary: KeyValueServer, replica: KeyValueServer) -> None:
        async with Relay(primary.port) as relay, opened(f"valkey://127.0.0.1:{relay.port}") as store:
            assert store.tier == "asynchronous replica"
            owner, last = await self.commit_past_a_failover(store, primary, replica)
            await store.swap_roster(0, b"lost")
            primary.kill()
            relay.lead_to(replica.port)
            with pytest.raises(Fenced, match="is at position 3"):
                await put(owner, 7)
            again = await acquire(store)
            snapshot = await again.load()
            assert [task.seq for task in snapshot.tasks] == [1, 2, 3]
            assert again.ownership.epoch > owner.ownership.epoch
            assert snapshot.position >= last.position
            assert snapshot.counters.fence > last.counters.fence
            assert snapshot.counters.seq > last.counters.seq
            [notice] = store.notices()
            assert "positions 4 to 6" in notice
            await put(again, 7)
            log = await store.log(SHARD, 0)
            assert [record.position for record in log.records] == [1, 2, 3, again.position]
            # The same counters for whoever loads it again, and nothing more to say.
            third = await acquire(store)
            assert third.position == again.position
            assert len(store.notices()) == 1

    def test_a_coordinator_that_never_saw_the_lost_end_goes_beyond_it(self) -> None:
        with split_pair() as (primary, replica):
            asyncio.run(self.take_over_elsewhere(primary, replica))

    async def take_over_elsewhere(self, primary: KeyValueServer, replica: KeyValueServer) -> None:
        async with Relay(primary.port) as relay, opened(f"valkey://127.0.0.1:{relay.port}") as store:
            owner, last = await self.commit_past_a_failover(store, primary, replica)
            primary.kill()
            async with opened(replica.url) as another:
                successor = await acquire(another, b"another")
                snapshot = await successor.load()
                assert snapshot.position > last.position
                assert snapshot.counters.fence > last.counters.fence
                assert snapshot.counters.seq > last.counters.seq
                for seq in range(4, 12):
                    await put(successor, seq)
                assert another.notices() == []
                # Who had acknowledged it learns that it is gone, although history is longer than ever.
                relay.lead_to(replica.port)
                with pytest.raises(Fenced, match="positions 4 to 6"):
                    await put(owner, 7)
                [notice] = store.notices()
                assert "positions 4 to 6" in notice

    def test_a_renewal_notices_too(self) -> None:
        with split_pair() as (primary, replica):
            asyncio.run(self.renew_after_a_failover(primary, replica))

    async def renew_after_a_failover(self, primary: KeyValueServer, replica: KeyValueServer) -> None:
        async with Relay(primary.port) as relay, opened(f"valkey://127.0.0.1:{relay.port}") as store:
            owner, _ = await self.commit_past_a_failover(store, primary, replica)
            assert await store.swap_roster(0, b"seen") == Roster(1, b"seen")
            primary.kill()
            relay.lead_to(replica.port)
            with pytest.raises(Fenced, match="is at position 3, before 6"):
                await store.renew(owner.ownership)
            # A version that was seen and lost is not given to another roster.
            behind = await store.swap_roster(0, b"other")
            assert (behind.version > 1, behind.data) == (True, b"")
            assert await store.swap_roster(behind.version, b"other") == Roster(behind.version + 1, b"other")

    async def commit_past_a_failover(
        self, store: RedisStore, primary: KeyValueServer, replica: KeyValueServer
    ) -> tuple[Owner, Batch]:
        owner = await acquire(store)
        for seq in (1, 2, 3):
            await put(owner, seq)
        with primary.client() as client:
            await asyncio.to_thread(client.wait, 1, 10_000)
        await asyncio.to_thread(promote, replica)
        for seq in (4, 5, 6):
            last = await put(owner, seq)
        return owner, last

    def test_a_name_that_leads_to_another_primary_is_looked_up_again(self) -> None:
        with split_pair() as (primary, replica):
            asyncio.run(self.move_the_name(primary, replica))

    async def move_the_name(self, primary: KeyValueServer, replica: KeyValueServer) -> None:
        async with Relay(primary.port) as relay, opened(f"valkey://127.0.0.1:{relay.port}") as store:
            owner = await acquire(store)
            await asyncio.gather(*(store.get(SHARD, []) for _ in range(5)), put(owner, 1))
            with primary.client() as client:
                await asyncio.to_thread(client.wait, 1, 10_000)
                await asyncio.to_thread(promote, replica)
                client.execute_command("REPLICAOF", "127.0.0.1", str(replica.port))
            relay.target = replica.port  # whoever is connected stays so
            batch = owner.batch(tasks=[row(2)])
            with pytest.raises(Unavailable, match="read-only replica"):
                await store.commit(owner.ownership, batch)
            await store.commit(owner.ownership, batch)
            assert [task.seq for task in (await owner.load()).tasks] == [1, 2]

    def test_with_wait_a_commit_waits_for_replicas(self) -> None:
        with split_pair() as (primary, replica):
            asyncio.run(self.wait_for_replicas(primary, replica))

    async def wait_for_replicas(self, primary: KeyValueServer, replica: KeyValueServer) -> None:
        async with opened(primary.url, wait="1", timeout="2") as store:
            assert store.tier == "power loss"
            owner = await acquire(store)
            await put(owner, 1)
            replica.freeze()
            batch = owner.batch(tasks=[row(2)])
            for _ in range(2):
                with pytest.raises(Unavailable, match="0 of 1 replicas"):
                    await store.commit(owner.ownership, batch)
            replica.thaw()
            await until_settled(owner, batch)
            primary.kill()
            await asyncio.to_thread(promote, replica)
            async with opened(replica.url) as another:
                successor = await acquire(another, b"another")
                assert [task.seq for task in (await successor.load()).tasks] == [1, 2]

    def test_sentinels_lead_to_the_new_primary(self) -> None:
        with split_pair() as (primary, _):
            [sentinel] = valkey_sentinels(primary)
            with sentinel:
                asyncio.run(self.follow_sentinels(primary, sentinel.port))

    async def follow_sentinels(self, primary: KeyValueServer, port: int) -> None:
        async with opened(f"valkey+sentinel://127.0.0.1:{port}/main") as store:
            owner = await acquire(store)
            await put(owner, 1)
            with primary.client() as client:
                await asyncio.to_thread(client.wait, 1, 10_000)
            primary.kill()
            await until_settled(owner, owner.batch(tasks=[row(2)]))
            assert [task.seq for task in (await owner.load()).tasks] == [1, 2]


class TestRefusals:
    def test_a_server_that_evicts_is_refused_with_the_line_to_set(self) -> None:
        with (
            valkey(settings={"maxmemory-policy": "allkeys-lru"}) as server,
            pytest.raises(StoreUnusable, match="put the line `maxmemory-policy noeviction`"),
        ):
            asyncio.run(open_and_close(server.fresh()))

    def test_tiers_follow_from_how_the_server_writes(self) -> None:
        for settings, tier in (
            ({"appendfsync": "everysec"}, "process crash"),
            ({"appendonly": "no"}, "none"),
        ):
            with valkey(settings=settings) as server:
                assert asyncio.run(open_and_close(server.fresh())).tier == tier

    def test_a_full_memory_is_not_durable_yet_and_pruning_goes_on(self) -> None:
        with valkey(private=True) as server:
            asyncio.run(self.fill(server))

    async def fill(self, server: KeyValueServer) -> None:
        async with opened(server.fresh()) as store:
            for as_script in (False, True):
                store._functions.as_script = as_script
                owner = await acquire(store)
                blobs = [(Blob.PAYLOAD, seq, b"x" * 10_000) for seq in range(200)]
                await owner.commit(tasks=[finished(row(seq)) for seq in range(200)], blobs=blobs)
                with server.client() as client:
                    used = client.info("memory")["used_memory"]
                    client.config_set("maxmemory", used - 500_000)
                    batch = owner.batch(tasks=[row(1_000)])
                    with pytest.raises(Unavailable, match="raise maxmemory"):
                        await store.commit(owner.ownership, batch)
                    with pytest.raises(Unavailable, match="raise maxmemory"):
                        await store.commit(owner.ownership, batch)
                    removed = await store.prune(owner.ownership, before=NOW + 10_000, log_before=0)
                    assert [census.count for census in removed] == [200]
                    await store.commit(owner.ownership, batch)
                    client.config_set("maxmemory", 0)
                owner.position = batch.position
                assert [task.seq for task in (await owner.load()).tasks] == [1_000]

    def test_no_new_tasks_are_taken_while_memory_is_short(self) -> None:
        with valkey(private=True) as server:
            asyncio.run(self.come_near_the_limit(server))

    async def come_near_the_limit(self, server: KeyValueServer) -> None:
        with server.client() as client:
            async with opened(server.fresh()) as store:
                owner = await acquire(store)
                for seq in range(100):
                    await owner.commit(blobs=[(Blob.PAYLOAD, seq, b"x" * 80_000)])
                assert store.congestion(SHARD) is None
                client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.95))
                for _ in range(200):
                    await owner.put(row(1))
                assert "raise maxmemory" in (store.congestion(SHARD) or "")
                assert store.gauges()["server_memory_limit_bytes"] > 0
                client.config_set("maxmemory", 0)
                for _ in range(200):
                    await owner.put(row(1))
                assert store.congestion(SHARD) is None

    def test_a_replica_is_refused_and_names_its_primary(self) -> None:
        with split_pair() as (primary, replica):
            with pytest.raises(StoreUnusable, match=f"name its primary, 127.0.0.1:{primary.port}"):
                asyncio.run(open_and_close(replica.url))
            asyncio.run(self.commit_to_a_demoted_primary(primary, replica))

    async def commit_to_a_demoted_primary(self, primary: KeyValueServer, replica: KeyValueServer) -> None:
        async with opened(primary.url) as store:
            owner = await acquire(store)
            with replica.client() as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            with primary.client() as client:
                client.execute_command("REPLICAOF", "127.0.0.1", str(replica.port))
            with pytest.raises(Unavailable, match=r"read-only replica|lost its primary|loading"):
                await owner.put(row(1))

    def test_a_user_with_few_rights_is_enough_and_hears_what_was_not_checked(self) -> None:
        with valkey(private=True) as server:
            with server.client() as client:
                rights = "~{jobs* +@read +@write +@scripting +@connection +info +time +wait"  # as documented
                client.execute_command("ACL", "SETUSER", "tasks", "on", ">se/cret", *rights.split())
            place = f"valkey://tasks:se%2Fcret@127.0.0.1:{server.port}/3?prefix=jobs&shards=2"
            store = asyncio.run(open_and_close(place))
            assert store.tier == "process crash"
            assert any("forbids CONFIG" in notice for notice in store.notices())
            assert "se/cret" not in store.url
            assert "se%2Fcret" not in store.url
            with server.client() as client:
                client.execute_command("ACL", "SETUSER", "tasks", "+config|get")
            assert asyncio.run(open_and_close(place)).tier == "power loss"
            wrong = place.replace("se%2Fcret", "wrong")
            with pytest.raises(StoreUnusable, match="no such user and password"):
                asyncio.run(open_and_close(wrong))

    def test_another_number_of_shards_is_refused(self, valkey_server: KeyValueServer) -> None:
        place = valkey_server.fresh()
        assert asyncio.run(open_and_close(place)).shards == 16
        assert asyncio.run(open_and_close(f"{place}?prefix=other&shards=4")).shards == 4
        assert asyncio.run(open_and_close(f"{place}?prefix=other")).shards == 4
        with pytest.raises(StoreUnusable, match="made with shards=16"):
            asyncio.run(open_and_close(f"{place}?shards=8"))

    def test_doctor_looks_without_leaving_anything(self, valkey_server: KeyValueServer) -> None:
        place = valkey_server.fresh()
        ended = CliRunner().invoke(app, ["doctor", "--store", place])
        assert f"ok      store: {place}, survives power loss" in ended.output
        with valkey_server.client(db=int(place.rpartition("/")[2])) as client:
            assert client.dbsize() == 0
        ended = CliRunner().invoke(app, ["doctor", "--store", "redis://127.0.0.1:1"])
        assert "cannot be reached" in ended.output

    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        with pytest.raises(Unavailable, match="cannot be reached"):
            asyncio.run(open_and_close("redis://127.0.0.1:1"))


async def open_and_close(url: str) -> RedisStore:
    async with opened(url) as store:
        owner = await acquire(store)
        await owner.put(row(1))
    return store
