"""The calls of a tenant with partitions: by a task's id to the one that has it, else to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from lineshaft.errors import Invalid, LineshaftError
from lineshaft.server import fields
from lineshaft.server.change_calls import Followed
from lineshaft.server.identity import Identity
from lineshaft.server.partitions import merging
from lineshaft.server.partitions.following import follow_all
from lineshaft.server.partitions.measuring import queue_states, stats_reply
from lineshaft.server.partitions.pages import page_of
from lineshaft.server.partitions.working import Working
from lineshaft.server.task_calls import DEFAULT_LIMIT, bulk_error, checked_sort
from lineshaft.server.worker_calls import Requester
from lineshaft.wire import (
    BulkAnswer,
    BulkItem,
    Call,
    Changes,
    ChangesQuery,
    Enqueue,
    EnqueueQuery,
    ErrorInfo,
    GetQuery,
    Queue,
    Scale,
    Search,
    Stats,
    SweepQuery,
    Swept,
    TaskPage,
    raw,
)

_BY_ID = {"patch", "retry", "promote", "delete", "history", "explain"}
_BY_LEASE = {"start", "heartbeat", "complete", "fail", "release", "snooze", "cancel"}
_SWEEPS = {"cancel_many", "retry_many", "promote_many", "delete_many"}
_QUEUES = {"queue", "put_queue", "pause_queue", "resume_queue", "close_queue", "open_queue"}
_DEFAULT_CHANGES = 1_000


class Partitioned(Working):
    """One tenant of `count` partitions. Takes the calls that `Calls.call` takes, of that tenant."""

    def call(
        self,
        call: Call,
        identity: Identity,
        *,
        id: str | None = None,
        query: Any = None,
        body: Any = None,
        traceparent: str | None = None,
        requester: Requester | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """See `Calls.call`."""
        name = call.name
        if id is not None and name in _BY_ID:
            return self.parts.ask(self.parts.of(id), identity, name, id=id, query=query, body=body)
        if id is not None and name in _BY_LEASE:
            return self._of_lease(identity, name, id, body)
        if name in _SWEEPS:
            return self._sweep(identity, name, query, body)
        if id is not None and name in _QUEUES:
            return self._queue(identity, name, id, body)
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self, f"_call_{name}")
        return method(identity, id=id, query=query, body=body, traceparent=traceparent, requester=requester)

    # -- by id -------------------------------------------------------------------------------------

    async def _call_get(self, identity: Identity, *, id: str, query: GetQuery | None, **_: Any) -> Any:
        if query is not None and query.min_position is not None:
            # Positions are the partitions' own: all that was acknowledged so far is waited for.
            query = msgspec.structs.replace(query, min_position=0)
        return await self.parts.ask(self.parts.of(id), identity, "get", id=id, query=query)

    async def _call_put(
        self, identity: Identity, *, id: str, query: Any, body: Enqueue, traceparent: str | None, **_: Any
    ) -> Any:
        partition = self.parts.of(id)
        return await self.parts.ask(
            partition, identity, "put", id=id, query=query, body=body, traceparent=traceparent
        )

    async def _call_enqueue(
        self,
        identity: Identity,
        *,
        query: EnqueueQuery | None,
        body: Enqueue,
        traceparent: str | None,
        **_: Any,
    ) -> Any:
        named = _named(body, self._calls.new_id)
        partition = self.parts.of(named.task_id or "")
        try:
            return await self.parts.ask(
                partition, identity, "enqueue", query=query, body=named, traceparent=traceparent
            )
        except LineshaftError as error:
            if named is not body:
                error.task_id = None  # an id that nobody knows
            raise

    async def _call_bulk(
        self,
        identity: Identity,
        *,
        body: Sequence[Enqueue | LineshaftError],
        traceparent: str | None,
        **_: Any,
    ) -> BulkAnswer:
        items = [_named(item, self._calls.new_id) for item in body]
        told: dict[int, BulkItem] = {}
        split: dict[int, list[int]] = {}
        for index, item in enumerate(items):
            if isinstance(item, LineshaftError):
                told[index] = bulk_error(item)
            else:
                split.setdefault(self.parts.of(item.task_id or ""), []).append(index)
        answers: list[BulkAnswer] = await self._each(
            identity,
            "bulk",
            {of: [items[i] for i in part] for of, part in (split or {0: []}).items()},
            traceparent,
        )
        for part, answer in zip(split.values(), answers, strict=False):
            for index, item in zip(part, answer.items, strict=True):
                told[index] = item if items[index] is body[index] else _unnamed(item)
        return BulkAnswer(
            items=[told[index] for index in range(len(items))],
            position=max(answer.position for answer in answers),
        )

    # -- finding and following ---------------------------------------------------------------------

    async def _call_find(self, identity: Identity, *, query: Search | None, **_: Any) -> TaskPage:
        return await self._search(identity, query or Search())

    async def _call_search(self, identity: Identity, *, body: Search | None, **_: Any) -> TaskPage:
        return await self._search(identity, body or Search())

    async def _search(self, identity: Identity, search: Search) -> TaskPage:
        async def fetch(partition: int, after: str | None, size: int) -> TaskPage:
            part = msgspec.structs.replace(search, after=after, limit=size, min_position=None)
            page: TaskPage = await self.parts.ask(partition, identity, "search", body=part)
            return page

        page = await page_of(
            fetch,
            partitions=self.count,
            sort=checked_sort(search.sort),
            limit=DEFAULT_LIMIT if search.limit is None else search.limit,
            after=search.after,
        )
        # Each partition was read as of all that was acknowledged before; which is all that can be asked for.
        if search.min_position is not None and search.min_position > page.as_of:
            reason = f"position {search.min_position} has not been reached"
            raise Invalid(reason, field="min_position")
        return page

    async def _call_changes(self, identity: Identity, *, query: ChangesQuery | None, **_: Any) -> Changes:
        query = query or ChangesQuery()
        limit = _DEFAULT_CHANGES if query.limit is None else query.limit
        followed = await self.follow(identity, query.after, limit=limit, wait=fields.wait(query.wait))
        return Changes(changes=[change for change, _ in followed.changes], next=followed.next)

    async def follow(self, identity: Identity, after: str | None, *, limit: int, wait: int) -> Followed:
        """See `ChangeCalls.follow`."""

        async def follow(partition: int, after: str | None, limit: int, wait: int) -> Followed:
            return await self.parts.follow(partition, identity, after, limit=limit, wait=wait)

        return await follow_all(follow, partitions=self.count, after=after, limit=limit, wait=wait)

    # -- all of them -------------------------------------------------------------------------------

    async def _sweep(self, identity: Identity, name: str, query: SweepQuery | None, body: Any) -> Swept:
        return merging.swept(await self.parts.all(identity, name, query=query, body=body))

    async def _queue(self, identity: Identity, name: str, id: str, body: Any) -> Queue:
        return merging.queue(await self.parts.all(identity, name, id=id, body=body))

    async def _call_queues(self, identity: Identity, **_: Any) -> Any:
        return merging.queues(await self.parts.all(identity, "queues"))

    async def _call_scale(self, identity: Identity, *, id: str, **_: Any) -> Scale:
        parts: list[Scale] = await self.parts.all(identity, "scale", id=id)
        return Scale(
            queue=parts[0].queue,
            backlog=sum(part.backlog for part in parts),
            running=sum(part.running for part in parts),
            oldest_age=max(part.oldest_age for part in parts),
            wanted=sum(part.wanted for part in parts),
            workers=max(part.workers for part in parts),
        )

    async def _call_stats(self, identity: Identity, **_: Any) -> Stats:
        stats, queues, workers = await asyncio.gather(
            self.parts.all(identity, "stats"),
            self.parts.all(identity, "queues"),
            self.parts.all(identity, "workers"),
        )
        return merging.stats(
            stats,
            queues=len(merging.queues(queues).queues),
            workers=len(merging.workers(workers).workers),
        )

    async def _call_metrics(self, identity: Identity, **_: Any) -> str:
        stats = await self._call_stats(identity)
        queues = merging.queues(await self.parts.all(identity, "queues"))
        return self._calls.metrics_page(stats_reply(stats), queue_states(queues.queues))


def _named(item: Any, new_id: Callable[[], str]) -> Any:
    """Return the task with an id, its own or a new one; what is none stays as it is."""
    if isinstance(item, LineshaftError) or item.task_id is not None:
        return item
    return msgspec.structs.replace(item, task_id=new_id())


def _unnamed(item: BulkItem) -> BulkItem:
    """Leave the id that was made here out of an error: nobody knows it."""
    if item.status < 400 or item.error is None:
        return item
    error = msgspec.json.decode(bytes(item.error), type=ErrorInfo)
    error.task_id = None
    return BulkItem(status=item.status, error=raw(error))
