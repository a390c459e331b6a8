"""The quick way of reading gives what the careful way gives: the same message, or the same refusal."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lineshaft.errors import LineshaftError
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.reading import BodyReader
from lineshaft.server.settings import Limits
from lineshaft.server.whole import WholeReader
from lineshaft.wire import CALLS

NAMES = ("bulk", "report", "enqueue", "claim", "complete", "fail", "heartbeat", "search", "cancel_many")
LIMITS = Limits()
QUICK = {name: Endpoint(CALLS[name], LIMITS) for name in NAMES if name in CALLS}


def _careful(name: str) -> Endpoint:
    """Return the call as it was read before there was a quick way."""
    endpoint = Endpoint(CALLS[name], LIMITS)
    endpoint._batch = None
    for reader in ("_body", "_item", "_claim"):
        if isinstance(body := getattr(endpoint, reader, None), BodyReader):
            body._whole = None
    return endpoint


CAREFUL = {name: _careful(name) for name in QUICK}


class Pairs(list[Any]):
    """An object, as pairs: keys may repeat."""


class Text(str):
    """What stands in the text as it is."""

    __slots__ = ()


ODD = [
    *(
        '"\\udc00"',
        '"\\ud800\\ud800"',
        '"\\u003a","payload":1,"payload":2',
        '"\\u003a","queue":"a","queue":"b"',
    ),
    *(
        "null",
        "true",
        "0",
        "-0",
        "1.0",
        "1e2",
        "1e400",
        "-1E-400",
        "123456789012345678901234567890",
        "2.50",
        "[]",
    ),
    *(
        "NaN",
        "-Infinity",
        "01",
        "1.",
        "-",
        "",
        "'a'",
        "nul",
        "[,]",
        '"\\x"',
        '"\x01"',
        '"\\ud800"',
        '"\ud800"',
    ),
    *('"\\ud83d\\ude00"', '"\\u003a"', '"\\u0000"', '"ä:€"', '":"', '"a\\":\\"b"', '"\\\\"', '"\\/"', '"😀"'),
    *(
        '"\xff"',
        '{"\\ud800":1}',
        '{"ä\xff":1}',
        '["\\\\\\ud800"]',
        '["\\\\ud800"]',
        "{'a':1}",
        "\xa01",
        "{}",
        "[{}]",
    ),
    *('{"a":1,"a":2}', '{"":{"":1},"":1}', '{"name":1,"payload":{"name":2}}', '"%s"' % ("x:" * 300), "1,2"),
    *("[" * depth + "]" * depth for depth in (*range(60, 71), 2000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in range(60, 71)),
    *(
        '["' + "[{" * 40 + '"]',
        "[" * 70 + '"]"' + "]" * 70,
        "[[]" * 70,
        "]" * 70,
        "[" * 70,
        "[" + "{}," * 99 + "{}]",
    ),
    *(
        '1,"payload":2',
        '1,"name":"n"',
        '{"payload":1},"payload":{"a":":"}',
        "1}",
        '1},{"name":"m"',
        '1},{"a":":"',
    ),
]
"""What may stand where a value is expected."""
odd = st.sampled_from(ODD).map(Text)
words = st.sampled_from(
    ["a", "30s", "default", "continue", "complete", "fail", "exponential", "queued", "", "ä"]
)
scalars = odd | words | st.integers(-3, 3) | st.sampled_from([None, True, 1.5, 2**31, 2**64])
some_keys = st.sampled_from(
    ["a", "b", ":", "name", "payload", "data", "items", "claim", "n\\u0061me", "", "ä"]
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(some_keys, inner), max_size=3).map(Pairs),
    max_leaves=6,
)


def fields(right: dict[str, Any], required: tuple[str, ...] = ()) -> st.SearchStrategy[Pairs]:
    """Objects with these fields: most of them right, some twice, some with anything, some unknown."""

    def pair(name: str) -> st.SearchStrategy[tuple[str, Any]]:
        value = right[name]
        strategy = value if isinstance(value, st.SearchStrategy) else st.sampled_from(value)
        spelled = (
            st.just(name)
            if len(name) < 2
            else st.sampled_from([name] * 30 + [f"\\u{ord(name[0]):04x}{name[1:]}"])
        )
        return st.tuples(spelled, st.one_of(*[strategy] * 6, st.none(), anything))

    needed = st.tuples(*(pair(name) for name in required)).map(list)
    chosen = st.lists(st.sampled_from(sorted(right)), max_size=5, unique=True)
    more = chosen.flatmap(lambda names: st.tuples(*(pair(n) for n in names if n not in required)).map(list))
    strange = st.lists(
        st.sampled_from(sorted(right)).flatmap(pair) | st.tuples(some_keys, anything), max_size=1
    )
    nothing: st.SearchStrategy[list[Any]] = st.just([])
    parts = st.tuples(needed, more, st.one_of(*[nothing] * 8, strange)).map(chain.from_iterable).map(list)
    return parts.flatmap(st.permutations).map(Pairs)


policy = fields(
    {"backoff": ["exponential", "fixed"], "base": [1, "2s"], "factor": [2, 2.0], "jitter": [0, 0.1]}
)
resources = st.lists(st.tuples(st.sampled_from(["gpu", "memory", "a:b", "data"]), scalars), max_size=3).map(
    Pairs
)
affinity = fields({"capability": [["a"], [], ["a:b", "ä"]], "resources": resources})
task = fields(
    {
        "name": ["n", "a:b"],
        "payload": anything,
        "task_id": ["a", "t:1"],
        "queue": ["default", "q"],
        "priority": [0, 1, -5],
        "delay": ["1s", 2, 0.5],
        "max_retries": [3, 0],
        "retry_policy": policy,
        "worker_affinity": affinity,
        "tags": [[], ["x", "ä:ö"]],
        "metadata": anything,
        "unique": [None, 1],
    },
    required=("name",),
)
progress = fields({"done": [1, 2.5], "total": [3, None], "message": ["m:", ""]}, required=("done",))
error = fields({"type": ["t"], "message": ["a:b", "😀"], "stack": ["x"], "data": anything})
outcome = fields(
    {
        "op": ["complete", "fail", "heartbeat", "start", "release", "snooze", "cancel", "fly"],
        "task_id": ["a", "b:c"],
        "lease_token": ["1-1"],
        "result": anything,
        "carry": anything,
        "error": error,
        "retry": [True, False],
        "checkpoint": anything,
        "progress": progress,
        "for": ["3s", 1],
        "reason": ["r:", None],
    },
    required=("op", "task_id", "lease_token"),
)
worker = fields(
    {"id": ["w"], "capabilities": [[], ["a"]], "resources": resources, "pid": [1]}, required=("id",)
)
claim = fields(
    {
        "claim_id": ["c:1"],
        "worker": worker,
        "queues": [["q"], []],
        "max": [1, 10, 0],
        "wait": [0, "1s"],
        "start": [True, False],
        "holding": [[], ["1-1"]],
    }
)
held = {"lease_token": ["1-1"], "result": anything, "carry": anything, "error": error, "progress": progress}
held |= {"checkpoint": anything, "usage": anything, "retry": [True, False]}
which = {"queue": ["q", ["a", "b"]], "state": ["queued"], "q": ["a:b"], "limit": [1, 0], "reason": ["r"]}
which |= {"filter": fields({"queue": ["q"], "tag": [["a"]]}), "dry_run": [True]}
MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "bulk": st.lists(task, max_size=3),
    "report": fields({"items": st.lists(outcome, max_size=3), "claim": claim}, required=("items",)),
    "enqueue": task,
    "claim": claim,
    "complete": fields(held, required=("lease_token",)),
    "fail": fields(held, required=("lease_token",)),
    "heartbeat": fields(held, required=("lease_token",)),
    "search": fields(which),
    "cancel_many": fields(which),
}
blanks = st.sampled_from(["", "", "", " ", "\n\t", "\r\n"])


def written(value: Any, blank: str) -> str:
    if isinstance(value, Pairs):
        return "{" + ("," + blank).join(f'"{k}"{blank}:{written(v, blank)}' for k, v in value) + blank + "}"
    if isinstance(value, list):
        return "[" + blank + ",".join(written(each, blank) for each in value) + "]"
    return str(value) if isinstance(value, Text) else json.dumps(value, ensure_ascii=False)


def told(endpoint: Endpoint, body: bytes) -> Any:
    """Return what a body is read as, comparable: raw values as their bytes, errors as what they say."""
    try:
        return _plain(endpoint.read_body(body, "application/json"))
    except LineshaftError as error:
        return _plain(error)


def _plain(value: Any) -> Any:
    if isinstance(value, LineshaftError):
        return type(value), value.status, value.type, value.field, value.reason
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    if isinstance(value, msgspec.Struct):
        return type(value), [_plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return type(value), repr(value)


def bodies(name: str) -> st.SearchStrategy[bytes]:
    whole = st.tuples(MESSAGES[name], blanks)
    text = whole.map(lambda told: told[1] + written(*told) + told[1])
    return text.map(_encoded)


def _encoded(text: str) -> bytes:
    """Encode what may hold surrogates, and let a \xff be no UTF-8."""
    return text.encode("utf-8", "surrogatepass").replace(b"\xc3\xbf", b"\xff")


message = st.sampled_from(sorted(QUICK)).flatmap(lambda name: st.tuples(st.just(name), bodies(name)))


@settings(max_examples=400, deadline=None)
@given(message)
@example(("bulk", b'[{"name":"n","payload":{"a":1},"payload":{"a:":":"}}]'))
@example(("enqueue", b'{"name":"n","payload":{},"payload":"\\u003a"}'))
@example(("enqueue", b'{"name":"n","worker_affinity":{"resources":{"a":1,"a":1}}}'))
@example(("report", b'{"items":[],"items":[],"claim":{}}'))
def test_both_ways_of_reading_agree(message: tuple[str, bytes]) -> None:
    name, body = message
    assert told(QUICK[name], body) == told(CAREFUL[name], body)


PLACES = {
    "bulk": [
        *(
            '[{"name":"n","payload":@}]',
            '[{"name":"n"},{"name":"n","metadata":@},{"name":"n","tags":["a:b"]}]',
        ),
        *(
            '[{"name":"n","payload":@,"queue":"q"}, {"payload":@,"name":"n"}]',
            '[{"name":@}]',
            "[@]",
            "@",
            "[{@}]",
        ),
        *(
            '[{"name":"n","worker_affinity":{"resources":{"data":@}}}]',
            '[{"name":"n","unique":@},{"name":"n"}]',
        ),
        '[{"name":"n","payload":[[]]},{"name":"n","payload":[]},{"name":"n","payload":@},{"name":"n","delay":@}]',
    ],
    "report": [
        '{"items":[{"op":"complete","task_id":"a","lease_token":"t","result":@}]}',
        '{"items":[{"op":"fail","task_id":"a","lease_token":"t","error":{"data":@}},{"op":"start"}],"claim":{}}',
        '{"items":[{"op":"heartbeat","task_id":"a","lease_token":"t","usage":@,"checkpoint":@}],"claim":{"max":1}}',
        '{"items":[{"op":"fail","task_id":"a","lease_token":"t","error":@}],"claim":{"max":@}}',
        *('{"items":[],"claim":@}', '{"items":@}', '{"items":[@]}', '{"claim":{},"items":[],"claim":@}', "@"),
    ],
    "enqueue": ['{"name":"n","payload":@}', '{"name":"n","payload":@,"metadata":{"a":@}}', '{"name":@}', "@"],
    "claim": ['{"max":@}', '{"holding":[@]}', '{"worker":{"id":"w","resources":{"a":@}}}', "{}@", " @"],
    "complete": [
        '{"lease_token":"t","result":@}',
        '{"lease_token":"t","carry":@,"result":1}',
        '{"lease_token":@}',
    ],
    "fail": ['{"lease_token":"t","error":{"data":@}}', '{"error":@,"lease_token":"t"}', '{"retry_after":@}'],
    "heartbeat": ['{"lease_token":"t","checkpoint":@}', '{"lease_token":"t","progress":{"done":@}}'],
    "search": ['{"queue":@}', '{"queue":[@]}', '{"limit":@,"q":"a:b"}', "@"],
    "cancel_many": ['{"filter":@}', '{"filter":{"tag":@}}', '{"filter":{"q":@},"reason":"a:b"}'],
}


@pytest.mark.parametrize("name", sorted(QUICK))
def test_both_ways_agree_about_every_oddity_in_every_place(name: str) -> None:
    for place in PLACES[name]:
        for value in ODD:
            body = _encoded(place.replace("@", value))
            assert told(QUICK[name], body) == told(CAREFUL[name], body), body[:300]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=2).map(Pairs), max_size=5)
)
def test_payloads_with_keys_of_their_own_take_the_quick_way(payloads: list[Pairs]) -> None:
    """Else the test above might compare the careful way with itself."""
    body = written([Pairs([("name", "n"), ("payload", payload)]) for payload in payloads], "").encode()
    reader = QUICK["bulk"]._batch
    assert isinstance(reader, WholeReader)
    read = reader.read(body)
    assert read is not None
    assert len(read) == len(payloads)
