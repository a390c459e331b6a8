"""The calls of workers: claim, report, and what a lease's holder says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from lineshaft.core import commands, replies
from lineshaft.core.batch import Blob
from lineshaft.core.task import Progress as CoreProgress
from lineshaft.core.task import Task as Row
from lineshaft.errors import Invalid, LineshaftError
from lineshaft.server import fields, views
from lineshaft.server.calling import Calling
from lineshaft.server.identity import Identity
from lineshaft.values.durations import parse_duration
from lineshaft.values.ids import check_task_id
from lineshaft.values.partitions import MARK
from lineshaft.wire import (
    UNSET,
    CancelItem,
    Claim,
    ClaimedTask,
    ClaimedTasks,
    ClaimQuery,
    Complete,
    CompleteItem,
    Fail,
    FailItem,
    Heartbeat,
    HeartbeatItem,
    Item,
    LeaseAnswer,
    OutcomeAnswer,
    Progress,
    Release,
    ReleaseItem,
    Report,
    Reported,
    Snooze,
    SnoozeItem,
    Start,
    StartItem,
)

MAX_HOLDING = 10_000
_MAX_TOKEN = 64
NOWHERE = "lineshaft:nowhere"
"""What stands first among the queues where a coordinator asks for nothing new, but lets a worker be heard."""
_encode = msgspec.json.Encoder().encode


class Requester(Protocol):
    """Whoever is to get an answer that leases tasks."""

    async def reach(self) -> None:
        """Wait until the answer could be handed over. Raises where the requester goes away instead."""


class WorkerCalls(Calling):
    """Wire structs in, wire structs out; errors are `LineshaftError`s that name the field."""

    # -- claim -------------------------------------------------------------------------------------

    async def claim(
        self,
        identity: Identity,
        query: ClaimQuery | None = None,
        body: Claim | None = None,
        *,
        requester: Requester | None = None,
    ) -> ClaimedTasks | ClaimedTask | None:
        """Lease tasks: a list where `max` was said, else one task or None."""
        claim = merged_claim(query or ClaimQuery(), body or Claim())
        command = self.claim_command(identity, claim)
        if command.queues is not None and command.queues[0] == NOWHERE and MARK in identity.tenant:
            command = msgspec.structs.replace(command, max=0, queues=command.queues[1:] or None)
        return as_asked(claim, await self.lease(identity, command, requester))

    async def lease(
        self, identity: Identity, command: commands.Claim, requester: Requester | None = None
    ) -> ClaimedTasks:
        """Submit a claim; cancelled, it leaves nothing leased to a requester who has gone."""
        reply, tasks = await self._handed_over(identity, command, requester)
        answer = ClaimedTasks(
            tasks=tasks, position=reply.position, directive=views.directive(reply.directive)
        )
        if reply.held and MARK in identity.tenant:
            answer.held = list(reply.held)
        return answer

    async def _handed_over(
        self, identity: Identity, command: commands.Claim | commands.Report, requester: Requester | None
    ) -> tuple[Any, list[ClaimedTask]]:
        """Submit what leases tasks and return the reply and the tasks, as soon as the requester takes them.

        Where nobody does they are released, unburned, but for those that a repeated claim was given too.
        """
        handle = self.engine.submit(command)
        try:
            reply = await handle
            tasks = await self.claimed_tasks(identity, reply.tasks)
            if requester is not None and tasks:
                await requester.reach()
        except BaseException:
            handle.abandon()
            raise
        return reply, tasks

    def claim_command(self, identity: Identity, claim: Claim, *, park: bool = True) -> commands.Claim:
        """Return the command for a claim, checked; one inside a report never parks."""
        wait = fields.wait(claim.wait)
        if claim.holding is not None and len(claim.holding) > MAX_HOLDING:
            raise Invalid(f"at most {MAX_HOLDING} lease tokens", field="holding")
        if claim.holding is not None and claim.worker is None:
            raise Invalid("`holding` needs a worker with an id", field="worker")
        return commands.Claim(
            tenant=identity.tenant,
            max=1 if claim.max is None else claim.max,
            claim_id=fields.claim_id(claim.claim_id),
            worker=fields.worker_info(claim.worker),
            queues=_some_names(claim.queues, "queues"),
            names=_some_names(claim.names, "names"),
            wait_until=self.until(identity, wait) if park else None,
            lease=None if claim.lease is None else fields.lease(claim.lease),
            start=claim.start is not False,
            holding=None if claim.holding is None else tuple(claim.holding),
        )

    async def claimed_tasks(self, identity: Identity, rows: Sequence[Row]) -> list[ClaimedTask]:
        """Return leased tasks as workers see them, with payloads and checkpoints read in one go."""
        if not rows:
            return []
        keys = [(Blob.PAYLOAD, row.seq) for row in rows]
        resumed = [row.seq for row in rows if row.run is not None and row.run.has_checkpoint]
        keys += [(Blob.CHECKPOINT, seq) for seq in resumed]
        values = await self.engine.read(identity.tenant, keys)
        checkpoints = dict(zip(resumed, values[len(rows) :], strict=True))
        return [
            views.claimed(row, payload, checkpoints.get(row.seq))
            for row, payload in zip(rows, values[: len(rows)], strict=True)
        ]

    def give_back(self, identity: Identity, answer: Any) -> None:
        """Release what an answer leases, unburned: it came when its requester had gone. Nobody waits."""
        ops = tuple(
            commands.Release(task_id=task.task_id, token=task.lease_token) for task in leased_by(answer)
        )
        if ops:
            released = self.engine.submit(commands.Report(tenant=identity.tenant, items=ops))
            released.add_done_callback(lambda done: done.cancelled() or done.exception())

    # -- one lease ---------------------------------------------------------------------------------

    async def start(self, identity: Identity, id: str, body: Start) -> LeaseAnswer:
        """Begin to execute a prefetched task."""
        return views.lease_answer(await self._operate(identity, id, body, StartItem))

    async def heartbeat(self, identity: Identity, id: str, body: Heartbeat) -> LeaseAnswer:
        """Extend a lease; the answer says whether to go on."""
        return views.lease_answer(await self._operate(identity, id, body, HeartbeatItem))

    async def complete(self, identity: Identity, id: str, body: Complete) -> OutcomeAnswer:
        """End a task with its result."""
        return views.outcome_answer(await self._operate(identity, id, body, CompleteItem))

    async def fail(self, identity: Identity, id: str, body: Fail) -> OutcomeAnswer:
        """End an attempt with an error."""
        return views.outcome_answer(await self._operate(identity, id, body, FailItem))

    async def release(self, identity: Identity, id: str, body: Release) -> OutcomeAnswer:
        """Give a task back; no attempt is burned."""
        return views.outcome_answer(await self._operate(identity, id, body, ReleaseItem))

    async def snooze(self, identity: Identity, id: str, body: Snooze) -> OutcomeAnswer:
        """Run a task later; no attempt is burned."""
        return views.outcome_answer(await self._operate(identity, id, body, SnoozeItem))

    async def _operate(self, identity: Identity, id: str, body: Any, kind: type[Any]) -> replies.OpReply:
        return await self.operate(identity, _OPS[kind](self, check_task_id(id, field="task_id"), body))

    # -- report ------------------------------------------------------------------------------------

    async def report(
        self, identity: Identity, body: Report, *, requester: Requester | None = None
    ) -> Reported:
        """Apply items in order, each for itself, then the claim; an error in `items` is its own answer.

        The claim parks only where there is nothing to acknowledge.
        """
        if body.claim is not None and not body.items:
            claimed = await self.lease(identity, self._claim_of_report(identity, body.claim), requester)
            return Reported(
                items=[], tasks=claimed.tasks, position=claimed.position, directive=claimed.directive
            )
        claim = None if body.claim is None else self._claim_of_report(identity, body.claim, park=False)
        ops = [self._op_or_error(item) for item in body.items]
        good = tuple(op for op in ops if not isinstance(op, LineshaftError))
        command = commands.Report(tenant=identity.tenant, items=good, claim=claim)
        reply, tasks = await self._handed_over(identity, command, requester)
        answered = iter(reply.items)
        return Reported(
            items=[views.item_answer(op if isinstance(op, LineshaftError) else next(answered)) for op in ops],
            tasks=tasks,
            position=reply.position,
            directive=views.directive(reply.directive),
        )

    def _claim_of_report(self, identity: Identity, claim: Claim, *, park: bool = True) -> commands.Claim:
        try:
            return self.claim_command(identity, claim, park=park)
        except LineshaftError as error:
            error.field = "claim" if error.field is None else f"claim.{error.field}"
            raise

    def _op_or_error(self, item: Item | LineshaftError) -> commands.Op | LineshaftError:
        if isinstance(item, LineshaftError):
            return item
        try:
            return _OPS[type(item)](self, check_task_id(item.task_id, field="task_id"), item)
        except LineshaftError as error:
            error.task_id = item.task_id
            return error


def leased_by(answer: Any) -> list[ClaimedTask]:
    """Return the tasks that an answer leases."""
    tasks = answer.tasks if isinstance(answer, ClaimedTasks | Reported) else [answer]
    return [task for task in tasks if isinstance(task, ClaimedTask)]


def merged_claim(query: ClaimQuery, body: Claim) -> Claim:
    """Return a claim whose scalars stand in query or body. Raises `Invalid` for what stands in both."""
    merged = Claim(worker=body.worker, holding=body.holding)
    for field in ("claim_id", "max", "wait", "lease", "start"):
        setattr(merged, field, fields.once(field, getattr(query, field), getattr(body, field)))
    for field in ("queues", "names"):
        listed = fields.words(getattr(query, field), field)
        in_query = None if listed is None else list(listed)
        setattr(merged, field, fields.once(field, in_query, getattr(body, field)))
    return merged


def as_asked(claim: Claim, answer: ClaimedTasks) -> ClaimedTasks | ClaimedTask | None:
    """Return what a claim leased: a list where `max` was said, else one task or None. Raises `Invalid`."""
    if claim.max is not None:
        return answer
    if not answer.tasks:
        return None
    if len(answer.tasks) > 1:
        raise Invalid("this claim_id was given several tasks: repeat it with its max", field="max")
    [task] = answer.tasks
    task.position = answer.position
    return task


def _some_names(given: list[str] | None, field: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not given:
        raise Invalid("expected at least one, or the field left out for any", field=field)
    return fields.names(given, field)


# -- from a message to the operation on its lease -----------------------------------------------------


def _start(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    return commands.Start(task_id=task_id, token=_token(item))


def _heartbeat(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    return commands.Heartbeat(
        task_id=task_id,
        token=_token(item),
        progress=_progress(item.progress),
        checkpoint=fields.optional_json(item.checkpoint, "checkpoint", calls.max_payload),
        usage=fields.optional_json(item.usage, "usage", min(calls.max_payload, fields.MAX_USAGE)),
    )


def _complete(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    if item.carry is UNSET and item.result_ttl is None:
        given = item.result
        result = b"null" if given is UNSET else fields.json_bytes(given, "result", calls.max_payload)
        return commands.Complete(task_id=task_id, token=_token(item), result=result or b"null")
    return commands.Complete(
        task_id=task_id,
        token=_token(item),
        result=fields.optional_json(item.result, "result", calls.max_payload) or b"null",
        carry=fields.optional_json(item.carry, "carry", calls.max_payload),
        result_ttl=fields.optional_duration(item.result_ttl, "result_ttl"),
    )


def _fail(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    error = b"{}" if item.error is None else _encode(item.error)
    return commands.Fail(
        task_id=task_id,
        token=_token(item),
        error=fields.limited(error, "error", min(calls.max_payload, fields.MAX_ERROR)),
        retry=item.retry is not False,
        retry_after=fields.optional_duration(item.retry_after, "retry_after"),
    )


def _release(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    return commands.Release(task_id=task_id, token=_token(item))


def _snooze(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    return commands.Snooze(task_id=task_id, token=_token(item), delay=parse_duration(item.for_, field="for"))


def _cancel(calls: WorkerCalls, task_id: str, item: Any) -> commands.Op:
    return commands.CancelHeld(task_id=task_id, token=_token(item), reason=fields.text(item.reason, "reason"))


_OPS: dict[type[Any], Callable[[WorkerCalls, str, Any], commands.Op]] = {
    StartItem: _start,
    HeartbeatItem: _heartbeat,
    CompleteItem: _complete,
    FailItem: _fail,
    ReleaseItem: _release,
    SnoozeItem: _snooze,
    CancelItem: _cancel,
}


def _token(item: Any) -> str:
    # What is no token is like one that is not current: `lease_lost`, not 422.
    token: str = item.lease_token
    return token[:_MAX_TOKEN]


def _progress(given: Progress | None) -> CoreProgress | None:
    if given is None:
        return None
    return CoreProgress(
        done=_amount(given.done, "progress.done") or 0.0,
        total=_amount(given.total, "progress.total"),
        message=fields.text(given.message, "progress.message"),
    )


def _amount(number: int | float | None, field: str) -> float | None:
    if number is None:
        return None
    if not abs(number) <= 1e18:
        raise Invalid("expected a number up to 1e18", field=field)
    return float(number)
