from __future__ import annotations

from typing import Any

import pytest

from lineshaft.errors import Overloaded, Unavailable
from lineshaft.server.settings import Limits
from tests.server.asgi import Edge, edge

SMALL = Limits(payload=100, envelope=1_000, batch=5_000, items=10)


async def claimed(served: Edge) -> dict[str, Any]:
    await served.send("PUT", "/_tasks/a", {"name": "n"})
    task: dict[str, Any] = (await served.send("POST", "/_tasks/_claim", {})).json
    return task


@pytest.mark.parametrize("size", [98, 99])
async def test_payloads_results_and_their_like_have_a_limit(size: int) -> None:
    text = "x" * size  # two bytes more as JSON
    async with edge(limits=SMALL) as served:
        task = await claimed(served)
        token = {"lease_token": task["lease_token"]}
        answers = [
            (await served.send("POST", "/_tasks", {"name": "n", "payload": text}), "payload"),
            (await served.send("PATCH", "/_tasks/b", {"payload": text}), "payload"),
            (await served.send("POST", "/_tasks/a/_heartbeat", token | {"checkpoint": text}), "checkpoint"),
            (await served.send("POST", "/_tasks/a/_heartbeat", token | {"usage": text}), "usage"),
            (await served.send("POST", "/_tasks/a/_complete", token | {"result": text}), "result"),
        ]
    for answer, field in answers:
        assert (answer.status == 413) == (size == 99), answer.body
        if size == 99:
            assert answer.json["error"]["field"] == field


async def test_one_item_that_is_too_large_spoils_only_itself() -> None:
    async with edge(limits=SMALL) as served:
        body = [{"name": "n", "payload": "x" * 200}, {"name": "n"}]
        items = (await served.send("POST", "/_tasks/_bulk", body)).json["items"]
        assert [item["status"] for item in items] == [413, 201]
        task = await claimed(served)
        token = {"task_id": task["task_id"], "lease_token": task["lease_token"]}
        report = {"items": [token | {"op": "complete", "result": "x" * 200}, token | {"op": "complete"}]}
        items = (await served.send("POST", "/_tasks/_report", report)).json["items"]
        assert [item["status"] for item in items] == [413, 200]


async def test_a_batch_has_a_limit_of_items_and_of_bytes() -> None:
    async with edge(limits=SMALL) as served:
        many = await served.send("POST", "/_tasks/_bulk", [{"name": "n"}] * 11)
        assert (many.status, many.json["error"]["field"]) == (422, "items")
        assert (await served.send("POST", "/_tasks/_bulk", [{"name": "n"}] * 10)).status == 200
        large = await served.send("POST", "/_tasks/_bulk", [{"name": "n", "payload": "x" * 90}] * 60)
        assert large.status == 413


async def test_a_thousand_tasks_at_once_are_welcome(edge: Edge) -> None:
    body = [{"name": "n", "payload": {"number": number}} for number in range(1_000)]
    answer = await edge.send("POST", "/_tasks/_bulk", body)
    assert [item["status"] for item in answer.json["items"]] == [201] * 1_000


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Overloaded("too much", retry_after=1.2), 429, "2"),
        (Unavailable("not now"), 503, "1"),
        (Unavailable("not now", retry_after=5), 503, "5"),
    ],
)
async def test_overload_says_when_to_come_again(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, retry_after: str
) -> None:
    def refuse(command: object) -> None:
        raise error

    monkeypatch.setattr(edge.calls.engine, "submit", refuse)
    for path, body in (
        ("/_tasks", {"name": "n"}),
        ("/_tasks/_bulk", [{"name": "n"}]),
        ("/_tasks/_claim", {}),
    ):
        answer = await edge.send("POST", path, body)
        assert (answer.status, answer.headers["retry-after"]) == (status, retry_after)


async def test_an_error_that_nobody_foresaw_tells_nothing_of_the_inside(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(command: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(edge.calls.engine, "submit", fail)
    answer = await edge.send("POST", "/_tasks", {"name": "n"})
    assert (answer.status, answer.json["error"]["type"]) == (500, "internal")
    assert b"secret" not in answer.body
    assert "secret" in caplog.text


async def test_readiness_is_told_with_what_is_wrong(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.calls.engine, "trouble", lambda: "the store is stuck")
    answer = await edge.send("GET", "/_health/ready")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["reason"] == "the store is stuck"
    assert (await edge.send("GET", "/_health/live")).status == 200
