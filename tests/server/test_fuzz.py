"""Whatever is sent, the answer is never a 5xx, always JSON, and an error always says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lineshaft.wire import CALLS, Call, Enqueue
from lineshaft.wire.workers import Item
from tests.server.asgi import Answer, Edge, edge

READS = ["root", "live", "ready", "metrics", "openapi", "stats"]
SENDABLE = [call for call in CALLS.values() if call.name not in (*READS, "new_key")]

odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63,
        2**64,
        -(2**63) - 1,
        10**400,
        0.5,
        -0.0,
        1e308,
        "",
        "a",
        "_a",
        "é",
        "\x00",
        "30s",
        "-1s",
        "1e9d",
        "99999999999d",
        "2026-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "NaN",
        "24GiB",
        "../..",
        "a" * 300,
        "a,b",
        "queued",
        "-created_at",
        "exponential",
        "start",
        "complete",
        "1-1",
        "0",
        [],
        {},
        [[]],
        [None],
        ["a"],
        {"a": 1},
        {"id": "w"},
        [{}],
        [5],
    ]
)
anything = st.recursive(
    odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def fields(message: Any) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(message)]


def bodies(call: Call) -> st.SearchStrategy[Any]:
    if call.body == list[Enqueue]:
        return st.lists(objects(Enqueue) | anything, max_size=4)
    if call.name == "report":
        names = sorted({name for kind in Item.__args__ for name in fields(kind)} | {"op"})
        items = st.lists(st.dictionaries(st.sampled_from(names), anything, max_size=5), max_size=3)
        return st.fixed_dictionaries({"items": items}, optional={"claim": anything})
    return objects(call.body) if call.body is not None else anything


def objects(message: Any) -> st.SearchStrategy[Any]:
    names = fields(message)
    if not names:
        return anything
    return st.dictionaries(st.sampled_from([*names, "colour"]), anything, max_size=6)


@pytest.fixture(scope="module", name="run")
def give_run() -> Iterator[Any]:
    """Run a request on an application that lives as long as the module."""
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        opened = edge()
        served: Edge = runner.run(opened.__aenter__())
        stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))
        runner.run(served.send("PUT", "/_tasks/a", {"name": "n"}))
        yield lambda *request, **more: runner.run(served.send(*request, **more))


def judge(answer: Answer) -> None:
    assert 200 <= answer.status < 500, answer.body
    assert answer.headers["content-length"] == str(len(answer.body))
    if answer.status == 204:
        return
    if answer.headers["content-type"] == "application/json":
        told = answer.json
        if answer.status >= 400:
            assert told["error"]["type"]
            assert told["error"]["reason"]


@settings(max_examples=800, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_message_to_any_call(run: Any, data: st.DataObject) -> None:
    call = data.draw(st.sampled_from(SENDABLE))
    body = data.draw(bodies(call))
    names = fields(call.query) if call.query is not None else ["wait"]
    query = data.draw(
        st.dictionaries(
            st.sampled_from(names),
            st.sampled_from(
                [
                    "",
                    "0",
                    "1",
                    "-1",
                    "30ms",
                    "true",
                    "a",
                    "a,b",
                    "%00",
                    "%ff",
                    "%E2%82%AC",
                    "+",
                    "queued",
                    "99999999999999999999",
                    "null",
                ]
            ),
            max_size=3,
        )
    )
    id = data.draw(st.sampled_from(["a", "b", "_x", "%2e%2e", "a%2Fb", "%ff", "%zz", "", "é", "a" * 400]))
    if "wait" in query and "wait" in names:
        query["wait"] = "0"
    if isinstance(body, dict) and "wait" in body:
        body["wait"] = data.draw(st.sampled_from([0, "0s", None, -1, [], "51s"]))
    path = call.path.replace("{id}", id) + "?" + "&".join(f"{name}={value}" for name, value in query.items())
    encoded = json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    judge(run(call.method, path, encoded))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"]),
    path=st.sampled_from(
        [
            "/",
            "/_tasks",
            "/_tasks/_claim",
            "/_tasks/_bulk",
            "/_tasks/_report",
            "/_tasks/a/_complete",
            "/x",
            "//",
            "/_tasks//",
            "/_queues/%00",
            "/_tasks/_session",
        ]
    )
    | st.text(alphabet="/_atsk%20?&=.", max_size=20).map("/".__add__),
    body=st.binary(max_size=40)
    | st.text(alphabet='[]{}",:\\ud8c0 1eE+-.nulltrue', max_size=60).map(str.encode),
    media=st.sampled_from(
        ["application/json", "application/x-ndjson", "text/plain", "", ";", "application/json;charset"]
    ),
)
def test_any_bytes_to_any_path(run: Any, method: str, path: str, body: bytes, media: str) -> None:
    judge(run(method, path, body, headers={"content-type": media}))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        [
            "host",
            "origin",
            "authorization",
            "content-type",
            "accept",
            "traceparent",
            "content-encoding",
            "last-event-id",
        ]
    ),
    value=st.text(alphabet=st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=30)
    | st.sampled_from(
        [
            "ApiKey ",
            "ApiKey ls_a_b",
            "ApiKey ls",
            "Bearer x",
            "localhost:",
            "[::1",
            "[::1]:99999",
            "null",
            "http://",
            "127.0.0.1:7077",
        ]
    ),
)
def test_any_header(run: Any, name: str, value: str) -> None:
    judge(run("POST", "/_tasks", b'{"name":"n"}', headers={name: value}))
