"""From the core's values to answer structs, for those who operate: queues, workers, counts and keys."""

from __future__ import annotations

from typing import cast

from lineshaft.core import replies
from lineshaft.core.task import State
from lineshaft.engine.health import ClusterHealth
from lineshaft.server.identity import StoredKey
from lineshaft.server.views import amounts
from lineshaft.values.durations import seconds
from lineshaft.values.instants import format_instant
from lineshaft.wire import CoordinatorInfo, Key, Queue, WorkerInfo
from lineshaft.wire.operations import Scope


def queue(state: replies.QueueState) -> Queue:
    """Return a queue."""
    return Queue(
        queue=state.queue,
        paused=state.paused,
        closed=state.closed,
        backlog=state.counts.get(State.QUEUED, 0),
        running=state.running,
        oldest_age=seconds(state.oldest_age),
        workers=state.workers,
        counts=counts(state.counts),
        position=state.position,
    )


def counts(by_state: dict[State, int]) -> dict[str, int]:
    """Return counts by the word of each state, in order of the states."""
    return {state.word: by_state.get(state, 0) for state in State}


def worker(state: replies.WorkerState) -> WorkerInfo:
    """Return a worker."""
    return WorkerInfo(
        worker_id=state.worker_id,
        incarnation=state.incarnation,
        name=state.name,
        version=state.version,
        host=state.host,
        pid=state.pid,
        capabilities=list(state.capabilities),
        resources=amounts(state.resources.items()),
        free=amounts(state.free.items()),
        held=state.held,
        waiting=state.waiting,
        draining=state.draining,
        seen_at=format_instant(state.seen_at),
        queues=None if state.queues is None else list(state.queues),
        names=None if state.names is None else list(state.names),
        position=state.position,
    )


def coordinators(cluster: ClusterHealth) -> list[CoordinatorInfo]:
    """Return the coordinators on the store, in order of their addresses."""
    infos = [
        CoordinatorInfo(
            address=member.address,
            shards=member.shards,
            here=member.id == cluster.id,
            leaving=member.leaving,
            version=member.version,
            joined_at=format_instant(member.joined_at),
            silent_for=round(member.silent_for, 3),
        )
        for member in cluster.members
    ]
    return sorted(infos, key=lambda info: info.address)


def key(stored: StoredKey, secret: str | None = None) -> Key:
    """Return an API key; with its secret only when it is made."""
    return Key(
        key_id=stored.key_id,
        name=stored.name,
        tenant=stored.tenant,
        scopes=cast("list[Scope]", list(stored.scopes)),
        created_at=format_instant(stored.created_at),
        key=secret,
    )
