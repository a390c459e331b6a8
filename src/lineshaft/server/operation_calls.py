"""The calls of operation: queues, workers, health, statistics, API keys."""

from __future__ import annotations

from lineshaft.core import commands, replies
from lineshaft.errors import Forbidden, Invalid, NotOwner
from lineshaft.server import cluster_metrics, fields, metrics, openapi, operation_views
from lineshaft.server.calling import Calling
from lineshaft.server.identity import DEFAULT_TENANT, Identity
from lineshaft.store.base import notices_of
from lineshaft.values.durations import seconds
from lineshaft.values.ids import check_name
from lineshaft.values.instants import format_instant
from lineshaft.version import __version__
from lineshaft.wire import (
    CALLS,
    SUBPROTOCOL,
    Drain,
    Health,
    Key,
    KeyList,
    NewKey,
    PutQueue,
    Queue,
    QueueList,
    Revoked,
    Root,
    Scale,
    Stats,
    WorkerInfo,
    WorkerList,
)

FEATURES = [
    "affinity",
    "bulk",
    "changes",
    "checkpoint",
    "explain",
    "metrics",
    "prefetch",
    "progress",
    "report",
    "search",
    "session",
    "sse",
    "wait",
]


class OperationCalls(Calling):
    """Wire structs in, wire structs out; errors are `LineshaftError`s that name the field."""

    async def root(self, identity: Identity) -> Root:
        """Return name, version and features."""
        return Root(name="lineshaft", version=__version__, protocol=SUBPROTOCOL, features=FEATURES)

    # -- queues ------------------------------------------------------------------------------------

    async def queues(self, identity: Identity) -> QueueList:
        """List the queues."""
        states = await self.engine.submit(commands.Queues(tenant=identity.tenant))
        return QueueList(queues=[operation_views.queue(state) for state in states])

    async def queue(self, identity: Identity, id: str) -> Queue:
        """Return a queue; one that nobody has named yet is empty."""
        return operation_views.queue(await self._queue_state(identity, id))

    async def put_queue(self, identity: Identity, id: str, body: PutQueue) -> Queue:
        """Make or change a queue."""
        fields.refuse_reserved(body, ("limits", "weight"))
        return await self._set_queue(identity, id, paused=body.paused, closed=body.closed)

    async def pause_queue(self, identity: Identity, id: str) -> Queue:
        """Let no more tasks of the queue be claimed."""
        return await self._set_queue(identity, id, paused=True)

    async def resume_queue(self, identity: Identity, id: str) -> Queue:
        """Let tasks of the queue be claimed again."""
        return await self._set_queue(identity, id, paused=False)

    async def close_queue(self, identity: Identity, id: str) -> Queue:
        """Let no more tasks be enqueued."""
        return await self._set_queue(identity, id, closed=True)

    async def open_queue(self, identity: Identity, id: str) -> Queue:
        """Let tasks be enqueued again."""
        return await self._set_queue(identity, id, closed=False)

    async def scale(self, identity: Identity, id: str) -> Scale:
        """Return how much work there is."""
        queue = operation_views.queue(await self._queue_state(identity, id))
        return Scale(
            queue=queue.queue,
            backlog=queue.backlog,
            running=queue.running,
            oldest_age=queue.oldest_age,
            # What could run at once if there were workers enough: a paused queue wants no more than it has.
            wanted=queue.running + (0 if queue.paused else queue.backlog),
            workers=queue.workers,
        )

    async def _queue_state(self, identity: Identity, id: str) -> replies.QueueState:
        command = commands.Queues(tenant=identity.tenant, queue=check_name(id, field="queue"))
        states: list[replies.QueueState] = await self.engine.submit(command)
        return states[0]

    async def _set_queue(
        self, identity: Identity, id: str, *, paused: bool | None = None, closed: bool | None = None
    ) -> Queue:
        name = check_name(id, field="queue")
        command = commands.SetQueue(tenant=identity.tenant, queue=name, paused=paused, closed=closed)
        return operation_views.queue(await self.engine.submit(command))

    # -- workers -----------------------------------------------------------------------------------

    async def workers(self, identity: Identity) -> WorkerList:
        """List the workers seen lately."""
        states = await self.engine.submit(commands.Workers(tenant=identity.tenant))
        return WorkerList(workers=[operation_views.worker(state) for state in states])

    async def drain(self, identity: Identity, id: str, body: Drain) -> WorkerInfo:
        """Let a worker finish what it holds and claim no more."""
        command = commands.Drain(tenant=identity.tenant, worker_id=id, incarnation=body.incarnation)
        return operation_views.worker(await self.engine.submit(command))

    # -- the process -------------------------------------------------------------------------------

    async def live(self, identity: Identity) -> Health:
        """Say that the process runs."""
        return Health(status="ok")

    async def ready(self, identity: Identity) -> Health:
        """Say whether the coordinator can take work."""
        trouble, cluster = self.engine.trouble(), self.engine.health().cluster
        return Health(
            status="ok" if trouble is None else "unavailable",
            store=self.engine.store.url,
            tier=self.engine.store.tier,
            owner=self.address,
            reason=trouble or "; ".join(notices_of(self.engine.store)) or None,
            coordinators=None if cluster is None else operation_views.coordinators(cluster),
        )

    async def stats(self, identity: Identity) -> Stats:
        """Return counts and gauges of the caller's tenant."""
        reply = await self.engine.submit(commands.Stats(tenant=identity.tenant))
        return Stats(
            counts=operation_views.counts(reply.counts),
            queues=reply.queues,
            workers=reply.workers,
            waiting_claims=reply.waiting_claims,
            waiting_results=reply.waiting_results,
            leases=reply.leases,
            totals=reply.totals,
            position=reply.position,
            now=format_instant(self.now()),
            uptime=seconds(self.now() - self.started_at),
            store=self.engine.store.url,
            tier=self.engine.store.tier,
            version=__version__,
        )

    async def metrics(self, identity: Identity) -> str:
        """Return the metrics of the caller's tenant and of the process.

        Of several coordinators the one that has the tenant's shard tells of its tasks, so that they are not
        counted twice.
        """
        try:
            stats = await self.engine.submit(commands.Stats(tenant=identity.tenant))
            queues = await self.engine.submit(commands.Queues(tenant=identity.tenant))
        except NotOwner:
            return self.metrics_page(None, [])
        return self.metrics_page(stats, queues)

    def metrics_page(self, stats: replies.StatsReply | None, queues: list[replies.QueueState]) -> str:
        """Return a tenant's counts and the metrics of the process as Prometheus reads them."""
        return metrics.render(
            stats,
            queues,
            self.responses,
            version=__version__,
            store=self.engine.store.url,
            tier=self.engine.store.tier,
            uptime=(self.now() - self.started_at) / 1000,
            pending_bytes=self.engine.pending_bytes,
            shards=self.engine.metrics(),
            gauges=self.engine.store.gauges(),
            cluster=cluster_metrics.sample(self.engine, self.forwarded),
        )

    async def openapi(self, identity: Identity) -> dict[str, object]:
        """Return the protocol as OpenAPI 3.1."""
        if self._openapi is None:
            self._openapi = openapi.describe(CALLS.values(), version=__version__)
        return self._openapi

    _openapi: dict[str, object] | None = None

    # -- API keys ----------------------------------------------------------------------------------

    async def keys(self, identity: Identity) -> KeyList:
        """List the API keys of the caller's tenant; the default tenant, the operator's, sees all."""
        return KeyList(keys=[operation_views.key(stored) for stored in self.key_ring.list(_reach(identity))])

    async def new_key(self, identity: Identity, body: NewKey) -> Key:
        """Make an API key."""
        tenant = identity.tenant if body.tenant is None else body.tenant
        if tenant != identity.tenant and _reach(identity) is not None:
            raise Forbidden("only keys of the default tenant make keys for others", field="tenant")
        if "admin" not in body.scopes and not self.key_ring.has_admin:
            raise Invalid("the first key needs admin, or nobody could make or revoke another", field="scopes")
        stored, key = await self.key_ring.create(body.name, tenant=tenant, scopes=list(body.scopes))
        return operation_views.key(stored, key)

    async def revoke_key(self, identity: Identity, id: str) -> Revoked:
        """Make an API key invalid for good."""
        await self.key_ring.revoke(id, tenant=_reach(identity))
        return Revoked(key_id=id)


def _reach(identity: Identity) -> str | None:
    return None if identity.tenant == DEFAULT_TENANT else identity.tenant
