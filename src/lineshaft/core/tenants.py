"""Everything in memory that belongs to one tenant; nothing in here crosses to another."""

from __future__ import annotations

from lineshaft.core.claimers import Claimer
from lineshaft.core.fleet import Fleet
from lineshaft.core.lanes import Lane
from lineshaft.core.task import Affinity, Spec, State, Task

_KEPT_LANES = 1_000
_KEPT_SPECS = 10_000


class Queue:
    """A queue: its switches, its counts by state, and its lanes (`ready` are those with tasks)."""

    __slots__ = ("closed", "counts", "lanes", "name", "paused", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.closed = False
        self.counts = [0] * len(State)
        self.lanes: dict[tuple[str, Affinity], Lane] = {}
        self.ready: dict[Lane, None] = {}


class Wait:
    """Somebody waits for a task to end."""

    __slots__ = ("created", "task_id", "tenant", "ticket")

    def __init__(self, ticket: int, tenant: Tenant, task_id: str, *, created: bool) -> None:
        self.ticket = ticket
        self.tenant = tenant
        self.task_id = task_id
        self.created = created


class Tenant:
    """The tasks of a tenant (open and lately finished ones), its queues, workers and parked requests."""

    __slots__ = (
        "_lane_by_spec",
        "claimers",
        "claims",
        "fleet",
        "highest_ahead",
        "highest_stored",
        "name",
        "parked_by_claim_id",
        "queues",
        "specs",
        "tasks",
        "waits",
    )

    def __init__(self, name: str, highest_stored: str = "") -> None:
        self.name = name
        self.highest_stored = highest_stored
        """No time-ordered id above it is in the store without being in memory."""
        self.highest_ahead = ""
        """The record that says how far ahead of the shard's time ids have been."""
        self.tasks: dict[str, Task] = {}
        self.queues: dict[str, Queue] = {}
        self.fleet = Fleet()
        self.claimers: dict[int, Claimer] = {}
        self.parked_by_claim_id: dict[str, Claimer] = {}
        self.claims: dict[str, dict[int, Task]] = {}
        self.waits: dict[str, dict[int, Wait]] = {}
        self.specs: dict[Spec, Spec] = {}
        self._lane_by_spec: dict[int, Lane] = {}

    def queue(self, name: str) -> Queue:
        """Return the queue; naming it makes it."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
        return queue

    def share(self, spec: Spec) -> Spec:
        """Return the one spec object that all tasks enqueued alike share."""
        known = self.specs.get(spec)
        if known is None:
            if len(self.specs) >= _KEPT_SPECS:
                self.specs.clear()
                self._lane_by_spec.clear()
            known = self.specs[spec] = spec
        return known

    def lane(self, spec: Spec) -> Lane:
        """Return the lane of tasks with this spec; a new one learns which parked claimers it can serve."""
        lane = self._lane_by_spec.get(id(spec))
        if lane is None:
            queue = self.queue(spec.queue)
            lane = queue.lanes.get((spec.name, spec.affinity)) or self._open_lane(queue, spec)
            if self.specs.get(spec) is spec:
                # Only a shared spec stays alive as long as this entry, so only its id is unique.
                self._lane_by_spec[id(spec)] = lane
        return lane

    def _open_lane(self, queue: Queue, spec: Spec) -> Lane:
        if len(queue.lanes) >= _KEPT_LANES:
            self._close_empty_lanes(queue)
        lane = queue.lanes[(spec.name, spec.affinity)] = Lane(queue, spec.name, spec.affinity)
        for claimer in self.claimers.values():
            if claimer.serves(lane):
                claimer.wait_at(lane)
        return lane

    def _close_empty_lanes(self, queue: Queue) -> None:
        for key, lane in list(queue.lanes.items()):
            if lane.size == 0:
                for claimer in lane.claimers.values():
                    claimer.lanes.remove(lane)
                del queue.lanes[key]
        self._lane_by_spec.clear()
