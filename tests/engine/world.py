"""An engine on a scripted store in virtual time, and the verbs of its stories."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from lineshaft.core.commands import (
    Claim,
    Command,
    Complete,
    Enqueue,
    Get,
    Heartbeat,
    NewTask,
    Op,
    PutRecord,
    Report,
    WorkerInfo,
)
from lineshaft.core.task import Spec, Task, lease_token
from lineshaft.engine import Engine, Handle, Limits, LoopClock
from tests.engine.scripted_store import ScriptedStore
from tests.simulation import loop

T = "acme"
START = 1_700_000_000_000
SPEC = Spec(name="mail")


def virtual(
    test: Callable[..., Coroutine[Any, Any, None]], *, until: float = 1_000_000.0
) -> Callable[..., None]:
    """Run an asynchronous test in virtual time."""

    def run(*arguments: Any, **named: Any) -> None:
        loop.run(test(*arguments, **named), until=until)

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return run


def nonces() -> Callable[[], bytes]:
    count = itertools.count(1)
    return lambda: b"%016d" % next(count)


class World:
    """What a story talks to."""

    def __init__(self, store: ScriptedStore, engine: Engine, clock: LoopClock) -> None:
        self.store = store
        self.engine = engine
        self.clock = clock
        self.spec = SPEC

    def submit(self, command: Command) -> Handle:
        return self.engine.submit(command)

    def enqueue(
        self, *ids: str, payload: bytes = b"1", wait: int | None = None, given: bool = False
    ) -> Handle:
        tasks = tuple(NewTask(id=id, spec=self.spec, payload=payload, given=given) for id in ids)
        until = None if wait is None else self.engine.now(T) + wait
        return self.submit(Enqueue(tenant=T, tasks=tasks, wait_until=until))

    def get(self, id: str, *, wait: int | None = None) -> Handle:
        until = None if wait is None else self.engine.now(T) + wait
        return self.submit(Get(tenant=T, id=id, wait_until=until))

    def claim(self, max: int = 1, *, wait: int | None = None, worker: str = "w", **more: Any) -> Handle:
        until = None if wait is None else self.engine.now(T) + wait
        return self.submit(
            Claim(tenant=T, max=max, wait_until=until, worker=WorkerInfo(id=worker, incarnation="1"), **more)
        )

    def report(self, *ops: Op) -> Handle:
        return self.submit(Report(tenant=T, items=ops))

    def complete(self, *tasks: Task, result: bytes = b"7") -> Handle:
        return self.report(
            *(Complete(task_id=task.id, token=lease_token(task), result=result) for task in tasks)
        )

    def heartbeat(self, task: Task) -> Handle:
        return self.report(Heartbeat(task_id=task.id, token=lease_token(task)))

    def record(self, key: str, data: bytes = b"x") -> Handle:
        return self.submit(PutRecord(tenant=T, kind="note", key=key, data=data))

    async def settle(self) -> None:
        """Let everything run that needs no time."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)
        await self.settle()

    @property
    def metrics(self) -> Any:
        return self.engine.metrics()[0]

    @property
    def shard_health(self) -> Any:
        return self.engine.health().shards[0]


@asynccontextmanager
async def world(
    store: ScriptedStore | None = None, *, limits: Limits | None = None, wall: int = START
) -> AsyncIterator[World]:
    store = ScriptedStore() if store is None else store
    clock = LoopClock(wall)
    engine = Engine(store, clock=clock, limits=limits, address="here", nonces=nonces())
    async with engine:
        yield World(store, engine, clock)


def in_world(
    test: Callable[[World], Coroutine[Any, Any, None]] | None = None, **options: Any
) -> Callable[..., Any]:
    """Run a story in a world of its own."""
    if test is None:
        return functools.partial(in_world, **options)

    @virtual
    async def story() -> None:
        async with world(**options) as w:
            await test(w)

    story.__name__, story.__doc__, story.__module__ = test.__name__, test.__doc__, test.__module__
    return story
