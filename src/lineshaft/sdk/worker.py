"""The worker: pools of tasks, a heart for their leases, and an orderly end.

It ends in steps. The first SIGTERM (or `drain`): claim no more, give back what has not begun, let the rest
finish. After `grace`: interrupt what is still at work and give it back unburned. A second signal that is no
echo of the first: the same at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec

from lineshaft.errors import Retryable
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.client import Client
from lineshaft.sdk.connections import Connection
from lineshaft.sdk.execution import Executor
from lineshaft.sdk.failures import AppClosed, WrongDefinition
from lineshaft.sdk.heart import Heart
from lineshaft.sdk.held_ledger import HeldLedger
from lineshaft.sdk.pool import Pool
from lineshaft.sdk.stop_signals import ECHO, StopSignals
from lineshaft.sdk.threads import Threads
from lineshaft.sdk.transport import TellsDirectives, Transport
from lineshaft.sdk.worker_settings import WorkerSettings
from lineshaft.version import __version__
from lineshaft.wire import Call, PushedDirective
from lineshaft.wire.workers import Worker as Identity

UNWIND = 2.0
"""Seconds that interrupted handlers have to clean up."""
DELIVER = 10.0
"""Seconds that a worker that stops goes on trying to deliver outcomes."""

_logger = logging.getLogger("lineshaft.worker")


class Worker:
    """Executes the tasks of an App until it is told to stop: `await worker.run()`, or for the length of a
    block `async with app.worker():`.

    It asks only for tasks that the App defines, also those that it defines later, so it may stand
    beside workers of other programs. `ledger` is where a supervisor reads what is held, `identity`
    what it gave the process.
    """

    def __init__(
        self,
        client: Client,
        settings: WorkerSettings | None = None,
        *,
        ledger: HeldLedger | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.client = client
        self.settings = settings or WorkerSettings()
        self.ledger = ledger
        self.lease = self.settings.lease
        self.identity = identity or identity_of(self.settings, os.getpid())
        self.heart = Heart(client.open_transport)
        self._threads = Threads()
        self.executor = Executor(
            client.definitions,
            middleware=client.middlewares,
            after_execution=client.hooks,
            threads=self._threads,
        )
        prefetch = self.settings.prefetch
        self.pools = [
            Pool(self, queues, concurrency=concurrency, prefetch=prefetch)
            for queues, concurrency in self.settings.pools
        ]
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._block_is_cancelled = False
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Worker {self.identity.id}: {_describe(self.settings)}>"

    async def run(self, *, signals: bool = False) -> None:
        """Work until `drain` is called, the coordinator says so, or (with `signals`) SIGTERM or SIGINT comes.

        Raises WrongDefinition where the App has no tasks, Unauthorized, Forbidden and the like, which no
        repetition cures.
        """
        self._check_startable()
        self._connection = Connection(self.client.open_transport())
        self.heart.start()
        self._loop = asyncio.get_running_loop()
        self.client.tell(self)
        # A supervisor passes on no echoes: what comes from one is meant.
        stop_signals = StopSignals(self._signalled, echo=ECHO if self.ledger is None else 0.0)
        if signals:
            stop_signals.listen()
        running = [asyncio.create_task(pool.run()) for pool in self.pools]
        draining = asyncio.create_task(self._draining.wait())
        listening = asyncio.create_task(self._listen())
        _logger.info("worker %s is ready: %s", self.identity.id, _describe(self.settings))
        self._warn_of_queues()
        try:
            await asyncio.wait({*running, draining}, return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down(running)
        finally:
            draining.cancel()
            listening.cancel()
            await self._close([*running, listening])
            if signals:
                stop_signals.leave()
        for task in running:
            if not task.cancelled():
                task.result()

    async def __aenter__(self) -> Self:
        """Work beside the block; what keeps the worker from going on is raised out of the block."""
        self._check_startable()
        block = asyncio.current_task()
        assert block is not None
        self._running = asyncio.create_task(self.run())
        self._running.add_done_callback(lambda running: self._ended(running, block))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is at work, up to the grace; after an exception give it back instead."""
        running, self._running = self._running, None
        assert running is not None
        if error is None:
            self.drain("its block has ended")
        else:
            self.stop_now()
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            self.stop_now()
            await asyncio.wait({running})
            if not self._block_is_cancelled:
                raise
        block = asyncio.current_task()
        assert block is not None
        if self._block_is_cancelled and block.uncancel() > 0:
            return  # somebody else cancels it as well, which goes first
        failure = running.exception()
        if failure is not None and (error is None or self._block_is_cancelled):
            raise failure from None

    def drain(self, reason: str = "drain was called") -> None:
        """Claim no more, finish what is at work (up to the grace), then end `run`. May be called in any
        thread.
        """
        self._in_loop(lambda: self._drain(reason))

    def stop_now(self) -> None:
        """End without waiting for what is at work: it is interrupted and given back. In any thread."""
        self._in_loop(self._stop_now)

    def _ended(self, running: asyncio.Task[None], block: asyncio.Task[Any]) -> None:
        """Wake a block that may wait for results which nobody works on any more."""
        if self._running is not None and not running.cancelled() and running.exception() is not None:
            self._block_is_cancelled = True
            block.cancel()

    def _check_startable(self) -> None:
        if self._loop is not None:
            raise RuntimeError("a worker runs once; make another with app.worker()")
        if self.executor.names == []:
            raise WrongDefinition(
                "this App has no tasks to work on; import the modules that define them with @app.task() "
                "before the worker starts"
            )

    def _warn_of_queues(self) -> None:
        """Name queues that hold none of our tasks where others do: one that is misspelt leaves us idle."""
        known = {one.queue for one in self.client.definitions.values() if one.handler is not None}
        asked = {queue for queues, _ in self.settings.pools for queue in queues or known}
        if asked - known and known - asked:
            _logger.warning(
                "no task of this App is in queue %s; not asked for are its tasks in %s",
                ", ".join(sorted(asked - known)),
                ", ".join(sorted(known - asked)),
            )

    def defined(self) -> None:
        """Ask from now on also for the task that was just defined. In any thread."""
        self._in_loop(self._ask_anew)

    def _ask_anew(self) -> None:
        for pool in self.pools:
            pool.ask_anew()

    def _in_loop(self, do: Callable[[], None]) -> None:
        loop = self._loop
        if loop is None or loop is asyncio._get_running_loop():
            do()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the worker with it
                loop.call_soon_threadsafe(do)

    def _drain(self, reason: str) -> None:
        if not self._draining.is_set():
            _logger.info("worker %s stops claiming: %s", self.identity.id, reason)
            self._draining.set()
            for pool in self.pools:
                pool.stop_claiming()

    def _stop_now(self) -> None:
        self._drain("it shall stop at once")
        self._hurry.set()

    def identity_for(self, queues: list[str] | None) -> Identity:
        """Say who a pool is: what one says that it holds must not count against another's tasks."""
        return pool_identity(self.identity, self.settings, queues)

    def is_async(self, name: str) -> bool:
        """Tell whether the handler of a task is a coroutine and so can be interrupted."""
        definition = self.client.definitions.get(name)
        return definition is None or definition.is_async

    @property
    def transport(self) -> Transport:
        """The connection of the worker's own loop."""
        assert self._connection is not None
        return self._connection.transport

    def new_id(self) -> str:
        """Make an id for a claim."""
        assert self._connection is not None
        return self._connection.new_id()

    async def call_until_answered(self, call: Call, body: Any, *, timeout: float) -> Any:
        """Repeat a call until there is an answer; raises only what no repetition cures."""
        backoff = Backoff()
        while True:
            try:
                return await self.transport.call(call, body=body, timeout=timeout)
            except Retryable as error:
                pause = backoff.after_failure(error.retry_after)
                await asyncio.sleep(pause)

    # -- the end -----------------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        name = number.name
        if self._draining.is_set():
            _logger.warning("%s again: worker %s stops at once", name, self.identity.id)
            self.stop_now()
        else:
            self.drain(f"{name}; tasks at work have {self.settings.grace:g} s to finish")

    async def _wind_down(self, running: list[asyncio.Task[None]]) -> None:
        failed = [task for task in running if task.done() and task.exception() is not None]
        if failed:
            _logger.error("worker %s cannot go on: %s", self.identity.id, failed[0].exception())
            self.stop_now()
        idle: asyncio.Future[Any] = asyncio.gather(*(pool.until_idle() for pool in self.pools))
        hurry: asyncio.Future[Any] = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait(
                {idle, hurry}, timeout=self.settings.grace, return_when=asyncio.FIRST_COMPLETED
            )
            if not idle.done() and not failed:
                await self._cut_short(idle)
        finally:
            for waiting in (idle, hurry):
                waiting.cancel()
            await asyncio.gather(idle, hurry, return_exceptions=True)
        undelivered = [task_id for pool in self.pools for task_id in pool.outbox.close()]
        if undelivered:
            _logger.error(
                "%d outcomes could not be delivered; their tasks run again when their leases end: %s",
                len(undelivered),
                ", ".join(undelivered[:10]),
            )

    async def _cut_short(self, idle: asyncio.Future[Any]) -> None:
        for pool in self.pools:
            pool.interrupt()
        hurried = self._hurry.is_set()
        await asyncio.wait({idle}, timeout=UNWIND / 4 if hurried else UNWIND)
        for pool in self.pools:
            pool.give_up()
        sent: asyncio.Future[Any] = asyncio.gather(*(pool.outbox.until_empty() for pool in self.pools))
        await asyncio.wait({sent}, timeout=DELIVER / 4 if hurried else DELIVER)
        sent.cancel()
        await asyncio.gather(sent, return_exceptions=True)

    async def _listen(self) -> None:
        """Hear at once of a cancel, where that costs nothing; else a heartbeat or a session brings it."""
        if isinstance(self.transport, TellsDirectives):
            workers = [(pool.identity.id, pool.identity.incarnation) for pool in self.pools]
            with contextlib.suppress(AppClosed):
                await self.transport.directives(
                    workers, lambda pushed: self._in_loop(functools.partial(self._told, pushed))
                )

    def _told(self, pushed: PushedDirective) -> None:
        for pool in self.pools:
            pool.told(pushed)

    async def _close(self, running: list[asyncio.Task[None]]) -> None:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.heart.stop()
        self._threads.close()
        await self.transport.close()
        _logger.info("worker %s has stopped", self.identity.id)


def identity_of(settings: WorkerSettings, pid: int) -> Identity:
    """Make the identity of a worker in the process `pid` of this machine."""
    host = socket.gethostname()
    return Identity(
        id=settings.name or f"{host}-{pid}-{secrets.token_hex(3)}",
        incarnation=secrets.token_hex(8),
        name=settings.name,
        version=__version__,
        capabilities=settings.capability,
        resources=settings.resources,
        host=host,
        pid=pid,
    )


def pool_identity(identity: Identity, settings: WorkerSettings, queues: list[str] | None) -> Identity:
    """Give the identity under which one pool of a worker claims."""
    if len(settings.pools) == 1 or queues is None:
        return identity
    return msgspec.structs.replace(identity, id=f"{identity.id}:{queues[0]}")


def _describe(settings: WorkerSettings) -> str:
    return ", ".join(
        f"{' and '.join(queues) if queues else 'any queue'} × {most}" for queues, most in settings.pools
    )
