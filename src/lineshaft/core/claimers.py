"""Parked claims: workers that wait for something to do, found by the lanes that they can serve."""

from __future__ import annotations

from lineshaft.core.commands import Claim
from lineshaft.core.fleet import Worker
from lineshaft.core.lanes import Lane


class Claimer:
    """One parked claim; `ticket` names its requester to the engine."""

    __slots__ = ("claim", "lanes", "names", "parked", "queues", "ticket", "worker")

    def __init__(self, ticket: int, claim: Claim, worker: Worker | None) -> None:
        self.ticket = ticket
        self.claim = claim
        self.worker = worker
        self.queues = None if claim.queues is None else frozenset(claim.queues)
        self.names = None if claim.names is None else frozenset(claim.names)
        self.lanes: list[Lane] = []
        self.parked = False

    def serves(self, lane: Lane) -> bool:
        """Tell whether it asks for the lane's tasks and its worker is capable of them."""
        if self.queues is not None and lane.queue.name not in self.queues:
            return False
        if self.names is not None and lane.name not in self.names:
            return False
        if self.worker is not None:
            return self.worker.capable(lane)
        return not lane.needs and not lane.affinity.resources

    def wait_at(self, lane: Lane) -> None:
        """Stand at a lane, behind those who came before."""
        lane.claimers[self.ticket] = self
        self.lanes.append(lane)

    def leave(self) -> None:
        """Stand nowhere any more."""
        for lane in self.lanes:
            lane.claimers.pop(self.ticket, None)
        self.lanes.clear()
        self.parked = False
        if self.worker is not None:
            self.worker.claimers.pop(self.ticket, None)
