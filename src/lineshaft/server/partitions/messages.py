"""Claims as they go to another coordinator that has a partition."""

from __future__ import annotations

from lineshaft.core import commands
from lineshaft.server.worker_calls import NOWHERE
from lineshaft.wire import Claim, Worker


def as_message(command: commands.Claim, wait: int) -> Claim:
    """Return the claim as it goes to another coordinator."""
    info = command.worker
    worker = (
        None
        if info is None
        else Worker(
            id=info.id,
            incarnation=info.incarnation,
            name=info.name,
            version=info.version,
            capabilities=list(info.capabilities),
            resources=dict(info.resources),
            host=info.host,
            pid=info.pid,
        )
    )
    return Claim(
        claim_id=command.claim_id,
        worker=worker,
        queues=_listed(command.queues) if command.max else [NOWHERE, *(command.queues or ())],
        names=_listed(command.names),
        max=command.max or 1,
        wait=wait / 1000 if wait else None,
        lease=None if command.lease is None else command.lease / 1000,
        start=command.start,
        holding=_listed(command.holding),
    )


def _listed(given: tuple[str, ...] | None) -> list[str] | None:
    return None if given is None else list(given)
