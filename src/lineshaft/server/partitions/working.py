"""What workers of a tenant with partitions ask for: claims, reports, and to be let go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from lineshaft.errors import LineshaftError, NotFound
from lineshaft.server import fields, views
from lineshaft.server.identity import Identity
from lineshaft.server.partitions import merging
from lineshaft.server.partitions.claiming import Claiming
from lineshaft.server.partitions.parts import Parts
from lineshaft.server.partitions.tokens import bare
from lineshaft.server.partitions.turns import Holders, Turn
from lineshaft.server.worker_calls import Requester, as_asked, merged_claim
from lineshaft.wire import (
    Claim,
    ClaimedTask,
    ClaimedTasks,
    ClaimQuery,
    Drain,
    HeartbeatItem,
    ItemAnswer,
    Report,
    Reported,
    StartItem,
    Worker,
    WorkerInfo,
    WorkerList,
)

if TYPE_CHECKING:
    from lineshaft.server.calls import Calls

_GOES_ON = {"start", "heartbeat"}


class Working:
    """The part of `Partitioned` that workers need."""

    def __init__(self, calls: Calls, tenant: str, count: int) -> None:
        self.parts = Parts(calls, tenant, count)
        self.count = count
        self._calls = calls
        self._turn = 0
        self._turns: WeakValueDictionary[tuple[str, str | None], Turn] = WeakValueDictionary()
        """Of workers with resources that claim, by id and incarnation."""
        self._claims: WeakValueDictionary[str, Claiming] = WeakValueDictionary()
        """Claims under way that have an id."""
        self._holders = Holders()

    async def _of_lease(self, identity: Identity, name: str, id: str, body: Any) -> Any:
        partition, token = self.parts.of(id), None
        if body is not None and body.lease_token is not None:
            token = body.lease_token
            body = msgspec.structs.replace(body, lease_token=bare(partition, token))
        answer = await self.parts.ask(partition, identity, name, id=id, body=body)
        if self._holders and token is not None and name not in _GOES_ON:
            self._holders.ended(token)
        return answer

    async def _each(
        self, identity: Identity, name: str, bodies: dict[int, Any], traceparent: str | None = None
    ) -> list[Any]:
        """Make a call of some partitions, each with a body of its own; all are done, or it raises."""
        asked = [
            self.parts.ask(partition, identity, name, body=body, traceparent=traceparent)
            for partition, body in bodies.items()
        ]
        return merging.all_of(await asyncio.gather(*asked, return_exceptions=True))

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
        return as_asked(claim, await self.lease(identity, claim, requester))

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
        return await self._run(self._claiming(identity, claim, most=most, wait=wait), requester)

    async def _run(self, claiming: Claiming, requester: Requester | None) -> ClaimedTasks:
        self._turn = (self._turn + 1) % self.count
        answer = await claiming.run(requester, start=self._turn)
        if claiming.turn is not None:
            self._holders.add((task.lease_token for task in answer.tasks), claiming.turn)
        return answer

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
        claimed = await self._run(claiming, requester)
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
        if self._holders:
            for item in items:
                if not isinstance(item, LineshaftError | StartItem | HeartbeatItem):
                    self._holders.ended(item.lease_token)
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


def _unmarked(partition: int, item: Any) -> Any:
    return msgspec.structs.replace(item, lease_token=bare(partition, item.lease_token))
