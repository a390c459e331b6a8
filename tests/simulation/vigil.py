"""Nobody waits in vain: who could be answered is not left waiting for the end of a poll.

A parked claim with a task that it could have, a wait for a task that has ended, a follower with something to
read, a scheduled task whose time has come: wherever the engine has nothing to do and one of these is left, a
wake-up was lost, though a later one may make good for it. (23 in the design: liveness.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.task import State, Task
from lineshaft.engine.engine import Engine
from lineshaft.engine.handle import Handle
from lineshaft.engine.runner import Runner
from tests.simulation.disk import Disk
from tests.simulation.follower import Follower
from tests.simulation.life import Life
from tests.simulation.line import Line

EVERY = 0.5
LATE = 1_500
"""Milliseconds that a timer may be late: the shard's present is only known to about a second."""


class Vigil:
    """Looks at the engine's rest again and again."""

    def __init__(self, line: Line, followers: Iterable[Follower]) -> None:
        self._line = line
        self._disk: Disk = line.disk
        self._followers = list(followers)
        self._tally = line.record.tally
        self._late: set[str] = set()
        """What was late when it was looked at last; time may just have leapt."""
        self._late_now: set[str] = set()

    async def keep(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            for life in self._line.fleet.lives:
                if not life.frozen:
                    for runner in resting(life):
                        self._look(life, runner)
            self._late, self._late_now = self._late_now, set()

    def _look(self, life: Life, runner: Runner) -> None:
        waiting = [
            handle for handle, at in self._line.open.items() if at is life and runner.intake.is_parked(handle)
        ]
        checker = self._disk.checkers[runner.shard_number]
        if runner.ownership is None or runner.ownership.epoch != checker.epoch:
            return  # it is another's already, and does not know
        open_rows = checker.open.values()
        queued = [task for task in open_rows if task.state is State.QUEUED]
        for handle in waiting:
            if isinstance(handle.command, c.Claim):
                self._claim(runner, handle, handle.command, queued)
            else:
                self._wait(runner, handle)
        present = runner.present_at_least
        for task in open_rows:
            if task.state is State.SCHEDULED:
                self._overdue(present - task.run_at, f"scheduled task {task.id} still is")
        for follower in self._followers:
            if self._disk.shard_of(follower.tenant) == runner.shard_number:
                self._follow(follower, life.engine)

    def _claim(self, runner: Runner, handle: Handle, claim: c.Claim, queued: list[Task]) -> None:
        self._tally["watched: parked claims"] += 1
        assert claim.wait_until is not None
        self._overdue(runner.present_at_least - claim.wait_until, f"claim {claim.claim_id} still waits")
        for task in queued:
            if self._could_have(claim, task):
                self._lost(True, f"claim {claim.claim_id} waits beside {task.id}, which it could have")

    def _could_have(self, claim: c.Claim, task: Task) -> bool:
        worker, affinity = claim.worker, task.spec.affinity
        assert worker is not None
        if task.tenant != claim.tenant or task.expires_at is not None:
            return False
        if claim.queues is not None and task.spec.queue not in claim.queues:
            return False
        if self._disk.is_paused(task.tenant, task.spec.queue):
            return False
        if not set(affinity.capability) <= set(worker.capabilities):
            return False
        if not affinity.resources:
            return True
        # Something may be kept free for another; not where all is free.
        declared = dict(worker.resources)
        enough = all(declared.get(name, 0) >= amount for name, amount in affinity.resources)
        return enough and not self._holds_resources(worker)

    def _holds_resources(self, worker: c.WorkerInfo) -> bool:
        return any(
            task.lease is not None
            and (task.lease.worker_id, task.lease.incarnation) == (worker.id, worker.incarnation)
            for checker in self._disk.checkers
            for task in checker.holding.values()
        )

    def _wait(self, runner: Runner, handle: Handle) -> None:
        self._tally["watched: waits for an end"] += 1
        command: Any = handle.command
        id = command.id if isinstance(command, c.Get) else command.tasks[0].id
        shard = self._disk.shard_of(command.tenant)
        seq = self._disk.checkers[shard].present.get((command.tenant, id))
        task = None if seq is None else self._disk.rows(shard).get(seq)
        ended = task is not None and task.state.terminal
        self._lost(ended, f"somebody waits for the end of {id}, which has ended")
        self._overdue(runner.present_at_least - command.wait_until, f"a wait for {id} goes on")

    def _follow(self, follower: Follower, engine: Engine | None) -> None:
        if follower.waiting is None:
            return
        where, told = follower.waiting
        if where is not engine or told.done():
            return
        self._tally["watched: followers of the feed"] += 1
        log = self._disk.checker_of(follower.tenant).log.get(follower.tenant)
        missed = bool(log) and log is not None and log[-1][0] > follower.cursor
        self._lost(
            missed, f"the follower of {follower.tenant} is not told of what came after {follower.cursor}"
        )

    def _overdue(self, late: int, what: str) -> None:
        if late >= LATE:
            self._late_now.add(what)
            self._lost(what in self._late, f"{what}, {late} ms after its time")

    def _lost(self, lost: bool, what: str) -> None:
        if lost:
            self._disk.checkers[0].violated(f"[23] lost wake-up: {what}")


def resting(life: Life) -> list[Runner]:
    """Return the runners that have nothing to do and nothing to settle; their memory is the truth."""
    if life.engine is None:
        return []
    return [runner for runner in life.engine.runners.values() if runner.resting]
