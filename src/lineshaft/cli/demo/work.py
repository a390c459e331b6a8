"""The demo's dealings with the coordinator: enqueue, watch, and read back everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from lineshaft import wire
from lineshaft.cli.demo.files import Measurement, spelled
from lineshaft.cli.demo.handlers import QUEUE, measure
from lineshaft.cli.demo.proof import Found
from lineshaft.cli.trouble import Trouble
from lineshaft.sdk.http import HttpTransport

CHUNK = 500
PAGE = 1000
READERS = 32
"""Results that are read at once."""


class Coordinator:
    """Calls to the demo's coordinator, each repeated until it is there again."""

    def __init__(self, url: str) -> None:
        self._transport = HttpTransport(url, retry_for=60)

    async def call(self, name: str, **given: Any) -> Any:
        """Make the call of that name."""
        return await self._transport.call(wire.CALLS[name], **given)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def enqueue(
        self, tasks: Mapping[str, str], *, pause: float, step: Callable[[int], None]
    ) -> list[wire.BulkItem]:
        """Enqueue a task for each file of `tasks` (id to path); what is there already stays."""
        items: list[wire.BulkItem] = []
        pairs = list(tasks.items())
        for at in range(0, len(pairs), CHUNK):
            bodies = [_body(key, path, pause) for key, path in pairs[at : at + CHUNK]]
            answer: wire.BulkAnswer = await self.call("bulk", body=bodies, timeout=30)
            for item in answer.items:
                if item.status >= 400:
                    raise Trouble(
                        f"the coordinator refused a task: {msgspec.json.encode(item.error).decode()}",
                        hint="name a directory with fewer files, or files with shorter names",
                    )
            items += answer.items
            step(len(bodies))
        return items

    async def counts(self) -> dict[str, int]:
        """Return how many tasks are in each state."""
        stats: wire.Stats = await self.call("stats", timeout=5)
        return stats.counts

    async def workers(self) -> dict[int, wire.WorkerInfo]:
        """Return the workers by process id."""
        answer: wire.WorkerList = await self.call("workers", timeout=5)
        return {worker.pid: worker for worker in answer.workers if worker.pid is not None}

    async def held_by(self, worker_id: str) -> set[str]:
        """Return the ids of the tasks that a worker holds."""
        states = ["claimed", "running"]
        return {task.task_id async for task in self.tasks(states) if task.worker_id == worker_id}

    async def tasks(self, states: list[str] | None = None) -> AsyncIterator[wire.Task]:
        """Yield every task of the demo."""
        after = None
        while True:
            search = wire.Search(queue=QUEUE, state=states, sort="created_at", limit=PAGE, after=after)
            page: wire.TaskPage = await self.call("search", body=search, timeout=30)
            for task in page.tasks:
                yield task
            if page.next is None:
                return
            after = page.next

    async def results(self, ids: list[str], step: Callable[[int], None]) -> dict[str, Found]:
        """Read tasks with their results, many at once."""
        found: dict[str, Found] = {}
        left = iter(ids)

        async def read() -> None:
            for task_id in left:
                task: wire.Task = await self.call("get", id=task_id, timeout=30)
                found[task_id] = Found(task.task_id, task.state, _result(task))
                step(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(read())
        return found


def _body(task_id: str, path: str, pause: float) -> wire.Enqueue:
    payload: dict[str, Any] = {"path": spelled(path)}
    if pause:
        payload["pause"] = pause
    return wire.Enqueue(name=measure.name, task_id=task_id, payload=wire.raw(payload), **measure.fields)


def _result(task: wire.Task) -> Measurement | None:
    if task.state != "completed" or task.result is msgspec.UNSET:
        return None
    return msgspec.json.decode(task.result, type=Measurement)
