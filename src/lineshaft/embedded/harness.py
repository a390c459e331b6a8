"""Tests of tasks without waiting: an App's coordinator in memory, a clock that stands still until it is told
to move.

Nothing is mocked but time: the same shard, engine and calls decide as in production, so what a test sees of
retries, snoozes, priorities, dedup or expiry is what will happen. Tasks are executed one after another, in
order.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from lineshaft.embedded.coordinator import Coordinator
from lineshaft.embedded.transport import InProcessTransport
from lineshaft.engine.clock import ManualClock
from lineshaft.sdk import encoding, reports
from lineshaft.sdk.client import Client
from lineshaft.sdk.connections import Connections
from lineshaft.sdk.context import Context
from lineshaft.sdk.execution import Executor
from lineshaft.sdk.failures import ResultTimeout
from lineshaft.sdk.handle import Handle
from lineshaft.sdk.options import seconds
from lineshaft.sdk.outcomes import Duration, Outcome
from lineshaft.sdk.sync import SyncHandle
from lineshaft.sdk.task import Task
from lineshaft.sdk.threads import Threads
from lineshaft.wire import CALLS, Call, Claim, ClaimedTask, Enqueue, Report, Worker
from lineshaft.wire import tasks as wire

MAX_TASKS = 10_000
BATCH = 100

T = TypeVar("T")


class Enqueued(msgspec.Struct, frozen=True):
    """A task that was enqueued during the test: its type, its arguments as JSON has them, and its options."""

    name: str
    arguments: Any
    task_id: str
    queue: str
    options: dict[str, Any]


class Executed(msgspec.Struct, frozen=True):
    """An attempt that was made during the test, and what came of it."""

    name: str
    task_id: str
    attempt: int
    outcome: Outcome


class Harness:
    """`async with Harness(app) as test:` puts `app` on a coordinator of its own for the length of the block.

    `capability` and `resources` are what the one worker has, for tasks that ask for some. `now` (seconds
    since the epoch) is where the clock stands at first; without it at the present.
    """

    def __init__(
        self,
        app: Client,
        *,
        capability: list[str] | None = None,
        resources: dict[str, float | str] | None = None,
        now: float | None = None,
    ) -> None:
        self.app = app
        self.enqueued: list[Enqueued] = []
        self.executed: list[Executed] = []
        self._clock = ManualClock(int((time.time() if now is None else now) * 1000))
        self._worker = Worker(id="test", capabilities=capability, resources=resources)
        self._threads = Threads()
        self._coordinator: Coordinator | None = None
        self._transport: _TestTransport | None = None
        self._exit: Any = None

    # -- time and work -----------------------------------------------------------------------------

    async def run_until_idle(self, *, limit: int = MAX_TASKS) -> list[Executed]:
        """Execute what can run now, and what that sets off, until there is nothing; give the attempts made.

        More than `limit` of them are taken for an endless loop.
        """
        before = len(self.executed)
        while tasks := await self._claim():
            for task in tasks:
                await self._execute(task)
            if len(self.executed) - before > limit:
                raise AssertionError(
                    f"still busy after {limit} tasks: does a task enqueue or retry itself at once?"
                )
        return self.executed[before:]

    drain = run_until_idle

    async def advance(self, duration: Duration) -> list[Executed]:
        """Let time pass, executing what becomes due at its time; give the attempts made."""
        before = len(self.executed)
        left = round(seconds(duration, "duration") * 1000)
        await self.run_until_idle()
        while True:
            step = self._clock.next_timer()
            step = left if step is None else min(max(step, 1), left)
            await self._clock.advance(step)
            left -= step
            await self.run_until_idle()
            if left <= 0:
                return self.executed[before:]

    async def skip(self, duration: Duration) -> None:
        """Let time pass while no worker is there: nothing is executed."""
        await self._clock.advance(round(seconds(duration, "duration") * 1000))

    @property
    def now(self) -> float:
        """Where the clock stands, in seconds since the epoch."""
        return self._clock.now() / 1000

    # -- looking -----------------------------------------------------------------------------------

    async def task(self, task: str | Handle[Any] | SyncHandle[Any]) -> wire.Task:
        """Read a task as it stands."""
        task_id = task if isinstance(task, str) else task.task_id
        found: wire.Task = await self.transport.call(CALLS["get"], id=task_id)
        return found

    def assert_enqueued(self, task: Task[Any, Any] | str, /, **arguments: Any) -> Enqueued:
        """Fail unless a task of that type was enqueued with at least these arguments; give the last such
        one.
        """
        name = task if isinstance(task, str) else task.name
        wanted = msgspec.json.decode(encoding.encode(arguments))
        found = [one for one in self.enqueued if one.name == name and _has(one.arguments, wanted)]
        if not found:
            raise AssertionError(f"no {_shown(name, wanted)} was enqueued; there were: {self._listed()}")
        return found[-1]

    def assert_not_enqueued(self, task: Task[Any, Any] | str, /, **arguments: Any) -> None:
        """Fail where a task of that type was enqueued with at least these arguments."""
        name = task if isinstance(task, str) else task.name
        wanted = msgspec.json.decode(encoding.encode(arguments))
        if any(one.name == name and _has(one.arguments, wanted) for one in self.enqueued):
            raise AssertionError(f"{_shown(name, wanted)} was enqueued: {self._listed()}")

    async def assert_state(self, task: str | Handle[Any] | SyncHandle[Any], state: str) -> wire.Task:
        """Fail unless the task is in `state`; give it."""
        found = await self.task(task)
        if found.state != state:
            told = bytes(found.error or b"null").decode()
            error = "" if told == "null" else f", {told}"
            raise AssertionError(f"task {found.task_id} ({found.name}) is {found.state}, not {state}{error}")
        return found

    # -- lifetime ----------------------------------------------------------------------------------

    @property
    def transport(self) -> _TestTransport:
        """The way to the coordinator of this test."""
        if self._transport is None:
            raise RuntimeError("use the harness within its block: async with harness(app) as test")
        return self._transport

    async def __aenter__(self) -> Self:
        self._coordinator = await Coordinator.open("memory://", clock=self._clock)
        self._transport = transport = _TestTransport(self, self._coordinator)
        self._exit = self.app.connected_through(_TestConnections(lambda: transport))
        self._exit.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(None, None, None)
        self._threads.close()
        assert self._coordinator is not None
        await self._coordinator.close()

    # -- the one worker ----------------------------------------------------------------------------

    @property
    def _executor(self) -> Executor:
        return Executor(
            self.app.definitions,
            middleware=self.app.middlewares,
            after_execution=self.app.hooks,
            threads=self._threads,
        )

    async def _claim(self) -> list[ClaimedTask]:
        transport, names = self.transport, self._executor.names
        if names == []:  # what was enqueued is for other programs
            return []
        claim = Claim(max=BATCH, worker=self._worker, names=names, start=False)
        answer = await transport.call(CALLS["claim"], body=claim)
        tasks: list[ClaimedTask] = answer.tasks
        return tasks

    async def _execute(self, task: ClaimedTask) -> None:
        if not await self._started(task):
            return
        loop = asyncio.get_running_loop()
        sending: set[asyncio.Task[None]] = set()

        def notice(context: Context) -> None:
            loop.call_soon_threadsafe(lambda: sending.add(loop.create_task(self._send_news(context))))

        context = Context(task, self.app, notice)
        outcome = await self._executor.execute(task.name, bytes(task.payload), context)
        if sending:
            await asyncio.gather(*sending)
        await self._send_news(context)
        self.executed.append(Executed(task.name, task.task_id, task.attempt, outcome))
        await self.transport.call(CALLS["report"], body=Report(items=[reports.outcome(task, outcome)]))

    async def _started(self, task: ClaimedTask) -> bool:
        """Begin one task of a batch: what ran before it may have cancelled it meanwhile."""
        answer = await self.transport.call(CALLS["report"], body=Report(items=[reports.start(task)]))
        [item] = answer.items
        return item.error is None

    async def _send_news(self, context: Context) -> None:
        news = context._take_news()
        if news is None:
            return
        items = [reports.heartbeat(context._task, news)]
        answer = await self.transport.call(CALLS["report"], body=Report(items=list(items)))
        [item] = answer.items
        if item.directive == "cancel":
            context._stop(item.reason or "cancelled")
        news.delivered()

    def _record(self, body: Enqueue) -> None:
        fields = msgspec.structs.asdict(body)
        options = {
            name: value
            for name, value in fields.items()
            if value is not None and name not in ("name", "payload", "task_id")
        }
        arguments = msgspec.json.decode(body.payload) if isinstance(body.payload, msgspec.Raw) else None
        self.enqueued.append(
            Enqueued(body.name, arguments, body.task_id or "", body.queue or "default", options)
        )

    def _listed(self) -> str:
        return ", ".join(_shown(one.name, one.arguments) for one in self.enqueued) or "none"


class _TestConnections(Connections):
    """Stay open for the length of the test, also where the code under test closes its App."""

    async def close(self) -> None:
        pass


class _TestTransport(InProcessTransport):
    """Records what is enqueued; whoever waits for a task makes it run, since time does not pass by itself."""

    def __init__(self, harness: Harness, coordinator: Coordinator) -> None:
        super().__init__(coordinator, retry_for=0.0)
        self._harness = harness
        self._home = coordinator

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        waits = isinstance(query, wire.GetQuery | wire.EnqueueQuery) and query.wait is not None
        if waits:
            query = None
        answer = await super().call(call, id=id, query=query, body=body, timeout=timeout)
        if call.name in ("enqueue", "put", "bulk"):
            for one in body if isinstance(body, list) else [body]:
                self._harness._record(one)
        if waits and answer.state not in ("completed", "failed", "cancelled"):
            ended = await self._wait(answer.task_id)
            if isinstance(answer, wire.Enqueued):
                return msgspec.structs.replace(
                    answer, state=ended.state, result=ended.result, error=ended.error
                )
            return ended
        return answer

    async def _wait(self, task_id: str) -> wire.Task:
        run = self._harness.run_until_idle()
        if self._home.loop is asyncio.get_running_loop():
            await run
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run, self._home.loop))
        answer: wire.Task = await super().call(CALLS["get"], id=task_id)
        if answer.state not in ("completed", "failed", "cancelled"):
            due = f" until {answer.run_at}" if answer.state == "scheduled" else ""
            raise ResultTimeout(
                f"task {task_id} ({answer.name}) is {answer.state}{due} and time stands still: `advance` "
                "the clock before you wait for its result",
                task_id=task_id,
            )
        return answer


def _has(arguments: Any, wanted: dict[str, Any]) -> bool:
    if not wanted:
        return True
    return isinstance(arguments, dict) and all(
        name in arguments and arguments[name] == value for name, value in wanted.items()
    )


def _shown(name: str, arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return f"{name}({arguments!r})"
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
