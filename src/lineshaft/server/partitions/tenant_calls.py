"""The calls about tenants: who there is, and over how many partitions the tasks of each are spread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from lineshaft.errors import Conflict, Forbidden, Invalid, Unavailable
from lineshaft.server.calling import Calling
from lineshaft.server.change_calls import Followed
from lineshaft.server.identity import DEFAULT_TENANT, Identity
from lineshaft.server.partitions import merging
from lineshaft.server.partitions.partitioned import Partitioned
from lineshaft.server.partitions.parts import Parts
from lineshaft.values.ids import check_name
from lineshaft.wire import ClaimedTasks, PutQueue, PutTenant, Reported, TenantInfo, TenantList

if TYPE_CHECKING:
    from lineshaft.server.calls import Calls


class _Rearranged(Partitioned):
    """Stands for a tenant while the number of its partitions changes: nothing may be enqueued meanwhile."""

    def __init__(self, calls: Calls, tenant: str) -> None:
        super().__init__(calls, tenant, 1)

    def call(self, *_: Any, **__: Any) -> Coroutine[Any, Any, Any]:
        raise self._passing()

    async def follow(self, *_: Any, **__: Any) -> Followed:
        raise self._passing()

    async def lease(self, *_: Any, **__: Any) -> ClaimedTasks:
        raise self._passing()

    async def held(self, *_: Any, **__: Any) -> tuple[list[str], ClaimedTasks]:
        raise self._passing()

    async def report(self, *_: Any, **__: Any) -> Reported:
        raise self._passing()

    def give_back(self, *_: Any, **__: Any) -> None:
        return None  # whatever it was, its lease runs out

    def _passing(self) -> Unavailable:
        return Unavailable(
            f"the partitions of tenant {self.parts.tenant} are being arranged", retry_after=1.0
        )


class _Undivided(Parts):
    """A tenant without partitions, asked as if it were one of itself."""

    def __init__(self, calls: Calls, tenant: str) -> None:
        super().__init__(calls, tenant, 1)
        self.names = [tenant]

    def ask(
        self, partition: int, identity: Identity, name: str, *, traceparent: str | None = None, **given: Any
    ) -> Coroutine[Any, Any, Any]:
        if not self.is_here(partition):
            return super().ask(partition, identity, name, **given)
        # Not by the table of calls: that is where the tenant is kept from being used meanwhile.
        method: Callable[..., Coroutine[Any, Any, Any]] = getattr(self.calls, name)
        return method(self.identity(identity, partition), **given)


def _parts(calls: Calls, tenant: str, count: int) -> Parts:
    return _Undivided(calls, tenant) if count == 1 else Parts(calls, tenant, count)


class TenantCalls(Calling):
    """Wire structs in, wire structs out; errors are `LineshaftError`s that name the field."""

    async def tenants(self, identity: Identity) -> TenantList:
        """List the tenants that have an API key or partitions; of others only the caller's own is shown."""
        names = {identity.tenant}
        if identity.tenant == DEFAULT_TENANT:
            names |= {key.tenant for key in self.key_ring.list()} | set(self.key_ring.layout.partitions)
        return TenantList(tenants=[self._tenant(name) for name in sorted(names)])

    async def put_tenant(self, identity: Identity, id: str, body: PutTenant) -> TenantInfo:
        """Say over how many partitions a tenant's tasks are spread, while it has none.

        Raises `Conflict` where it has, in whatever state.
        """
        tenant = check_name(id, field="tenant")
        if tenant.startswith("_"):
            raise Invalid("tenants whose names start with _ are the coordinator's own", field="tenant")
        if tenant != identity.tenant and identity.tenant != DEFAULT_TENANT:
            raise Forbidden("only keys of the default tenant arrange others", field="tenant")
        shards = self.engine.store.shards
        if not 1 <= body.partitions <= shards:
            raise Invalid(f"expected 1 to {shards}, the shards of this store", field="partitions")
        if self.key_ring.layout.of(tenant) != body.partitions:
            if isinstance(self.partitioned.get(tenant), _Rearranged):
                raise Conflict("the partitions of this tenant are being arranged", field="partitions")
            await self._arrange(identity, tenant, body.partitions)
        return self._tenant(tenant)

    async def _arrange(self, identity: Identity, tenant: str, partitions: int) -> None:
        layout = self.key_ring.layout
        before = layout.of(tenant)
        calls = self._as_calls()
        old, new = _parts(calls, tenant, before), _parts(calls, tenant, partitions)
        self.partitioned[tenant] = _Rearranged(calls, tenant)
        try:
            await self._refuse_tasks(identity, old)
            queues = merging.queues(await old.all(identity, "queues")).queues
            switched = [queue for queue in queues if queue.paused or queue.closed]
            for queue in switched:
                await new.all(
                    identity,
                    "put_queue",
                    id=queue.queue,
                    body=PutQueue(paused=queue.paused, closed=queue.closed),
                )
            await layout.put(tenant, partitions)
            try:
                # Another coordinator may not have known yet.
                await self._refuse_tasks(identity, old)
            except Conflict:
                await layout.put(tenant, before)
                raise
        finally:
            del self.partitioned[tenant]
            self.arrange_tenants()

    async def _refuse_tasks(self, identity: Identity, parts: Parts) -> None:
        stats = await parts.all(identity, "stats")
        tasks = sum(sum(part.counts.values()) for part in stats)
        if tasks:
            raise Conflict(
                f"tenant {parts.tenant} has {tasks} tasks: partitions are arranged before the first, or "
                "after all were deleted",
                field="partitions",
            )

    def arrange_tenants(self) -> None:
        """Split the calls of tenants as the layout says now."""
        layout = self.key_ring.layout.partitions
        wanted = {tenant: count for tenant, count in layout.items() if count > 1}
        for tenant in self.partitioned.keys() | wanted.keys():
            known = self.partitioned.get(tenant)
            if isinstance(known, _Rearranged):
                continue
            if tenant not in wanted:
                del self.partitioned[tenant]
            elif known is None or known.count != wanted[tenant]:
                self.partitioned[tenant] = Partitioned(self._as_calls(), tenant, wanted[tenant])

    def _tenant(self, name: str) -> TenantInfo:
        partitions = self.key_ring.layout.of(name)
        names = _parts(self._as_calls(), name, partitions).names
        return TenantInfo(
            tenant=name, partitions=partitions, shards=[self.engine.shard_of(each) for each in names]
        )

    def _as_calls(self) -> Calls:
        return cast("Calls", self)
