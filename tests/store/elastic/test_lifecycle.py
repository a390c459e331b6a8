"""What is past its time goes by whole indices, and nothing that lives goes with it.

No cluster here has ILM or ISM (the minimal distributions lack both), so what is said to those is held only
against what is known of their interfaces, by a cluster of words; the rest is done to a real node.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from lineshaft.core.batch import Blob
from lineshaft.errors import Unavailable
from lineshaft.store.conformance.harness import NOW, SHARD, Owner, acquire, finished, row
from lineshaft.store.elastic.address import read_address
from lineshaft.store.elastic.client import Answer, Client
from lineshaft.store.elastic.history import History, HistoryNames
from lineshaft.store.elastic.history_events import Event, instant
from lineshaft.store.elastic.lifecycle import DAY, KEPT_DAYS, HistoryLifecycle, ilm_policy, ism_policy
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names
from lineshaft.store.elastic.spent_months import drop_spent
from lineshaft.store.elastic.store import ElasticStore
from lineshaft.store.urls import open_store
from tests.servers.search import SearchServer

pytestmark = pytest.mark.timeout(300)

LATER = NOW + 60 * DAY


# -- months of tasks ----------------------------------------------------------------------------------


@pytest.fixture
async def store(opensearch_url: str) -> AsyncIterator[ElasticStore]:
    made = open_store(f"{opensearch_url}?shards=2")
    assert isinstance(made, ElasticStore)
    await made.open(address="http://127.0.0.1:7077")
    yield made
    await made.close()


@pytest.fixture
async def dropping(opensearch_server: SearchServer, opensearch_url: str) -> AsyncIterator[Dropping]:
    client = Client(read_address("opensearch", f"127.0.0.1:{opensearch_server.port}", {}))
    yield Dropping(client, opensearch_url.rpartition("/")[2])
    await client.close()


class Dropping:
    """Another coordinator, which tidies up."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.names = Names(prefix)
        self.months = Months(client, self.names)

    async def __call__(self, now: int = LATER) -> list[str]:
        return await drop_spent(self.client, self.names, self.months, shards=2, now=now)


async def write_all(store: ElasticStore, owner: Owner) -> Owner:
    """Let documents and checkpoint have everything; return the owner, who is a new one."""
    with contextlib.suppress(Unavailable):
        await store.release(owner.ownership)
    while True:
        with contextlib.suppress(Unavailable):
            ownership = await store.acquire(owner.ownership.shard, b"an owner")
            return Owner(store, ownership, (await store.load(ownership)).position)


async def prune(store: ElasticStore, owner: Owner, before: int = NOW + 2_000) -> None:
    removed = True
    while removed:
        with contextlib.suppress(Unavailable):  # a month is blocked for a moment while it is looked at
            removed = bool(await store.prune(owner.ownership, before=before, log_before=0))


async def test_a_month_goes_once_its_last_task_was_pruned(store: ElasticStore, dropping: Dropping) -> None:
    owner = await acquire(store)
    done = [finished(row(seq), prune_at=NOW + 1_000) for seq in (1, 2)]
    await owner.commit(tasks=[*done, row(3)], blobs=[(Blob.PAYLOAD, 3, b'"kept"')])
    await prune(store, owner)
    owner = await write_all(store, owner)
    assert await dropping() == [], "one is open"
    assert await store.read(SHARD, [(Blob.PAYLOAD, 3)]) == [b'"kept"']

    await owner.put(finished(row(3), prune_at=NOW + 5_000))
    owner = await write_all(store, owner)
    assert await dropping() == [], "one is not due yet"
    await prune(store, owner, NOW + 5_000)
    owner = await write_all(store, owner)
    assert await dropping() == ["2026.01"]
    assert await store.get(SHARD, [("acme", "task-3")]) == [None]

    await owner.put(row(4))
    owner = await write_all(store, owner)
    assert [task.id for task in (await owner.load()).tasks] == ["task-4"], (
        "the month is made again where needed"
    )


async def test_a_month_of_the_present_stays(store: ElasticStore, dropping: Dropping) -> None:
    owner = await acquire(store)
    await owner.put(finished(row(1), prune_at=NOW))
    await prune(store, owner)
    await write_all(store, owner)
    assert await dropping(NOW) == []
    assert await dropping(NOW + 25 * DAY) == []
    assert await dropping(NOW + 32 * DAY) == ["2026.01"]


async def test_what_another_shard_has_there_is_kept(store: ElasticStore, dropping: Dropping) -> None:
    owners = []
    for shard in (0, 1):
        ownership = await store.acquire(shard, b"an owner")
        owners.append(Owner(store, ownership, (await store.load(ownership)).position))
        await owners[-1].put(finished(row(7, f"of {shard}"), prune_at=NOW))
    await prune(store, owners[0])
    owners = [await write_all(store, owner) for owner in owners]
    assert await dropping() == []
    assert (await store.get(1, [("acme", "of 1")]))[0] is not None
    await prune(store, owners[1])
    await write_all(store, owners[1])
    assert await dropping() == ["2026.01"]


async def test_a_try_that_was_cut_short_is_made_up_for(
    store: ElasticStore, dropping: Dropping, opensearch_server: SearchServer
) -> None:
    """A month that was blocked and not dropped takes writes again after the next try."""
    owner = await acquire(store)
    await owner.put(finished(row(1), prune_at=NOW))
    await prune(store, owner)
    owner = await write_all(store, owner)
    index = dropping.names.tasks("2026.01")
    opensearch_server.request("PUT", f"/{index}/_settings", {"index.blocks.write": True})
    await owner.put(row(2))
    await dropping()
    owner = await write_all(store, owner)
    assert [task.id for task in (await owner.load()).tasks] == ["task-2"]


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_to_a_drop_at_any_moment(
    store: ElasticStore, dropping: Dropping, seed: int
) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    owner = await acquire(store)
    alive: set[int] = set()
    drops: list[asyncio.Task[list[str]]] = []
    for seq in range(1, 21):
        await owner.commit(tasks=[row(seq)], blobs=[(Blob.PAYLOAD, seq, b"%d" % seq)])
        alive.add(seq)
        for done in [each for each in sorted(alive) if chance.random() < 0.85]:
            await owner.put(finished(row(done), prune_at=NOW))
            alive.remove(done)
        if chance.random() < 0.7:
            await prune(store, owner)
        if chance.random() < 0.5:
            owner = await write_all(store, owner)
        if chance.random() < 0.7 and all(drop.done() for drop in drops):
            drops.append(asyncio.create_task(dropping()))
        await asyncio.sleep(0)
    print(f"dropped {await asyncio.gather(*drops)}")
    owner = await write_all(store, owner)
    assert [task.seq for task in (await owner.load()).tasks] == sorted(alive)
    payloads = await store.read(SHARD, [(Blob.PAYLOAD, seq) for seq in sorted(alive)])
    assert payloads == [b"%d" % seq for seq in sorted(alive)]


# -- the history by our own hand ----------------------------------------------------------------------


@pytest.fixture
async def history(opensearch_server: SearchServer) -> AsyncIterator[History]:
    client = Client(read_address("opensearch", f"127.0.0.1:{opensearch_server.port}", {}))
    made = History(client, f"t{secrets.token_hex(4)}")
    await made.prepare()
    yield made
    opensearch_server.request("DELETE", f"/_data_stream/{made.names.pattern}")
    opensearch_server.drop(f"logs-{made.names.dataset}")
    opensearch_server.drop(made.names.template)
    await client.close()


def event(at: int, id: str) -> Event:
    return Event("acme", id, at, {"@timestamp": instant(at), "message": id})


def indices(server: SearchServer, pattern: str) -> list[str]:
    found = server.request("GET", f"/_cat/indices/{pattern}?format=json&h=index&expand_wildcards=all").json
    return sorted(each["index"] for each in found)


async def test_old_backing_indices_go_and_the_one_that_is_written_stays(
    opensearch_server: SearchServer, history: History
) -> None:
    lifecycle = HistoryLifecycle(history._client, history.names)
    assert await lifecycle.prepare() == {}
    assert lifecycle.policies is None
    stream = history.names.stream("acme")
    for at in (NOW, NOW + 20 * DAY, NOW + 40 * DAY):
        await history.write([event(at, f"at {at}")])
        assert opensearch_server.request("POST", f"/{stream}/_rollover").status == 200
    await history.write([event(NOW, "late, in the index that is written")])
    opensearch_server.request("POST", f"/{stream}/_refresh")
    assert await lifecycle.sweep(NOW + KEPT_DAYS * DAY) == []
    [first] = await lifecycle.sweep(NOW + KEPT_DAYS * DAY + 1)
    assert first.endswith("-000001")
    assert len(await lifecycle.sweep(NOW + 100 * DAY)) == 2
    found = opensearch_server.request("GET", f"/{stream}/_search").json["hits"]["hits"]
    assert [hit["_source"]["message"] for hit in found] == ["late, in the index that is written"]


async def test_old_months_of_the_history_go_where_there_are_no_streams(
    elasticsearch_server: SearchServer,
) -> None:
    client = Client(read_address("elasticsearch", f"127.0.0.1:{elasticsearch_server.port}", {}))
    history = History(client, f"t{secrets.token_hex(4)}")
    lifecycle = HistoryLifecycle(client, history.names)
    try:
        await history.prepare(settings=await lifecycle.prepare())
        assert (history.has_streams, lifecycle.policies) == (False, None)
        await history.write([event(NOW, "old"), event(NOW + 40 * DAY, "new")])
        elasticsearch_server.request("POST", f"/{history.names.pattern}/_refresh")
        assert len(indices(elasticsearch_server, history.names.pattern)) == 2
        assert await lifecycle.sweep(NOW + 45 * DAY) == [f"{history.names.stream('acme')}-2026.01"]
        assert len(indices(elasticsearch_server, history.names.pattern)) == 1
    finally:
        elasticsearch_server.drop(f"logs-{history.names.dataset}")
        elasticsearch_server.drop(history.names.template)
        await client.close()


# -- the history by the cluster's policy --------------------------------------------------------------


class ClusterOfWords:
    """Answers to requests by method and path, where no real cluster has what is asked for."""

    def __init__(self, answers: dict[str, int]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.sent: dict[str, Any] = {}

    async def send(self, method: str, target: str, body: bytes | None = None, **_: Any) -> Answer:
        self.asked.append(f"{method} {target}")
        if body is not None:
            self.sent[target] = msgspec.json.decode(body)
        return Answer(self.answers.get(f"{method} {target}", 400), b"{}")


NAMES = HistoryNames("lineshaft")
ILM, ISM = "/_ilm/policy/lineshaft-history", "/_plugins/_ism/policies/lineshaft-history"


@pytest.mark.parametrize(
    "answers, policies, settings, made",
    [
        ({f"GET {ILM}": 404, f"PUT {ILM}": 200}, "ilm", {"lifecycle": {"name": "lineshaft-history"}}, [ILM]),
        ({f"GET {ILM}": 200}, "ilm", {"lifecycle": {"name": "lineshaft-history"}}, []),
        ({f"GET {ILM}": 403}, "ilm", {"lifecycle": {"name": "lineshaft-history"}}, []),
        ({f"GET {ISM}": 404, f"PUT {ISM}": 201}, "ism", {}, [ISM]),
        ({f"GET {ISM}": 404, f"PUT {ISM}": 409}, "ism", {}, [ISM]),
        ({f"GET {ISM}": 200}, "ism", {}, []),
        ({f"GET {ILM}": 405}, None, {}, []),
        ({}, None, {}, []),
    ],
)
async def test_a_policy_is_made_where_there_is_none(
    answers: dict[str, int], policies: str | None, settings: dict[str, Any], made: list[str]
) -> None:
    cluster = ClusterOfWords(answers)
    lifecycle = HistoryLifecycle(cluster, NAMES)  # type: ignore[arg-type]
    assert await lifecycle.prepare() == settings
    assert lifecycle.policies == policies
    assert list(cluster.sent) == made


async def test_with_a_policy_we_delete_nothing() -> None:
    cluster = ClusterOfWords({f"GET {ILM}": 200})
    lifecycle = HistoryLifecycle(cluster, NAMES)  # type: ignore[arg-type]
    await lifecycle.prepare()
    asked = list(cluster.asked)
    assert await lifecycle.sweep(LATER) == []
    assert cluster.asked == asked


def test_the_policies_roll_over_before_they_delete() -> None:
    phases = ilm_policy()["policy"]["phases"]
    assert phases["hot"]["actions"]["rollover"] == {"max_age": "7d", "max_primary_shard_size": "20gb"}
    assert phases["delete"] == {"min_age": "30d", "actions": {"delete": {}}}
    policy = ism_policy(NAMES.pattern)["policy"]
    states = {state["name"]: state for state in policy["states"]}
    assert policy["default_state"] in states
    for state in states.values():
        assert {transition["state_name"] for transition in state["transitions"]} <= set(states)
    assert policy["ism_template"][0]["index_patterns"] == ["logs-lineshaft.task-*"]
