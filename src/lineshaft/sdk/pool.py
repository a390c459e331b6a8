"""A pool: the tasks that a worker takes from a set of queues, at most `concurrency` at work at once.

The *intake* brings tasks while there is room, the *outbox* carries away what became of them and asks for as
many anew. A task holds its room from the claim until its outcome is acknowledged and its handler has ended,
whichever is later.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from lineshaft.errors import LineshaftError
from lineshaft.sdk import reports
from lineshaft.sdk.context import Context
from lineshaft.sdk.held import Held
from lineshaft.sdk.held_ledger import Activity, Stepped
from lineshaft.sdk.intake import Intake
from lineshaft.sdk.outbox import Outbox
from lineshaft.sdk.outcomes import Cancelled, Failed, Outcome, Released
from lineshaft.sdk.reports import Entry
from lineshaft.sdk.transport import PushSession
from lineshaft.wire import PushedDirective, PushedTasks, Welcome
from lineshaft.wire.workers import Claim, ClaimedTask, ClaimedTasks, ItemAnswer, Reported

if TYPE_CHECKING:
    from lineshaft.sdk.worker import Worker

_logger = logging.getLogger("lineshaft.worker")


class Pool:
    """Claims, executes and reports; `queues` None takes from any. `prefetch` tasks wait here beyond those at
    work.
    """

    def __init__(self, worker: Worker, queues: list[str] | None, *, concurrency: int, prefetch: int) -> None:
        self.worker = worker
        self.identity = worker.identity_for(queues)
        self.queues = queues
        self.concurrency = concurrency
        self.prefetch = prefetch
        self.outbox = Outbox(self)
        self._intake = Intake(self, push=worker.settings.push)
        self._held: dict[str, Held] = {}
        self._ready: deque[Held] = deque()
        self._busy = 0
        self._asked = 0
        self._claiming = True
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Work until `close`. Raises what no repetition cures, such as Unauthorized."""
        intake, outbox = asyncio.create_task(self._intake.run()), asyncio.create_task(self.outbox.run())
        try:
            await asyncio.wait({intake, outbox}, return_when=asyncio.FIRST_COMPLETED)
            if not outbox.done() and intake.exception() is None:
                await asyncio.wait({outbox})
        finally:
            for loop in (intake, outbox):
                loop.cancel()
            await asyncio.gather(intake, outbox, return_exceptions=True)
        for loop in (intake, outbox):
            if not loop.cancelled():
                loop.result()

    # -- the end -----------------------------------------------------------------------------------

    def stop_claiming(self) -> None:
        """Claim no more, and give back what waits here."""
        self._claiming = False
        self._intake.stop()
        while self._ready:
            self._finish(self._ready.popleft(), Released())

    async def until_idle(self) -> None:
        """Wait until nothing is held: every handler has ended, every outcome is acknowledged."""
        await self._idle.wait()

    def interrupt(self) -> None:
        """Ask everything at work to end now; what obeys goes back unburned."""
        for held in list(self._held.values()):
            if held.running and not held.reported:
                held.interrupt(Released(), "the worker is shutting down")

    def give_up(self) -> None:
        """Give back what is still at work; its handlers are abandoned."""
        for held in list(self._held.values()):
            if not held.reported:
                self._abandon(held, Released())

    # -- room --------------------------------------------------------------------------------------

    @property
    def session(self) -> PushSession | None:
        """The push session, while there is one."""
        return self._intake.session

    @property
    def names(self) -> list[str] | None:
        """The types of tasks that this worker can execute, None for any: others leave theirs to others."""
        return self.worker.executor.names

    def capacity(self) -> int:
        """How many tasks the coordinator may have here at once: abandoned handlers take away from it."""
        abandoned = sum(held.acknowledged for held in self._held.values())
        return max(0, self.concurrency + self.prefetch - abandoned)

    def room(self) -> int:
        """How many tasks may be asked for now."""
        return self.concurrency + self.prefetch - len(self._held) - self._asked

    def asked(self, change: int) -> None:
        """Count what claims under way may bring."""
        self._asked += change
        if change < 0:
            self._intake.stir()

    @property
    def is_asking(self) -> bool:
        """Whether a claim is under way, so that tasks may be held that this side does not know of yet."""
        return self._asked > 0

    def stir(self) -> None:
        """Say that there may be room."""
        self._intake.stir()

    def ask_anew(self) -> None:
        """Ask again, since there are other tasks to ask for."""
        self._intake.ask_anew()

    def tokens(self) -> list[str]:
        """Give the leases that are held."""
        return [token for token, held in self._held.items() if not held.acknowledged]

    def claim(self, room: int, *, wait: float | None = None, holding: list[str] | None = None) -> Claim:
        """Make a claim; repeating it brings the same tasks again. `holding` gives back what is not in it."""
        return Claim(
            claim_id=self.worker.new_id(),
            worker=self.identity,
            queues=self.queues,
            names=self.names,
            max=min(room, 1000),
            wait=wait,
            lease=self.worker.lease,
            start=self.prefetch == 0,
            holding=holding,
        )

    def ask_with_report(self, batch: list[Entry]) -> tuple[Claim | None, int]:
        """Make the claim that goes with a report: for the room there is, and what the report itself makes
        free.
        """
        if not self._claiming or not self._intake.by_claims:
            return None, 0
        leaving = sum(entry.final and not entry.held.running for entry in batch)
        room = min(self.room() + leaving, 1000)
        if room <= 0:
            return None, 0
        self._asked += room
        return self.claim(room), room

    # -- taking in ---------------------------------------------------------------------------------

    def accept(self, answer: ClaimedTasks | Reported | PushedTasks) -> None:
        """Take the tasks of an answer in hand and put them to work."""
        if answer.tasks:
            now = asyncio.get_running_loop().time()
            for task in answer.tasks:
                self._take(task, now)
            self._fill()
        if not isinstance(answer, PushedTasks) and answer.directive == "drain":
            self.worker.drain("the coordinator asked this worker to drain")

    def _take(self, task: ClaimedTask, now: float) -> None:
        if task.lease_token in self._held:
            return  # a repeated claim brings again what has already arrived
        worker = self.worker
        held = Held(task, Context(task, worker.client, worker.heart.notice), self)
        held.beat_at = now + held.interval
        self._held[task.lease_token] = held
        self._idle.clear()
        worker.heart.hold(held)
        if worker.ledger is not None:
            held.slot = worker.ledger.enter(task.task_id, task.lease_token, task.name)
        if self._claiming:
            self._ready.append(held)
        else:
            self._finish(held, Released())

    def _fill(self) -> None:
        """Put waiting tasks to work while there are slots."""
        while self._ready and self._busy < self.concurrency:
            held = self._ready.popleft()
            held.running = True
            self._busy += 1
            if self.prefetch == 0:
                self._begin(held)
            else:  # a prefetched task must not be executed before its start is acknowledged
                self.outbox.put(Entry(held, reports.start(held.task), final=False))

    # -- execution ---------------------------------------------------------------------------------

    def _begin(self, held: Held) -> None:
        held.interruptible = self.worker.is_async(held.task.name)
        loop = asyncio.get_running_loop()
        if held.task.timeout:
            held.timer = loop.call_later(held.task.timeout, self._timed_out, held)
        work: Coroutine[Any, Any, None] = self._execute(held)
        ledger = self.worker.ledger
        if ledger is not None and held.interruptible:
            work = Stepped(work, ledger, held.slot)
        elif ledger is not None:
            ledger.mark(held.slot, Activity.THREAD)
        held.job = loop.create_task(work)

    async def _execute(self, held: Held) -> None:
        task = held.task
        outcome: Outcome | None
        try:
            outcome = await self.worker.executor.execute(task.name, bytes(task.payload), held.context)
        except asyncio.CancelledError:
            outcome = held.verdict
        except Exception as error:
            _logger.exception("task %s (%s) could not be executed", task.task_id, task.name)
            outcome = Failed(type=type(error).__name__, message=f"it could not be executed: {error!r}")
        self._ended(held, outcome)

    def _ended(self, held: Held, outcome: Outcome | None) -> None:
        held.running = False
        held.job = None
        self._busy -= 1
        if held.timer is not None:
            held.timer.cancel()
        if self.worker.ledger is not None:
            self.worker.ledger.mark(held.slot, Activity.HELD)
        if held.acknowledged:
            self._let_go(held)
        elif not held.reported:
            self._finish(held, outcome or Released())
        self._fill()

    def _timed_out(self, held: Held) -> None:
        failed = Failed(type="timeout", message=f"took longer than its timeout of {held.task.timeout:g} s")
        if held.interruptible:
            held.interrupt(failed, "timeout")
        else:
            self._abandon(held, failed)

    def _abandon(self, held: Held, outcome: Outcome) -> None:
        """Report although the handler is still at work: a thread cannot be interrupted. Its slot stays
        taken.
        """
        if not held.reported:
            held.interrupt(
                outcome, "timeout" if isinstance(outcome, Failed) else "the worker is shutting down"
            )
            self._finish(held, outcome)

    def _finish(self, held: Held, outcome: Outcome) -> None:
        held.reported = True
        if isinstance(outcome, Failed):
            _log_failure(held.task, outcome)
        news = held.context._take_news()
        if news is not None:
            self.outbox.put(Entry(held, reports.heartbeat(held.task, news), final=False, news=news))
        self.outbox.put(Entry(held, reports.outcome(held.task, outcome), final=True))

    # -- what the coordinator says -----------------------------------------------------------------

    def told(self, pushed: PushedDirective) -> None:
        """Do what a push session brought."""
        held = self._held.get(pushed.lease_token or "")
        if held is not None:
            self.directive(held, pushed.directive, pushed.reason)
        elif pushed.directive == "drain":
            self.worker.drain(pushed.reason or "the coordinator asked this worker to drain")

    def welcomed(self, welcome: Welcome) -> None:
        """Let go of what a new session says is lost."""
        for token in welcome.lost:
            held = self._held.get(token)
            if held is not None:
                self.lease_lost(held)

    def directive(self, held: Held, directive: str, reason: str | None) -> None:
        """Do what the coordinator said about a task or this worker."""
        if directive == "drain":
            self.worker.drain(reason or "the coordinator asked this worker to drain")
        elif directive == "cancel" and not held.reported:
            verdict = Cancelled(reason)
            held.interrupt(verdict, reason or "cancelled")
            if held in self._ready:
                self._ready.remove(held)
                self._finish(held, verdict)

    def lease_lost(self, held: Held) -> None:
        """Stop working on a task that somebody else may have."""
        if held.reported or held.acknowledged:
            return
        _logger.warning("lost the lease of task %s (%s)", held.task.task_id, held.task.name)
        self._intake.reassure()
        held.reported = True
        held.interrupt(None, "the lease is lost")
        if held in self._ready:
            self._ready.remove(held)
        self._settled(held)

    def acknowledged(self, entry: Entry, item: ItemAnswer) -> None:
        """The coordinator has taken an entry."""
        held = entry.held
        if entry.final:
            self._settled(held)
        elif entry.news is not None:
            entry.news.delivered()
        elif held.reported:
            self._vacate(held)  # cancelled or lost while its start was under way
        elif item.directive == "cancel":
            self._vacate(held)
            self._finish(held, Cancelled(item.reason))
        elif not self._claiming:
            self._vacate(held)
            self._finish(held, Released())
        else:
            self._begin(held)

    def too_late(self, entry: Entry, error: LineshaftError) -> None:
        """An entry cannot be delivered any more: somebody else has the task, or it is no more."""
        held = entry.held
        if entry.news is not None:
            entry.news.refused(error)  # the outcome follows and is told the same
            return
        if not entry.final:
            self._vacate(held)
        _logger.warning(
            "task %s (%s): its outcome came too late: %s", held.task.task_id, held.task.name, error.reason
        )
        held.reported = True
        self._settled(held)

    def _vacate(self, held: Held) -> None:
        held.running = False
        self._busy -= 1
        if held.acknowledged:
            self._let_go(held)
        self._fill()

    def _settled(self, held: Held) -> None:
        held.acknowledged = True
        self.worker.heart.let_go(held)
        if not held.running:
            self._let_go(held)
        self._intake.stir()

    def _let_go(self, held: Held) -> None:
        self._held.pop(held.task.lease_token, None)
        if self.worker.ledger is not None and held.slot >= 0:
            self.worker.ledger.leave(held.slot)
            held.slot = -1
        self._intake.stir()
        if not self._held:
            self._idle.set()


def _log_failure(task: ClaimedTask, failed: Failed) -> None:
    _logger.warning(
        "task %s (%s) failed in attempt %d: %s: %s%s",
        task.task_id,
        task.name,
        task.attempt,
        failed.type,
        failed.message,
        f"\n{failed.stack.rstrip()}" if failed.stack else "",
    )
