"""Who may commit: epochs, owners and their fences."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.batch import Counters
from lineshaft.errors import Fenced, Invalid, Unavailable
from lineshaft.store.base import Ownership, Query, Roster, Store
from lineshaft.store.conformance.harness import (
    SHARD,
    TENANT,
    Promises,
    acquire,
    everything,
    promise,
    row,
)

TIERS = ("none", "process crash", "power loss", "asynchronous replica")


class OwnershipPromises(Promises):
    """A shard has one owner at a time, and whoever was it before is told so."""

    @promise
    async def test_says_what_it_is(self, store: Store) -> None:
        assert store.tier in TIERS
        assert store.shards >= 1
        assert "://" in store.url

    @promise
    async def test_a_new_store_is_empty_and_at_position_0(self, store: Store) -> None:
        snapshot = await (await acquire(store)).load()
        assert (snapshot.position, snapshot.counters) == (0, Counters())
        assert (snapshot.tasks, snapshot.records, snapshot.finished) == ([], [], [])
        log = await store.log(SHARD, 0)
        assert (log.records, log.earliest) == ([], 1)

    @promise
    async def test_every_acquisition_has_a_larger_epoch(self, store: Store) -> None:
        epochs = [(await store.acquire(SHARD, owner)).epoch for owner in (b"a", b"b", b"b", b"a")]
        assert epochs == sorted(set(epochs))

    @promise
    async def test_epochs_go_on_rising_after_a_restart(self, store: Store) -> None:
        before = await store.acquire(SHARD, b"a")
        await store.release(before)
        store = await self.restart(store)
        assert (await store.acquire(SHARD, b"a")).epoch > before.epoch

    @promise
    async def test_an_ownership_names_its_shard_and_owner(self, store: Store) -> None:
        ownership = await store.acquire(SHARD, b"\x00\xff owner")
        assert (ownership.shard, ownership.owner) == (SHARD, b"\x00\xff owner")

    @promise
    async def test_acquisition_fences_the_commits_of_the_owner_before(self, store: Store) -> None:
        before = await acquire(store, b"a")
        await before.put(row(1))
        after = await acquire(store, b"b")
        with pytest.raises(Fenced):
            await before.put(row(2))
        assert [task.seq for task in (await after.load()).tasks] == [1]

    @promise
    async def test_acquisition_fences_load_and_renewal_of_the_owner_before(self, store: Store) -> None:
        before = await acquire(store, b"a")
        await acquire(store, b"b")
        with pytest.raises(Fenced):
            await before.load()
        with pytest.raises(Fenced):
            await store.renew(before.ownership)

    @promise
    async def test_the_same_owner_is_fenced_by_its_own_later_acquisition(self, store: Store) -> None:
        before = await acquire(store, b"a")
        after = await acquire(store, b"a")
        with pytest.raises(Fenced):
            await before.put(row(1))
        await after.put(row(1))

    @promise
    async def test_the_right_epoch_of_the_wrong_owner_is_fenced(self, store: Store) -> None:
        owner = await acquire(store, b"a")
        owner.ownership = Ownership(SHARD, owner.ownership.epoch, b"b")
        with pytest.raises(Fenced):
            await owner.put(row(1))

    @promise
    async def test_an_epoch_that_was_never_given_is_fenced(self, store: Store) -> None:
        owner = await acquire(store, b"a")
        owner.ownership = Ownership(SHARD, owner.ownership.epoch + 1, b"a")
        with pytest.raises(Fenced):
            await owner.put(row(1))

    @promise
    async def test_a_fenced_owner_changes_no_byte(self, store: Store) -> None:
        before = await acquire(store, b"a")
        await before.put(row(1), row(2))
        after = await acquire(store, b"b")
        seen = await everything(store, [row(1), row(2), row(3)])
        for position in (before.position, before.position + 1, before.position + 2):
            batch = before.batch(tasks=[row(2, priority=9), row(3)], position=position)
            with pytest.raises(Fenced):
                await store.commit(before.ownership, batch)
        assert await everything(store, [row(1), row(2), row(3)]) == seen
        await after.put(row(3))

    @promise
    async def test_the_owner_can_renew(self, store: Store) -> None:
        owner = await acquire(store)
        await store.renew(owner.ownership)
        await owner.put(row(1))
        await store.renew(owner.ownership)

    @promise
    async def test_who_released_the_shard_cannot_commit(self, store: Store) -> None:
        owner = await acquire(store)
        await store.release(owner.ownership)
        with pytest.raises(Fenced):
            await owner.put(row(1))
        with pytest.raises(Fenced):
            await store.renew(owner.ownership)

    @promise
    async def test_release_is_silent_and_harmless_where_the_shard_is_not_ours(self, store: Store) -> None:
        before = await acquire(store, b"a")
        after = await acquire(store, b"b")
        await store.release(before.ownership)
        await store.release(before.ownership)
        await after.put(row(1))

    @promise
    async def test_a_shard_that_does_not_exist_is_refused(self, store: Store) -> None:
        for shard in (-1, store.shards):
            with pytest.raises(Invalid):
                await store.acquire(shard, b"a")
            with pytest.raises(Invalid):
                await store.get(shard, [(TENANT, "x")])
            with pytest.raises(Invalid):
                await store.search(shard, Query(tenant=TENANT))

    @promise
    async def test_of_two_that_commit_at_once_one_is_fenced(self, store: Store) -> None:
        owner = await acquire(store)
        batches = [owner.batch(tasks=[row(seq)], nonce=b"nonce %d" % seq) for seq in (1, 2)]
        outcomes = await asyncio.gather(
            *(store.commit(owner.ownership, batch) for batch in batches), return_exceptions=True
        )
        [seq] = [seq for seq, outcome in zip((1, 2), outcomes, strict=True) if outcome is None]
        assert sum(isinstance(outcome, Fenced) for outcome in outcomes) == 1
        assert [task.seq for task in (await owner.load()).tasks] == [seq]

    @promise
    async def test_the_roster_is_swapped_by_whoever_knows_what_is_there(self, store: Store) -> None:
        assert await store.read_roster() == Roster(0, b"")
        assert await store.swap_roster(0, b"\x00 first \xff") == Roster(1, b"\x00 first \xff")
        assert await store.swap_roster(0, b"late") == Roster(1, b"\x00 first \xff")
        assert await store.swap_roster(2, b"early") == Roster(1, b"\x00 first \xff")
        assert await store.swap_roster(1, b"second") == Roster(2, b"second")
        assert await store.read_roster() == Roster(2, b"second")

    @promise
    async def test_the_roster_stays_over_a_restart(self, store: Store) -> None:
        await store.swap_roster(0, b"first")
        store = await self.restart(store)
        assert await store.read_roster() == Roster(1, b"first")

    @promise
    async def test_of_many_that_swap_the_roster_at_once_one_does(self, store: Store) -> None:
        given = [b"%d" % number for number in range(8)]
        for version in range(3):
            answers = await asyncio.gather(*(store.swap_roster(version, data) for data in given))
            present = await store.read_roster()
            assert present.version == version + 1
            assert present.data in given
            assert all(answer == present for answer in answers)

    @promise
    async def test_a_store_says_how_it_fares(self, store: Store) -> None:
        assert store.congestion(SHARD) is None
        assert all(isinstance(value, float) for value in store.gauges().values())

    @promise
    async def test_a_closed_store_is_unavailable_and_may_be_closed_again(self, store: Store) -> None:
        owner = await acquire(store)
        await store.close()
        await store.close()
        with pytest.raises(Unavailable):
            await owner.put(row(1))
        with pytest.raises(Unavailable):
            await store.get(SHARD, [(TENANT, "task-1")])
