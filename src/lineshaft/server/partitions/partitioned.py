"""The calls of a tenant with partitions: by a task's id to the one that has it, else to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from lineshaft.errors import Invalid, LineshaftError, NotFound
from lineshaft.server import fields, views
from lineshaft.server.change_calls import Followed
from lineshaft.server.identity import Identity
from lineshaft.server.partitions import merging
from lineshaft.server.partitions.claiming import Claiming
from lineshaft.server.partitions.following import follow_all
from lineshaft.server.partitions.measuring import queue_states, stats_reply
from lineshaft.server.partitions.pages import page_of
from lineshaft.server.partitions.parts import Parts
from lineshaft.server.partitions.tokens import bare
from lineshaft.server.partitions.turns import Turn
from lineshaft.server.task_calls import DEFAULT_LIMIT, bulk_error, checked_sort
from lineshaft.server.worker_calls import Requester, merged_claim
from lineshaft.wire import (
    BulkAnswer,
    BulkItem,
    Call,
    Changes,
    ChangesQuery,
    Claim,
    ClaimedTask,
    ClaimedTasks,
    ClaimQuery,
    Drain,
    Enqueue,
    EnqueueQuery,
    ErrorInfo,
    GetQuery,
    ItemAnswer,
    Queue,
    Report,
    Reported,
    Scale,
    Search,
    Stats,
    SweepQuery,
    Swept,
    TaskPage,
    Worker,
    WorkerInfo,
    WorkerList,
    raw,
)

if TYPE_CHECKING:
    from lineshaft.server.calls import Calls

_BY_ID = {"patch", "retry", "promote", "delete", "history", "explain"}
_BY_LEASE = {"start", "heartbeat", "complete", "fail", "release", "snooze", "cancel"}
_SWEEPS = {"cancel_many", "retry_many", "promote_many", "delete_many"}
_QUEUES = {"queue", "put_queue", "pause_queue", "resume_queue", "close_queue", "open_queue"}
_DEFAULT_CHANGES = 1_000


class Partitioned:
    """One tenant of `count` partitions. Takes the calls that `Calls.call` takes, of that tenant."""

    def __init__(self, calls: Calls, tenant: str, count: int) -> None:
        self.parts = Parts(calls, tenant, count)
        self.count = count
        self._calls = calls
        self._turn = 0
        self._turns: WeakValueDictionary[tuple[str, str | None], Turn] = WeakValueDictionary()
        """Of workers with resources that claim, by id and incarnation."""
        self._claims: WeakValueDictionary[str, Claiming] = WeakValueDictionary()
        """Claims under way that have an id."""

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

    def _of_lease(self, identity: Identity, name: str, id: str, body: Any) -> Coroutine[Any, Any, Any]:
        partition = self.parts.of(id)
        if body is not None and body.lease_token is not None:
            body = msgspec.structs.replace(body, lease_token=bare(partition, body.lease_token))
        return self.parts.ask(partition, identity, name, id=id, body=body)

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

    async def _each(
        self, identity: Identity, name: str, bodies: dict[int, Any], traceparent: str | None = None
    ) -> list[Any]:
        """Make a call of some partitions, each with a body of its own; all are done, or it raises."""
        asked = [
            self.parts.ask(partition, identity, name, body=body, traceparent=traceparent)
            for partition, body in bodies.items()
        ]
        return merging.all_of(await asyncio.gather(*asked, return_exceptions=True))

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

    # -- workers -----------------------------------------------------------------------------------

    async def _call_claim(
        self,
        identity: Identity,
        *,
        query: ClaimQuery | None,
        body: Claim | None,
        requester: Requester | None,
        **_: Any,
    ) -> ClaimedTasks | ClaimedTask | None:
        claim = merged_claim(query or ClaimQuery(), body or Claim())
        answer = await self.lease(identity, claim, requester)
        if claim.max is not None:
            return answer
        if not answer.tasks:
            return None
        if len(answer.tasks) > 1:
            raise Invalid("this claim_id was given several tasks: repeat it with its max", field="max")
        [task] = answer.tasks
        task.position = answer.position
        return task

    async def lease(
        self,
        identity: Identity,
        claim: Claim,
        requester: Requester | None = None,
        *,
        most: int | None = None,
        wait: int | None = None,
    ) -> ClaimedTasks:
        """Claim in all partitions; `most` and `wait` (ms) replace what the claim says."""
        claiming = self._claiming(identity, claim, most=most, wait=wait)
        self._turn = (self._turn + 1) % self.count
        return await claiming.run(requester, start=self._turn)

    async def held(self, identity: Identity, claim: Claim) -> tuple[list[str], ClaimedTasks]:
        """Tell all partitions what a worker holds; return what of it still stands, and what they say."""
        claiming = self._claiming(identity, claim)
        held = await claiming.held()
        return held, claiming.answer

    def _claiming(
        self, identity: Identity, claim: Claim, *, most: int | None = None, wait: int | None = None
    ) -> Claiming:
        command = self._calls.claim_command(identity, claim, park=False)
        if most is not None:
            command = msgspec.structs.replace(command, max=most)
        wait = fields.wait(claim.wait) if wait is None else wait
        turn = None
        if command.worker is not None and command.worker.resources:
            who = (command.worker.id, command.worker.incarnation)
            turn = self._turns.get(who)
            if turn is None:
                turn = self._turns[who] = Turn()
        claiming = Claiming(self.parts, identity, command, wait=wait, turn=turn)
        if command.claim_id is not None:
            first = self._claims.get(command.claim_id)
            if first is not None:
                first.superseded = True
            self._claims[command.claim_id] = claiming
        return claiming

    async def _call_report(
        self, identity: Identity, *, body: Report, requester: Requester | None, **_: Any
    ) -> Reported:
        return await self.report(identity, body, requester)

    async def report(self, identity: Identity, body: Report, requester: Requester | None = None) -> Reported:
        """Apply items, those of each partition in order; then claim, without waiting where there were any."""
        claiming = None
        if body.claim is not None:
            try:
                claiming = self._claiming(identity, body.claim, wait=0 if body.items else None)
            except LineshaftError as error:
                error.field = "claim" if error.field is None else f"claim.{error.field}"
                raise
        items, position = await self._apply(identity, body.items) if body.items or not claiming else ([], 0)
        if claiming is None:
            return Reported(items=items, tasks=[], position=position)
        self._turn = (self._turn + 1) % self.count
        claimed = await claiming.run(requester, start=self._turn)
        return Reported(
            items=items,
            tasks=claimed.tasks,
            position=max(position, claimed.position),
            directive=claimed.directive,
        )

    async def _apply(self, identity: Identity, items: Sequence[Any]) -> tuple[list[ItemAnswer], int]:
        told: dict[int, ItemAnswer] = {}
        split: dict[int, list[int]] = {}
        bodies: dict[int, Report] = {}
        for index, item in enumerate(items):
            if isinstance(item, LineshaftError):
                told[index] = views.item_answer(item)
            else:
                split.setdefault(self.parts.of(item.task_id), []).append(index)
        for of, part in (split or {0: []}).items():
            bodies[of] = Report(items=[_unmarked(of, items[index]) for index in part])
        answers: list[Reported] = await self._each(identity, "report", bodies)
        for part, answer in zip(split.values(), answers, strict=False):
            told.update(zip(part, answer.items, strict=True))
        return [told[index] for index in range(len(items))], max(answer.position for answer in answers)

    def give_back(self, identity: Identity, tasks: Sequence[ClaimedTask]) -> None:
        """See `Calls.give_back`."""
        self.parts.give_back(identity, tasks)

    async def _call_workers(self, identity: Identity, **_: Any) -> WorkerList:
        return merging.workers(await self.parts.all(identity, "workers"))

    async def _call_drain(self, identity: Identity, *, id: str, body: Drain | None, **_: Any) -> WorkerInfo:
        """Drain everywhere; where a partition has not heard of the worker yet it is told of it first."""
        body = body or Drain()
        asked = [self.parts.ask(p, identity, "drain", id=id, body=body) for p in range(self.count)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        known = [answer for answer in answers if isinstance(answer, WorkerInfo)]
        if known and len(known) < self.count:
            latest = max(known, key=lambda each: each.seen_at)
            missing = [p for p, answer in enumerate(answers) if isinstance(answer, NotFound)]
            await asyncio.gather(*(self._introduce(identity, p, latest) for p in missing))
            asked = [self.parts.ask(p, identity, "drain", id=id, body=body) for p in missing]
            again = await asyncio.gather(*asked, return_exceptions=True)
            answers = [each for each in answers if not isinstance(each, NotFound)] + again
        return merging.worker(merging.all_of(answers))

    async def _introduce(self, identity: Identity, partition: int, info: WorkerInfo) -> None:
        worker = Worker(
            id=info.worker_id,
            incarnation=info.incarnation,
            capabilities=info.capabilities,
            resources=dict(info.free),
        )
        command = self._calls.claim_command(identity, Claim(worker=worker), park=False)
        nothing = msgspec.structs.replace(command, max=0)
        await self.parts.lease(partition, identity, nothing, wait=0)

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


def _unmarked(partition: int, item: Any) -> Any:
    return msgspec.structs.replace(item, lease_token=bare(partition, item.lease_token))
