"""Drops the indices of months in which nothing is left.

Documents are never deleted one by one. A month goes when all tasks created in it have ended and are behind
their shard's mark; before that it takes no more writes, so that none is lost between the look and the drop.
"""

from __future__ import annotations

import logging
from typing import Any

from lineshaft.errors import Unavailable
from lineshaft.store.elastic import setup
from lineshaft.store.elastic.client import SEARCH, Client
from lineshaft.store.elastic.finding import count_decoder
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names, month_of

_LOG = logging.getLogger("lineshaft.store")


async def drop_empty_months(
    client: Client, names: Names, months: Months, *, shards: int, before: int
) -> list[str]:
    """Drop months before that of an instant in which no task is left; return them."""
    await months.look()
    old = [month for month in months.known if month < month_of(before)]
    if not old:
        return []
    left = await _whatever_is_left(client, names, shards)
    dropped = []
    for month in old:
        index = names.tasks(month)
        if await _count(client, index, left):
            continue
        await _block(client, index, True)
        try:
            await client.do("POST", f"/{index}/_refresh", timeout=SEARCH)
            empty = not await _count(client, index, left)
        except BaseException:
            await _block(client, index, None)
            raise
        if not empty:
            await _block(client, index, None)
            continue
        _LOG.info("%s is dropped: nothing is left in it", index)
        for each in (index, names.values(month)):
            await client.do("DELETE", f"/{each}", expect=(404,), timeout=30.0)
        dropped.append(month)
    await months.look()
    return dropped


async def _whatever_is_left(client: Client, names: Names, shards: int) -> dict[str, Any]:
    gone: list[dict[str, Any]] = [{"term": {"gone": True}}]
    for shard in range(shards):
        checkpoint = await setup.read_checkpoint(client, names, shard)
        if checkpoint is None:
            raise Unavailable(f"there is no checkpoint of shard {shard}: no month is dropped")
        gone += [
            {"bool": {"filter": [{"term": {"shard": shard}}, mark]}}
            for mark in checkpoint.pruned.queries("prune_at")
        ]
    return {"bool": {"must_not": gone}}


async def _count(client: Client, index: str, query: dict[str, Any]) -> int:
    return (await client.ask(f"/{index}/_count", {"query": query}, count_decoder, timeout=SEARCH)).count


async def _block(client: Client, index: str, writes: bool | None) -> None:
    await client.do("PUT", f"/{index}/_settings", {"index.blocks.write": writes}, expect=(404,), timeout=30.0)
