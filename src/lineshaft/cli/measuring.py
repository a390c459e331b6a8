"""The measurements of `lineshaft bench`: one Python client against a coordinator, over HTTP.

The client takes as much of the machine as the coordinator does, so these are floors of what a coordinator
can do and not its limits; they are for comparing machines, stores and versions.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from lineshaft import wire
from lineshaft.sdk.http import HttpTransport
from lineshaft.values.ids import TimeOrderedIds

CLAIM = 200
"""Tasks of one claim while draining."""
BULK = 500
"""Tasks of one bulk enqueue."""
SAMPLES = 200

Step = Callable[[int], None]


class Figure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One measurement: a rate, or a latency with its distribution (milliseconds)."""

    name: str
    count: int
    seconds: float
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    worst_ms: float | None = None


class Bench:
    """Measures over a queue of its own, whose tasks are forgotten soon after they end."""

    def __init__(self, transport: HttpTransport, *, connections: int) -> None:
        self._transport = transport
        self._connections = connections
        self._ids = TimeOrderedIds(random.getrandbits)
        self.queue = f"bench-{self._new_id()[-12:]}"

    async def call(self, name: str, **given: Any) -> Any:
        """Make the call of that name."""
        return await self._transport.call(wire.CALLS[name], timeout=60, **given)

    async def enqueue(self, count: int, step: Step) -> Figure:
        """Enqueue one task a request."""
        began = time.perf_counter()
        latencies = await self._spread(count, lambda: self.call("enqueue", body=self._task()), step)
        passed = time.perf_counter() - began
        figure = _latency(f"enqueue, one a request, {self._connections} at once", latencies)
        return msgspec.structs.replace(figure, seconds=round(passed, 3), per_second=round(count / passed, 1))

    async def bulk(self, count: int, step: Step) -> Figure:
        """Enqueue many tasks a request."""

        async def send() -> int:
            answer: wire.BulkAnswer = await self.call("bulk", body=[self._task() for _ in range(BULK)])
            assert all(item.status == 201 for item in answer.items)
            return BULK

        batches = max(1, count // BULK)
        began = time.perf_counter()
        await self._spread(batches, send, lambda done: step(done * BULK), at_once=4)
        return _rate(f"enqueue, {BULK} a request", batches * BULK, time.perf_counter() - began)

    async def drain(self, count: int, step: Step) -> Figure:
        """Claim and complete everything, with reports that claim the next tasks in the same round trip."""
        left = count
        began = time.perf_counter()

        async def work(number: int) -> None:
            nonlocal left
            worker = wire.Worker(id=f"{self.queue}-{number}")
            items: list[wire.Item] = []
            while left > 0 or items:
                claim = wire.Claim(claim_id=self._new_id(), worker=worker, queues=[self.queue], max=CLAIM)
                answer: wire.Reported = await self.call("report", body=wire.Report(items=items, claim=claim))
                left -= len(items)
                step(len(items))
                items = [
                    wire.CompleteItem(task_id=t.task_id, lease_token=t.lease_token) for t in answer.tasks
                ]
                if not items and left > 0:
                    await asyncio.sleep(0.001)  # the rest is in the hands of the others

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(work(number))
        return _rate("claim and complete, by reports", count, time.perf_counter() - began)

    async def pick_up(self, step: Step) -> Figure:
        """Measure from the sending of an enqueue until a worker that waits has the task."""
        latencies = [await self._one_pick_up(step) for _ in range(SAMPLES)]
        return _latency("enqueue to pick-up", latencies)

    async def round_trip(self, step: Step) -> Figure:
        """Measure from the sending of an enqueue until its result is there."""
        latencies = [await self._one_round_trip(step) for _ in range(SAMPLES)]
        return _latency("enqueue to result", latencies)

    async def clean_up(self) -> None:
        """Forget what is left."""
        await self.call("cancel_many", body=wire.Sweep(queue=self.queue))
        await self.call("delete_many", body=wire.Sweep(queue=self.queue))

    async def _one_pick_up(self, step: Step) -> float:
        waiting = asyncio.create_task(self._claim_one())
        await asyncio.sleep(0.002)  # the claim must be parked before there is anything to claim
        began = time.perf_counter()
        sending = asyncio.create_task(self.call("enqueue", body=self._task()))
        task = await waiting
        passed = time.perf_counter() - began
        await sending
        await self._complete(task)
        step(1)
        return passed

    async def _one_round_trip(self, step: Step) -> float:
        waiting = asyncio.create_task(self._claim_one())
        await asyncio.sleep(0.002)
        began = time.perf_counter()
        query = wire.EnqueueQuery(wait="30s")
        sending = asyncio.create_task(self.call("enqueue", query=query, body=self._task()))
        await self._complete(await waiting)
        await sending
        step(1)
        return time.perf_counter() - began

    async def _claim_one(self) -> wire.ClaimedTask:
        claim = wire.Claim(claim_id=self._new_id(), queues=[self.queue], max=1, wait="30s")
        answer: wire.ClaimedTasks = await self.call("claim", body=claim)
        return answer.tasks[0]

    async def _complete(self, task: wire.ClaimedTask) -> None:
        await self.call("complete", id=task.task_id, body=wire.Complete(lease_token=task.lease_token))

    async def _spread(
        self, count: int, send: Callable[[], Awaitable[Any]], step: Step, *, at_once: int | None = None
    ) -> list[float]:
        """Send `count` times from several loops; return how long each took, in seconds."""
        tickets: Iterator[int] = iter(range(count))
        latencies: list[float] = []

        async def go_on() -> None:
            for _ in tickets:
                began = time.perf_counter()
                await send()
                latencies.append(time.perf_counter() - began)
                step(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once or self._connections):
                group.create_task(go_on())
        return latencies

    def _task(self) -> wire.Enqueue:
        return wire.Enqueue(
            name="bench", task_id=self._new_id(), queue=self.queue, retention="1m", payload=_PAYLOAD
        )

    def _new_id(self) -> str:
        return self._ids.next(time.time_ns() // 1_000_000)


_PAYLOAD = wire.raw({"to": "somebody@example.org", "invoice": 4711})


def _rate(name: str, count: int, seconds: float) -> Figure:
    return Figure(name=name, count=count, seconds=round(seconds, 3), per_second=round(count / seconds, 1))


def _latency(name: str, latencies: list[float]) -> Figure:
    ordered = sorted(latencies)
    return Figure(
        name=name,
        count=len(ordered),
        seconds=round(sum(ordered), 3),
        p50_ms=_milliseconds(ordered[len(ordered) // 2]),
        p99_ms=_milliseconds(ordered[int(len(ordered) * 0.99)]),
        worst_ms=_milliseconds(ordered[-1]),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
