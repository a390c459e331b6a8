"""The documents behind the log: written late, written once, lost and made again, and never the wiser."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft.core.batch import Blob
from lineshaft.core.commands import Filter
from lineshaft.core.task import State
from lineshaft.errors import Unavailable
from lineshaft.store.base import Query
from lineshaft.store.conformance.harness import (
    SHARD,
    TENANT,
    acquire,
    alike,
    finished,
    forgotten,
    row,
)
from lineshaft.store.elastic import projector, setup, templates
from tests import servers
from tests.store.elastic.gate import Gate
from tests.store.elastic.place import Place, seqs

NEVER = 3_600.0
BUSY = (503, {"type": "unavailable_shards_exception", "reason": "no primary"})
MONTH = "2026.01"  # of NOW


def bulks(does: Any) -> Any:
    """Do this to every bulk request."""
    return lambda method, path: does if path.startswith("/_bulk") else None


async def test_a_task_is_written_once_for_all_that_happens_meanwhile(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "LINGER", NEVER)
    store = await place.store(through_gate=True)
    owner = await acquire(store)
    place.gate.passed.clear()
    for state in (State.QUEUED, State.CLAIMED, State.RUNNING):
        await owner.put(*(row(seq, state=state) for seq in range(50)))
    await owner.put(*(finished(row(seq)) for seq in range(50)))
    assert not any("_bulk" in request for request in place.gate.passed)
    assert await store.count(SHARD, Query(tenant=TENANT)) == 50
    written = (await place.ask("GET", f"-tasks-{MONTH}/_stats/indexing")).json
    assert written["_all"]["primaries"]["indexing"]["index_total"] == 50
    assert sum("_bulk" in request for request in place.gate.passed) == 1


async def test_what_waits_is_bounded_shown_and_refused_beyond(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "LINGER", 0.0)
    monkeypatch.setattr(projector, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(projector, "MOST_ROWS", 40)
    store = await place.store(through_gate=True)
    owner = await acquire(store)
    place.gate.rule = bulks(BUSY)
    await owner.put(*(row(seq) for seq in range(39)))
    assert store.congestion(SHARD) is None
    await owner.put(*(row(seq) for seq in range(39, 60)))
    with pytest.raises(Unavailable, match="_cluster/health"):
        await store.search(SHARD, Query(tenant=TENANT))
    told = store.congestion(SHARD)
    assert told is not None
    assert "60 rows wait to become documents" in told
    assert "_cluster/health" in told
    gauges = store.gauges()
    assert gauges["projection_lag_rows"] == 60
    assert gauges["projection_lag_seconds"] > 0
    # Reads by identity go on, and commits of what is under way too.
    assert alike(await store.get(SHARD, [(TENANT, "task-7")]), [row(7)])
    await owner.put(finished(row(7)))
    place.gate.rule = lambda method, path: None
    assert await store.count(SHARD, Query(tenant=TENANT)) == 60
    assert store.congestion(SHARD) is None
    assert store.gauges()["projection_lag_rows"] == 0


async def test_an_older_state_never_replaces_a_later_one(place: Place) -> None:
    owner = await acquire(await place.store())
    await owner.put(row(1))
    await owner.put(finished(row(1)))
    await owner.commit(forgotten=[forgotten(row(2))], tasks=[row(3)])
    await owner.store.count(SHARD, Query(tenant=TENANT))
    stale = await place.ask(
        "PUT",
        f"-tasks-{MONTH}-write/_doc/{TENANT}%2Ftask-1?version=2&version_type=external_gte",
        {"shard": SHARD, "slot": 2, "seq": 1, "state": "queued"},
    )
    assert stale.status == 409
    assert await seqs(owner) == [3]


async def test_a_task_that_was_forgotten_is_not_brought_back_by_a_late_write(place: Place) -> None:
    owner = await acquire(await place.store())
    await owner.put(row(1))
    await owner.store.count(SHARD, Query(tenant=TENANT))
    await owner.commit(forgotten=[forgotten(row(1))])
    assert await owner.store.count(SHARD, Query(tenant=TENANT)) == 0
    stale = await place.ask(
        "PUT",
        f"-tasks-{MONTH}-write/_doc/{TENANT}%2Ftask-1?version=2&version_type=external_gte",
        {"shard": SHARD, "slot": 2, "seq": 1, "state": "queued"},
    )
    assert stale.status == 409
    assert await seqs(owner) == []
    assert await seqs(await acquire(await place.store(), b"b")) == []


async def test_a_month_that_was_dropped_is_made_again_by_the_owner_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "LINGER", NEVER)
    stale = await acquire(await place.store(), b"a")
    await stale.put(row(1))
    await stale.store.count(SHARD, Query(tenant=TENANT))
    await stale.put(row(1, priority=1))
    owner = await acquire(await place.store(), b"b")
    for index in ("tasks", "values"):
        await place.ask("DELETE", f"-{index}-{MONTH}")
    with pytest.raises(Unavailable):
        await stale.store._opened.projector(stale.store._opened.shard(SHARD)).reach(3)
    assert (await place.ask("GET", f"-tasks-{MONTH}")).status == 404
    await owner.put(row(2))
    assert 2 in await seqs(owner)
    assert (await place.ask("GET", f"-tasks-{MONTH}")).status == 200


async def test_a_document_that_the_cluster_refuses_is_kept_with_less(place: Place) -> None:
    owner = await acquire(await place.store())
    await owner.put(row(1))
    await owner.store.count(SHARD, Query(tenant=TENANT))
    # No cluster takes a date so far away; the task is there all the same.
    odd = row(2, run_at=2**62)
    await owner.put(odd)
    assert await seqs(owner) == [1, 2]
    assert alike(await owner.store.get(SHARD, [(TENANT, "task-2")]), [odd])


async def test_a_long_error_is_found_by_any_part_of_it(place: Place) -> None:
    owner = await acquire(await place.store())
    text = "x" * 7_900 + "needle" + "y" * 60_000 + "Haystack"
    task = finished(row(1, "ß" * 128), State.FAILED, error=b'{"message": "%s"}' % text.encode())
    await owner.put(task)
    for part in ("needle", "haystack", "ß" * 128):
        query = Query(tenant=TENANT, filter=Filter(text=part))
        assert alike((await owner.store.search(SHARD, query)).tasks, [task]), part


@pytest.mark.timeout(300)  # a node starts twice
async def test_a_node_that_is_killed_loses_nothing_whoever_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is there, what was not comes from the log; no checkpoint passes what was lost."""
    with servers.opensearch(private=True) as server:
        async with Gate(server.port) as gate:
            place = Place(server, gate)
            store = await place.store()
            owner = await acquire(store)
            for seq in range(300):
                await owner.commit(tasks=[row(seq)], blobs=[(Blob.PAYLOAD, seq, b"%d" % seq)])
            await owner.put(*(finished(row(seq)) for seq in range(100)))
            assert await store.count(SHARD, Query(tenant=TENANT)) == 300
            monkeypatch.setattr(projector, "LINGER", NEVER)
            await owner.put(*(finished(row(seq)) for seq in range(100, 200)))
            await asyncio.to_thread(server.kill)
            with pytest.raises(Unavailable, match="is it running"):
                await owner.put(row(1_000))
            await asyncio.to_thread(server.restart)
            # The coordinator outlived the node, and believes what it was answered.
            await store._opened.projector(store._opened.shard(SHARD)).checkpoint()
            successor = await acquire(await place.store(), b"b")
            snapshot = await successor.load()
            assert snapshot.position == 302
            assert [task.seq for task in snapshot.tasks] == list(range(200, 300))
            assert [census.count for census in snapshot.finished] == [200]
            keys = [(Blob.PAYLOAD, seq) for seq in range(300)]
            assert await successor.store.read(SHARD, keys) == [b"%d" % seq for seq in range(300)]
            await successor.put(row(2_000))
            await store.close()
            await successor.store.close()


async def test_partitions_of_a_tenant_are_told_apart_and_bear_its_name(place: Place) -> None:
    store = await place.store()
    owner = await acquire(store)
    parts = [TENANT, f"{TENANT}#0", f"{TENANT}#1"]
    await owner.put(*(row(seq, tenant=part) for seq, part in enumerate(parts, 1)))
    await owner.put(*(finished(row(seq, tenant=part)) for seq, part in enumerate(parts, 4)))
    for seq, part in enumerate(parts, 1):
        assert await store.count(SHARD, Query(tenant=part)) == 2
        page = await store.search(SHARD, Query(tenant=part, sort="created_at"))
        assert [task.seq for task in page.tasks] == [seq, seq + 3]
    assert [(census.tenant, census.count) for census in (await owner.load()).finished] == [
        (part, 1) for part in parts
    ]
    found = (await place.ask("GET", f"-tasks-{MONTH}/_search?q=tenant:{TENANT}")).json
    told = sorted(hit["_source"].get("partition", -1) for hit in found["hits"]["hits"])
    assert told == [-1, -1, 0, 0, 1, 1]


async def test_indices_of_an_older_version_take_new_fields_when_they_are_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await place.store()
    await (await acquire(store)).put(finished(row(1)))
    assert await store.count(SHARD, Query(tenant=TENANT)) == 1
    await store.close()
    properties = setup.TASKS["mappings"]["properties"]
    monkeypatch.setitem(properties, "colour", {"type": "keyword"})
    monkeypatch.setattr(templates, "VERSION", templates.VERSION + 1)
    await place.store()
    mapping = (await place.ask("GET", f"-tasks-{MONTH}/_mapping")).json
    [index] = mapping.values()
    assert index["mappings"]["properties"]["colour"] == {"type": "keyword"}
    answer = await asyncio.to_thread(place.server.request, "GET", f"/_index_template/{place.prefix}-tasks")
    [template] = answer.json["index_templates"]
    assert template["index_template"]["version"] == templates.VERSION
