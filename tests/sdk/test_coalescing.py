"""Enqueues of many callers at once share requests; each has its own answer, error and trace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from lineshaft.errors import Forbidden, Invalid, LineshaftError, TooLarge, Unavailable
from lineshaft.sdk.coalescing import UNDER_WAY, Coalescer
from lineshaft.sdk.failures import AppClosed
from lineshaft.sdk.tracing import traceparent
from lineshaft.wire import BulkAnswer, BulkItem, Call, Enqueue, Enqueued, raw


class HeldTransport:
    """A way to a coordinator that answers when it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, list[str]]] = []
        self.refuse_bulk: LineshaftError | None = None
        self._held: list[asyncio.Future[None]] = []
        self._came = asyncio.Event()

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        bodies = body if call.name == "bulk" else [body]
        self.requests.append((call.name, [one.task_id for one in bodies]))
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append(gate)
        self._came.set()
        await gate
        if call.name == "enqueue":
            return Enqueued(task_id=body.task_id, state="queued", created=True, position=1)
        if self.refuse_bulk is not None:
            raise self.refuse_bulk
        return BulkAnswer(items=[item_of(one.task_id) for one in bodies], position=2)

    async def session(self, hello: Any) -> None:
        return None

    async def close(self) -> None:
        return None

    async def came(self, requests: int) -> None:
        """Wait until so many requests have come."""
        while len(self.requests) < requests:
            self._came.clear()
            await self._came.wait()

    async def answer(self, requests: int = 1) -> None:
        """Answer so many requests, waiting for them to come."""
        for _ in range(requests):
            self._held = [gate for gate in self._held if not gate.done()]
            while not self._held:
                self._came.clear()
                await self._came.wait()
            self._held.pop(0).set_result(None)

    def fail(self, error: Exception) -> None:
        """Let all that is held fail."""
        while self._held:
            self._held.pop(0).set_exception(error)


def item_of(task_id: str) -> BulkItem:
    if task_id.startswith("bad"):
        error = raw({"type": "invalid", "reason": f"{task_id} is refused", "field": "name"})
        return BulkItem(status=422, task_id=task_id, error=error)
    known = task_id.startswith("known")
    return BulkItem(status=200 if known else 201, task_id=task_id, state="queued", created=not known)


def task(task_id: str) -> Enqueue:
    return Enqueue(name="work", task_id=task_id)


@contextlib.contextmanager
def traced(value: str) -> Iterator[None]:
    token = traceparent.set(value)
    try:
        yield
    finally:
        traceparent.reset(token)


async def begin(coalescer: Coalescer, *task_ids: str) -> list[asyncio.Task[Enqueued]]:
    """Let callers enqueue, one after the other, each up to its first wait."""
    callers = []
    for task_id in task_ids:
        callers.append(asyncio.create_task(coalescer.enqueue(task(task_id))))
        await asyncio.sleep(0)
    return callers


async def test_one_after_the_other_each_has_a_request_of_its_own() -> None:
    transport = HeldTransport()
    coalescer = Coalescer(transport)
    for task_id in ("a", "b"):
        [caller] = await begin(coalescer, task_id)
        await transport.answer()
        assert (await caller).task_id == task_id
    assert transport.requests == [("enqueue", ["a"]), ("enqueue", ["b"])]


async def test_who_comes_while_requests_are_under_way_shares_the_next() -> None:
    transport = HeldTransport()
    callers = await begin(Coalescer(transport), *"abcdef")
    assert [ids for _, ids in transport.requests] == [["a"], ["b"]] and UNDER_WAY == 2
    await transport.answer()
    await transport.answer(2)
    answers = await asyncio.gather(*callers)
    assert [answer.task_id for answer in answers] == [*"abcdef"]
    assert transport.requests[2:] == [("bulk", [*"cdef"])]


async def test_nobody_waits_long_for_others_whose_answers_take_long() -> None:
    transport = HeldTransport()
    callers = await begin(Coalescer(transport), *"abcd")
    await transport.came(3)  # nothing is answered; time alone sends them
    assert transport.requests[2] == ("bulk", ["c", "d"])
    await transport.answer(3)
    await asyncio.gather(*callers)


async def test_each_caller_has_its_own_answer_or_error() -> None:
    transport = HeldTransport()
    callers = await begin(Coalescer(transport), "a", "b", "c", "bad-1", "known-1", "bad-2")
    await transport.answer(3)
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert [getattr(one, "created", None) for one in told] == [True, True, True, None, False, None]
    assert [str(one) for one in told if isinstance(one, Invalid)] == ["bad-1 is refused", "bad-2 is refused"]


async def test_a_request_that_is_too_large_is_halved() -> None:
    transport = HeldTransport()
    transport.refuse_bulk = TooLarge("the body is above the limit")
    callers = await begin(Coalescer(transport), *"abcd")
    await transport.answer(5)
    assert {answer.task_id for answer in await asyncio.gather(*callers)} == {*"abcd"}
    assert [ids for _, ids in transport.requests[2:]] == [["c", "d"], ["c"], ["d"]]


async def test_a_refusal_of_the_whole_is_told_to_all_who_share_it() -> None:
    transport = HeldTransport()
    transport.refuse_bulk = Forbidden("this needs a key with the scope enqueue")
    callers = await begin(Coalescer(transport), *"abcd")
    await transport.answer(3)
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in told] == [Enqueued, Enqueued, Forbidden, Forbidden]


async def test_an_unknown_outcome_is_told_to_all_who_share_it() -> None:
    transport = HeldTransport()
    callers = await begin(Coalescer(transport), *"abcd")
    await transport.answer(2)
    await transport.came(3)
    transport.fail(Unavailable("nobody is there", retry_after=3.0))
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in told] == [Enqueued, Enqueued, Unavailable, Unavailable]
    assert told[2] is not told[3]
    assert all(one.retry_after == 3.0 for one in told if isinstance(one, Unavailable))


async def test_who_gives_up_before_it_is_sent_is_not_sent() -> None:
    transport = HeldTransport()
    callers = await begin(Coalescer(transport), *"abcd")
    callers[2].cancel()
    await asyncio.sleep(0)
    await transport.answer(3)
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in told] == [Enqueued, Enqueued, asyncio.CancelledError, Enqueued]
    assert transport.requests[2] == ("enqueue", ["d"])


async def test_who_enqueues_within_a_trace_shares_with_nobody() -> None:
    transport = HeldTransport()
    coalescer = Coalescer(transport)
    callers = await begin(coalescer, *"ab")
    with traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        callers += await begin(coalescer, *"cd")
    assert [ids for _, ids in transport.requests] == [["a"], ["b"], ["c"], ["d"]]
    await transport.answer(4)
    await asyncio.gather(*callers)


async def test_who_was_not_sent_is_told_when_the_app_closes() -> None:
    transport = HeldTransport()
    coalescer = Coalescer(transport)
    callers = await begin(coalescer, *"abcd")
    coalescer.close()
    await transport.answer(2)
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(one) for one in told] == [Enqueued, Enqueued, AppClosed, AppClosed]
    assert len(transport.requests) == 2


async def test_more_than_a_request_takes_become_several() -> None:
    transport = HeldTransport()
    coalescer = Coalescer(transport)
    callers = [asyncio.create_task(coalescer.enqueue(task(f"t{number}"))) for number in range(1_202)]
    await transport.answer(4)
    await asyncio.gather(*callers)
    assert sorted(len(ids) for _, ids in transport.requests) == [1, 1, 200, 1_000]


@pytest.mark.parametrize("waiting", [0, 3])
async def test_a_request_that_is_cancelled_leaves_room_for_others(waiting: int) -> None:
    transport = HeldTransport()
    coalescer = Coalescer(transport)
    callers = await begin(coalescer, "a", "b", *(f"t{number}" for number in range(waiting)))
    callers[0].cancel()
    callers[1].cancel()
    await asyncio.gather(*callers[:2], return_exceptions=True)
    callers += await begin(coalescer, "z")
    await transport.answer(2 if waiting else 1)
    assert [(await caller).task_id for caller in callers[2:]][-1] == "z"
