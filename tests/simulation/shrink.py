"""Makes a failing plan smaller, for as long as it still breaks the same promise.

Delta debugging (Zeller's ddmin) over everything of which the plan consists: workers, clients, their steps and
tasks, mishaps, jumps, pauses, and each single thing that went wrong by chance. Each is left out where the run
fails without it as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from lineshaft.core import commands as c
from tests.simulation.plan import Plan
from tests.simulation.record import Record
from tests.simulation.run import Simulation, reason_of, told
from tests.simulation.words import Event

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A run that broke a promise."""

    reason: str
    """What is the same where another run breaks the same promise."""
    told: str
    at: float
    """Seconds of the run after which it was found."""
    happened: frozenset[str]
    """What went wrong by chance until then."""
    events: tuple[Event, ...]


def attempt(plan: Plan) -> Failure | None:
    """Run a plan; None where it keeps every promise."""
    record = Record(keep=True)
    simulation = Simulation(plan, record)
    try:
        simulation.go()
    except Exception as error:
        at = simulation.broken_at
        if at is None:
            at = record.events[-1].at if record.events else 0.0
        return Failure(
            reason_of(error), told(error), at, frozenset(simulation.chance.happened), tuple(record.events)
        )
    return None


class Shrinker:
    """Shrinks one failing plan."""

    def __init__(self, plan: Plan, failure: Failure, *, seconds: float) -> None:
        """`seconds` (of this machine) bound how long it goes on."""
        self.plan = plan
        self.failure = failure
        self.runs = 0
        self._until = time.monotonic() + seconds

    def shrink(self) -> Plan:
        """Return the smallest plan found."""
        self._try(replace(self.plan, only=self.failure.happened))
        self._end_early()
        size = -1
        while size != (size := self._size()) and time.monotonic() < self._until:
            self._leave_out_what_is_large()
            self._by_kind()
            self._chance()
            self._leave_out_steps()
            self._move_forward()
            self._simplify()
        return self.plan

    # One after the other.

    def _leave_out_what_is_large(self) -> None:
        plan = self.plan
        self._reduce(plan.workers, lambda left: replace(self.plan, workers=left))
        self._reduce(plan.clients, lambda left: replace(self.plan, clients=left))
        self._reduce(plan.mishaps, lambda left: replace(self.plan, mishaps=left))
        self._reduce(plan.jumps, lambda left: replace(self.plan, jumps=left))
        self._reduce(plan.failovers, lambda left: replace(self.plan, failovers=left))
        self._reduce(plan.pauses, lambda left: replace(self.plan, pauses=left))

    def _by_kind(self) -> None:
        for kind in sorted({name.rsplit("/", 1)[1] for name in self._only()}):
            left = frozenset(name for name in self._only() if not name.endswith(f"/{kind}"))
            self._try(replace(self.plan, only=left))

    def _chance(self) -> None:
        if self.plan.only is not None:
            self._try(replace(self.plan, only=self._only() & self.failure.happened))
        names = tuple(sorted(self._only()))
        self._reduce(names, lambda left: replace(self.plan, only=frozenset(left)))

    def _move_forward(self) -> None:
        """Let what goes wrong go wrong sooner, so that what led there can be left out."""
        for name in sorted(self._only()):
            place, number, kind = name.rsplit("/", 2)
            for sooner in sorted({1, 2, 3, int(number) // 2, int(number) - 1}):
                if 0 < sooner < int(number):
                    moved = self._only() - {name} | {f"{place}/{sooner}/{kind}"}
                    if self._try(replace(self.plan, only=moved)):
                        break

    def _leave_out_steps(self) -> None:
        for index in range(len(self.plan.clients)):
            steps = self.plan.clients[index].steps

            def fewer(left: tuple[Any, ...], index: int = index) -> Plan:
                return self._with_client(index, steps=left)

            self._reduce(steps, fewer)
            for number in range(len(self.plan.clients[index].steps)):
                self._leave_out_tasks(index, number)

    def _leave_out_tasks(self, index: int, number: int) -> None:
        step = self.plan.clients[index].steps[number]
        if not isinstance(step.command, c.Enqueue):
            return

        def fewer(left: tuple[c.NewTask, ...]) -> Plan:
            steps = self.plan.clients[index].steps
            command = msgspec.structs.replace(step.command, tasks=left)
            changed = (*steps[:number], replace(steps[number], command=command), *steps[number + 1 :])
            return self._with_client(index, steps=changed)

        if len(step.command.tasks) > 1:
            self._reduce(step.command.tasks, fewer, least=1)

    def _simplify(self) -> None:
        plan = self.plan
        tenants = tuple(t for t in plan.tenants if any(client.tenant == t for client in plan.clients))
        if tenants and tenants != plan.tenants:
            self._try(replace(self.plan, tenants=tenants))
        for simpler in (
            {"lease": None, "coordinators": 1, "shards": 1},
            {"shards": 1},
            {"small_memory": False},
        ):
            if any(getattr(self.plan, name) != value for name, value in simpler.items()):
                self._try(replace(self.plan, **simpler))
        for index, client in enumerate(self.plan.clients):
            if client.repeats_everything:
                self._try(self._with_client(index, repeats_everything=False))
        self._end_early()

    def _end_early(self) -> None:
        """Leave out what was to happen after the promise was broken."""
        at, plan = self.failure.at, self.plan
        if at >= plan.trouble:
            return
        self._try(
            replace(
                plan,
                trouble=at + 5.0,
                clients=tuple(
                    replace(client, steps=tuple(step for step in client.steps if step.at <= at))
                    for client in plan.clients
                ),
                mishaps=tuple(mishap for mishap in plan.mishaps if mishap.at <= at),
                jumps=tuple(jump for jump in plan.jumps if jump.at <= at),
                failovers=tuple(failover for failover in plan.failovers if failover.at <= at),
                pauses=tuple(pause for pause in plan.pauses if pause.at <= at),
            )
        )

    # How.

    def _try(self, plan: Plan) -> bool:
        """Take the plan if it breaks the same promise."""
        if time.monotonic() > self._until:
            return False
        self.runs += 1
        failure = attempt(plan)
        if failure is None or failure.reason != self.failure.reason:
            return False
        self.plan, self.failure = plan, failure
        return True

    def _reduce(
        self, items: Sequence[T], plan_with: Callable[[tuple[T, ...]], Plan], *, least: int = 0
    ) -> None:
        """Leave out as many items as can be: first halves, then quarters, at last each one by itself."""
        items = tuple(items)
        if len(items) <= least or (least == 0 and self._try(plan_with(()))):
            return
        parts = 2
        while len(items) > max(1, least):
            size = max(1, len(items) // parts)
            for start in range(0, len(items), size):
                left = items[:start] + items[start + size :]
                if len(left) >= least and self._try(plan_with(left)):
                    items, parts = left, max(2, parts - 1)
                    break
            else:
                if size == 1:
                    return
                parts *= 2

    def _with_client(self, index: int, **changes: Any) -> Plan:
        clients = self.plan.clients
        changed = replace(clients[index], **changes)
        return replace(self.plan, clients=(*clients[:index], changed, *clients[index + 1 :]))

    def _only(self) -> frozenset[str]:
        return self.plan.only or frozenset()

    def _size(self) -> int:
        plan = self.plan
        steps = sum(len(client.steps) for client in plan.clients)
        others = (
            *(plan.clients, plan.workers, plan.mishaps, plan.jumps, plan.failovers, plan.pauses),
            self._only(),
        )
        return steps + sum(map(len, others))
