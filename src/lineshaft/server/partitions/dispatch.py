"""Where calls of tenants with partitions part from all others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from lineshaft.core import commands
from lineshaft.core.replies import Claimed, Directive
from lineshaft.server import views
from lineshaft.server.change_calls import ChangeCalls, Followed
from lineshaft.server.identity import Identity
from lineshaft.server.partitions.tenant_calls import TenantCalls
from lineshaft.server.partitions.tokens import marked
from lineshaft.server.worker_calls import WorkerCalls, leased_by
from lineshaft.values.partitions import split_partition
from lineshaft.wire import CALLS, Claim, ClaimedTasks, PushedDirective, Report, Reported, Worker


class SplitCalls(TenantCalls, ChangeCalls, WorkerCalls):
    """What is not reached by the table of calls: streams, sessions, and answers that nobody takes."""

    async def follow(self, identity: Identity, after: str | None, *, limit: int, wait: int) -> Followed:
        """Return at most `limit` changes after a cursor (without one: none), waiting up to `wait` ms."""
        split = self.partitioned.get(identity.tenant)
        if split is not None:
            return await split.follow(identity, after, limit=limit, wait=wait)
        return await super().follow(identity, after, limit=limit, wait=wait)

    def give_back(self, identity: Identity, answer: Any) -> None:
        """Release what an answer leases, unburned: it came when its requester had gone. Nobody waits."""
        split = self.partitioned.get(identity.tenant)
        if split is not None:
            split.give_back(identity, leased_by(answer))
        else:
            super().give_back(identity, answer)

    # -- sessions ----------------------------------------------------------------------------------

    async def hold(self, identity: Identity, claim: Claim) -> tuple[list[str], ClaimedTasks]:
        """Hear of a worker and release what it does not know that it holds; leases nothing.

        Return the tokens of all that it holds, where the claim says `holding`, and an answer without tasks.
        """
        split = self.partitioned.get(identity.tenant)
        if split is not None:
            return await split.held(identity, claim)
        command = msgspec.structs.replace(self.claim_command(identity, claim), max=0, wait_until=None)
        reply: Claimed = await self.engine.submit(command)
        nothing = ClaimedTasks(tasks=[], position=reply.position, directive=views.directive(reply.directive))
        return list(reply.held), nothing

    async def push(self, identity: Identity, claim: Claim, *, most: int, wait: int) -> ClaimedTasks:
        """Lease up to `most` tasks, waiting up to `wait` ms."""
        split = self.partitioned.get(identity.tenant)
        if split is not None:
            return await split.lease(identity, claim, most=most, wait=wait)
        command = self.claim_command(identity, claim)
        until = self.engine.now(identity.tenant) + wait
        return await self.lease(identity, msgspec.structs.replace(command, max=most, wait_until=until))

    async def take_report(self, identity: Identity, report: Report) -> Reported:
        """Take a report that came over a session."""
        split = self.partitioned.get(identity.tenant)
        if split is not None:
            return await split.report(identity, report)
        return await self.report(identity, report)

    async def count_held(self, identity: Identity, worker: Worker) -> int:
        """Return how many tasks a worker holds."""
        who = (worker.id, worker.incarnation)
        split = self.partitioned.get(identity.tenant)
        if split is not None:
            listed = await split.call(CALLS["workers"], identity)
            return sum(each.held for each in listed.workers if (each.worker_id, each.incarnation) == who)
        states = await self.engine.submit(commands.Workers(tenant=identity.tenant))
        return sum(state.held for state in states if (state.worker_id, state.incarnation) == who)

    @contextlib.contextmanager
    def directives(
        self,
        identity: Identity,
        wanted: Callable[[str, str | None], bool],
        tell: Callable[[PushedDirective], None],
    ) -> Iterator[None]:
        """Within the block, tell at once what concerns workers (id and incarnation) that are wanted."""

        def is_wanted(directive: Directive) -> bool:
            tenant, _ = split_partition(directive.tenant)
            return tenant == identity.tenant and wanted(directive.worker_id, directive.incarnation)

        def pass_on(directive: Directive) -> None:
            _, partition = split_partition(directive.tenant)
            pushed = views.pushed_directive(directive)
            if partition is not None and pushed.lease_token is not None:
                pushed.lease_token = marked(partition, pushed.lease_token)
            tell(pushed)

        with self.engine.directives(is_wanted, pass_on):
            yield
