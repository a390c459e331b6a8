"""Worker processes under a supervisor: one that crashes is started again, and the task that did it pays for
it.

The supervisor executes nothing, so nothing that a handler does can take it along. What a process held is in
its ledger (a mapped file). After a crash the tasks whose code was running at that instant are failed with
type `worker_crashed`, which uses up an attempt, so a task that kills its worker ends; what only waited there,
or was on its way there, goes back unburned.

Crashes without a task to blame are the program's own. Beyond an *intensity* (so many within so many seconds,
after Erlang/OTP's supervisors) restarting cannot help, and the whole stops with an error that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from lineshaft.errors import LineshaftError, Retryable
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.child import MISCONFIGURED, Orders
from lineshaft.sdk.failures import CrashLoop
from lineshaft.sdk.held_ledger import Entry, HeldLedger, read_ledger, to_blame
from lineshaft.sdk.stop_signals import StopSignals
from lineshaft.sdk.transport import Transport
from lineshaft.sdk.worker import identity_of, pool_identity
from lineshaft.sdk.worker_settings import WorkerSettings
from lineshaft.wire import CALLS, Call, Claim
from lineshaft.wire.tasks import TaskError
from lineshaft.wire.workers import FailItem, Item, ReleaseItem, Report
from lineshaft.wire.workers import Worker as Identity

INTENSITY = 5
PERIOD = 10.0
"""More than `INTENSITY` crashes without a task within `PERIOD` seconds stop the whole."""
STEADY = 60.0
"""A process that has lived this long is restarted without delay."""
PATIENCE = 20.0
"""Seconds beyond its grace that a process has to stop; then it is killed, and its tasks go back unburned."""
HURRIED = 6.0
"""The same after it was told to end at once."""
CHARGE_FOR = 60.0
"""How long the supervisor tries to tell the coordinator of a crash; the leases run out by themselves."""

NO_TASK = "lineshaft.no-task"
"""A name by which there is nothing to claim."""

_logger = logging.getLogger("lineshaft.supervisor")


class Supervisor:
    """Runs `processes` workers of the App that `app` names (`module:attribute`, found from `directory`).

    `url` is where they find the coordinator, None where the App knows; `transport` is the supervisor's own
    way there.
    """

    def __init__(
        self,
        app: str,
        settings: WorkerSettings,
        *,
        processes: int,
        transport: Transport,
        directory: Path | None = None,
        url: str | None = None,
        log_level: str = "INFO",
        intensity: int = INTENSITY,
        period: float = PERIOD,
    ) -> None:
        self._app = app
        self._settings = settings
        self._processes = processes
        self._transport = transport
        self._directory = directory or Path.cwd()
        self._url = url
        self._log_level = log_level
        self._intensity = intensity
        self._period = period
        self._blameless: deque[float] = deque()
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._identities: dict[int, Identity] = {}
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._charges: set[asyncio.Task[None]] = set()

    async def run(self, *, signals: bool = False) -> None:
        """Run until all processes have ended after `stop` (or a signal). Raises CrashLoop."""
        stop_signals = StopSignals(lambda number: self.stop())
        if signals:
            stop_signals.listen()
        try:
            with tempfile.TemporaryDirectory(prefix="lineshaft-") as folder:
                await self._run_all(Path(folder))
        finally:
            if signals:
                stop_signals.leave()

    def stop(self) -> None:
        """Ask the processes to finish what they do and end; called again, to end at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        for process in list(self._children.values()):
            _send(process, signal.SIGTERM)

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [process.pid for process in self._children.values()]

    async def _run_all(self, folder: Path) -> None:
        keepers = [
            asyncio.create_task(self._keep(number, folder / f"{number}.held"))
            for number in range(self._processes)
        ]
        try:
            await asyncio.wait(keepers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            if not self._stopping.is_set():
                self.stop()
            done = await asyncio.gather(*keepers, return_exceptions=True)
            if self._charges:
                await asyncio.wait(self._charges, timeout=5.0)
            for charge in self._charges:
                charge.cancel()
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _keep(self, number: int, ledger: Path) -> None:
        """Keep one process running, under one number, until all shall stop."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(base=0.2, cap=30.0)
        while not self._stopping.is_set():
            started = loop.time()
            process = await self._start(number, ledger)
            code = await self._end_of(process)
            del self._children[number]
            identity = self._identities.pop(process.pid)
            held = read_ledger(ledger)
            if code is None:
                self._tell(identity, held, [], how=f"worker process {process.pid} was killed")
                return
            if code == 0 or (self._stopping.is_set() and code == -signal.SIGTERM and not held):
                return  # it was told to go: by us, or drained by the coordinator
            if loop.time() - started > STEADY:
                backoff.succeeded()
            self._crashed(identity, code, held)
            if not self._stopping.is_set():
                await self._pause(backoff.after_failure())

    async def _end_of(self, process: asyncio.subprocess.Process) -> int | None:
        """Wait for the end of a process and give its exit code; None where it had to be killed."""
        ended = asyncio.create_task(process.wait())
        for event, patience in (
            (self._stopping, None),
            (self._hurry, self._settings.grace + PATIENCE),
            (asyncio.Event(), HURRIED),
        ):
            if not await self._either(ended, event, patience):
                break
        if ended.done():
            return ended.result()
        _logger.error("worker process %d does not stop: a handler blocks its event loop; killed", process.pid)
        _send(process, signal.SIGKILL)
        await ended
        return None

    async def _either(self, ended: asyncio.Task[int], event: asyncio.Event, patience: float | None) -> bool:
        """Wait for the end of a process or an event; whether it was the event."""
        happened = asyncio.create_task(event.wait())
        await asyncio.wait({ended, happened}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        happened.cancel()
        return not ended.done() and event.is_set()

    async def _start(self, number: int, ledger: Path) -> asyncio.subprocess.Process:
        HeldLedger.create(ledger, self._settings.slots)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lineshaft.sdk.child",
            stdin=asyncio.subprocess.PIPE,
            cwd=self._directory,
            # Ctrl-C in a terminal reaches only the supervisor, which passes it on in order.
            start_new_session=True,
        )
        self._children[number] = process
        settings = self._settings_of(number)
        identity = self._identities[process.pid] = identity_of(settings, process.pid)
        orders = Orders(
            app=self._app,
            directory=str(self._directory),
            settings=settings,
            identity=identity,
            ledger=str(ledger),
            url=self._url,
            log_level=self._log_level,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        if self._stopping.is_set():
            _send(process, signal.SIGTERM)
        return process

    def _settings_of(self, number: int) -> WorkerSettings:
        if self._settings.name is None or self._processes == 1:
            return self._settings
        return msgspec.structs.replace(self._settings, name=f"{self._settings.name}-{number}")

    def _crashed(self, identity: Identity, code: int, held: list[Entry]) -> None:
        pid = identity.pid
        how = describe_exit(code)
        blamed = to_blame(held)
        self._tell(identity, held, blamed, how=f"worker process {pid} {how}")
        if code == MISCONFIGURED:
            raise CrashLoop("the worker cannot start as it is configured; its log above says why")
        if blamed:
            names = ", ".join(f"{entry.task_id} ({entry.name})" for entry in blamed[:5])
            _logger.error("worker process %d %s while it executed %s", pid, how, names)
            return
        _logger.error("worker process %d %s while it executed no task", pid, how)
        if not self._stopping.is_set():
            self._count_blameless(how)

    def _count_blameless(self, how: str) -> None:
        now = asyncio.get_running_loop().time()
        self._blameless.append(now)
        while self._blameless[0] < now - self._period:
            self._blameless.popleft()
        if len(self._blameless) >= self._intensity:
            raise CrashLoop(
                f"worker processes crashed {len(self._blameless)} times within {self._period:g} s without a "
                f"task to blame (the last one {how}); restarting cannot help: see what they wrote above"
            )

    def _tell(self, identity: Identity, held: list[Entry], blamed: list[Entry], *, how: str) -> None:
        items: list[Item] = [_failed(entry, how) for entry in blamed]
        items += [_released(entry) for entry in held if entry not in blamed]
        charge = asyncio.create_task(self._charge(identity, items))
        self._charges.add(charge)
        charge.add_done_callback(self._charges.discard)

    async def _charge(self, identity: Identity, items: list[Item]) -> None:
        """Tell the coordinator what became of the tasks of a dead process."""
        try:
            async with asyncio.timeout(CHARGE_FOR):
                if items:
                    await self._until_answered(CALLS["report"], Report(items=items))
                for queues, _ in self._settings.pools:
                    await self._until_answered(CALLS["claim"], self._last_claim(identity, queues))
        except (TimeoutError, LineshaftError) as error:
            _logger.error("what a dead process held (%d tasks) ends with its leases: %s", len(items), error)

    def _last_claim(self, identity: Identity, queues: list[str] | None) -> Claim:
        """Claim nothing in the name of a dead process, holding nothing.

        So what was on its way to it when it died, and is in no ledger, goes back unburned.
        """
        worker = pool_identity(identity, self._settings, queues)
        return Claim(worker=worker, names=[NO_TASK], max=1, holding=[])

    async def _until_answered(self, call: Call, body: Any) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._transport.call(call, body=body, timeout=10.0)
                return
            except Retryable as error:
                await asyncio.sleep(backoff.after_failure(error.retry_after))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def describe_exit(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _released(entry: Entry) -> Item:
    return ReleaseItem(task_id=entry.task_id, lease_token=entry.lease_token)


def _failed(entry: Entry, how: str) -> Item:
    error = TaskError(type="worker_crashed", message=f"{how} while it executed this task")
    return FailItem(task_id=entry.task_id, lease_token=entry.lease_token, error=error)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
