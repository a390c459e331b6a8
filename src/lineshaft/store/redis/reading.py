"""What is read: rows by identity, blobs, the log, all for a load, and searches, which walk.

There is no index but by arrival: a search sorted by it ends as soon as its page is full; any other looks at
every row of the states asked for, some buckets at a time, so that commits go on between them.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence
from typing import Any

from lineshaft.core.batch import Blob, Census, Counters, Record, Snapshot
from lineshaft.core.task import OPEN, TERMINAL, Spec, State, Task
from lineshaft.errors import Unavailable
from lineshaft.store.base import Log, LogRecord, Page, Query
from lineshaft.store.paging import page_of, parse_sort, read_cursor, sort_key, visible
from lineshaft.store.redis.functions import Functions
from lineshaft.store.redis.rows import (
    Specs,
    arrival,
    decode_record_key,
    identity,
    place,
    prune_at,
    unpack_changes,
)
from lineshaft.store.rows import decode_counters, share_numbers

_KEYS_AT_ONCE = 500
_BUCKETS_AT_ONCE = 2
_BUCKETS_OF_A_LOAD = 8
_RECORDS_AT_ONCE = 250


class Reader:
    """Reads one shard, whose keys begin with `tag`."""

    def __init__(self, functions: Functions, tag: str, specs: Specs) -> None:
        self._functions = functions
        self._tag = tag
        self._meta = f"{tag}m"
        self._specs = specs

    async def get(self, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        """Read rows by (tenant, id); those asked for at once are of one instant."""
        found: list[Task | None] = []
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE]
            rows = await self._functions.call("get", self._meta, *(identity(*key) for key in part))
            await self._learn([row for row in rows if row])
            for key, row in zip(part, rows, strict=True):
                task = self._specs.decode(row) if row else None
                # Two ids might have one digest.
                found.append(task if task is not None and (task.tenant, task.id) == key else None)
        return found

    async def read(self, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        """Read blobs."""
        values: dict[tuple[Blob, int], bytes | None] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            grouped: dict[str, list[tuple[Blob, int]]] = {}
            for kind, seq in wanted[start : start + _KEYS_AT_ONCE]:
                grouped.setdefault(f"b{kind:d}:{place(seq)[0]}", []).append((kind, seq))
            args: list[str | bytes] = []
            for name, group in grouped.items():
                args += (name, str(len(group)), *(place(seq)[1] for _, seq in group))
            answer = await self._functions.call("read", self._meta, *args)
            values.update(zip((key for group in grouped.values() for key in group), answer, strict=True))
        return [values[key] for key in keys]

    async def log(self, after: int, limit: int) -> Log:
        """Read the log after a position, in portions."""
        records: list[LogRecord] = []
        while True:
            count = min(limit - len(records), _RECORDS_AT_ONCE)
            last = records[-1].position if records else max(after, 0)
            answer = await self._functions.call("log", self._meta, str(last), str(count))
            found, first, position = answer
            records += [_record(*each) for each in found]
            if len(found) < count or len(records) >= limit:
                earliest = _position(first) if first else int(position) + 1
                return Log(records, earliest)

    async def load(self, survey: list[Any]) -> Snapshot:
        """Read what a survey has not brought, the open rows, and put all together."""
        _, _, position, counters, specs, counts, records, buckets = survey
        for digest, value in _pairs(specs):
            self._specs.learn(digest, value)
        tasks: list[Task] = []
        async for rows in self._rows("o", sorted(_names(buckets), key=int), at_once=_BUCKETS_OF_A_LOAD):
            await self._learn([row for _, row in rows])
            tasks += [self._specs.decode(row) for _, row in rows]
        tasks = share_numbers(tasks)
        tasks.sort(key=lambda task: task.seq)
        census: dict[tuple[str, str, State], int] = {}
        await self._learn([key for key, _ in _pairs(counts)])
        for key, count in _pairs(counts):
            tenant, spec = self._specs.shared(key[:10])
            where = (tenant, spec.queue, State(key[10]))
            census[where] = census.get(where, 0) + int(count)
        return Snapshot(
            position=int(position),
            counters=decode_counters(counters) if counters else Counters(),
            tasks=tasks,
            records=sorted(
                (Record(*decode_record_key(key), data) for key, data in _pairs(records)),
                key=lambda record: (record.kind, record.tenant, record.key),
            ),
            finished=[Census(*key, count) for key, count in sorted(census.items())],
        )

    async def search(self, query: Query) -> Page:
        """Find a page of tasks, continued by comparing (key, arrival)."""
        sort = parse_sort(query.sort)
        after = read_cursor(query)
        choose = heapq.nlargest if sort.descending else heapq.nsmallest
        by_arrival = sort.field == "created_at"
        buckets = await self._buckets(query)
        if by_arrival and after is not None:
            edge = int(place(after[1])[0])
            buckets = [each for each in buckets if (each <= edge if sort.descending else each >= edge)]
        buckets.sort(reverse=sort.descending)

        def key(task: Task) -> tuple[int, int]:
            return sort_key(sort, task)

        found: list[Task] = []
        sieve = _Sieve(query, self._specs)
        async for rows in self._rows(_kinds(query), [str(each) for each in buckets]):
            await self._learn([row for _, row in rows])
            tasks = [task for place_, row in rows if (task := sieve.task(place_, row)) is not None]
            if after is not None:
                tasks = [task for task in tasks if _is_past(key(task), after, descending=sort.descending)]
            found = choose(query.limit + 1, found + tasks, key=key)
            if by_arrival and len(found) > query.limit:
                break
        return page_of(query, found)

    async def count(self, query: Query) -> int:
        """Count what a query finds."""
        sieve = _Sieve(query, self._specs)
        total = 0
        async for rows in self._rows(_kinds(query), [str(each) for each in await self._buckets(query)]):
            await self._learn([row for _, row in rows])
            total += sum(sieve.passes(place_, row) for place_, row in rows)
        return total

    async def shared(self, digests: list[bytes]) -> list[tuple[str, Spec]]:
        """Return tenants and specs by their digests."""
        await self._learn(digests)
        return [self._specs.shared(digest) for digest in digests]

    async def _read_shared(self, digests: list[bytes]) -> None:
        """Read specs by their digests. Raises `Unavailable` where one is gone, with its tasks."""
        for start in range(0, len(digests), _KEYS_AT_ONCE):
            part = digests[start : start + _KEYS_AT_ONCE]
            values = await self._functions.call("read", self._meta, "s", str(len(part)), *part)
            for digest, value in zip(part, values, strict=True):
                if value is None:
                    raise Unavailable("a task was deleted while it was read: read again", retry_after=1)
                self._specs.learn(digest, value)

    async def _learn(self, rows: list[bytes]) -> None:
        while unknown := self._specs.unknown(rows):
            await self._read_shared(unknown)

    async def _buckets(self, query: Query) -> list[int]:
        names = await self._functions.call("buckets", self._meta, _kinds(query))
        found = {int(name) for name in names}
        if query.max_seq is None:
            return list(found)
        last = int(place(query.max_seq)[0])
        return [each for each in found if each <= last]

    async def _rows(
        self, kinds: str, buckets: Sequence[str], *, at_once: int = _BUCKETS_AT_ONCE
    ) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yield rows with their arrivals, some buckets at a time, in their order."""
        for start in range(0, len(buckets), at_once):
            part = buckets[start : start + at_once]
            async with self._functions.scans:
                answer = await self._functions.call("walk", self._meta, kinds, *part)
            rows: list[tuple[int, bytes]] = []
            for number, flat in enumerate(answer):
                bucket = part[number // len(kinds)]
                rows += [(arrival(bucket, field), row) for field, row in _pairs(flat)]
            yield rows


class _Sieve:
    """Tells by a row's head, as far as that goes, whether a query finds it."""

    def __init__(self, query: Query, specs: Specs) -> None:
        self._query = query
        self._specs = specs
        self._by_spec: dict[bytes, bool] = {}
        self._states = query.filter.states
        self._in_body = bool(query.filter.tags) or query.filter.text is not None

    def task(self, seq: int, row: bytes) -> Task | None:
        if not self._by_head(seq, row):
            return None
        task = self._specs.decode(row)
        return task if visible(self._query, task) else None

    def passes(self, seq: int, row: bytes) -> bool:
        return self.task(seq, row) is not None if self._in_body else self._by_head(seq, row)

    def _by_head(self, seq: int, row: bytes) -> bool:
        digest = row[:10]
        spec_passes = self._by_spec.get(digest)
        if spec_passes is None:
            spec_passes = self._by_spec[digest] = self._judge(digest)
        query, state = self._query, row[10]
        if not spec_passes or (self._states is not None and state not in self._states):
            return False
        if query.max_seq is not None and seq > query.max_seq:
            return False
        return state < State.COMPLETED or not 0 <= prune_at(row) <= query.now

    def _judge(self, digest: bytes) -> bool:
        tenant, spec = self._specs.shared(digest)
        chosen = self._query.filter
        return (
            tenant == self._query.tenant
            and (chosen.queues is None or spec.queue in chosen.queues)
            and (chosen.names is None or spec.name in chosen.names)
        )


def _kinds(query: Query) -> str:
    states = query.filter.states
    if states is None:
        return "of"
    return ("o" if not states.isdisjoint(OPEN) else "") + ("f" if not states.isdisjoint(TERMINAL) else "")


def _record(id: bytes, fields: list[bytes]) -> LogRecord:
    return LogRecord(_position(id), int(fields[1]), unpack_changes(fields[3]))


def _position(id: bytes) -> int:
    return int(id.partition(b"-")[0])


def _names(values: Sequence[bytes]) -> list[str]:
    return [value.decode() for value in values]


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _is_past(key: tuple[int, int], after: tuple[int, int], *, descending: bool) -> bool:
    return key < after if descending else key > after
