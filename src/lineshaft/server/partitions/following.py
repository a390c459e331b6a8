"""The change feed over all partitions: each is followed, and what they tell is merged by time.

A page of a partition is told whole or not at all, so that a cursor need not say how far in it one is; each
gets its share of the limit. A task is in one partition, so its changes stay in order.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence

from lineshaft.server.change_calls import Expired, Followed
from lineshaft.server.partitions.cursors import join_cursors, split_cursors
from lineshaft.server.partitions.merging import all_of
from lineshaft.wire import TaskChange

Follow = Callable[[int, str | None, int, int], Awaitable[Followed]]
"""Follow a partition: its number, the cursor, how many changes at most, how long to wait (ms)."""


async def follow_all(
    follow: Follow, *, partitions: int, after: str | None, limit: int, wait: int
) -> Followed:
    """Return at most `limit` changes after a cursor (without one: none), waiting up to `wait` ms."""
    if after is None:
        begun = all_of(
            await asyncio.gather(
                *(follow(partition, None, limit, 0) for partition in range(partitions)),
                return_exceptions=True,
            )
        )
        return Followed([], join_cursors([each.next for each in begun]))
    cursors = split_cursors(after, partitions=partitions)
    share = max(1, limit // partitions)
    pages = _pages(
        await asyncio.gather(
            *(follow(partition, cursor, share, 0) for partition, cursor in enumerate(cursors)),
            return_exceptions=True,
        ),
        cursors,
    )
    if wait and not any(page.changes for page in pages):
        cursors = [page.next for page in pages]
        pages = await _first(follow, cursors, share, wait)
    return merged(cursors, pages, limit=limit)


async def _first(follow: Follow, cursors: list[str], share: int, wait: int) -> list[Followed]:
    """Wait at all partitions; the first that tells something ends it, or the end of the time."""
    waits = [
        asyncio.ensure_future(follow(partition, cursor, share, wait))
        for partition, cursor in enumerate(cursors)
    ]
    try:
        waiting = set(waits)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(each.exception() or each.result().changes for each in done):
                break
    finally:
        for each in waits:
            each.cancel()
        answers = await asyncio.gather(*waits, return_exceptions=True)
    told = [
        Followed([], cursor) if isinstance(answer, asyncio.CancelledError) else answer
        for answer, cursor in zip(answers, cursors, strict=True)
    ]
    return _pages(told, cursors)


def _pages(answers: Sequence[Followed | BaseException], cursors: list[str]) -> list[Followed]:
    """Return the pages. Raises `Expired` with the earliest cursor over all, and what else reading raised."""
    expired = [
        answer.earliest if isinstance(answer, Expired) else cursor
        for answer, cursor in zip(answers, cursors, strict=True)
    ]
    for answer in answers:
        if isinstance(answer, Expired):
            raise Expired(answer.reason, join_cursors(expired))
    return all_of(answers)


def merged(cursors: list[str], pages: list[Followed], *, limit: int) -> Followed:
    """Merge pages that begin at the cursors by the time of their changes, each with the cursor after it."""
    telling = sorted(
        (partition for partition, page in enumerate(pages) if page.changes),
        key=lambda partition: (pages[partition].changes[0][0].at, partition),
    )
    room = limit
    lines: list[list[tuple[str, int, int, TaskChange, str]]] = []
    standing = [
        page.next if not page.changes else cursor for page, cursor in zip(pages, cursors, strict=True)
    ]
    for partition in telling:
        changes = pages[partition].changes
        if len(changes) > room:
            break
        room -= len(changes)
        after = [cursor for _, cursor in changes[:-1]] + [pages[partition].next]
        # By the latest time so far: where a clock was set back, what came later is still told later.
        at = ""
        line = []
        for number, ((change, _), cursor) in enumerate(zip(changes, after, strict=True)):
            at = max(at, change.at)
            line.append((at, partition, number, change, cursor))
        lines.append(line)
    told: list[tuple[TaskChange, str]] = []
    for _, partition, _, change, cursor in heapq.merge(*lines, key=lambda entry: entry[:3]):
        standing[partition] = cursor
        told.append((change, join_cursors(standing)))
    return Followed(told, join_cursors(standing))
