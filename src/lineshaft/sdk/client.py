"""The client: definitions of tasks, and enqueueing them. `App` is this over a transport that fits its URL."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, overload

import msgspec

from lineshaft.sdk.connections import Connections
from lineshaft.sdk.context import Context
from lineshaft.sdk.enqueueing import BULK_TRY, ONE_TRY, check_all_enqueued, chunks, enqueue_body
from lineshaft.sdk.failures import WrongArgument, WrongDefinition
from lineshaft.sdk.forking import forget_in_child
from lineshaft.sdk.handle import WAIT, Handle
from lineshaft.sdk.options import DEFAULT_QUEUE, TaskOptions, checked
from lineshaft.sdk.sync import SyncClient
from lineshaft.sdk.task import (
    AfterExecution,
    Bound,
    Definition,
    Exceptions,
    Middleware,
    Task,
    TaskDecorator,
    define,
    encode_call,
    encode_payload,
)
from lineshaft.sdk.transport import Transport
from lineshaft.sdk.worker_settings import DEFAULT_CONCURRENCY, Queues, WorkerOptions, worker_settings
from lineshaft.values.ids import check_name
from lineshaft.wire import CALLS, Call
from lineshaft.wire import tasks as wire

if TYPE_CHECKING:
    from lineshaft.sdk.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Middleware)
A = TypeVar("A", bound=AfterExecution)


class Client:
    """Defines and enqueues tasks over the transports that `opener` makes; usable from every event loop.

    About `forkable` see `Connections`.
    """

    def __init__(self, opener: Callable[[], Transport], *, forkable: bool = True) -> None:
        self.definitions: dict[str, Definition] = {}
        self.middlewares: list[Middleware] = []
        self.hooks: list[AfterExecution] = []
        self._connections = Connections(opener, forkable=forkable)
        self._sync: SyncClient | None = None
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        forget_in_child(self)

    def forked(self) -> None:
        """See `Forgets`: workers are the parent's."""
        self._workers = weakref.WeakSet()

    # -- defining ----------------------------------------------------------------------------------

    @overload
    def task(self, handler: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, handler: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, handler: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    @overload
    def task(self, handler: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        name: str | None = None,
        *,
        retry_on: Exceptions | None = None,
        discard_on: Exceptions = (),
        after_execution: AfterExecution | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskDecorator: ...
    def task(
        self,
        name: str | Callable[..., Any] | None = None,
        *,
        retry_on: Exceptions | None = None,
        discard_on: Exceptions = (),
        after_execution: AfterExecution | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Make a handler a task: `@app.task`, or `@app.task(…)` with options.

        The task is named like the function unless `name` is given. `retry_on`: only these exceptions are
        tried again; `discard_on`: these never are. `options` are defaults of the enqueue. Raises
        WrongDefinition, which names what cannot be.
        """
        handler, name = (name, None) if callable(name) else (None, name)
        if "task_id" in options:
            raise WrongDefinition("`task_id` is for one call: use configure(task_id=…)", field="task_id")
        fields = checked(options)
        # The names that annotations may use where the handler is defined inside a function.
        scope = sys._getframe(1).f_locals

        def decorate(handler: Callable[..., Any], /) -> Task[..., Any]:
            definition = define(
                handler,
                name=name,
                queue=fields.get("queue", DEFAULT_QUEUE),
                scope=scope,
                retry_on=retry_on,
                discard_on=discard_on,
                after_execution=after_execution,
            )
            self._add(definition)
            return Task(definition, fields)

        return decorate if handler is None else decorate(handler)

    def middleware(self, middleware: M) -> M:
        """Wrap every execution in `async def middleware(ctx, call_next)`; the first added is the
        outermost.
        """
        self.middlewares.append(middleware)
        return middleware

    def after_execution(self, hook: A) -> A:
        """Call `hook(ctx, outcome)` after every handler; an outcome that it returns takes the place of the
        first.

        So it can change the result or how long it is kept: `return Completed(outcome.result,
        result_ttl="1h")`.
        """
        self.hooks.append(hook)
        return hook

    # -- enqueueing --------------------------------------------------------------------------------

    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueue a task with the arguments of its handler.

        Raises WrongArgument before anything is sent; else when this returns, the task is stored. The SDK
        makes the task's id, so that it can repeat the request after an unknown outcome.
        """
        return await self._enqueue(task, encode_call(task, args, kwargs))

    async def enqueue_named(
        self, name: str, payload: Any = None, **options: Unpack[TaskOptions]
    ) -> Handle[Any]:
        """Enqueue a task that another program executes: `payload` is any JSON value."""
        check_name(name, field="name")
        task: Task[..., Any] = Task(Definition(name=name), checked(options))
        return await self._enqueue(task, encode_payload(payload))

    async def enqueue_many(self, calls: Iterable[Bound[R]]) -> list[Handle[R]]:
        """Enqueue what `task.bind(…)` made, in as few requests as possible, in order.

        Raises EnqueueFailed where some were refused: `errors` has their indexes, the others are enqueued.
        """
        connection = self._connections.current()
        bodies: list[wire.Enqueue] = []
        decoders: list[msgspec.json.Decoder[Any]] = []
        for call in calls:
            if not hasattr(call, "payload"):
                raise WrongArgument(f"expected what `task.bind(…)` makes, not {call!r}", field="calls")
            bodies.append(enqueue_body(call.task, call.payload, connection.new_id))
            decoders.append(call.task.definition.result)
        items: list[wire.BulkItem] = []
        for chunk in chunks(bodies):
            answer: wire.BulkAnswer = await self.call(CALLS["bulk"], body=chunk, timeout=BULK_TRY)
            items += answer.items
        check_all_enqueued(items)
        return [
            Handle(self, item.task_id or body.task_id or "", decoder, created=item.created is not False)
            for body, item, decoder in zip(bodies, items, decoders, strict=True)
        ]

    async def enqueue_and_wait(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Enqueue a task and wait for its result, as long as `configure(wait=…)` says (without: as it takes).

        Raises TaskFailed, TaskCancelled, ResultTimeout.
        """
        began = asyncio.get_running_loop().time()
        wait = WAIT if task.wait is None else min(task.wait, WAIT)
        handle = await self._enqueue(task, encode_call(task, args, kwargs), wait=wait)
        return await handle._result(task.wait, began, looked=True)

    @overload
    def handle(self, task_id: str, task: Task[Any, R]) -> Handle[R]: ...
    @overload
    def handle(self, task_id: str, task: None = None) -> Handle[Any]: ...
    def handle(self, task_id: str, task: Task[Any, Any] | None = None) -> Handle[Any]:
        """Give the handle of a task that was enqueued before; `task` gives it the type of its result."""
        decoder = msgspec.json.Decoder() if task is None else task.definition.result
        return Handle(self, task_id, decoder)

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make any call of the protocol (`wire.CALLS`) and return its answer struct."""
        transport = self._connections.current().transport
        return await transport.call(call, id=id, query=query, body=body, timeout=timeout)

    def worker(
        self,
        queues: Queues = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        **settings: Unpack[WorkerOptions],
    ) -> Worker:
        """Make a worker for this App's tasks; `await worker.run()` works until it is told to stop.

        `queues`: a mapping gives each queue its own concurrency (`{"mail": 10, "default": 5}`), with a list
        they share `concurrency`, None is any queue. Raises Invalid, which names the setting that is wrong.
        """
        from lineshaft.sdk.worker import Worker

        return Worker(self, worker_settings(queues, concurrency=concurrency, **settings))

    def run_worker(
        self,
        queues: Queues = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        **settings: Unpack[WorkerOptions],
    ) -> None:
        """Work in this process until SIGTERM or Ctrl-C (in a thread: as long as the process); see `worker`.
        Several processes: `lineshaft worker`.
        """
        signals = threading.current_thread() is threading.main_thread()

        async def run() -> None:
            try:
                await self.worker(queues, concurrency=concurrency, **settings).run(signals=signals)
            finally:
                await self.close()

        asyncio.run(run())

    # -- lifetime ----------------------------------------------------------------------------------

    @property
    def sync(self) -> SyncClient:
        """The same calls for code that does not await: Flask, Django, scripts."""
        if self._sync is None:
            self._sync = SyncClient(self)
        return self._sync

    @property
    def connections(self) -> Connections:
        """The transports, one for each event loop."""
        return self._connections

    def open_transport(self) -> Transport:
        """Open a transport of one's own, such as for a thread."""
        self.check_usable()
        return self._connections.opener()

    def check_usable(self) -> None:
        """Raise ForkedApp or AppClosed where this App cannot be used here."""
        self._connections.check()

    @contextlib.contextmanager
    def connected_through(self, connections: Connections) -> Iterator[None]:
        """Use other connections within a block."""
        before, self._connections = self._connections, connections
        try:
            yield
        finally:
            self._connections = before

    @contextlib.asynccontextmanager
    async def serving_processes(self) -> AsyncIterator[str | None]:
        """Serve the worker processes of a supervisor within a block, at the URL given; None: they know the
        way.
        """
        yield None

    def served_at(self, url: str) -> None:
        """Find the coordinator at `url` from now on; for the processes of a supervisor that serves them."""
        from lineshaft.sdk.http import HttpTransport

        self.reconnect(lambda: HttpTransport(url))

    def reconnect(self, opener: Callable[[], Transport]) -> None:
        """Use transports of `opener` from now on."""
        self._connections = Connections(opener)

    async def close(self) -> None:
        """Give back connections; idempotent."""
        await self._connections.close()

    def open(self) -> None:
        """Allow use again after `close`; a new App is open. Raises ForkedApp."""
        self._connections.open()

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _add(self, definition: Definition) -> None:
        known = self.definitions.get(definition.name)
        if known is not None and not _same_function(known.handler, definition.handler):
            raise WrongDefinition(
                f"there are two tasks of the name `{definition.name}`; give one of them another: "
                f"@app.task({definition.name + '-2'!r})",
                field="name",
            )
        self.definitions[definition.name] = definition
        for worker in list(self._workers):
            worker.defined()

    def tell(self, worker: Worker) -> None:
        """Tell a worker of every definition that is yet to come."""
        self._workers.add(worker)

    async def _enqueue(self, task: Task[Any, R], payload: bytes, *, wait: float | None = None) -> Handle[R]:
        connection = self._connections.current()
        body = enqueue_body(task, payload, connection.new_id)
        answer: wire.Enqueued
        if wait is None:
            answer = await connection.enqueues.enqueue(body)
        else:
            query = wire.EnqueueQuery(wait=round(wait, 3))
            answer = await connection.transport.call(
                CALLS["enqueue"], query=query, body=body, timeout=wait + ONE_TRY
            )
        return Handle(self, answer.task_id, task.definition.result, seen=answer, created=answer.created)


def _same_function(one: Callable[..., Any] | None, other: Callable[..., Any] | None) -> bool:
    """A module that is imported twice (as `__main__` and by name) defines the same task again."""
    code_one, code_other = getattr(one, "__code__", None), getattr(other, "__code__", None)
    return one is other or (code_one is not None and code_one == code_other)
