from __future__ import annotations

import inspect
import typing

import msgspec
import pytest

from lineshaft import wire
from lineshaft.wire import messages, operations, session, tasks, workers

STRUCTS = [
    struct
    for module in (messages, tasks, workers, operations, session)
    for _, struct in inspect.getmembers(module, inspect.isclass)
    if issubclass(struct, msgspec.Struct) and struct.__module__ == module.__name__
]


@pytest.mark.parametrize("call", wire.CALLS.values(), ids=lambda call: call.name)
def test_each_call_can_be_encoded_and_decoded(call: wire.Call) -> None:
    for message in (call.query, call.body, call.answer, call.variant):
        if message is not None:
            msgspec.json.Decoder(message)
    assert call.path.count("{") == call.path.count("{id}") <= 1
    assert set(call.scope.split("|")) <= {"", *typing.get_args(operations.Scope)}


def test_no_two_calls_share_method_and_path() -> None:
    places = [(call.method, call.path) for call in wire.CALLS.values()]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_message_is_documented_and_either_request_or_answer(struct: type[msgspec.Struct]) -> None:
    assert struct.__doc__
    assert issubclass(struct, messages.Request | messages.Answer)
    assert struct.__struct_config__.forbid_unknown_fields == issubclass(struct, messages.Request)


def test_payloads_keep_their_bytes() -> None:
    body = b'{"name":"a","payload":{"b":1.0,"a":123456789012345678901234567890}}'
    decoded = msgspec.json.decode(body, type=wire.Enqueue)
    assert msgspec.json.encode(decoded) == body


def test_task_id_precedes_lease_token_precedes_what_the_client_chose() -> None:
    fields = workers.ClaimedTask.__struct_fields__
    assert fields[:2] == ("task_id", "lease_token")


def test_report_items_are_told_apart_by_op() -> None:
    body = b'{"items":[{"op":"snooze","task_id":"a","lease_token":"t","for":"5s"}]}'
    assert msgspec.json.decode(body, type=wire.Report).items == [
        wire.SnoozeItem(task_id="a", lease_token="t", for_="5s")
    ]
