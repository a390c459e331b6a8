from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineshaft.errors import Invalid, Malformed
from lineshaft.server.reading import BodyReader, QueryReader, has_duplicate_keys
from lineshaft.server.splitting import array_parts
from lineshaft.wire import ClaimQuery, Enqueue, Item, SweepQuery
from tests.server.asgi import Edge

read = BodyReader(Enqueue).read


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"n","name":"n"}',
        b'{"name":"n","payload":1,"payload":2}',
        b'{ "name" : "n" , "name"\t: "m" }',
        b'{"name":"n","n\\u0061me":"m"}',
        b'{"name":"n","worker_affinity":{"resources":{"gpu":1,"gpu":2}}}',
        b'{"name":"n","retry_policy":{"base":1,"base":1}}',
        b'{"name":":","tags":[":", ":"],"name":"x"}',
    ],
)
def test_keys_that_stand_twice_in_the_message_are_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"n","payload":{"a":1,"a":2}}',
        b'{"name":"n","payload":[{"name":1},{"name":2}]}',
        b'{"name":"n","metadata":{"a":1,"a":2}}',
        b'{"name":"n","payload":"\\"name\\":\\"name\\":"}',
        b'{"name":"n","payload":"\\u0061"}',
        b'{"name":"n","payload":{"name":"x","queue":{"name":1}}}',
    ],
)
def test_inside_payloads_they_are_kept(body: bytes) -> None:
    assert read(body).name == "n"


class Pairs(list[Any]):
    """An object, as pairs."""


def test_a_large_payload_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", None)
    payload = json.dumps([{"name": "a\u1234"}] * 100).encode()
    assert read(b'{"name":"n","payload":%s,"queue":"q"}' % payload).queue == "q"
    assert bytes(BodyReader(Item).read(ITEM % payload).result) == payload


def test_a_key_after_a_large_payload_counts() -> None:
    payload = json.dumps([{"name": "a"}] * 100).encode()
    for body in (b'{"name":"n","payload":%s,"name":"q"}', b'{"payload":1,"name":"n","payload":%s}'):
        with pytest.raises(Malformed):
            read(body % payload)


ITEM = b'{"op":"complete","task_id":"a","lease_token":"t","result":%s}'
keys = st.sampled_from(["name", "queue", "payload", "tags", ":", '"', "\\", "a", "metadata"])
values = st.recursive(
    st.sampled_from([1, ":", '"', '":', '","name":', "\\", "", "\u0061"]),
    lambda inner: st.lists(inner, max_size=2) | st.lists(st.tuples(keys, inner), max_size=3).map(Pairs),
    max_leaves=6,
)


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def repeats(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [key for key, _ in value]
        return len(set(names)) < len(names) or any(
            repeats(inner) for key, inner in value if key not in ("payload", "metadata")
        )
    return isinstance(value, list) and any(map(repeats, value))


OWN = ("name", "queue", "payload", "tags", "a", "metadata")


@given(st.lists(st.tuples(st.sampled_from(OWN), values), max_size=5).map(Pairs))
def test_no_repeated_field_of_a_message_is_overlooked(message: Pairs) -> None:
    """The quick look may be wrong about keys that no message has, such as `:`, but never about a field."""
    body = written(message).encode()
    top = [key for key, _ in message]
    if len(set(top)) < len(top):
        assert has_duplicate_keys(body)
    if not repeats(message):
        assert not has_duplicate_keys(body)


def test_an_empty_body_is_an_empty_object_only_where_nothing_is_required() -> None:
    assert BodyReader(SweepQuery).read(b"") == SweepQuery()
    with pytest.raises(Malformed):
        read(b"")
    with pytest.raises(Malformed):
        BodyReader(SweepQuery).read(b" ")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ClaimQuery()),
        ("max=5&start=false&lease=30s", ClaimQuery(max=5, start=False, lease="30s")),
        ("claim_id=a%20b+c", ClaimQuery(claim_id="a b c")),
        ("max=0010", ClaimQuery(max=10)),
        ("&&max=1&", ClaimQuery(max=1)),
    ],
)
def test_queries(query: str, expected: ClaimQuery) -> None:
    assert QueryReader(ClaimQuery).read(query) == expected


@pytest.mark.parametrize(
    ("query", "error", "field"),
    [
        ("max=1&max=1", Invalid, "max"),
        ("colour=1", Invalid, "colour"),
        ("max=", Invalid, "max"),
        ("max=1.5", Invalid, "max"),
        ("max=null", Invalid, "max"),
        ("max=٣", Invalid, "max"),
        ("start=1", Invalid, "start"),
        ("start", Invalid, "start"),
        ("=1", Invalid, ""),
        ("claim_id=%", Malformed, "claim_id"),
        ("claim_id=%ff", Malformed, "claim_id"),
        ("%ff=1", Malformed, None),
    ],
)
def test_queries_that_are_none(query: str, error: type[Exception], field: str | None) -> None:
    with pytest.raises(error) as caught:
        QueryReader(ClaimQuery).read(query)
    assert getattr(caught.value, "field", None) == field


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b" [ ] ", []),
        (b'[1, NaN ,"\\ud800"]', [b"1", b"NaN", b'"\\ud800"']),
        (b'[{"a":"\xff"},[[]],{}]', [b'{"a":"\xff"}', b"[[]]", b"{}"]),
        (b"[" + b"[" * 90 + b"]" * 90 + b"]", [b"[" * 90 + b"]" * 90]),
        (b"[" + b"9" * 5_000 + b"]", [b"9" * 5_000]),
        (b"[" * 100_000, None),
        (b"[1,]", None),
        (b"[1] 2", None),
        (b"[1", None),
        (b"[1;2]", None),
        (b"[nul]", None),
        (b"{}", None),
        (b"", None),
    ],
)
def test_the_items_of_an_array_are_found_where_one_is_no_json(body: bytes, parts: list[bytes] | None) -> None:
    assert array_parts(body, most=100) == parts
    assert array_parts(b"[1,2,3,nonsense", most=1) == [b"1", b"2"]


async def test_answers_to_writes_carry_a_position_also_where_they_refuse(edge: Edge) -> None:
    made = (await edge.send("POST", "/_tasks", {"name": "n", "delay": "1h"})).json
    for method, path, body in (
        ("POST", "/_tasks", b"nonsense"),
        ("POST", "/_tasks", b'{"name":5}'),
        ("POST", "/_tasks/none/_cancel", b"{}"),
        ("DELETE", f"/_tasks/{made['task_id']}", b""),
    ):
        refused = await edge.send(method, path, body)
        assert refused.status >= 400
        assert refused.json["position"] == made["position"], path
    nothing = await edge.send("POST", "/_tasks/_claim", {})
    assert (nothing.status, nothing.headers["lineshaft-position"]) == (204, str(made["position"]))
    assert "position" not in (await edge.send("GET", "/_tasks/none")).json


async def test_ids_that_start_with_an_underscore_are_no_place_to_put_a_task(edge: Edge) -> None:
    assert (await edge.send("PUT", "/_tasks/_foo", {"name": "n"})).status == 404
    assert (await edge.send("PUT", "/_tasks/_claim", {"name": "n"})).status == 405
