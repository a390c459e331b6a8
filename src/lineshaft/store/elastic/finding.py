"""Reads documents: by identity at once, as they are; by search after a refresh."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from lineshaft.core.batch import Blob, Census, Record
from lineshaft.core.task import STATE_WORDS, STATES_BY_WORD, Spec, State, Task
from lineshaft.store.elastic.client import SEARCH, Client
from lineshaft.store.elastic.documents import unpack
from lineshaft.store.elastic.months import Months
from lineshaft.store.elastic.names import Names, task_id, value_id
from lineshaft.values.partitions import partition_name

Ident = tuple[str, str]
BlobKey = tuple[Blob, int]

OPEN = [word for state, word in STATE_WORDS.items() if not state.terminal]
ENDED = [word for state, word in STATE_WORDS.items() if state.terminal]

PAGE = 5_000
_KEYS_AT_ONCE = 2_000
_BUCKETS = 1_000
_MONTHS_AT_ONCE = 3


class _Row(msgspec.Struct):
    row: bytes | None = None
    seq: int | None = None
    created_at: int = 0
    result_expires_at: int | None = None


class _TaskHit(msgspec.Struct):
    found: bool = False
    version: int = msgspec.field(name="_version", default=0)
    source: _Row = msgspec.field(name="_source", default_factory=_Row)


class _Tasks(msgspec.Struct):
    docs: list[_TaskHit]


class _Value(msgspec.Struct):
    value: str | None = None
    raw: bytes | None = None

    @property
    def data(self) -> bytes | None:
        return self.raw if self.value is None else self.value.encode()


class _ValueHit(msgspec.Struct):
    found: bool = False
    version: int = msgspec.field(name="_version", default=0)
    source: _Value = msgspec.field(name="_source", default_factory=_Value)


class _Values(msgspec.Struct):
    docs: list[_ValueHit]


class _Found(msgspec.Struct):
    source: _Row = msgspec.field(name="_source")
    sort: list[Any] = []


class _RecordSource(msgspec.Struct):
    kind: str
    tenant: str
    key: str
    data: bytes | None = None


class _FoundRecord(msgspec.Struct):
    source: _RecordSource = msgspec.field(name="_source")
    sort: list[Any] = []


class _TaskPage(msgspec.Struct):
    hits: list[_Found] = []


class _RecordPage(msgspec.Struct):
    hits: list[_FoundRecord] = []


class _Key(msgspec.Struct):
    tenant: str
    queue: str
    state: str
    partition: int | None = None


class _Bucket(msgspec.Struct):
    key: _Key
    doc_count: int


class _Buckets(msgspec.Struct):
    buckets: list[_Bucket] = []
    after_key: _Key | None = None


class _Aggregations(msgspec.Struct):
    census: _Buckets = msgspec.field(default_factory=_Buckets)


class _TaskAnswer(msgspec.Struct):
    hits: _TaskPage = msgspec.field(default_factory=_TaskPage)
    timed_out: bool = False


class _RecordAnswer(msgspec.Struct):
    hits: _RecordPage = msgspec.field(default_factory=_RecordPage)


class _CensusAnswer(msgspec.Struct):
    aggregations: _Aggregations = msgspec.field(default_factory=_Aggregations)


class _Count(msgspec.Struct):
    count: int = 0


_tasks = msgspec.json.Decoder(_Tasks)
_values = msgspec.json.Decoder(_Values)
_task_answer = msgspec.json.Decoder(_TaskAnswer)
_record_answer = msgspec.json.Decoder(_RecordAnswer)
_census_answer = msgspec.json.Decoder(_CensusAnswer)
count_decoder = msgspec.json.Decoder(_Count)


class Finder:
    """Reads the documents of all shards of one store."""

    def __init__(self, client: Client, names: Names, months: Months) -> None:
        self._client = client
        self._names = names
        self._months = months
        self._writes = 1
        self._refreshed = 0
        self._refreshing = asyncio.Lock()

    def stale(self) -> None:
        """Something was written that no search finds yet."""
        self._writes += 1

    async def refresh(self) -> None:
        """Let searches find all that was written; many that ask at once share one."""
        if self._refreshed >= self._writes:
            return
        asked = self._writes
        async with self._refreshing:
            if self._refreshed >= asked:
                return
            sees = self._writes
            await self._client.do("POST", f"/{self._names.all_tasks}/_refresh", expect=(404,), timeout=SEARCH)
            self._refreshed = sees

    # -- by identity -------------------------------------------------------------------------------

    async def tasks(self, idents: Sequence[Ident]) -> dict[Ident, tuple[int, Task]]:
        """Read tasks with the slots that they were written in; absent where there is none or it is gone."""
        found: dict[Ident, tuple[int, Task]] = {}
        left = list(idents)
        for month in self._months.known:
            missing: list[Ident] = []
            for part in _portions(left):
                answer = await self._mget(
                    self._names.tasks(month), [task_id(*ident) for ident in part], "row", _tasks
                )
                for ident, hit in zip(part, answer.docs, strict=True):
                    if not hit.found:
                        missing.append(ident)
                    elif hit.source.row is not None:
                        found[ident] = (hit.version, unpack(hit.source.row))
            left = missing
            if not left:
                break
        return found

    async def places(self, idents: Sequence[Ident]) -> dict[Ident, list[tuple[str, int]]]:
        """Tell in which months there are documents of these identities, and with which seq."""
        found: dict[Ident, list[tuple[str, int]]] = {ident: [] for ident in idents}
        for month in self._months.known:
            for part in _portions(list(found)):
                answer = await self._mget(
                    self._names.tasks(month), [task_id(*ident) for ident in part], "seq", _tasks
                )
                for ident, hit in zip(part, answer.docs, strict=True):
                    if hit.found and hit.source.seq is not None:
                        found[ident].append((month, hit.source.seq))
        return found

    async def values(self, shard: int, keys: Sequence[BlobKey]) -> dict[BlobKey, bytes]:
        """Read blobs; absent where there is none.

        One that was written without its task may be in another month than before; the later one stands.
        """
        found: dict[BlobKey, tuple[int, bytes | None]] = {}
        left = list(keys)
        known = self._months.known
        for start in range(0, len(known), _MONTHS_AT_ONCE):
            indices = [self._names.values(month) for month in known[start : start + _MONTHS_AT_ONCE]]
            for part in _portions(left):
                places = [
                    {"_index": index, "_id": value_id(shard, seq, kind)}
                    for kind, seq in part
                    for index in indices
                ]
                answer = await self._client.ask(
                    "/_mget?_source_includes=value,raw", {"docs": places}, _values, timeout=10.0
                )
                owners = [key for key in part for _ in indices]
                for key, hit in zip(owners, answer.docs, strict=True):
                    if hit.found and hit.version >= found.get(key, (0, None))[0]:
                        found[key] = (hit.version, hit.source.data)
            left = [key for key in left if key not in found]
            if not left:
                break
        return {key: data for key, (_, data) in found.items() if data is not None}

    async def _mget(self, index: str, ids: list[str], fields: str, shape: msgspec.json.Decoder[Any]) -> Any:
        return await self._client.ask(
            f"/{index}/_mget?_source_includes={fields}", {"ids": ids}, shape, timeout=10.0
        )

    # -- by search ---------------------------------------------------------------------------------

    async def search(self, query: dict[str, Any], sort: list[Any], limit: int) -> list[Task]:
        """Return tasks in order."""
        body = {"query": query, "sort": sort, "size": limit, "_source": ["row"], "track_total_hits": False}
        return [unpack(hit.source.row) for hit in await self._hits(body) if hit.source.row is not None]

    async def count(self, query: dict[str, Any]) -> int:
        """Count what a query finds."""
        target = f"/{self._names.all_tasks}/_count"
        return (await self._client.ask(target, {"query": query}, count_decoder, timeout=SEARCH)).count

    async def due(
        self, query: dict[str, Any], field: str, *, skip: int, limit: int
    ) -> list[tuple[int, int, int]]:
        """Return (instant in `field`, seq, created_at) of what a query finds, those due first first."""
        body = {
            "query": query,
            "sort": [{field: "asc"}, {"seq": "asc"}],
            "from": skip,
            "size": limit,
            "_source": ["created_at"],
            "track_total_hits": False,
        }
        return [(hit.sort[0], hit.sort[1], hit.source.created_at) for hit in await self._hits(body)]

    async def all_tasks(self, query: dict[str, Any]) -> AsyncIterator[list[Task]]:
        """Go through all that a query finds, in order of arrival, page by page."""
        body: dict[str, Any] = {
            "query": query,
            "sort": [{"seq": "asc"}],
            "size": PAGE,
            "_source": ["row"],
            "track_total_hits": False,
        }
        alike: dict[Spec, Spec] = {}
        while hits := await self._hits(body):
            yield _sharing([unpack(hit.source.row) for hit in hits if hit.source.row is not None], alike)
            if len(hits) < PAGE:
                return
            body["search_after"] = hits[-1].sort

    async def census(self, query: dict[str, Any]) -> list[Census]:
        """Count what a query finds by tenant, queue and state."""
        sources: list[dict[str, Any]] = [
            {name: {"terms": {"field": name}}} for name in ("tenant", "queue", "state")
        ]
        sources.append({"partition": {"terms": {"field": "partition", "missing_bucket": True}}})
        composite: dict[str, Any] = {"size": _BUCKETS, "sources": sources}
        body = {"query": query, "size": 0, "aggs": {"census": {"composite": composite}}}
        counts: Counter[tuple[str, str, State]] = Counter()
        while True:
            answer = await self._client.ask(
                f"/{self._names.all_tasks}/_search", body, _census_answer, timeout=SEARCH
            )
            page = answer.aggregations.census
            for bucket in page.buckets:
                key = bucket.key
                tenant = key.tenant if key.partition is None else partition_name(key.tenant, key.partition)
                counts[tenant, key.queue, STATES_BY_WORD[key.state]] += bucket.doc_count
            if page.after_key is None or len(page.buckets) < _BUCKETS:
                return [Census(*key, count) for key, count in sorted(counts.items())]
            composite["after"] = page.after_key

    async def records(self, shard: int) -> list[Record]:
        """Return all records of a shard that were not deleted."""
        await self._client.do("POST", f"/{self._names.control}/_refresh", timeout=SEARCH)
        body: dict[str, Any] = {
            "query": {
                "bool": {
                    "filter": [{"term": {"what": "record"}}, {"term": {"shard": shard}}],
                    "must_not": [{"term": {"gone": True}}],
                }
            },
            "sort": [{"kind": "asc"}, {"tenant": "asc"}, {"key": "asc"}],
            "size": PAGE,
            "track_total_hits": False,
        }
        records: list[Record] = []
        while True:
            answer = await self._client.ask(
                f"/{self._names.control}/_search", body, _record_answer, timeout=SEARCH
            )
            hits = answer.hits.hits
            records += [
                Record(hit.source.kind, hit.source.tenant, hit.source.key, hit.source.data) for hit in hits
            ]
            if len(hits) < PAGE:
                return records
            body["search_after"] = hits[-1].sort

    async def _hits(self, body: dict[str, Any]) -> list[_Found]:
        target = f"/{self._names.all_tasks}/_search?allow_partial_search_results=false"
        return (await self._client.ask(target, body, _task_answer, timeout=SEARCH)).hits.hits


def _portions(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + _KEYS_AT_ONCE] for start in range(0, len(items), _KEYS_AT_ONCE)]


def _sharing(tasks: list[Task], alike: dict[Spec, Spec]) -> list[Task]:
    """Let tasks that were enqueued alike have one spec: alone, each would take more than the task."""
    for task in tasks:
        task.spec = alike.setdefault(task.spec, task.spec)
    return tasks
