"""The partitions of one tenant, as who splits its calls reaches them: here, or at another coordinator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lineshaft.core import commands
from lineshaft.engine.handle import Handle
from lineshaft.errors import LineshaftError, NotOwner, Retryable, Unavailable
from lineshaft.server import views
from lineshaft.server.change_calls import Followed
from lineshaft.server.identity import Identity
from lineshaft.server.partitions.merging import all_of
from lineshaft.server.partitions.messages import as_message
from lineshaft.server.partitions.tokens import bare, marked
from lineshaft.server.worker_calls import NOWHERE
from lineshaft.values.partitions import partition_name, partition_of
from lineshaft.wire import CALLS, Call, ChangesQuery, Claim, ClaimedTask, Release
from lineshaft.wire.messages import Directive

if TYPE_CHECKING:
    from lineshaft.server.calls import Calls


_PATIENCE = 1.0
"""Seconds for which a claim waits for another coordinator before it goes on without it: it would wait for the
next owner of the shard."""


class Elsewhere(Protocol):
    """The way to the coordinators that have the other shards. The identity's tenant says which one it is."""

    async def call(
        self,
        call: Call,
        identity: Identity,
        *,
        id: str | None = None,
        query: Any = None,
        body: Any = None,
        traceparent: str | None = None,
    ) -> Any:
        """Make a call there and return its answer struct. Raises `LineshaftError`; cancelled, it hangs up."""


class Leased:
    """What one partition leased; `abandon` says that nobody takes it, but for what was given twice."""

    def __init__(
        self,
        tasks: list[ClaimedTask],
        *,
        position: int,
        directive: Directive,
        abandon: Callable[[], None],
        give_back: Callable[[Sequence[ClaimedTask]], None],
        held: Sequence[str] = (),
        repeated: bool = False,
    ) -> None:
        self.tasks = tasks
        self.position = position
        self.directive = directive
        self.held = held
        self.repeated = repeated
        self.abandon = abandon
        self._give_back = give_back

    def keep(self, most: int) -> None:
        """Give back all but the first few."""
        if most <= 0:
            self.abandon()
        else:
            self._give_back(self.tasks[most:])
        self.tasks = self.tasks[: max(0, most)]


class Parts:
    """`count` partitions of a tenant. Tokens are told outside with their partition before them."""

    def __init__(self, calls: Calls, tenant: str, count: int) -> None:
        self.calls = calls
        self.tenant = tenant
        self.count = count
        self.names = [partition_name(tenant, partition) for partition in range(count)]
        self._background: set[asyncio.Future[Any]] = set()

    def now(self) -> int:
        """Return the wall clock's time (ms)."""
        return self.calls.now()

    def of(self, task_id: str) -> int:
        """Return the partition that a task is in."""
        return partition_of(task_id, self.count)

    def identity(self, identity: Identity, partition: int) -> Identity:
        """Return who calls as the partition is to know them."""
        return Identity(self.names[partition], identity.scopes, identity.key_id)

    def is_here(self, partition: int) -> bool:
        """Tell whether this coordinator has the partition, or nobody else can be asked."""
        return self.calls.elsewhere is None or self.calls.engine.has(self.names[partition])

    def ask(
        self, partition: int, identity: Identity, name: str, *, traceparent: str | None = None, **given: Any
    ) -> Coroutine[Any, Any, Any]:
        """Make a call of one partition and return its answer struct, to come."""
        who = self.identity(identity, partition)
        elsewhere = self.calls.elsewhere
        if elsewhere is None:
            return self.calls.call(CALLS[name], who, traceparent=traceparent, **given)
        # Here too, where the partition is here: its shard may move before the answer.
        return elsewhere.call(CALLS[name], who, traceparent=traceparent, **given)

    async def all(self, identity: Identity, name: str, **given: Any) -> list[Any]:
        """Make the same call of all partitions. Raises the worst of what they say."""
        asked = [self.ask(partition, identity, name, **given) for partition in range(self.count)]
        return all_of(await asyncio.gather(*asked, return_exceptions=True))

    # -- leasing -----------------------------------------------------------------------------------

    async def lease(
        self,
        partition: int,
        identity: Identity,
        command: commands.Claim,
        *,
        wait: int,
        is_superseded: Callable[[], bool] = lambda: False,
        on_handle: Callable[[Handle], None] = lambda handle: None,
    ) -> Leased:
        """Claim in one partition; of `command.holding` it is told its own. Cancelled, it leases nothing.

        `is_superseded` tells whether what was leased belongs to a later claim with the same id; `on_handle`
        is told of the command where the partition is here.
        """
        who = self.identity(identity, partition)
        if self.calls.elsewhere is None or self.is_here(partition):
            with contextlib.suppress(*([NotOwner] if self.calls.elsewhere is not None else [])):
                return await self._lease_here(partition, who, command, wait, on_handle)
            # It has just moved, and nothing was done.
        return await self._lease_elsewhere(partition, who, command, wait, is_superseded)

    async def _lease_here(
        self,
        partition: int,
        who: Identity,
        command: commands.Claim,
        wait: int,
        on_handle: Callable[[Handle], None],
    ) -> Leased:
        engine = self.calls.engine
        until = engine.now(who.tenant) + wait if wait else None
        handle = engine.submit(msgspec.structs.replace(command, tenant=who.tenant, wait_until=until))
        on_handle(handle)
        try:
            reply = await handle
            tasks = await self.calls.claimed_tasks(who, reply.tasks)
        except BaseException:
            handle.abandon()
            raise
        return Leased(
            self._marked(partition, tasks),
            position=reply.position,
            directive=views.directive(reply.directive),
            held=[marked(partition, token) for token in reply.held],
            repeated=command.max == 0,
            abandon=handle.abandon,
            give_back=lambda tasks: self.give_back(who, tasks),
        )

    async def _lease_elsewhere(
        self,
        partition: int,
        who: Identity,
        command: commands.Claim,
        wait: int,
        is_superseded: Callable[[], bool],
    ) -> Leased:
        """Claim at another coordinator.

        What it was given and we did not hear of it asks for again by the id of the claim, to release it.
        """
        elsewhere = self.calls.elsewhere
        assert elsewhere is not None
        message = as_message(command, wait)
        if message.claim_id is None:
            message.claim_id = self.calls.new_id()
        asked = asyncio.ensure_future(elsewhere.call(CALLS["claim"], who, body=message))
        try:
            await asyncio.wait([asked], timeout=wait / 1000 + _PATIENCE)
            if not asked.done():
                raise Unavailable(f"partition {partition} does not answer just now", retry_after=1.0)
        except BaseException:
            asked.cancel()
            if command.max and not is_superseded():
                self._spawn(self._undo(partition, who, message, is_superseded))
            raise
        answer = asked.result()
        tasks = self._marked(partition, answer.tasks)

        def give_back(tasks: Sequence[ClaimedTask]) -> None:
            if not is_superseded():
                self.give_back(who, tasks)

        return Leased(
            tasks,
            position=answer.position,
            directive=answer.directive,
            held=[marked(partition, token) for token in answer.held or ()],
            repeated=command.max == 0,
            abandon=lambda: give_back(tasks),
            give_back=give_back,
        )

    async def _undo(
        self, partition: int, who: Identity, message: Claim, is_superseded: Callable[[], bool]
    ) -> None:
        """Repeat a claim that nobody waits for any more, for nothing new, and release what it was given."""
        elsewhere = self.calls.elsewhere
        assert elsewhere is not None
        repeat = Claim(claim_id=message.claim_id, queues=[NOWHERE], max=1)
        answer = await elsewhere.call(CALLS["claim"], who, body=repeat)
        if not is_superseded():
            self.give_back(who, self._marked(partition, answer.tasks))

    def _marked(self, partition: int, tasks: list[ClaimedTask]) -> list[ClaimedTask]:
        for task in tasks:
            task.lease_token = marked(partition, task.lease_token)
        return tasks

    def give_back(self, identity: Identity, tasks: Sequence[ClaimedTask]) -> None:
        """Release leases unburned; nobody waits for it."""
        for task in tasks:
            partition = self.of(task.task_id)
            body = Release(lease_token=bare(partition, task.lease_token))
            self._spawn(self.ask(partition, identity, "release", id=task.task_id, body=body))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that nobody waits for."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, done: asyncio.Future[Any]) -> None:
        self._background.discard(done)
        if not done.cancelled():
            done.exception()  # else its lease runs out

    # -- following ---------------------------------------------------------------------------------

    async def follow(
        self, partition: int, identity: Identity, after: str | None, *, limit: int, wait: int
    ) -> Followed:
        """Follow the changes of one partition."""
        who = self.identity(identity, partition)
        elsewhere = self.calls.elsewhere
        if elsewhere is None:
            return await self.calls.follow(who, after, limit=limit, wait=wait)
        if self.is_here(partition):
            with contextlib.suppress(NotOwner):
                return await self.calls.follow(who, after, limit=limit, wait=wait)
        query = ChangesQuery(after=after, limit=limit, wait=wait / 1000)
        answer = await elsewhere.call(CALLS["changes"], who, query=query)
        # Only the last has a cursor of its own: who is cut off before it is told the others again.
        cursors = [after or answer.next] * (len(answer.changes) - 1) + [answer.next]
        return Followed(list(zip(answer.changes, cursors, strict=False)), answer.next)


def is_passing(error: BaseException) -> bool:
    """Tell whether a partition cannot answer just now, as while its shard moves."""
    return isinstance(error, LineshaftError) and isinstance(error, Retryable | NotOwner)
