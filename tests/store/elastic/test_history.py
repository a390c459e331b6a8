"""The history: each move of a task is one event, written once, and never in the way."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lineshaft.core.batch import Batch, Change, Counters
from lineshaft.core.task import State
from lineshaft.errors import Unavailable
from lineshaft.store.base import Query
from lineshaft.store.elastic.address import read_address
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.history import PATIENCE, History, HistoryNames, mapping
from lineshaft.store.elastic.history_events import (
    ACTIONS,
    Event,
    events_of,
    instant,
    namespace_of,
)
from lineshaft.store.urls import open_store
from tests import servers
from tests.core.world import LEASE, MINUTE, START, World

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class ToldWorld(World):
    """A world whose batches are kept, as a log keeps them."""

    def __init__(self, *, tenant: str = "acme") -> None:
        self.batches: list[Batch] = []
        super().__init__(tenant=tenant)

    def _settle(self) -> None:
        commit = self.rows.commit
        self.rows.commit = lambda batch: (self.batches.append(batch), commit(batch))[1]  # type: ignore[method-assign]
        try:
            super()._settle()
        finally:
            self.rows.commit = commit  # type: ignore[method-assign]

    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in events_of(3, batch, dataset="lineshaft.task")]

    def told(self) -> list[tuple[str, str | None]]:
        """Return action and outcome of all events."""
        documents = [event.document["event"] for event in self.events()]
        return [(document["action"], document.get("outcome")) for document in documents]


@pytest.fixture
def w() -> ToldWorld:
    return ToldWorld()


# -- what an event says ------------------------------------------------------------------------------


def test_a_task_that_completes(w: ToldWorld) -> None:
    w.enqueue("resize", "r-1", queue="images", tags=("red", "big"), priority=7, traceparent=TRACE)
    w.advance(2_000)
    [task] = w.claim("worker-1", queues=("images",))
    w.start(task)
    w.advance(1_500)
    w.complete(task)

    assert w.told() == [("task-enqueue", None), ("task-start", None), ("task-end", "success")]
    enqueued, started, ended = [event.document for event in w.events()]
    assert enqueued["@timestamp"] == "2023-11-14T22:13:20.000Z"
    assert enqueued["task"]["id"] == "r-1"
    assert enqueued["task"]["queue"] == "images"
    assert enqueued["task"]["priority"] == 7
    assert enqueued["tags"] == ["red", "big"]
    assert {event.document["trace"]["id"] for event in w.events()} == {TRACE[3:35]}
    assert enqueued["span"] == {"id": TRACE[36:52]}
    assert enqueued["data_stream"] == {"type": "logs", "dataset": "lineshaft.task", "namespace": "acme"}
    assert started["task"]["worker"] == {"id": "worker-1"}
    assert started["task"]["waited"] == 2_000_000_000
    assert ended["event"]["duration"] == 1_500_000_000
    assert ended["event"]["start"] == instant(START + 2_000)
    assert ended["event"]["end"] == ended["@timestamp"] == instant(START + 3_500)
    assert ended["task"]["turnaround"] == 3_500_000_000
    assert ended["task"]["state"] == "completed"
    assert ended["message"] == "resize r-1: end completed"


def test_all_of_a_life_in_one_batch() -> None:
    """Rows are coalesced; what an event says of its attempt is found in the last of them."""
    w = ToldWorld()
    w.enqueue("work", "w-1", max_retries=1)
    for _ in range(2):
        [task] = w.claim("a")
        w.start(task)
        w.advance(100)
        w.fail(task, b'{"type":"ValueError","message":"no","stack":"at line 1","data":1}')
        w.advance(MINUTE)
    changes = [change for batch in w.batches for change in batch.changes]
    last = w.batches[-1]
    whole = Batch(
        position=1,
        nonce=b"",
        counters=last.counters,
        tasks=[w.get("w-1").snapshot()],
        changes=changes,
    )
    documents = [event.document for event in events_of(0, whole, dataset="lineshaft.task")]
    told = [(each["event"]["action"], each["event"].get("outcome")) for each in documents]
    assert told == [
        ("task-enqueue", None),
        ("task-start", None),
        ("task-retry", "failure"),
        ("task-due", None),
        ("task-start", None),
        ("task-end", "failure"),
    ]
    error = {"type": "ValueError", "message": "no", "stack_trace": "at line 1"}
    assert [each["error"] for each in documents if "error" in each] == [error, error]
    assert [each["event"]["duration"] for each in documents if "duration" in each["event"]] == [
        100_000_000
    ] * 2
    assert [each["task"]["attempt"] for each in documents] == [0, 1, 1, 1, 2, 2]


def test_a_lost_lease(w: ToldWorld) -> None:
    w.enqueue()
    [task] = w.claim("gone")
    w.start(task)
    w.advance(LEASE + 1)
    lost = w.events()[-1].document
    assert lost["event"]["action"] == "lease-lost"
    assert lost["event"]["outcome"] == "failure"
    assert lost["error"] == {"type": "lease_lost"}
    assert lost["task"]["worker"] == {"id": "gone"}
    assert lost["event"]["duration"] == LEASE * 1_000_000


def test_what_is_given_back_cancelled_deleted_and_run_again(w: ToldWorld) -> None:
    task = w.enqueue(run_at=START + MINUTE)
    w.promote(task)
    [task] = w.claim()
    w.start(task)
    w.snooze(task, MINUTE)
    w.patch(task, priority=3)
    w.advance(MINUTE)
    [task] = w.claim()
    w.release(task)
    w.cancel(task, "not needed")
    w.retry(task)
    w.cancel(task)
    w.delete(task)
    assert w.told() == [
        ("task-enqueue", None),
        ("task-promote", None),
        ("task-start", None),
        ("task-snooze", None),
        ("task-update", None),
        ("task-due", None),
        ("task-start", None),
        ("task-release", None),
        ("task-end", "unknown"),
        ("task-rerun", None),
        ("task-end", "unknown"),
        ("task-delete", None),
    ]
    reasons = [event.document["event"].get("reason") for event in w.events()]
    assert "not needed" in reasons
    assert {action for action, _ in w.told()} <= set(ACTIONS)


@pytest.mark.parametrize(
    "error, told",
    [
        (b"null", {"type": "failed"}),
        (b"{}", {"type": "failed"}),
        (b'"just text"', {"message": '"just text"'}),
        (b'{"type":5}', {"message": '{"type":5}'}),
        (b'{"type":"a","more":{"b":1}}', {"type": "a"}),
    ],
)
def test_errors_of_any_form(w: ToldWorld, error: bytes, told: dict[str, str]) -> None:
    w.enqueue(max_retries=0)
    [task] = w.claim()
    w.fail(task, error)
    assert w.events()[-1].document["error"] == told


def test_long_errors_are_cut(w: ToldWorld) -> None:
    w.enqueue(max_retries=0)
    [task] = w.claim()
    w.fail(task, b'{"message":"' + b"m" * 100_000 + b'","stack":"' + b"s" * 100_000 + b'"}')
    error = w.events()[-1].document["error"]
    assert len(error["message"]) == 8_192
    assert len(error["stack_trace"]) == 32_768


def test_ids_follow_from_the_log(w: ToldWorld) -> None:
    for _ in range(3):
        w.enqueue()
    again = [event for batch in w.batches for event in events_of(3, batch, dataset="lineshaft.task")]
    assert again == w.events()
    assert len({event.id for event in w.events()}) == 3


def test_a_partition_is_told_beside_its_tenant() -> None:
    w = ToldWorld(tenant="acme#2")
    w.enqueue("a")
    [event] = w.events()
    assert event.tenant == "acme"
    assert event.document["data_stream"]["namespace"] == "acme"
    assert (event.document["task"]["tenant"], event.document["task"]["partition"]) == ("acme", 2)


# -- names ------------------------------------------------------------------------------------------


def test_tenants_have_legal_names_of_their_own() -> None:
    taken = "acme_0123456789"
    tenants = [
        "acme",
        "Acme",
        "ac-me",
        "ac_me",
        "ac me",
        "ac/me",
        "Größe",
        "a" * 128,
        "a" * 127 + "b",
        ":",
        taken,
    ]
    names = [namespace_of(tenant) for tenant in tenants]
    assert names[0] == "acme"
    assert namespace_of("ac_me") == "ac_me"
    assert len(set(names)) == len(tenants)
    for name in names:
        assert name == name.lower()
        assert len(name) <= 100
        assert not set(name) & set('\\/*?"<>| ,#:-')
    forged = namespace_of("ac-me")
    assert namespace_of(forged) != forged, "a tenant could name itself into another's stream"


def test_instants_that_no_calendar_knows() -> None:
    assert instant(1) == "1970-01-01T00:00:00.001Z"
    assert instant(10**18) == "9999-12-31T00:00:00.000Z"


def test_every_field_of_an_event_is_in_the_mapping(w: ToldWorld) -> None:
    test_what_is_given_back_cancelled_deleted_and_run_again(w)
    w.enqueue(tags=("a",), traceparent=TRACE, max_retries=0)
    [task] = w.claim()
    w.fail(task, b'{"type":"T","message":"m","stack":"s"}')
    for event in w.events():
        _assert_mapped(event.document, mapping()["properties"], event.document["event"]["action"])


def _assert_mapped(document: dict[str, Any], properties: dict[str, Any], where: str) -> None:
    for name, value in document.items():
        assert name in properties, f"{where}: {name}"
        if isinstance(value, dict):
            _assert_mapped(value, properties[name]["properties"], f"{where}: {name}")


# -- on a real node ---------------------------------------------------------------------------------


@pytest.fixture
def prefix(opensearch_server: servers.SearchServer) -> Iterator[str]:
    name = f"t{secrets.token_hex(4)}"
    yield name
    opensearch_server.request("DELETE", f"/_data_stream/{HistoryNames(name).pattern}")
    opensearch_server.drop(f"logs-{name}.")
    opensearch_server.drop(name)


@pytest.fixture
async def client(opensearch_server: servers.SearchServer) -> AsyncIterator[Client]:
    made = Client(read_address("opensearch", f"127.0.0.1:{opensearch_server.port}", {}))
    yield made
    await made.close()


class Clock:
    now = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def history(client: Client, prefix: str, clock: Clock) -> History:
    made = History(client, prefix, clock=lambda: clock.now)
    await made.prepare()
    return made


def documents(server: servers.SearchServer, target: str) -> list[dict[str, Any]]:
    server.request("POST", f"/{target}/_refresh")
    found = server.request("GET", f"/{target}/_search?size=1000&sort=@timestamp,event.sequence").json
    return [hit["_source"] for hit in found["hits"]["hits"]]


async def test_a_stream_for_each_tenant(
    opensearch_server: servers.SearchServer, history: History, w: ToldWorld
) -> None:
    other = ToldWorld(tenant="Other Co")
    for world in (w, other):
        world.enqueue(id="one")
        [task] = world.claim()
        world.complete(task)
        for batch in world.batches:
            history.add(0, batch)
    assert history.waiting == 8
    await history.flush()
    assert (history.waiting, history.dropped) == (0, 0)
    found = documents(opensearch_server, history.names.stream("acme"))
    assert [each["event"]["action"] for each in found] == ["task-enqueue", "task-start", "task-end"]
    assert len(documents(opensearch_server, history.names.stream("Other Co"))) == 3
    streams = opensearch_server.request("GET", f"/_data_stream/{history.names.pattern}").json["data_streams"]
    assert len(streams) == 2


async def test_a_replay_writes_nothing_twice(
    opensearch_server: servers.SearchServer, history: History, w: ToldWorld
) -> None:
    """Not even after the stream has rolled over, where the id is free again in the new backing index."""
    for _ in range(5):
        w.enqueue()
    for batch in w.batches:
        history.add(0, batch)
    await history.flush()
    for batch in w.batches:
        history.add(0, batch)
    await history.flush()
    stream = history.names.stream("acme")
    assert len(documents(opensearch_server, stream)) == 5
    assert opensearch_server.request("POST", f"/{stream}/_rollover").json["rolled_over"]
    w.enqueue()
    for batch in w.batches:
        history.add(0, batch, again=True)
    await history.flush()
    assert len(documents(opensearch_server, stream)) == 6
    assert history.dropped == 0


async def test_a_document_that_the_cluster_refuses_is_counted_and_the_others_are_written(
    opensearch_server: servers.SearchServer, history: History, w: ToldWorld, caplog: pytest.LogCaptureFixture
) -> None:
    w.enqueue()
    [good] = w.events()
    bad = Event(good.tenant, "bad", good.at, good.document | {"surprise": 1})
    await history.write([good, bad])
    assert history.dropped == 1
    assert "surprise" in caplog.text
    assert len(documents(opensearch_server, history.names.stream("acme"))) == 1


async def test_a_read_only_index_makes_it_wait(
    opensearch_server: servers.SearchServer, history: History, clock: Clock, w: ToldWorld
) -> None:
    w.enqueue()
    history.add(0, w.batches[-1])
    await history.flush()
    stream = history.names.stream("acme")
    opensearch_server.request("PUT", f"/{stream}/_settings", {"index.blocks.write": True})
    w.enqueue()
    history.add(0, w.batches[-1])
    with pytest.raises(Unavailable, match="history"):
        await history.flush()
    assert history.waiting == 1
    clock.now += PATIENCE
    await history.flush()
    assert (history.waiting, history.overdue) == (1, True), "tasks do not wait for their history for ever"
    opensearch_server.request("PUT", f"/{stream}/_settings", {"index.blocks.write": None})
    await history.flush()
    assert (history.waiting, history.overdue) == (0, False)
    assert len(documents(opensearch_server, stream)) == 2


async def test_without_data_streams_there_is_an_index_a_month(
    opensearch_server: servers.SearchServer, history: History, w: ToldWorld
) -> None:
    history.has_streams = False
    template = opensearch_server.request("GET", f"/_index_template/{history.names.template}").json
    body = template["index_templates"][0]["index_template"]
    del body["data_stream"]
    assert opensearch_server.request("PUT", f"/_index_template/{history.names.template}", body).status == 200
    w.enqueue()
    for batch in w.batches:
        history.add(0, batch)
    await history.flush()
    assert len(documents(opensearch_server, f"{history.names.stream('acme')}-2023.11")) == 1


async def test_elasticsearch_without_data_streams_is_noticed(
    elasticsearch_server: servers.SearchServer, w: ToldWorld
) -> None:
    client = Client(read_address("elasticsearch", f"127.0.0.1:{elasticsearch_server.port}", {}))
    history = History(client, f"t{secrets.token_hex(4)}")
    try:
        await history.prepare()
        assert not history.has_streams
        w.enqueue()
        for _ in range(2):
            history.add(0, w.batches[-1], again=True)
            await history.flush()
        [document] = documents(elasticsearch_server, f"{history.names.stream('acme')}-2023.11")
        assert document["event"]["action"] == "task-enqueue"
    finally:
        elasticsearch_server.drop(f"logs-{history.names.dataset}")
        elasticsearch_server.drop(history.names.template)
        await client.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
async def test_each_move_is_told_once_whoever_dies_meanwhile(
    opensearch_server: servers.SearchServer, prefix: str, seed: int
) -> None:
    """Coordinators end without a word, in the middle of writing, and the stream rolls over now and then."""
    chance = random.Random(seed)
    print(f"seed {seed}")
    w = ToldWorld()
    stream = HistoryNames(prefix).stream("acme")
    done = 0
    for life in range(4):
        store = open_store(f"opensearch://127.0.0.1:{opensearch_server.port}/{prefix}?history=on&shards=1")
        await store.open(address="http://127.0.0.1:7077")
        ownership = await store.acquire(0, b"owner %d" % life)
        await store.load(ownership)
        for _ in range(chance.randint(5, 40)):
            w.enqueue()
            if chance.random() < 0.5 and (claimed := w.claim()):
                w.complete(claimed[0])
            for batch in w.batches[done:]:
                await store.commit(ownership, batch)
            done = len(w.batches)
        if chance.random() < 0.7:  # documents and history are written up to some moment
            await store.count(0, Query(tenant="acme"))
        opensearch_server.request("POST", f"/{stream}/_rollover")
        await store.close()
    store = open_store(f"opensearch://127.0.0.1:{opensearch_server.port}/{prefix}?history=on")
    await store.open(address="http://127.0.0.1:7077")
    await store.release(await store.acquire(0, b"the last"))
    await store.close()
    told = [event["event"]["id"] for event in documents(opensearch_server, stream)]
    moves = [event.id for batch in w.batches for event in events_of(0, batch, dataset="x")]
    assert sorted(told) == sorted(moves)


async def test_without_a_cluster_what_waits_is_bounded() -> None:
    client = Client(read_address("opensearch", "127.0.0.1:9", {}))
    history = History(client, "nowhere", most_waiting=10)
    for position in range(1, 21):
        change = Change(position, "acme", f"task {position}", "work", "default", State.QUEUED, START)
        history.add(0, Batch(position=position, nonce=b"", counters=Counters(), changes=[change]))
    assert (history.waiting, history.dropped) == (10, 10)
    with pytest.raises(Unavailable):
        await history.flush()
    assert history.waiting == 10
    await client.close()
