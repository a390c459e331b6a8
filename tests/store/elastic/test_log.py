"""What the log is built on, each fact against a real node: races, late writes, blocks, generations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lineshaft.core.batch import Blob, Counters
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.base import Query
from lineshaft.store.conformance.harness import (
    NOW,
    SHARD,
    TENANT,
    Owner,
    acquire,
    alike,
    change,
    finished,
    row,
)
from lineshaft.store.elastic import records
from lineshaft.store.elastic.records import LogDocument
from tests.store.elastic.gate import HOLD, SWALLOW
from tests.store.elastic.place import Place, seqs

Answered = tuple[int, dict[str, str]]


def creates(does: Any) -> Callable[[str, str], Any]:
    """Do this to every record of the log that is created."""
    return lambda method, path: does if "/_create/" in path else None


def through(method: str, path: str) -> None:
    return None


# -- one slot, one record ------------------------------------------------------------------------------


async def test_of_two_writers_that_race_exactly_one_gets_each_slot(place: Place) -> None:
    stores = [await place.store() for _ in range(2)]
    slots = [store._opened.slots for store in stores]
    shards = [store._opened.shard(SHARD) for store in stores]
    document = LogDocument("batch", 1, b"", b"", 1, 1)
    for slot in range(1, 1_001):
        won = await asyncio.gather(
            *(
                each.create(shard, slot, records.encode(document))
                for each, shard in zip(slots, shards, strict=True)
            )
        )
        assert sorted(won) == [False, True]


async def test_a_stale_owner_comes_too_late_and_is_fenced(place: Place) -> None:
    stale = await acquire(await place.store(), b"a")
    await stale.put(row(1))
    successor = await acquire(await place.store(), b"b")
    for _ in range(2):
        with pytest.raises(Fenced):
            await stale.put(row(2))
    await successor.put(row(3))
    with pytest.raises(Fenced):
        await stale.store.renew(stale.ownership)
    with pytest.raises(Fenced):
        await stale.load()
    assert await seqs(successor) == [1, 3]


async def test_of_many_that_acquire_at_once_each_has_an_epoch_of_its_own_and_the_last_owns(
    place: Place,
) -> None:
    stores = [await place.store() for _ in range(4)]
    ownerships = await asyncio.gather(*(store.acquire(SHARD, b"%d" % n) for n, store in enumerate(stores)))
    assert len({each.epoch for each in ownerships}) == 4
    held = []
    for store, ownership in zip(stores, ownerships, strict=True):
        try:
            await store.renew(ownership)
            held.append(ownership)
        except Fenced:
            pass
    assert held == [max(ownerships, key=lambda each: each.epoch)]


# -- unknown outcomes ----------------------------------------------------------------------------------


async def test_an_abandoned_create_that_lands_before_its_repetition_is_the_same_commit(place: Place) -> None:
    owner = await acquire(await place.store(through_gate=True))
    await owner.put(row(1))
    place.gate.rule = creates(HOLD)
    batch = owner.batch(tasks=[row(2)], changes=[change(row(2))])
    with pytest.raises(Unavailable, match="no answer from the cluster"):
        await owner.store.commit(owner.ownership, batch)
    assert not (await place.slot(3))["found"]  # what a reader would take for "not written"
    assert 201 in await place.gate.land()
    place.gate.rule = through
    await owner.store.commit(owner.ownership, batch)
    owner.position = batch.position
    await owner.put(row(3))
    assert await seqs(owner) == [1, 2, 3]
    assert [len(each.changes) for each in (await owner.store.log(SHARD, 0)).records] == [0, 1, 0]


async def test_an_abandoned_create_that_lands_after_its_repetition_changes_nothing(place: Place) -> None:
    owner = await acquire(await place.store(through_gate=True))
    place.gate.rule = creates(HOLD)
    batch = owner.batch(tasks=[row(1)])
    with pytest.raises(Unavailable):
        await owner.store.commit(owner.ownership, batch)
    place.gate.rule = through
    await owner.store.commit(owner.ownership, batch)
    owner.position = batch.position
    await owner.put(row(1, priority=7))
    assert set(await place.gate.land()) == {409}
    assert [task.spec.priority for task in (await owner.load()).tasks] == [7]


async def test_nothing_else_is_written_before_an_unknown_outcome_is_settled(place: Place) -> None:
    owner = await acquire(await place.store(through_gate=True))
    place.gate.rule = creates(HOLD)
    with pytest.raises(Unavailable):
        await owner.store.commit(owner.ownership, owner.batch(tasks=[row(1)], nonce=b"first"))
    place.gate.rule = through
    # Another batch for the same position: the first takes its place all the same.
    with pytest.raises(Fenced):
        await owner.store.commit(owner.ownership, owner.batch(tasks=[row(2)], nonce=b"second"))
    assert await seqs(owner) == [1]


async def test_an_abandoned_create_of_a_stale_owner_finds_its_slot_taken(place: Place) -> None:
    stale = await acquire(await place.store(through_gate=True), b"a")
    place.gate.rule = creates(HOLD)
    batch = stale.batch(tasks=[row(1)])
    with pytest.raises(Unavailable):
        await stale.store.commit(stale.ownership, batch)
    successor = await acquire(await place.store(), b"b")
    await successor.put(row(2))
    assert set(await place.gate.land()) == {409}
    place.gate.rule = through
    with pytest.raises(Fenced):
        await stale.store.commit(stale.ownership, batch)
    assert await seqs(successor) == [2]


async def test_an_abandoned_create_that_lands_before_the_successor_is_the_successor_s_too(
    place: Place,
) -> None:
    stale = await acquire(await place.store(through_gate=True), b"a")
    place.gate.rule = creates(HOLD)
    batch = stale.batch(tasks=[row(1)])
    with pytest.raises(Unavailable):
        await stale.store.commit(stale.ownership, batch)
    assert 201 in await place.gate.land()
    successor = await acquire(await place.store(), b"b")
    assert await seqs(successor) == [1]
    place.gate.rule = through
    await stale.store.commit(stale.ownership, batch)  # it is durable, and everybody knows
    stale.position = batch.position
    with pytest.raises(Fenced):
        await stale.put(row(2))


async def test_an_epoch_record_that_landed_unanswered_is_no_trouble(place: Place) -> None:
    store = await place.store(through_gate=True)
    place.gate.rule = creates(HOLD)
    with pytest.raises(Unavailable):
        await store.acquire(SHARD, b"a")
    place.gate.rule = through
    owner = await acquire(store, b"a")
    assert set(await place.gate.land()) == {409}
    await owner.put(row(1))


# -- conflicts -----------------------------------------------------------------------------------------


async def test_a_conflict_with_one_s_own_first_attempt_is_success(place: Place) -> None:
    owner = await acquire(await place.store(through_gate=True))
    place.gate.rule = creates(SWALLOW)
    batch = owner.batch(tasks=[row(1)])
    with pytest.raises(Unavailable):
        await owner.store.commit(owner.ownership, batch)
    place.gate.rule = through
    await owner.store.commit(owner.ownership, batch)
    # What was only read is written again as it is, so that all copies have it.
    assert (await place.slot(2))["_version"] == 2
    assert any("if_seq_no=" in request for request in place.gate.passed)
    owner.position = batch.position
    await owner.put(row(2))
    assert await seqs(owner) == [1, 2]


async def test_a_false_conflict_fences_nobody(place: Place) -> None:
    owner = await acquire(await place.store(through_gate=True))
    await owner.put(row(1))
    place.gate.rule = creates((409, {"type": "version_conflict_engine_exception", "reason": "no"}))
    batch = owner.batch(tasks=[row(2)])
    for _ in range(2):
        with pytest.raises(Unavailable, match="nothing is there"):
            await owner.store.commit(owner.ownership, batch)
    place.gate.rule = through
    await owner.store.commit(owner.ownership, batch)
    assert await seqs(owner) == [1, 2]


async def test_records_of_an_epoch_below_the_highest_are_skipped_and_stepped_over(place: Place) -> None:
    store = await place.store()
    owner = await acquire(store, b"a")
    owner = await acquire(store, b"b")
    await owner.put(row(1))
    stale = LogDocument(
        "batch", owner.ownership.epoch - 1, b"a", b"late", 2, 1, rows=records.Rows(tasks=[row(9)])
    )
    slots, shard = store._opened.slots, store._opened.shard(SHARD)
    assert await slots.create(shard, shard.head + 1, records.encode(stale))
    await owner.put(row(2))
    assert await seqs(owner) == [1, 2]
    reader = await place.store()
    assert [record.position for record in (await reader.log(SHARD, 0)).records] == [1, 2]
    assert [
        task and task.seq for task in await reader.get(SHARD, [(TENANT, "task-9"), (TENANT, "task-2")])
    ] == [
        None,
        2,
    ]
    assert await seqs(await acquire(reader, b"c")) == [1, 2]


async def test_a_hole_in_the_log_is_told_and_not_read_past(place: Place) -> None:
    owner = await acquire(await place.store())
    await owner.put(row(1))
    await owner.put(row(2))
    await place.ask("DELETE", f"-log-000001/_doc/{SHARD}-2")
    with pytest.raises(Exception, match="no record in slot 2, but later ones"):
        await (await place.store()).acquire(SHARD, b"b")


# -- what the cluster refuses --------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_loses_nothing(place: Place) -> None:
    owner = await acquire(await place.store())
    await owner.put(row(1))
    block = {"index.blocks.read_only_allow_delete": True}
    await place.ask("PUT", "-log-000001/_settings", block)
    batch = owner.batch(tasks=[row(2)])
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"read-only.*free disk space") as told:
            await owner.store.commit(owner.ownership, batch)
        assert not isinstance(told.value, Fenced)
    await place.ask("PUT", "-log-000001/_settings", {"index.blocks.read_only_allow_delete": None})
    await owner.store.commit(owner.ownership, batch)
    assert await seqs(owner) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((429, {"type": "rejected_execution_exception", "reason": "queue"}), "overloaded"),
        ((429, {"type": "cluster_block_exception", "reason": "flood-stage watermark"}), "free disk space"),
        ((403, {"type": "cluster_block_exception", "reason": "read-only"}), "free disk space"),
        ((403, {"type": "security_exception", "reason": "no permissions"}), "give the user the role"),
        ((401, {"type": "security_exception", "reason": "unknown user"}), "correct the user and password"),
        ((503, {"type": "cluster_block_exception", "reason": "state not recovered"}), "_cluster/health"),
        ((503, {"type": "unavailable_shards_exception", "reason": "no primary"}), "_cluster/health"),
        ((502, {}), "_cluster/health"),
        ((404, {}), "answered 404"),
    ],
)
async def test_what_is_not_durable_yet_is_neither_lost_nor_a_fence(
    place: Place, answer: Answered, told: str
) -> None:
    owner = await acquire(await place.store(through_gate=True))
    place.gate.rule = creates(answer)
    batch = owner.batch(tasks=[row(1)])
    with pytest.raises(Unavailable, match=told) as refused:
        await owner.store.commit(owner.ownership, batch)
    assert not isinstance(refused.value, Fenced)
    place.gate.rule = through
    await owner.store.commit(owner.ownership, batch)
    assert await seqs(owner) == [1]


# -- generations ---------------------------------------------------------------------------------------


async def test_the_log_goes_on_in_a_new_generation_and_the_old_one_is_dropped(place: Place) -> None:
    store = await place.store()
    owner = await acquire(store)
    frozen = await place.store()
    stale = Owner(frozen, owner.ownership, 0)
    await stale.put(row(1))
    owner = await acquire(store, b"b")
    await owner.commit(tasks=[row(2)], changes=[change(row(2))])
    opened = store._opened
    await opened.generations.roll()
    await owner.commit(
        tasks=[row(3)], changes=[change(row(3))]
    )  # in the old one still, and says where to go on
    await owner.commit(tasks=[row(4)], changes=[change(row(4))])
    assert (await place.ask("GET", f"-log-000002/_doc/{SHARD}-6")).json["found"]
    log = await store.log(SHARD, 1)
    assert [(each.position, len(each.changes)) for each in log.records] == [(2, 1), (3, 1), (4, 1)]
    assert [each.position for each in (await (await place.store()).log(SHARD, 0)).records] == [1, 2, 3, 4]
    # As long as the change feed needs it, it stays.
    assert await opened.generations.drop_unneeded(store.shards) == []
    await store.prune(owner.ownership, before=0, log_before=NOW + 4)
    await store.release(owner.ownership)
    assert await opened.generations.drop_unneeded(store.shards) == [f"{place.prefix}-log-000001"]
    # A frozen owner finds the alias gone, makes nothing anew, and knows that it is fenced.
    with pytest.raises(Fenced):
        await stale.put(row(9))
    assert (await place.ask("GET", "-log-000001")).status == 404
    assert (await place.ask("GET", "-log-000001-write")).status == 404
    again = await acquire(await place.store(), b"c")
    await again.put(row(5))
    assert await seqs(again) == [1, 2, 3, 4, 5]
    assert (await again.store.log(SHARD, 0)).earliest == 4
    assert [each.position for each in (await again.store.log(SHARD, 0)).records] == [4, 5]


async def test_a_shard_at_rest_moves_on_when_it_is_pruned(place: Place) -> None:
    store = await place.store()
    owner = await acquire(store)
    await owner.put(row(1))
    await store._opened.generations.roll()
    await store.prune(owner.ownership, before=0, log_before=0)
    assert store._opened.shard(SHARD).generation == 2
    await owner.put(row(2))
    assert await seqs(await acquire(await place.store(), b"b")) == [1, 2]


# -- takeover ------------------------------------------------------------------------------------------


async def test_a_takeover_finds_what_was_not_in_the_documents_yet(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.store.elastic.projector.LINGER", 3_600.0)
    before = await acquire(await place.store(), b"a")
    for seq in range(1, 40):
        await before.commit(tasks=[row(seq)], blobs=[(Blob.PAYLOAD, seq, b"%d" % seq)])
    await before.put(*(finished(row(seq)) for seq in range(1, 20)))
    assert (await place.ask("GET", "-tasks-*/_count")).json["count"] == 0
    after = await acquire(await place.store(), b"b")
    snapshot = await after.load()
    assert [task.seq for task in snapshot.tasks] == list(range(20, 40))
    assert [census.count for census in snapshot.finished] == [19]
    assert await after.store.read(SHARD, [(Blob.PAYLOAD, 7), (Blob.PAYLOAD, 39)]) == [b"7", b"39"]
    assert alike(await after.store.get(SHARD, [(TENANT, "task-3")]), [finished(row(3))])


async def test_counters_and_nonce_come_back_from_the_checkpoint_alone(place: Place) -> None:
    before = await acquire(await place.store(), b"a")
    await before.commit(tasks=[row(1)], counters=Counters(NOW, 77, 5))
    await before.store.release(before.ownership)
    store = await place.store()
    await store.acquire(SHARD, b"b")
    checkpoint = (await place.ask("GET", f"-control/_doc/checkpoint-{SHARD}")).json["_source"]
    assert checkpoint["slot"] == 3  # epoch, batch, release: nothing is replayed
    owner = await acquire(store, b"c")
    assert (await owner.load()).counters == Counters(NOW, 77, 5)


async def test_a_search_by_another_process_sees_what_the_owner_has_committed(place: Place) -> None:
    owner = await acquire(await place.store(), b"a")
    await owner.put(row(1), row(2))
    reader = await place.store()
    assert await reader.count(SHARD, Query(tenant=TENANT)) == 2
    await owner.put(row(3))
    assert await reader.count(SHARD, Query(tenant=TENANT)) == 3
    assert [task and task.seq for task in await reader.get(SHARD, [(TENANT, "task-3")])] == [3]
