"""Drops the indices of a month once nothing in them lives: every task of it has ended and was pruned.

Nothing else deletes a task's document. What has not been written to the documents yet is in the log, and is
written to a new index where the old one has gone; so the one danger is what is written between the look and
the deletion. Before the last look, writes are therefore blocked; whoever is turned away tries again, and
finds the index there, or makes it.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from lineshaft.errors import LineshaftError
from lineshaft.store.elastic import setup
from lineshaft.store.elastic.client import SEARCH, Client
from lineshaft.store.elastic.finding import ENDED
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names, month_of
from lineshaft.store.elastic.watermarks import Marks

MARGIN = 2 * 86_400_000
"""Milliseconds that a month must be over: what is written late is mostly written by then."""

_log = logging.getLogger(__name__)


async def drop_spent(client: Client, names: Names, months: Months, *, shards: int, now: int) -> list[str]:
    """Delete the months in which nothing lives; return them. Trouble is told in the log, and ends this try.

    `now` in milliseconds. May run in several coordinators at once.
    """
    dropped: list[str] = []
    try:
        await months.look()
        old = [month for month in months.known if month < month_of(now - MARGIN)]
        if not old:
            return []
        alive = _alive(await _marks(client, names, shards))
        for month in sorted(old):
            dropped += [month] if await _drop_if_spent(client, names, month, alive) else []
        if dropped:
            await months.look()
    except LineshaftError as error:
        _log.warning("months of pruned tasks stay for now: %s", error.reason)
    return dropped


async def _drop_if_spent(client: Client, names: Names, month: str, alive: dict[str, Any]) -> bool:
    tasks, values = names.tasks(month), names.values(month)
    if await _count(client, tasks, alive):
        return False
    await _block(client, f"{tasks},{values}", blocked=True)
    try:
        await client.do("POST", f"/{tasks}/_refresh", timeout=SEARCH)
        spent = not await _count(client, tasks, alive)
        if spent:
            # The tasks last: while they are there, the month is known, and a try that failed is made again.
            for index in (values, tasks):
                await client.do("DELETE", f"/{index}", expect=(404,), timeout=SEARCH)
    except BaseException:
        await _block(client, f"{tasks},{values}", blocked=False)
        raise
    if not spent:
        await _block(client, f"{tasks},{values}", blocked=False)
    return spent


async def _block(client: Client, indices: str, *, blocked: bool) -> None:
    setting = {"index.blocks.write": True if blocked else None}
    target = f"/{indices}/_settings?ignore_unavailable=true"
    await client.do("PUT", target, setting, expect=(404,), timeout=SEARCH)


def _alive(marks: dict[int, Marks]) -> dict[str, Any]:
    """Return the query of documents that stand for a task which is still there."""
    pruned = [
        {"bool": {"filter": [{"term": {"shard": shard}}, {"terms": {"state": ENDED}}, query]}}
        for shard, of_shard in marks.items()
        for query in of_shard.queries("prune_at")
    ]
    return {"bool": {"must_not": [{"term": {"gone": True}}, *pruned]}}


async def _count(client: Client, index: str, query: dict[str, Any]) -> int:
    found = await client.ask(f"/{index}/_count", {"query": query}, _counted, timeout=SEARCH)
    if found.shards is None or found.shards.failed or not found.shards.total:
        return 1  # a part that did not answer may hold anything
    return found.count


async def _marks(client: Client, names: Names, shards: int) -> dict[int, Marks]:
    """Return what every shard has pruned, as its checkpoint knows it: less than it has, never more."""
    ids = [setup.checkpoint_id(shard) for shard in range(shards)]
    target = f"/{names.control}/_mget?_source_includes=data.pruned"
    found = await client.ask(target, {"ids": ids}, _checkpoints, timeout=SEARCH)
    return {
        shard: document.source.data.pruned
        for shard, document in enumerate(found.docs)
        if document.source is not None
    }


class _Shards(msgspec.Struct):
    total: int = 0
    failed: int = 0


class _Counted(msgspec.Struct):
    count: int = 0
    shards: _Shards | None = msgspec.field(name="_shards", default=None)


class _Data(msgspec.Struct):
    pruned: Marks = Marks()


class _Source(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


class _Document(msgspec.Struct):
    source: _Source | None = msgspec.field(name="_source", default=None)


class _Documents(msgspec.Struct):
    docs: list[_Document] = []


_counted = msgspec.json.Decoder(_Counted)
_checkpoints = msgspec.json.Decoder(_Documents)
