"""Any sequence of commands, crashes and pauses: the shard and the naive model agree on everything.

Parked claims are judged instead of predicted: what a claimer is given must be something that it could have,
and nothing may lie ready that somebody still waits for.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lineshaft.core import commands as c
from lineshaft.core.batch import Blob
from lineshaft.core.memory import PRUNE_MARGIN
from lineshaft.core.task import State, Task, lease_token
from lineshaft.errors import Conflict, LeaseLost, LineshaftError, NotFound, QueueClosed
from tests.core.model import Job, Model
from tests.core.world import HOUR, MINUTE, SECOND, Parked, World, ids

IDS = [f"t{number}" for number in range(6)]
QUEUES = ["q1", "q2"]
NAMES = ["mail", "scan"]
WORKERS = {"plain": frozenset[str](), "es": frozenset({"es"}), "both": frozenset({"es", "gpu"})}
TTLS = [10 * SECOND, 30 * SECOND]

ids_ = st.sampled_from(IDS)
workers = st.sampled_from(sorted(WORKERS))
some_queues = st.one_of(st.none(), st.lists(st.sampled_from(QUEUES), min_size=1, unique=True).map(tuple))
some_names = st.one_of(st.none(), st.sampled_from(NAMES).map(lambda name: (name,)))
ways = st.one_of(
    st.builds(lambda result: ("complete", result), st.sampled_from([b"1", b'"two"', b"null"])),
    st.sampled_from(
        [
            ("fail", None),
            ("fail", 0),
            ("fail", 7 * SECOND),
            ("fail for good", None),
            ("release", None),
            ("snooze", 0),
            ("snooze", 20 * SECOND),
            ("cancel", None),
        ]
    ),
)


def op_of(way: tuple[str, Any], task_id: str, token: str) -> c.Op:
    kind, value = way
    held: dict[str, Any] = {"task_id": task_id, "token": token}
    match kind:
        case "complete":
            return c.Complete(**held, result=value)
        case "fail":
            return c.Fail(**held, error=b'{"type":"E"}', retry_after=value)
        case "fail for good":
            return c.Fail(**held, error=b'{"type":"E"}', retry=False)
        case "release":
            return c.Release(**held)
        case "snooze":
            return c.Snooze(**held, delay=value)
        case _:
            return c.CancelHeld(**held)


class ShardMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.w = World()
        self.model = Model(now=self.w.now)
        self.issued: list[Task] = []
        """Every lease ever handed out, as its worker saw it."""
        self.parked: list[tuple[Parked, dict[str, Any]]] = []
        self.seen: dict[str, list[int]] = {}

    @initialize(tenant=st.sampled_from(["acme", "globex"]))
    def somebody_else_is_there(self, tenant: str) -> None:
        self.w.tenant = "neighbour"
        self.w.enqueue(id=IDS[0], queue="q1")
        self.w.claim("plain")
        self.w.reload()
        self.w.tenant = tenant
        self.neighbour = self.w.rows.task("neighbour", IDS[0])
        self.model.fence, self.model.arrivals = 1, 1

    # Clients.

    @rule(
        id=ids_,
        name=st.sampled_from(NAMES),
        queue=st.sampled_from(QUEUES),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([0, 0, 5 * SECOND, MINUTE]),
        max_retries=st.integers(0, 2),
        timeout=st.sampled_from([None, 15 * SECOND, 45 * SECOND]),
        expires_in=st.sampled_from([None, None, 25 * SECOND]),
        retention=st.sampled_from([MINUTE, HOUR]),
        needs=st.sampled_from([(), (), ("es",), ("es", "gpu")]),
    )
    def enqueue(self, **fields: Any) -> None:
        id, delay, expires_in, needs = (fields.pop(key) for key in ("id", "delay", "expires_in", "needs"))
        now = self.model.now
        job = Job(
            arrival=0,
            id=id,
            run_at=now + delay,
            state="scheduled" if delay else "queued",
            expires_at=None if expires_in is None else now + expires_in,
            needs=frozenset(needs),
            **fields,
        )
        expected = self.model.enqueue(job)
        try:
            got = self.w.enqueue_again(id=id, delay=delay, expires_in=expires_in, capability=needs, **fields)
        except QueueClosed:
            assert expected is None
        else:
            assert expected is not None
            assert got.created == (expected is job)

    @rule(id=ids_, verb=st.sampled_from(["cancel", "retry", "promote", "delete", "get"]))
    def control(self, id: str, verb: str) -> None:
        job = self.model.visible(id)
        expected = self._control_model(job, verb)
        with pytest.raises(expected) if expected else nullcontext():
            getattr(self.w, verb)(id)

    def _control_model(self, job: Job | None, verb: str) -> type[LineshaftError] | None:
        if job is None:
            return NotFound
        match verb:
            case "cancel" if job.state in ("completed", "failed"):
                return Conflict
            case "cancel" if job.state == "running":
                job.cancel = True
            case "cancel" if job.state != "cancelled":
                job.cancel = True
                self.model.end(job, "cancelled")
            case "retry" if job.state == "queued" and job.generation > 1 and job.attempt == 0:
                pass  # the same request again
            case "retry" | "delete" if job.state not in ("completed", "failed", "cancelled"):
                return Conflict
            case "retry":
                self.model.run_anew(job)
            case "delete":
                del self.model.jobs[job.id]
            case "promote" if job.state == "scheduled":
                job.run_at, job.state = self.model.now, "queued"
            case "promote" if job.state != "queued":
                return Conflict
        return None

    @rule(
        id=ids_,
        priority=st.sampled_from([None, -2, 2]),
        queue=st.sampled_from([None, *QUEUES]),
        delay=st.sampled_from([None, 0, 30 * SECOND]),
    )
    def patch(self, id: str, priority: int | None, queue: str | None, delay: int | None) -> None:
        fields: dict[str, Any] = {"priority": priority, "queue": queue}
        if delay is not None:
            fields["run_at"] = self.model.now + delay
        fields = {key: value for key, value in fields.items() if value is not None}
        job = self.model.visible(id)
        try:
            self.w.patch(id, **fields)
        except NotFound:
            assert job is None
        except QueueClosed:
            assert job is not None and queue in self.model.closed and queue != job.queue
        except Conflict:
            assert job is not None and (job.state not in ("scheduled", "queued") or job.attempt > 0)
        else:
            assert job is not None and job.state in ("scheduled", "queued") and job.attempt == 0
            for key, value in fields.items():
                setattr(job, key, value)
            job.state = "scheduled" if job.run_at > self.model.now else "queued"

    # Workers.

    @rule(
        worker=workers,
        most=st.integers(1, 3),
        queues=some_queues,
        names=some_names,
        ttl=st.sampled_from(TTLS),
        start=st.booleans(),
        claim_id=st.sampled_from([None, "c1", "c2"]),
    )
    def claim(
        self, worker: str, most: int, ttl: int, start: bool, claim_id: str | None, **where: Any
    ) -> None:
        again = [] if claim_id is None else self.model.of_claim(claim_id)
        for job in again:
            self.model.extend(job)
        got = self.w.claim(
            worker,
            incarnation="1",
            capabilities=WORKERS[worker],
            max=most,
            lease=ttl,
            start=start,
            claim_id=claim_id,
            **where,
        )
        if again:
            assert ids(got) == [job.id for job in again]
            assert [task.lease and task.lease.fence for task in got] == [
                job.held and job.held.fence for job in again
            ]
            return
        expected = (
            []
            if worker in self.model.draining
            else self.model.choose(most, abilities=WORKERS[worker], **where)
        )
        assert ids(got) == [job.id for job in expected]
        for job in expected:
            self.model.lease(job, worker, ttl=ttl, claim_id=claim_id, start=start)
        self._hand_out(got)

    @rule(worker=workers, most=st.integers(1, 2), queues=some_queues, names=some_names)
    def park(self, worker: str, most: int, **where: Any) -> None:
        abilities = WORKERS[worker]
        if worker in self.model.draining or self.model.choose(1, abilities=abilities, **where):
            return
        claim = {"incarnation": "1", "capabilities": abilities, "max": most, "lease": TTLS[0], **where}
        parked = self.w.park(worker, wait=40 * SECOND, **claim)
        self.parked.append((parked, {"worker": worker, "most": most, "abilities": abilities, **where}))

    @precondition(lambda self: self.parked)
    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        parked, _ = self.parked.pop(which % len(self.parked))
        self.w.unpark(parked)

    @precondition(lambda self: self.issued)
    @rule(which=st.integers(0, 1000), way=ways, times=st.integers(1, 2))
    def outcome(self, which: int, way: tuple[str, Any], times: int) -> None:
        """Report an outcome with a token that is current, was settled, or is stale."""
        task = self._some(which)
        assert task.lease is not None
        fence, job = task.lease.fence, self.model.visible(task.id)
        for _ in range(times):
            before = self._row(task.id)
            [answer] = self.w.report(op_of(way, task.id, lease_token(task))).items
            if job is None:
                assert isinstance(answer, NotFound)
            elif job.arrival != task.seq:
                assert isinstance(answer, LeaseLost)
            elif job.held is not None and job.held.fence == fence:
                self._settle(job, way)
                assert job.settled is not None
                assert not isinstance(answer, LineshaftError) and answer.state.word == job.settled[2]
                self._settle_parked()
            elif job.settled is not None and job.settled[:2] == (fence, way):
                assert not isinstance(answer, LineshaftError) and answer.state.word == job.settled[2]
                assert self._row(task.id) == before
            else:
                assert isinstance(answer, LeaseLost)
                assert self._row(task.id) == before

    def _settle(self, job: Job, way: tuple[str, Any]) -> None:
        assert job.held is not None
        kind, value = way
        fence = job.held.fence
        if job.state == "claimed" and kind in ("complete", "fail", "fail for good"):
            self.model.begin(job)
        match kind:
            case "complete":
                job.result = value
                self.model.end(job, "completed")
            case "fail":
                self.model.failed(job, delay=value)
            case "fail for good":
                self.model.failed(job, retry=False)
            case "release":
                self.model.give_back(job, None)
            case "snooze":
                self.model.give_back(job, value)
            case "cancel":
                self.model.end(job, "cancelled")
        job.settled = (fence, way, job.state)

    @precondition(lambda self: self.issued)
    @rule(which=st.integers(0, 1000), kind=st.sampled_from([c.Start, c.Heartbeat]))
    def still_there(self, which: int, kind: type[c.Op]) -> None:
        task = self._some(which)
        assert task.lease is not None
        job = self.model.visible(task.id)
        current = (
            job is not None
            and job.arrival == task.seq
            and job.held is not None
            and job.held.fence == task.lease.fence
        )
        if not current:
            with pytest.raises(NotFound if job is None else LeaseLost):
                self.w.op(kind, task)
            return
        answer = self.w.op(kind, task)
        assert job is not None and job.held is not None
        self.model.extend(job)
        if kind is c.Start and job.state == "claimed":
            self.model.begin(job)
        if job.cancel:
            assert answer.directive == "cancel"
        else:
            assert answer.directive == ("drain" if job.held.worker in self.model.draining else "continue")

    @rule(worker=workers)
    def drain(self, worker: str) -> None:
        try:
            self.w.drain(worker)
        except NotFound:
            return
        self.model.draining.add(worker)
        for parked, how in list(self.parked):
            if how["worker"] == worker:
                assert (parked.tasks, parked.reply.directive) == ([], "drain")
                self.parked.remove((parked, how))

    # Operators, time and crashes.

    @rule(queue=st.sampled_from(QUEUES), paused=st.sampled_from([None, True, False]), closed=st.booleans())
    def switch(self, queue: str, paused: bool | None, closed: bool) -> None:
        for names, on in ((self.model.paused, paused), (self.model.closed, closed)):
            if on is not None:
                names.add(queue) if on else names.discard(queue)
        self.w.set_queue(queue, paused=paused, closed=closed)

    @rule(duration=st.sampled_from([1, SECOND, 9 * SECOND, 31 * SECOND, 5 * MINUTE]))
    def wait(self, duration: int) -> None:
        target = self.model.now + duration
        while True:
            instants = [self.model.next_instant(), self.w.shard.next_deadline()]
            nearest = min((instant for instant in instants if instant is not None), default=None)
            if nearest is None or nearest > target:
                break
            self._move_to(max(nearest, self.model.now))
        self._move_to(target)

    def _move_to(self, instant: int) -> None:
        self.model.now = instant
        self.model.happen()
        self.w.now = instant
        self.w.tick()
        self._settle_parked()

    @rule(down=st.sampled_from([0, SECOND, MINUTE]))
    def crash(self, down: int) -> None:
        self.parked.clear()
        self.w.reload(down=down)
        self.model.reload(down)
        self._move_to(self.model.now)

    @rule(keep=st.integers(0, 3))
    def evict(self, keep: int) -> None:
        self.w.shard.evict(keep)

    @rule()
    def prune(self) -> None:
        self.w.prune()
        self.model.prune(PRUNE_MARGIN)

    # What must hold after every step.

    def _hand_out(self, tasks: list[Task]) -> None:
        for task in tasks:
            assert task.lease is not None
            fences = self.seen.setdefault(task.id, [0])
            assert task.lease.fence > fences[-1], "fences rise, also over reloads and deletion"
            fences.append(task.lease.fence)
            self.issued.append(task)

    def _some(self, which: int) -> Task:
        return self.issued[-1 - which % min(len(self.issued), 8)]

    def _row(self, id: str) -> bytes | None:
        seq = self.w.rows.ids.get((self.w.tenant, id))
        return None if seq is None else self.w.rows.tasks[seq]

    def _settle_parked(self) -> None:
        """Judge what the parked were given, and give it in the model too."""
        answered = [(parked, how) for parked, how in self.parked if not parked.waiting]
        self.parked = [entry for entry in self.parked if entry[0].waiting]
        given = [(task, how) for parked, how in answered for task in parked.tasks]
        for task, how in sorted(given, key=lambda pair: pair[0].lease.fence if pair[0].lease else 0):
            where = {key: how[key] for key in ("queues", "names", "abilities")}
            job = self.model.jobs[task.id]
            assert self.model.takes(job, **where), f"{how} was given {job}"
            self.model.lease(job, how["worker"], ttl=TTLS[0], claim_id=None, start=True)
        self._hand_out([task for task, _ in given])

    @invariant()
    def all_promises_hold(self) -> None:
        self.nobody_waits_for_what_is_there()
        self.rows_and_model_agree()
        self.counters_equal_a_recount()
        self.no_byte_crosses_tenants()

    def nobody_waits_for_what_is_there(self) -> None:
        self._settle_parked()
        for _, how in self.parked:
            where = {key: how[key] for key in ("queues", "names", "abilities")}
            assert not self.model.choose(1, **where), f"{how} was left waiting"

    def rows_and_model_agree(self) -> None:
        rows = {task.id: task for task in self.w.rows.all() if task.tenant == self.w.tenant}
        jobs = {id: job for id, job in self.model.jobs.items() if id in rows or self.model.visible(id)}
        assert set(rows) >= {id for id in jobs if self.model.visible(id)}
        for id, job in jobs.items():
            task = rows[id]
            run = task.run
            assert (task.state.word, task.seq, task.attempt, task.spec.queue, task.spec.priority) == (
                job.state,
                job.arrival,
                job.attempt,
                job.queue,
                job.priority,
            )
            if job.state in ("scheduled", "queued"):
                assert task.run_at == job.run_at
            lost, generation = (0, 1) if run is None else (run.lost_leases, run.generation)
            assert (lost, generation) == (job.lost, job.generation)
            assert (task.lease and task.lease.fence) == (job.held and job.held.fence)
            assert task.attempt <= task.spec.max_retries + 1
            if job.state == "completed":
                assert self.w.blob(Blob.RESULT, task) == (None if job.result == b"null" else job.result)

    def counters_equal_a_recount(self) -> None:
        stats = self.w.stats()
        assert {state: number for state, number in stats.counts.items() if number} == self.w.counts()
        assert stats.waiting_claims == len(self.parked)
        queued = {queue.queue: queue.counts[State.QUEUED] for queue in self.w.queues()}
        rows = [task for task in self.w.rows.all() if task.tenant == self.w.tenant]
        for queue, number in queued.items():
            assert number == sum(task.state is State.QUEUED and task.spec.queue == queue for task in rows)

    def no_byte_crosses_tenants(self) -> None:
        row = self.w.rows.task("neighbour", IDS[0])
        assert row is not None and self.neighbour is not None and row.seq == self.neighbour.seq


ShardMachine.TestCase.settings = hypothesis.settings(
    hypothesis.settings.default, max_examples=100, stateful_step_count=60
)
TestShard = ShardMachine.TestCase
