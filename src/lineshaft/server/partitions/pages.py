"""Pages of tasks over all partitions: each is read in order, and the heads are merged.

The cursor says for each partition which page was being read and how far. A page that is read again may have
changed since, so what was consumed of it is told by the last tasks and their key, not by their number.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable

from lineshaft.server.partitions.cursors import Mark, read_marks, write_marks
from lineshaft.server.partitions.merging import all_of
from lineshaft.wire import Task, TaskPage

MOST = 1_000
_SPARE = 8
"""Tasks that each partition is asked for beyond twice its share, so that few have to be asked twice."""

_TRACES = 4
"""Ids of the last tasks that a cursor remembers."""

Fetch = Callable[[int, str | None, int], Awaitable[TaskPage]]
"""Read a page of a partition: its number, its cursor, how many tasks."""
Key = str | int


class Sorting:
    """How tasks of different partitions are compared; within one they come in order."""

    def __init__(self, sort: str) -> None:
        self.descending = sort.startswith("-")
        self._field = sort.removeprefix("-")

    def key(self, task: Task) -> Key:
        """Return what a task is ordered by. Unfinished ones are last, whichever the direction."""
        match self._field:
            case "priority":
                return task.priority
            case "run_at":
                return task.run_at
            case "finished_at":
                return task.finished_at or ("" if self.descending else "~")
            case _:
                return task.created_at

    def precedes(self, key: Key, other: Key) -> bool:
        """Tell whether a key comes strictly before another."""
        return key > other if self.descending else key < other  # type: ignore[operator]


class _Reader:
    """One partition, from a mark on."""

    def __init__(self, partition: int, mark: Mark, sorting: Sorting, fetch: Fetch, *, size: int) -> None:
        self.partition = partition
        self.as_of = 0
        self._mark = mark
        self._sorting = sorting
        self._fetch = fetch
        self._size = size
        self._page: list[Task] = []
        self._next: str | None = None
        self._at = 0

    @property
    def head(self) -> Task | None:
        """The next task of what has been read."""
        return self._page[self._at] if self._at < len(self._page) else None

    @property
    def mark(self) -> Mark:
        """Where it stands."""
        return self._mark

    async def begin(self) -> None:
        """Read so far that there is a head, if there is any."""
        if self._mark.done:
            return
        await self._read()
        self._at = _already(self._page, self._mark, self._sorting)
        await self._settle()

    async def take(self) -> Task:
        """Return the head, and read on where it was the last."""
        task = self._page[self._at]
        self._at += 1
        last = (*self._mark.last[1 - _TRACES :], _trace(task))
        self._mark = Mark(self._mark.after, self._at, self._sorting.key(task), last)
        await self._settle()
        return task

    async def _settle(self) -> None:
        while self._at >= len(self._page) and not self._mark.done:
            if self._next is None:
                self._mark = Mark(done=True)
                return
            self._mark, self._at = Mark(self._next), 0
            await self._read()

    async def _read(self) -> None:
        size = min(MOST, self._size + self._mark.consumed)
        page = await self._fetch(self.partition, self._mark.after, size)
        self._page, self._next = page.tasks, page.next
        self.as_of = max(self.as_of, page.as_of)


def _already(page: list[Task], mark: Mark, sorting: Sorting) -> int:
    """Return how many tasks of a page were consumed, as the mark tells it.

    Where all are gone whose ids are known, what has the same key as the last is told again rather than not.
    """
    if not mark.consumed or mark.key is None:
        return 0
    at = 0
    while at < len(page) and sorting.precedes(sorting.key(page[at]), mark.key):
        at += 1
    known, found = frozenset(mark.last), at
    while at < len(page) and sorting.key(page[at]) == mark.key:
        at += 1
        if _trace(page[at - 1]) in known:
            found = at
    return found


def _trace(task: Task) -> int:
    return zlib.crc32(task.task_id.encode())


async def page_of(fetch: Fetch, *, partitions: int, sort: str, limit: int, after: str | None) -> TaskPage:
    """Return a page over all partitions. Raises `Invalid` (field "after"), and what reading raises."""
    sorting = Sorting(sort)
    size = min(limit, 2 * -(-limit // partitions) + _SPARE)
    readers = [
        _Reader(partition, mark, sorting, fetch, size=size)
        for partition, mark in enumerate(read_marks(after, sort=sort, partitions=partitions))
    ]
    all_of(await asyncio.gather(*(reader.begin() for reader in readers), return_exceptions=True))
    tasks: list[Task] = []
    while len(tasks) < limit and (reader := _first(readers, sorting)) is not None:
        tasks.append(await reader.take())
    marks = [reader.mark for reader in readers]
    return TaskPage(
        tasks=tasks,
        as_of=max(reader.as_of for reader in readers),
        next=None if all(mark.done for mark in marks) else write_marks(sort, marks),
    )


def _first(readers: list[_Reader], sorting: Sorting) -> _Reader | None:
    first, least = None, None
    for reader in readers:
        head = reader.head
        if head is None:
            continue
        key = sorting.key(head)
        if first is None or least is None or sorting.precedes(key, least):
            first, least = reader, key
    return first
