"""The queries of the documentation find what they say, on a node with tasks and their history."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lineshaft.store.elastic.store import ElasticStore
from lineshaft.store.urls import open_store
from tests import servers
from tests.core.world import World
from tests.docs.blocks import blocks_of
from tests.docs.desk import ROOT
from tests.servers.search import SearchServer

pytestmark = pytest.mark.timeout(300)

Answers = list[dict[str, Any]]


def documented(kind: str) -> list[str]:
    page = blocks_of(ROOT / "docs" / "elasticsearch.md")
    return [block.text for block in page if block.words == (f"search={kind}",)]


@pytest.fixture(scope="module")
def server() -> SearchServer:
    return servers.opensearch()


@pytest.fixture
async def answers(server: SearchServer, opensearch_url: str) -> AsyncIterator[dict[str, Answers]]:
    """Let tasks live on a node, and ask it what the documentation asks."""
    prefix = opensearch_url.rpartition("/")[2]
    store = open_store(f"{opensearch_url}?history=on&shards=1")
    assert isinstance(store, ElasticStore)
    await store.open(address="http://127.0.0.1:7077")
    ownership = await store.acquire(0, b"an owner")
    w = World(tenant="default")
    batches: list[Any] = []
    commit = w.rows.commit
    w.rows.commit = lambda batch: (batches.append(batch), commit(batch))[1]  # type: ignore[method-assign]
    w.now = time.time_ns() // 1_000_000 - 120_000
    live(w)
    for batch in batches:
        await store.commit(ownership, batch)
    await store.release(ownership)  # writes all documents
    await store.close()
    found = {
        kind: [ask(server, prefix, kind, text) for text in documented(kind)] for kind in ("tasks", "history")
    }
    yield found
    server.request("DELETE", f"/_data_stream/logs-{prefix}.task-*")


def live(w: World) -> None:
    w.enqueue("bill", "invoice-3")
    w.enqueue("bill", "invoice-4", max_retries=0)
    for task in w.claim("first", max=2):
        w.start(task)
        w.advance(500)
        w.fail(task, b'{"type":"ConnectionError","message":"Connection refused by 10.0.0.1"}')
    w.advance(5_000)
    [task] = w.claim("second")
    w.start(task)
    w.advance(30_001)  # nothing is heard of it again
    [task] = w.claim("third")
    w.start(task)
    w.advance(250)
    w.complete(task)
    w.enqueue("mail", "m-1", queue="mail")


def ask(server: SearchServer, prefix: str, kind: str, text: str) -> dict[str, Any]:
    pattern = {"tasks": f"{prefix}-tasks-*", "history": f"logs-{prefix}.task-*"}[kind]
    server.request("POST", f"/{pattern}/_refresh")
    answer = server.request("POST", f"/{pattern}/_search", json.loads(text))
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def sources(answer: dict[str, Any]) -> Answers:
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def buckets(answer: dict[str, Any], name: str) -> Answers:
    found: Answers = answer["aggregations"][name]["buckets"]
    return found


async def test_queries_over_tasks(answers: dict[str, Answers]) -> None:
    failed, waiting, texts = answers["tasks"]
    [bill] = buckets(failed, "names")
    assert (bill["key"], bill["doc_count"]) == ("bill", 1)
    assert [error["key"] for error in bill["errors"]["buckets"]] == ["ConnectionError"]
    assert [task["task_id"] for task in sources(waiting)] == ["m-1"]
    assert {task["task_id"] for task in sources(texts)} >= {"invoice-4"}


async def test_queries_over_the_history(answers: dict[str, Answers]) -> None:
    life, durations, losers, minutes = answers["history"]
    assert [event["event"]["action"] for event in sources(life)] == [
        "task-enqueue",
        "task-start",
        "task-retry",
        "task-due",
        "task-start",
        "lease-lost",
        "task-start",
        "task-end",
    ]
    [bill] = buckets(durations, "names")
    assert bill["duration"]["values"]["99.0"] > 1e9
    assert [worker["key"] for worker in buckets(losers, "workers")] == ["second"]
    outcomes = [
        outcome["key"] for minute in buckets(minutes, "minutes") for outcome in minute["outcomes"]["buckets"]
    ]
    assert sorted(outcomes) == ["failure", "success"]
