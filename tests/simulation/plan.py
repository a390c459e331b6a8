"""What is decided before anything runs: who takes part, what they will do, and what goes wrong.

A plan is explicit, so that it can be made smaller piece by piece (`shrink.py`); `draw.py` draws one from a
seed. Only what depends on the run is left to chance (`chance.py`), by the odds that the plan gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lineshaft.core import commands as c
from lineshaft.core.task import Task

START = 1_700_000_000_000
SECOND = 1_000
UNSTORABLE = b"unstorable"
"""A blob with this in it is rejected by the store for good."""
QUEUES = ("default", "bulk")


@dataclass(frozen=True)
class Step:
    """One thing that a client does: a command, sent until it is answered."""

    at: float
    """Seconds from the start."""
    command: c.Command
    wait: int = 0
    """For how long (ms) the command waits for an end."""
    reads_result: bool = False


@dataclass(frozen=True)
class ClientPlan:
    name: str
    tenant: str
    steps: tuple[Step, ...]
    repeats_everything: bool = False


@dataclass(frozen=True)
class WorkerPlan:
    id: str
    tenant: str
    capabilities: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    queues: tuple[str, ...] | None = None
    slots: int = 3

    def can_run(self, task: Task) -> bool:
        """Tell whether the task may ever be given to it."""
        spec, declared = task.spec, dict(self.resources)
        return (
            task.tenant == self.tenant
            and (self.queues is None or spec.queue in self.queues)
            and set(spec.affinity.capability) <= set(self.capabilities)
            and all(declared.get(name, 0) >= amount for name, amount in spec.affinity.resources)
        )


@dataclass(frozen=True)
class Mishap:
    """Something that happens to a coordinator, one after the other."""

    at: float
    kind: str
    """crash, close, freeze or cut_off"""
    lasts: float
    """Seconds until somebody is there again."""
    steps: int = 0
    """The engine crashes after so many more steps of its own."""
    place: int = 0
    """Which coordinator it happens to."""


@dataclass(frozen=True)
class Failover:
    """Another server takes over from the store, and lacks the end of its history."""

    at: float
    loses: float
    """Seconds of history."""


@dataclass(frozen=True)
class Jump:
    """The wall clock is set."""

    at: float
    by: int


@dataclass(frozen=True)
class Pause:
    """An operator pauses a queue for a while."""

    at: float
    tenant: str
    queue: str
    lasts: float


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    odds: Mapping[str, float]
    """How likely each kind of trouble is at each opportunity."""
    tenants: tuple[str, ...]
    clients: tuple[ClientPlan, ...]
    workers: tuple[WorkerPlan, ...]
    mishaps: tuple[Mishap, ...]
    jumps: tuple[Jump, ...]
    failovers: tuple[Failover, ...]
    pauses: tuple[Pause, ...]
    trouble: float
    """Seconds for which all this lasts."""
    lease: int | None
    """For how long (ms) coordinators wait for each other; None where the store is exclusive."""
    coordinators: int
    """How many there are, most of the time; one where the store is exclusive."""
    shards: int
    small_memory: bool
    """Whether the coordinator remembers hardly any finished task and admits little at a time."""
    only: frozenset[str] | None = field(default=None, repr=False)
    """Where given, what goes wrong by chance: just this."""
