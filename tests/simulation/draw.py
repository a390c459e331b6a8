"""Draws a plan from a seed."""

from __future__ import annotations

from random import Random
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.task import Affinity, RetryPolicy, Spec, State
from tests.simulation.plan import (
    QUEUES,
    SECOND,
    UNSTORABLE,
    ClientPlan,
    Failover,
    Jump,
    Mishap,
    Pause,
    Plan,
    Step,
    WorkerPlan,
)

WORST = {
    # the store
    "refused": 0.15,
    "stall": 0.04,
    "answer_lost": 0.12,
    "answered_twice": 0.05,
    "timed_out": 0.08,
    "fence": 0.03,
    "unreadable": 0.15,
    "swap_lost": 0.06,
    "swap_late": 0.04,
    # requests
    "request_lost": 0.08,
    "reply_lost": 0.12,
    "duplicated": 0.12,
    "overtaken": 0.05,
    "hung_up": 0.08,
    # workers
    "frozen": 0.12,
    "died": 0.04,
    "repeated": 0.2,
    "afterthought": 0.08,
    "unstorable": 0.03,
}
HABITS = {
    # what workers do without anything being wrong
    "fails": 0.12,
    "fails_for_good": 0.04,
    "gives_back": 0.08,
    "works_long": 0.6,
    "prefetches": 0.3,
    "short_lease": 0.33,
    "claims_by_report": 0.2,
    "claims_on": 0.4,
    "asks_once": 0.5,
    "declares_holding": 0.3,
}

NAMES = ("work", "work", "work", "work", "es", "gpu", "big", "poison")
AFFINITIES = {
    "es": Affinity(capability=("es",)),
    "gpu": Affinity(resources=(("gpu", 1.0),)),
    "big": Affinity(resources=(("gpu", 2.0),)),
}
OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"resources": (("gpu", 1.0),), "queues": ("bulk",)},
    {"capabilities": ("es",), "slots": 1},
)


def draw(seed: int) -> Plan:
    """Decide; a fifth of the seeds see no faults at all, so that those of peace are found too."""
    random = Random(f"plan {seed}")
    weight = random.choice([0.0, 0.3, 0.6, 1.0, 1.5])
    # Some seeds leave out whole kinds of trouble, which lets the others go further.
    faults = {kind: 0.0 if random.random() < 0.25 else odds * weight for kind, odds in WORST.items()}
    tenants = ("acme", "globex")[: random.choice([1, 2, 2])]
    trouble = random.choice([30.0, 60.0, 120.0])
    lease = random.choice([None, None, 700, 5 * SECOND])
    peaceful = not weight
    coordinators = 1 if lease is None else random.choice([1, 2, 3])
    leased = lease is not None
    mishaps = () if peaceful else _mishaps(random, trouble, coordinators, leased=leased)
    return Plan(
        seed=seed,
        odds={**faults, **HABITS},
        tenants=tenants,
        clients=_clients(random, tenants, trouble, faults["unstorable"]),
        workers=_workers(random, tenants),
        mishaps=mishaps,
        jumps=() if peaceful else _jumps(random, trouble),
        failovers=() if peaceful else _failovers(random, trouble),
        pauses=tuple(pause for tenant in tenants for pause in _pauses(random, tenant, trouble)),
        trouble=trouble,
        lease=lease,
        coordinators=coordinators,
        shards=1 if lease is None else random.choice([1, 2, 5]),
        small_memory=random.random() < 0.5,
    )


def _clients(
    random: Random, tenants: tuple[str, ...], trouble: float, unstorable: float
) -> tuple[ClientPlan, ...]:
    clients = []
    for tenant in tenants:
        for number in range(random.choice([1, 2, 3])):
            name = f"{tenant}-{number}"
            steps = _Drawer(random, tenant, name, unstorable).steps(trouble)
            clients.append(ClientPlan(name, tenant, steps, repeats_everything=random.random() < 0.15))
    return tuple(clients)


def _workers(random: Random, tenants: tuple[str, ...]) -> tuple[WorkerPlan, ...]:
    workers = []
    for number in range(random.choice([2, 3, 4])):
        able = number < len(tenants)
        rest = (
            {"capabilities": ("es",), "resources": (("gpu", 2.0),)} if able else OTHERS[number % len(OTHERS)]
        )
        workers.append(WorkerPlan(f"w{number}", tenants[number % len(tenants)], **rest))
    return tuple(workers)


def _times(random: Random, every: float, until: float) -> list[float]:
    times, at = [], random.expovariate(1 / every)
    while at < until:
        times.append(round(at, 4))
        at += random.expovariate(1 / every)
    return times


def _mishaps(random: Random, trouble: float, coordinators: int, *, leased: bool) -> tuple[Mishap, ...]:
    return tuple(
        mishap
        for place in range(coordinators)
        for mishap in _mishaps_at(random, trouble, place, leased=leased)
    )


def _mishaps_at(random: Random, trouble: float, place: int, *, leased: bool) -> list[Mishap]:
    kinds = ["crash"] * 6 + ["close"] * 2 + ["freeze"] * 3 + (["cut_off"] * 6 if leased else [])
    mishaps = []
    for at in _times(random, random.choice([10.0, 30.0, 1e9]), trouble):
        kind = random.choice(kinds)
        if kind == "freeze":
            lasts = random.choice([0.3, 2.0, 8.0, 40.0])
        elif kind == "cut_off":
            lasts = random.uniform(2, 20)
        else:
            lasts = random.choice([0.0, 0.1, 2.0, 45.0])
        mishaps.append(Mishap(at, kind, round(lasts, 3), steps=random.randint(0, 60), place=place))
    return mishaps


def _jumps(random: Random, trouble: float) -> tuple[Jump, ...]:
    by = [-3_600_000, -30_000, -500, 700, 20_000, 300_000, 7_200_000]
    times = _times(random, random.choice([20.0, 1e9, 1e9]), trouble)
    return tuple(Jump(at, random.choice(by)) for at in times)


def _failovers(random: Random, trouble: float) -> tuple[Failover, ...]:
    times = _times(random, random.choice([25.0, 1e9, 1e9, 1e9]), trouble)
    return tuple(Failover(at, round(random.choice([0.02, 0.5, 5.0, 20.0]), 3)) for at in times)


def _pauses(random: Random, tenant: str, trouble: float) -> tuple[Pause, ...]:
    times = _times(random, 19.0, trouble)
    return tuple(Pause(at, tenant, random.choice(QUEUES), round(random.uniform(0, 8), 3)) for at in times)


class _Drawer:
    """Draws what one client does."""

    def __init__(self, random: Random, tenant: str, name: str, unstorable: float) -> None:
        self._random = random
        self._tenant = tenant
        self._name = name
        self._unstorable = unstorable
        self._known: list[str] = []
        self._count = 0

    def steps(self, until: float) -> tuple[Step, ...]:
        """Draw all of it."""
        doings = [self._enqueue] * 8 + [self._look, self._change] * 2 + [self._bulk, self._sweep]
        return tuple(self._random.choice(doings)(at) for at in _times(self._random, 1.5, until))

    def _enqueue(self, at: float) -> Step:
        wait = self._random.randint(1, 20) * SECOND if self._random.random() < 0.2 else 0
        return Step(at, c.Enqueue(tenant=self._tenant, tasks=(self._new(),)), wait=wait)

    def _bulk(self, at: float) -> Step:
        tasks = tuple(self._new() for _ in range(self._random.randint(2, 8)))
        return Step(at, c.Enqueue(tenant=self._tenant, tasks=tasks))

    def _new(self) -> c.NewTask:
        random, name = self._random, self._random.choice(NAMES)
        self._count += 1
        id = f"shared-{random.randint(1, 3)}" if random.random() < 0.15 else f"{self._name}-{self._count}"
        self._known.append(id)
        spec = Spec(
            name=name,
            queue=random.choice(QUEUES),
            priority=random.choice([0, 0, 0, -1, 5]),
            max_retries=random.choice([0, 1, 3, 10]),
            retry_policy=RetryPolicy(base=random.choice([0, SECOND]), cap=10 * SECOND, jitter=0.2),
            lease=random.choice([2, 5, 15]) * SECOND,
            timeout=random.choice([None, None, 4 * SECOND]),
            affinity=AFFINITIES.get(name, Affinity()),
            retention=random.choice([7 * 86_400, 7 * 86_400, 20]) * SECOND,
        )
        return c.NewTask(
            id=id,
            spec=spec,
            payload=self._payload(id),
            given=True,
            delay=random.randint(0, 20) * SECOND if random.random() < 0.25 else None,
            expires_in=random.randint(1, 30) * SECOND if random.random() < 0.1 else None,
        )

    def _payload(self, id: str) -> bytes:
        if self._random.random() < self._unstorable:
            return b'"%s %d"' % (UNSTORABLE, self._count)
        return f'{{"for":"{self._tenant}/{id}","by":"{self._name}","n":{self._count}}}'.encode()

    def _look(self, at: float) -> Step:
        tenant = self._tenant
        match self._random.randint(0, 5):
            case 0:
                return Step(at, c.Queues(tenant=tenant))
            case 1:
                return Step(at, c.Explain(tenant=tenant, id=self._some()))
            case 2:
                wait = self._random.randint(1, 30) * SECOND
                return Step(at, c.Get(tenant=tenant, id=self._some()), wait=wait)
            case _:
                return Step(at, c.Get(tenant=tenant, id=self._some()), reads_result=True)

    def _change(self, at: float) -> Step:
        random, tenant, id = self._random, self._tenant, self._some()
        command: c.Command
        match random.randint(0, 9):
            case 0 | 1 | 2:
                command = c.Cancel(tenant=tenant, id=id, reason="changed my mind")
            case 3 | 4:
                command = c.Retry(tenant=tenant, id=id)
            case 5:
                command = c.Promote(tenant=tenant, id=id)
            case 6:
                command = c.Delete(tenant=tenant, id=id)
            case 7:
                command = c.Patch(tenant=tenant, id=id, payload=self._payload(id))
            case 8:
                # Milliseconds from when it is sent.
                command = c.Patch(tenant=tenant, id=id, run_at=random.randint(0, 20) * SECOND)
            case _:
                command = c.Patch(tenant=tenant, id=id, priority=-3, queue=random.choice(QUEUES))
        return Step(at, command)

    def _sweep(self, at: float) -> Step:
        random = self._random
        verb: Any = random.choice(["cancel", "retry", "promote", "delete"])
        # What rows these ids name is known only when it is sent.
        keys = tuple((id, 0) for id in dict.fromkeys(self._some() for _ in range(5)))
        filter = c.Filter(states=frozenset({random.choice(list(State))}))
        return Step(at, c.Sweep(tenant=self._tenant, verb=verb, keys=keys, filter=filter))

    def _some(self) -> str:
        if not self._known or self._random.random() < 0.1:
            return f"shared-{self._random.randint(1, 4)}"
        return self._random.choice(self._known[-12:])
