"""The history of all tasks for people: an event for each move, in a data stream for each tenant.

It is written behind the log from batches that are durable, and it decides nothing. So it is never in the
way: what the cluster refuses for good is counted, said in the log and left out. What it does not take now
waits, and the documents of tasks with it for half a minute; then they go on alone, what waits is bounded, and
lost where the coordinator ends. An event's id follows from its place in the log, so that what is written
again after a takeover is found to be there (in whichever backing index; see `write`).

Off unless the URL says `?history=on`: a task's document is written once for all that happens within the lag
of the projection, its history three times or more, and what a cluster writes limits the tasks a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lineshaft.core.batch import Batch
from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.history_events import Event, events_of, namespace_of
from lineshaft.store.elastic.names import month_of
from lineshaft.store.elastic.refusals import refusal

MOST_WAITING = 200_000
"""Moves that may wait for a cluster that is not there; the oldest beyond are left out, and counted."""

PATIENCE = 30.0
"""Seconds of trouble after which nobody waits for the history any more."""

_AT_ONCE = 2_000  # events a bulk
_LATER = (429, 502, 503, 504)

_log = logging.getLogger(__name__)

KEYWORD: dict[str, Any] = {"type": "keyword", "ignore_above": 1024}
DATE = {"type": "date"}
LONG = {"type": "long"}
INTEGER = {"type": "integer"}


def mapping() -> dict[str, Any]:
    """Return the fields of an event; whatever is not among them is refused."""
    return {
        "dynamic": "strict",
        "properties": {
            "@timestamp": DATE,
            "message": {"type": "text"},
            "tags": KEYWORD,
            "ecs": {"properties": {"version": KEYWORD}},
            "data_stream": {"properties": {"type": KEYWORD, "dataset": KEYWORD, "namespace": KEYWORD}},
            "service": {"properties": {"type": KEYWORD}},
            "event": {
                "properties": {
                    **dict.fromkeys(("kind", "category", "type", "action", "outcome"), KEYWORD),
                    **dict.fromkeys(("id", "module", "dataset", "reason"), KEYWORD),
                    "duration": LONG,
                    "sequence": LONG,
                    "start": DATE,
                    "end": DATE,
                }
            },
            "trace": {"properties": {"id": KEYWORD}},
            "span": {"properties": {"id": KEYWORD}},
            "error": {
                "properties": {
                    "type": KEYWORD,
                    "message": {"type": "text"},
                    "stack_trace": {"type": "text", "index": False},
                }
            },
            "task": {
                "properties": {
                    **dict.fromkeys(("id", "name", "queue", "tenant", "state", "attempt_outcome"), KEYWORD),
                    **dict.fromkeys(("seq", "waited", "turnaround"), LONG),
                    **dict.fromkeys(("shard", "partition", "attempt", "generation", "priority"), INTEGER),
                    "created": DATE,
                    "run_at": DATE,
                    "worker": {"properties": {"id": KEYWORD}},
                }
            },
        },
    }


class HistoryNames(msgspec.Struct, frozen=True):
    """What belongs to the history of the store with this prefix."""

    prefix: str

    @property
    def dataset(self) -> str:
        """Return the name in `data_stream.dataset`, where a hyphen may not stand."""
        return f"{self.prefix.replace('-', '_')}.task"

    @property
    def template(self) -> str:
        """Return the name of the index template."""
        return f"{self.prefix}-history"

    @property
    def pattern(self) -> str:
        """Return the pattern of the streams of all tenants."""
        return f"logs-{self.dataset}-*"

    def stream(self, tenant: str) -> str:
        """Return the data stream of a tenant."""
        return f"logs-{self.dataset}-{namespace_of(tenant)}"


class History:
    """Writes the events of one store; `add` what is durable, and `flush` before it counts as projected."""

    def __init__(
        self,
        client: Client,
        prefix: str,
        *,
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = HistoryNames(prefix)
        self.has_streams = True
        """False where the cluster has no data streams: an index a month takes their place."""
        self.dropped = 0
        """Moves that were left out, since the cluster refused them or too many waited."""
        self.waiting = 0
        """Moves that were added and not flushed yet."""
        self.overdue = False
        """True while it is not written, and nobody waits for that."""
        self._client = client
        self._most_waiting = most_waiting
        self._batches: deque[tuple[int, Batch, bool]] = deque()
        self._flushing = asyncio.Lock()
        self._clock = clock
        self._failing_since: float | None = None

    async def prepare(self, *, settings: dict[str, Any] | None = None) -> None:
        """Put the index template in place; `settings` (such as a lifecycle policy) go into it."""
        fixed = {"codec": "best_compression", "number_of_shards": 1}
        body: dict[str, Any] = {
            "index_patterns": [self.names.pattern],
            "priority": 300,  # above the cluster's own `logs-*-*`
            "template": {"settings": {"index": fixed | (settings or {})}, "mappings": mapping()},
            "_meta": {"managed_by": "lineshaft"},
        }
        # Where there is nobody to ask about streams, a template may still make them: nobody could delete one.
        asked = await self._client.send("GET", f"/_data_stream/{self.names.pattern}")
        if asked.status in (401, 403, 429, 502, 503, 504):
            raise refusal(asked.status, asked.body, self.names.pattern)
        self.has_streams = asked.status in (200, 404)
        if self.has_streams:
            body["data_stream"] = {}
        await self._client.do("PUT", f"/_index_template/{self.names.template}", body)

    def add(self, shard: int, batch: Batch, *, again: bool = False) -> None:
        """Take in a batch that is durable; `again` where it comes from a replay and may have been written."""
        if not batch.changes:
            return
        self._batches.append((shard, batch, again))
        self.waiting += len(batch.changes)
        while self.waiting > self._most_waiting and len(self._batches) > 1:
            _, oldest, _ = self._batches.popleft()
            self.waiting -= len(oldest.changes)
            self._drop(len(oldest.changes), "too much waits for the cluster")

    async def flush(self) -> None:
        """Write all that was added before the call; what cannot be written now stays for the next time.

        Raises `Unavailable` then, but not once that has gone on for longer than `PATIENCE`.
        """
        try:
            await self._flush()
        except Unavailable as error:
            now = self._clock()
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < PATIENCE:
                raise
            if not self.overdue:
                self.overdue = True
                _log.warning("the history of tasks is not written for now: %s", error.reason)
        else:
            self._failing_since, self.overdue = None, False

    async def _flush(self) -> None:
        async with self._flushing:
            left = len(self._batches)
            while left > 0 and self._batches:
                taken = self._take(left)
                left -= len(taken)
                try:
                    await self._write_batches(taken)
                except BaseException:
                    self._put_back(taken)
                    raise
                self.waiting -= sum(len(batch.changes) for _, batch, _ in taken)

    def _take(self, most: int) -> list[tuple[int, Batch, bool]]:
        """Take batches for one bulk off the line, alike in whether they may be there already."""
        taken = [self._batches.popleft()]
        moves = len(taken[0][1].changes)
        while self._batches and len(taken) < most and self._batches[0][2] == taken[0][2]:
            moves += len(self._batches[0][1].changes)
            if moves > _AT_ONCE:
                break
            taken.append(self._batches.popleft())
        return taken

    def _put_back(self, taken: list[tuple[int, Batch, bool]]) -> None:
        """Some may have been written: what is written later looks first."""
        self._batches.extendleft((shard, batch, True) for shard, batch, _ in reversed(taken))

    async def _write_batches(self, taken: list[tuple[int, Batch, bool]]) -> None:
        dataset = self.names.dataset
        events = [event for shard, batch, _ in taken for event in events_of(shard, batch, dataset=dataset)]
        for start in range(0, len(events), _AT_ONCE):
            await self.write(events[start : start + _AT_ONCE], again=taken[0][2])

    async def write(self, events: list[Event], *, again: bool = False) -> None:
        """Write events; one that is there already is not written twice. Raises `Unavailable`.

        A data stream refuses an id that its newest backing index holds. `again` looks into the older ones
        too, since the stream may have rolled over between the first time and this.
        """
        if again and events:
            there = await self._those_there(events)
            events = [event for event in events if event.id not in there]
        if not events:
            return
        lines: list[Any] = []
        for event in events:
            lines += ({"create": {"_index": self._index(event), "_id": event.id}}, event.document)
        answer = await self._client.send_lines(
            "/_bulk?filter_path=errors,items.*.status,items.*.error", lines
        )
        if not answer.ok:
            self._refused(len(events), refusal(answer.status, answer.body, self.names.pattern))
            return
        told = _decode_bulk(answer.body)
        if told.errors:
            self._settle(told)

    def _index(self, event: Event) -> str:
        stream = self.names.stream(event.tenant)
        return stream if self.has_streams else f"{stream}-{month_of(event.at)}"

    async def _those_there(self, events: Iterable[Event]) -> set[str]:
        ids = [event.id for event in events]
        streams = self.names.pattern
        await self._client.do(
            "POST", f"/{streams}/_refresh?ignore_unavailable=true", expect=(404,), timeout=30.0
        )
        query = {"query": {"ids": {"values": ids}}, "size": len(ids), "_source": False}
        target = f"/{streams}/_search?ignore_unavailable=true&filter_path=hits.hits._id"
        found = await self._client.ask(target, query, _decode_hits, timeout=30.0)
        return {hit.id for hit in found.hits.hits}

    def _settle(self, told: _Bulk) -> None:
        """Count what was refused for good. Raises `Unavailable` where some may be written later."""
        later: str | None = None
        refused, why = 0, ""
        for item in told.items:
            result = item["create"]
            if result.status in (200, 201, 409):
                continue
            kind = "" if result.error is None else result.error.type
            reason = kind if result.error is None else f"{kind}: {result.error.reason}"
            if result.status in _LATER or kind == "cluster_block_exception":
                later = reason
            else:
                refused, why = refused + 1, reason
        if later is not None:
            raise Unavailable(f"the cluster does not take the history now ({later}); it is written later")
        if refused:
            self._drop(refused, why)

    def _refused(self, count: int, error: LineshaftError) -> None:
        if isinstance(error, Unavailable):
            raise error
        self._drop(count, error.reason)

    def _drop(self, count: int, reason: str) -> None:
        if self.dropped == 0:
            _log.warning("moves of tasks are missing in the history: %s", reason)
        self.dropped += count


class _BulkError(msgspec.Struct):
    type: str = ""
    reason: str | None = None


class _BulkItem(msgspec.Struct):
    status: int
    error: _BulkError | None = None


class _Bulk(msgspec.Struct):
    errors: bool = False
    items: list[dict[str, _BulkItem]] = []


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")


class _Hits(msgspec.Struct):
    hits: list[_Hit] = []


class _Found(msgspec.Struct):
    hits: _Hits = msgspec.field(default_factory=_Hits)


_decode_bulk = msgspec.json.Decoder(_Bulk).decode
_decode_hits = msgspec.json.Decoder(_Found)
