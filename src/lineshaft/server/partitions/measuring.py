"""The metrics of a tenant with partitions: what was merged for people, as the core would have told it."""

from __future__ import annotations

from collections.abc import Sequence

from lineshaft.core.batch import Counters
from lineshaft.core.replies import QueueState, StatsReply
from lineshaft.core.task import STATES_BY_WORD, State
from lineshaft.wire import Queue, Stats


def stats_reply(stats: Stats) -> StatsReply:
    """Return the counts of a tenant."""
    return StatsReply(
        counts=_by_state(stats.counts),
        queues=stats.queues,
        workers=stats.workers,
        waiting_claims=stats.waiting_claims,
        waiting_results=stats.waiting_results,
        leases=stats.leases,
        counters=Counters(),
        position=stats.position,
        totals=stats.totals,
    )


def queue_states(queues: Sequence[Queue]) -> list[QueueState]:
    """Return the queues of a tenant."""
    return [
        QueueState(
            queue=queue.queue,
            paused=queue.paused,
            closed=queue.closed,
            counts=_by_state(queue.counts),
            oldest_age=round(queue.oldest_age * 1000),
            position=queue.position,
            running=queue.running,
            workers=queue.workers,
        )
        for queue in queues
    ]


def _by_state(counts: dict[str, int]) -> dict[State, int]:
    return {STATES_BY_WORD[word]: count for word, count in counts.items()}
