"""Lets go of what is past its time: by a record in the log that moves marks, and deletes nothing."""

from __future__ import annotations

from lineshaft.core.batch import Census
from lineshaft.store.elastic.finding import Finder
from lineshaft.store.elastic.queries import ended_tasks
from lineshaft.store.elastic.records import Pruned
from lineshaft.store.elastic.shard import Shard
from lineshaft.store.elastic.slots import Slots
from lineshaft.store.elastic.watermarks import Mark, past
from lineshaft.store.paging import LAST

MOST = 10_000
"""Tasks at most that one pruning takes; a cluster counts no further without more effort."""


async def what_is_due(
    shard: Shard, finder: Finder, slots: Slots, *, before: int, log_before: int, limit: int
) -> tuple[Pruned, list[Census]] | None:
    """Say what a pruning removes, and the census of the tasks that go; None where nothing does.

    The documents are at the head of the shard, and nothing is committed meanwhile.
    """
    limit = min(limit, MOST)
    mark_of_results, expired = await _expired(shard, finder, before, limit)
    earliest, slot = await _earliest(shard, slots, log_before, limit)
    mark = await _mark(shard, finder, before, limit)
    if mark is None and mark_of_results is None and earliest == shard.earliest:
        return None
    census = []
    if mark is not None:
        census = await finder.census(ended_tasks(shard, past("prune_at", mark.due, mark.seq)))
    return Pruned(mark, mark_of_results, expired, earliest, slot), census


async def _mark(shard: Shard, finder: Finder, before: int, limit: int) -> Mark | None:
    query = ended_tasks(shard, past("prune_at", before, LAST))
    count = await finder.count(query)
    if count == 0:
        return None
    if count <= limit:
        return Mark(before, LAST, shard.head)
    [(due, seq, _)] = await finder.due(query, "prune_at", skip=limit - 1, limit=1)
    return Mark(due, seq, shard.head)


async def _expired(
    shard: Shard, finder: Finder, before: int, limit: int
) -> tuple[Mark | None, list[tuple[int, int]]]:
    query = ended_tasks(shard, past("result_expires_at", before, LAST))
    query["bool"]["must_not"] += shard.expired.queries("result_expires_at")
    found = await finder.due(query, "result_expires_at", skip=0, limit=limit)
    if not found:
        return None, []
    due, seq, _ = found[-1]
    return Mark(due, seq, shard.head), [(seq, created_at) for _, seq, created_at in found]


async def _earliest(shard: Shard, slots: Slots, log_before: int, limit: int) -> tuple[int, int]:
    """Return the position that the log is to begin with, and its slot."""
    earliest = shard.earliest
    unchanged = earliest, shard.slot_of_earliest
    if earliest > shard.position or (shard.at_earliest is not None and shard.at_earliest >= log_before):
        return unchanged
    first = max(shard.first_slot, shard.slot_of_earliest)
    slot = await slots.first_where(
        shard,
        lambda place: (
            place.position >= earliest + limit or (place.at >= log_before and place.position >= earliest)
        ),
        first=first,
        guess=first + 1,
    )
    if slot > shard.head:
        return shard.position + 1, slot
    place = await slots.place(shard, slot)
    if place.position == earliest:
        shard.at_earliest = place.at
        return unchanged
    return place.position, slot
