"""The calls about tasks: enqueue, read, find, change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lineshaft.core import commands, replies
from lineshaft.core.batch import Blob
from lineshaft.core.task import Task as Row
from lineshaft.errors import Invalid, LineshaftError
from lineshaft.server import fields, views
from lineshaft.server.calling import Calling
from lineshaft.server.history import history
from lineshaft.server.identity import Identity
from lineshaft.store.base import SORT_FIELDS, Query
from lineshaft.values.ids import check_task_id
from lineshaft.values.instants import parse_instant
from lineshaft.wire import (
    UNSET,
    BulkAnswer,
    BulkItem,
    Cancel,
    ChangedTask,
    Enqueue,
    Enqueued,
    EnqueueQuery,
    Explanation,
    GetQuery,
    History,
    OutcomeAnswer,
    Patch,
    Search,
    Task,
    TaskPage,
    raw,
)

DEFAULT_LIMIT = 100


class TaskCalls(Calling):
    """Wire structs in, wire structs out; errors are `LineshaftError`s that name the field."""

    # -- enqueue -----------------------------------------------------------------------------------

    async def enqueue(
        self, identity: Identity, query: EnqueueQuery | None, body: Enqueue, *, traceparent: str | None = None
    ) -> Enqueued | ChangedTask:
        """Enqueue a task; with `wait` return it when it has ended, or as it stands when time is up."""
        given = body.task_id is not None
        task_id = self.new_id() if body.task_id is None else body.task_id
        new = fields.new_task(
            body, task_id=task_id, given=given, max_payload=self.max_payload, traceparent=traceparent
        )
        conflict = query is not None and query.conflict is not None
        wait = 0 if query is None else fields.wait(query.wait)
        command = commands.Enqueue(
            tenant=identity.tenant,
            tasks=(new,),
            conflict_error=conflict,
            wait_until=self.until(identity, wait),
        )
        reply = await self.engine.submit(command)
        if isinstance(reply, replies.Found):
            return await self._waited(identity, reply)
        item = reply.items[0]
        if isinstance(item, LineshaftError):
            raise item
        return await self._enqueued(identity, item, reply.position)

    async def put(
        self,
        identity: Identity,
        id: str,
        query: EnqueueQuery | None,
        body: Enqueue,
        *,
        traceparent: str | None = None,
    ) -> Enqueued | ChangedTask:
        """Enqueue a task under the id in the path."""
        if body.task_id is not None:
            raise Invalid("given twice, in the path and in the body", field="task_id")
        named = msgspec.structs.replace(body, task_id=check_task_id(id, field="task_id"))
        return await self.enqueue(identity, query, named, traceparent=traceparent)

    async def bulk(
        self, identity: Identity, body: Sequence[Enqueue | LineshaftError], *, traceparent: str | None = None
    ) -> BulkAnswer:
        """Enqueue tasks, each for itself; where an error stands in `body`, that is the item's answer."""
        news = [self._new_or_error(item, traceparent) for item in body]
        tasks = tuple(new for new in news if not isinstance(new, LineshaftError))
        reply = await self.engine.submit(commands.Enqueue(tenant=identity.tenant, tasks=tasks))
        results = await self._results(identity, [item.task for item in reply.items if _there(item)])
        answered = iter(reply.items)
        items = [
            bulk_error(new) if isinstance(new, LineshaftError) else _bulk_item(next(answered), results)
            for new in news
        ]
        return BulkAnswer(items=items, position=reply.position)

    def _new_or_error(
        self, item: Enqueue | LineshaftError, traceparent: str | None
    ) -> commands.NewTask | LineshaftError:
        if isinstance(item, LineshaftError):
            return item
        given = item.task_id is not None
        task_id = self.new_id() if item.task_id is None else item.task_id
        try:
            return fields.new_task(
                item, task_id=task_id, given=given, max_payload=self.max_payload, traceparent=traceparent
            )
        except LineshaftError as error:
            error.task_id = item.task_id
            return error

    async def _enqueued(self, identity: Identity, item: replies.EnqueuedTask, position: int) -> Enqueued:
        row = item.task
        answer = Enqueued(
            task_id=row.id, state=views.word(row.state), created=item.created, position=position
        )
        if not item.created:
            answer.attempt = row.attempt
            if row.state.terminal:
                results = await self._results(identity, [row])
                answer.result = views.result_of(row, results.get(row.seq))
                answer.error = views.error_of(row)
        return answer

    async def _waited(self, identity: Identity, reply: replies.Found) -> Enqueued | ChangedTask:
        row = reply.task
        if not reply.ended:
            return Enqueued(
                task_id=row.id,
                state=views.word(row.state),
                created=reply.created,
                position=reply.position,
                attempt=row.attempt,
            )
        return await self._changed(identity, reply, created=reply.created)

    async def _results(self, identity: Identity, rows: Sequence[Row]) -> dict[int, bytes | None]:
        """Read the results of those of the tasks that have one, by `seq`."""
        having = [row for row in rows if row.run is not None and row.run.has_result]
        if not having:
            return {}
        found = await self.engine.read(identity.tenant, [(Blob.RESULT, row.seq) for row in having])
        return {
            row.seq: None if self.is_past(row) else value for row, value in zip(having, found, strict=True)
        }

    # -- read --------------------------------------------------------------------------------------

    async def get(self, identity: Identity, id: str, query: GetQuery | None = None) -> Task:
        """Return the task, with payload, result and attempts; with `wait` when it has ended or time is up."""
        wait = 0 if query is None else fields.wait(query.wait)
        if query is not None and query.min_position is not None:
            await self.reach(identity, query.min_position)
        command = commands.Get(
            tenant=identity.tenant,
            id=check_task_id(id, field="task_id"),
            wait_until=self.until(identity, wait),
        )
        reply = await self.engine.submit(command)
        answer = views.task(reply.task)
        await self._fill(identity, answer, reply.task)
        return answer

    async def _fill(self, identity: Identity, answer: Task, row: Row) -> None:
        keys = [(Blob.PAYLOAD, row.seq)]
        if row.run is not None and row.run.has_result:
            keys.append((Blob.RESULT, row.seq))
        if row.run is not None and row.run.has_checkpoint:
            keys.append((Blob.CHECKPOINT, row.seq))
        values = await self.engine.read(identity.tenant, keys)
        found = {kind: value for (kind, _), value in zip(keys, values, strict=True)}
        views.fill(
            answer,
            row,
            payload=found[Blob.PAYLOAD],
            result=None if self.is_past(row) else found.get(Blob.RESULT),
            checkpoint=found.get(Blob.CHECKPOINT),
        )

    async def find(self, identity: Identity, query: Search | None = None) -> TaskPage:
        """Find tasks, a page at a time."""
        return await self.search(identity, query or Search())

    async def search(self, identity: Identity, body: Search) -> TaskPage:
        """Find tasks, with the filter in the body."""
        query = Query(
            tenant=identity.tenant,
            filter=fields.task_filter(body),
            sort=checked_sort(body.sort),
            limit=DEFAULT_LIMIT if body.limit is None else body.limit,
            after=body.after,
            now=self.engine.now(identity.tenant),
        )
        as_of = await self.reach(identity, body.min_position or 0)
        page = await self.engine.search(query)
        return TaskPage(tasks=[views.task(row) for row in page.tasks], next=page.next, as_of=as_of)

    async def history(self, identity: Identity, id: str) -> History:
        """Return a task's attempts and what happened to it."""
        command = commands.Get(tenant=identity.tenant, id=check_task_id(id, field="task_id"))
        return history((await self.engine.submit(command)).task)

    async def explain(self, identity: Identity, id: str) -> Explanation:
        """Return why a task is not running."""
        command = commands.Explain(tenant=identity.tenant, id=check_task_id(id, field="task_id"))
        return views.explanation(await self.engine.submit(command))

    # -- change ------------------------------------------------------------------------------------

    async def patch(self, identity: Identity, id: str, body: Patch) -> ChangedTask:
        """Change a task that has not started."""
        payload: Any = UNSET
        if body.payload is not UNSET:
            payload = fields.json_bytes(body.payload, "payload", self.max_payload)
        command = commands.Patch(
            tenant=identity.tenant,
            id=check_task_id(id, field="task_id"),
            priority=body.priority,
            queue=UNSET if body.queue is UNSET else fields.names([body.queue], "queue")[0],
            run_at=UNSET if body.run_at is UNSET else parse_instant(body.run_at, field="run_at"),
            payload=payload,
            tags=UNSET if body.tags is UNSET else fields.tags(body.tags, "tags"),
        )
        return await self._changed(identity, await self.engine.submit(command))

    async def cancel(self, identity: Identity, id: str, body: Cancel) -> ChangedTask | OutcomeAnswer:
        """Cancel a task or ask its worker to; with `lease_token` end it as its holder."""
        reason = fields.text(body.reason, "reason")
        task_id = check_task_id(id, field="task_id")
        if body.lease_token is not None:
            identity.require("work")
            op = commands.CancelHeld(task_id=task_id, token=body.lease_token, reason=reason)
            return views.outcome_answer(await self.operate(identity, op))
        identity.require("enqueue")
        command = commands.Cancel(tenant=identity.tenant, id=task_id, reason=reason)
        return await self._changed(identity, await self.engine.submit(command))

    async def retry(self, identity: Identity, id: str) -> ChangedTask:
        """Run a finished task again."""
        command = commands.Retry(tenant=identity.tenant, id=check_task_id(id, field="task_id"))
        return await self._changed(identity, await self.engine.submit(command))

    async def promote(self, identity: Identity, id: str) -> ChangedTask:
        """Run a scheduled task now."""
        command = commands.Promote(tenant=identity.tenant, id=check_task_id(id, field="task_id"))
        return await self._changed(identity, await self.engine.submit(command))

    async def delete(self, identity: Identity, id: str) -> ChangedTask:
        """Forget a finished task; returns its last state, without what was forgotten with it."""
        command = commands.Delete(tenant=identity.tenant, id=check_task_id(id, field="task_id"))
        reply = await self.engine.submit(command)
        return views.changed_task(reply.task, position=reply.position)

    async def _changed(
        self, identity: Identity, reply: replies.Found, *, created: Any = UNSET
    ) -> ChangedTask:
        answer = views.changed_task(reply.task, position=reply.position, created=created)
        await self._fill(identity, answer, reply.task)
        return answer


def checked_sort(sort: str | None) -> str:
    """Return the sort of a search. Raises `Invalid` (field "sort")."""
    if sort is None:
        return "-created_at"
    if sort.removeprefix("-") not in SORT_FIELDS:
        raise Invalid(f"expected one of {', '.join(SORT_FIELDS)}, with - before it or not", field="sort")
    return sort


def _there(item: replies.EnqueuedTask | LineshaftError) -> bool:
    return not isinstance(item, LineshaftError) and not item.created


def _bulk_item(item: replies.EnqueuedTask | LineshaftError, results: dict[int, bytes | None]) -> BulkItem:
    if isinstance(item, LineshaftError):
        return bulk_error(item)
    row = item.task
    if item.created:
        return BulkItem(status=201, task_id=row.id, state=views.word(row.state), created=True)
    return BulkItem(
        status=200,
        task_id=row.id,
        state=views.word(row.state),
        created=False,
        result=views.result_of(row, results.get(row.seq)),
        error=views.error_of(row) if row.state.terminal else None,
    )


def bulk_error(error: LineshaftError) -> BulkItem:
    """Return what is answered of a task that was refused."""
    return BulkItem(status=error.status, task_id=error.task_id, error=raw(views.error_info(error)))
