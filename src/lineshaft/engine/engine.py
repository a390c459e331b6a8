"""The engine: a store, its shards by tenant, and what is read beside them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

import msgspec

from lineshaft.core.batch import Blob
from lineshaft.core.commands import Barrier as BarrierCommand
from lineshaft.core.commands import Command, Stats
from lineshaft.core.replies import Directive, StatsReply
from lineshaft.engine.admission import weigh
from lineshaft.engine.answers import unreadable
from lineshaft.engine.blob_cache import BlobReader, CacheRoom
from lineshaft.engine.clock import Clock, SystemClock
from lineshaft.engine.cluster.holdings import Holdings
from lineshaft.engine.cluster.membership import Membership
from lineshaft.engine.cluster.tenure import Tenure
from lineshaft.engine.handle import Handle
from lineshaft.engine.health import ClusterHealth, Health, cluster_health
from lineshaft.engine.limits import Limits
from lineshaft.engine.metrics import Metrics
from lineshaft.engine.runner import Runner
from lineshaft.errors import Invalid, LineshaftError, NotOwner, Unavailable
from lineshaft.store.base import Log, LogRecord, Page, Query, Store
from lineshaft.values.partitions import shard_of

Result = TypeVar("Result")

_LOG = logging.getLogger("lineshaft.engine")


class Engine:
    """Runs the shards of a store in the running event loop; use it as `async with Engine(store) as engine`.

    Entering opens the store, takes over and loads its shards, and raises what the store raises where that
    fails (`StoreInUse`, `SchemaTooNew`, `StoreCorrupt`, `StoreUnusable`). Leaving answers everybody and
    closes the store. Of an exclusive store all shards are ours; of another those that the coordinators'
    roster gives us (`cluster`), and what is asked of the rest is `NotOwner`.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        address: str = "",
        nonces: Callable[[], bytes] | None = None,
        version: str = "",
        alone: bool = False,
        tune_gc: bool = False,
    ) -> None:
        """`address` is where other coordinators reach this one, and is told to whoever is refused the store;
        `nonces` gives 16 random bytes at each call; `version` is shown to people; `alone`: a store on which
        another coordinator is at work is refused (`StoreInUse`), though it might be shared; `tune_gc` keeps
        what was loaded from the cyclic collector (for a process that does nothing else)."""
        self.store = store
        self.clock: Clock = SystemClock() if clock is None else clock
        self.limits = Limits() if limits is None else limits
        self.address = address
        self._nonces = nonces or (lambda: secrets.token_bytes(16))
        self._tune_gc = tune_gc
        self._loop: asyncio.AbstractEventLoop
        self._shards = 0
        self.runners: dict[int, Runner] = {}
        """The lives of our shards, by number; for those who watch them, such as the tests."""
        self.holdings = Holdings(self.runners, self._runner)
        """Keeps the shards that we have in step with the roster of coordinators."""
        self.membership: Membership | None = None
        """Our part in that roster; None where the store is ours alone."""
        self._version = version
        self._alone = alone
        self._tenure = Tenure()
        self._readers: dict[int, BlobReader] = {}
        self._room = CacheRoom(self.limits.cache_bytes)
        self._listeners: list[tuple[Callable[[Directive], bool], Callable[[Directive], None]]] = []

    async def __aenter__(self) -> Engine:
        self._loop = asyncio.get_running_loop()
        await self.store.open(address=self.address)
        self._shards = self.store.shards
        self._readers = {shard: BlobReader(self.store, shard) for shard in range(self._shards)}
        try:
            if self.store.exclusive:
                await self._have_all()
            else:
                await self._take_part()
        except BaseException:
            await self.close()
            raise
        return self

    async def _have_all(self) -> None:
        owner = self._nonces()
        for shard in range(self._shards):
            runner = self._runner(shard, owner)
            await runner.start()
            self.runners[shard] = runner

    async def _take_part(self) -> None:
        self._tenure = self.membership = self.holdings.membership = Membership(
            self.store,
            self.holdings,
            clock=self.clock,
            limits=self.limits,
            nonces=self._nonces,
            address=self.address,
            version=self._version,
        )
        if self._alone:
            await self.membership.require_alone()
        await self.membership.join()
        self.membership.begin()
        await self.holdings.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse what comes, flush, answer parked requests, give the shards back, close the store;
        idempotent.
        """
        await self.holdings.close()
        await asyncio.gather(*(runner.stop() for runner in self.runners.values() if runner.state != "closed"))
        await asyncio.gather(*(reader.stop() for reader in self._readers.values()))
        membership, self.membership = self.membership, None
        if membership is not None:
            await membership.leave()
        await self.store.close()

    async def hand_over(self) -> None:
        """Give our shards to the coordinators that stay, and take no more; `close` is to follow.

        Whoever waits is answered: claims with nothing, waits for an end with the state as it is.
        """
        if self.membership is not None:
            await self.holdings.give_all_away()

    def _runner(self, shard: int, owner: bytes) -> Runner:
        return Runner(
            self.store,
            shard,
            clock=self.clock,
            limits=self.limits,
            nonces=self._nonces,
            owner=owner,
            tenure=self._tenure,
            tell=self.tell,
            room=self._room,
            tune_gc=self._tune_gc,
        )

    # -- commands --------------------------------------------------------------------------------

    def submit(self, command: Command) -> Handle:
        """Apply a command and return its reply to come (see `core.replies`), shown once it is durable.

        The future fails with the `LineshaftError` that refuses the command, with `Overloaded` or
        `Unavailable` where the coordinator cannot. Cancel it when the requester has gone; `abandon()` it
        where the reply came but could not be delivered.
        """
        return self._submit(command, self.shard_of(command.tenant))

    def shard_of(self, tenant: str) -> int:
        """Return the shard in which a tenant lives; the same for as long as the store exists."""
        shards = self._shards
        return shard_of(tenant, shards) if shards > 1 else 0

    def has(self, tenant: str) -> bool:
        """Tell whether the tenant's shard is ours, as far as we know."""
        return self.shard_of(tenant) in self.runners

    async def stats(self) -> list[StatsReply]:
        """Count the tasks of all tenants in our shards, shard by shard."""
        return list(await asyncio.gather(*(self._submit(Stats(tenant="*"), n) for n in list(self.runners))))

    def _submit(self, command: Command, shard: int) -> Handle:
        handle = Handle(command, weigh(command), self._loop)
        runner = self.runners.get(shard)
        if runner is None:
            handle.settle(self._not_ours(shard))
        else:
            runner.submit(handle)
        return handle

    def _runner_of(self, tenant: str) -> Runner:
        """Return the runner of the tenant's shard. Raises `NotOwner`."""
        shard = self.shard_of(tenant)
        runner = self.runners.get(shard)
        if runner is None:
            raise self._not_ours(shard)
        return runner

    def _not_ours(self, shard: int) -> LineshaftError:
        if self.membership is None:
            return Unavailable(
                "the coordinator has closed; repeat the request with the same ids", retry_after=2
            )
        holder = self.membership.holder(shard)
        where = "nobody" if holder is None else holder.address or "a coordinator that others cannot reach"
        return NotOwner(f"shard {shard} is not here; it belongs to {where}")

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, tenant: str, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        """Return JSON values by (kind, seq of the task), in order; None where there is none.

        They never change, so they are read even where the shard has moved since its rows were.
        """
        shard = self.shard_of(tenant)
        runner = self.runners.get(shard)
        if runner is None:
            return await self._readers[shard].read(keys)
        cache = runner.cache
        missing = [key for key in keys if key not in cache]
        if not missing:
            return [cache.get(key) for key in keys]
        known = {key: cache.get(key) for key in keys if key in cache}
        known.update(zip(missing, await self._readers[shard].read(missing), strict=True))
        return [known[key] for key in keys]

    async def search(self, query: Query, *, min_position: int | None = None) -> Page:
        """Find tasks of the query's tenant; with `min_position` not before that position is durable."""
        shard, query = self._dated(query)
        return await self._read(query.tenant, min_position, lambda: self.store.search(shard, query))

    async def count(self, query: Query, *, min_position: int | None = None) -> int:
        """Count what `search` would find over all pages."""
        shard, query = self._dated(query)
        return await self._read(query.tenant, min_position, lambda: self.store.count(shard, query))

    async def log(
        self, tenant: str, after: int, *, limit: int = 1000, min_position: int | None = None
    ) -> Log:
        """Read commits above a position, with the tenant's changes only (perhaps none: its position
        still counts).
        """
        log = await self._read(
            tenant, min_position, lambda: self.store.log(self.shard_of(tenant), after, limit=limit)
        )
        return Log([_of_tenant(record, tenant) for record in log.records], log.earliest)

    async def wait_for_position(self, tenant: str, position: int) -> None:
        """Wait until a position that some reply has named is durable. Raises `Invalid` (field
        min_position).
        """
        runner = self._runner_of(tenant)
        if position <= runner.barrier.durable:
            return
        reached: int = await self.submit(BarrierCommand(tenant=tenant))
        if position > reached:
            raise Invalid(f"position {position} has not been reached", field="min_position")

    def changed(self, tenant: str, position: int) -> asyncio.Future[int]:
        """Return a durable position above the given one, as soon as a commit may have changed the
        tenant's tasks.

        It may come without a change of this tenant: read the log up to it and ask again. Cancel it when done.
        """
        runner = self._runner_of(tenant)
        if runner.state == "closed":  # and on its way to another: nobody would be told here
            raise self._not_ours(runner.shard_number)
        return runner.changes.after(tenant, position)

    async def committed(self, tenant: str, position: int, *, timeout: float) -> bool:
        """Wait up to `timeout` seconds until `changed` would say something; return whether it did."""
        change = self.changed(tenant, position)
        if change.done():
            return True
        timer = self.clock.call_later(timeout, lambda: _give_up(change))
        try:
            await asyncio.wait([change])
        finally:
            timer.cancel()
            change.cancel()
        return not change.cancelled()

    def position(self, tenant: str) -> int:
        """Return the position up to which everything of the tenant's shard is durable. Raises `NotOwner`."""
        return self._runner_of(tenant).barrier.durable

    def now(self, tenant: str) -> int:
        """Return the present by which the tenant's shard decides (ms), ours where it is not here."""
        runner = self.runners.get(self.shard_of(tenant))
        return self.clock.now() if runner is None or runner.time is None else runner.intake.now()

    def _dated(self, query: Query) -> tuple[int, Query]:
        if not query.now:
            query = msgspec.structs.replace(query, now=self.now(query.tenant))
        return self.shard_of(query.tenant), query

    async def _read(
        self, tenant: str, min_position: int | None, read: Callable[[], Awaitable[Result]]
    ) -> Result:
        if min_position is not None:
            await self.wait_for_position(tenant, min_position)
        try:
            return await read()
        except Exception as error:
            raise unreadable(error) from error

    # -- telling ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def directives(
        self, wanted: Callable[[Directive], bool], listener: Callable[[Directive], None]
    ) -> Iterator[None]:
        """Tell a listener, within the block, what is wanted of that which connected workers should hear
        at once.
        """
        entry = (wanted, listener)
        self._listeners.append(entry)
        try:
            yield
        finally:
            self._listeners.remove(entry)

    def tell(self, directives: Sequence[Directive]) -> None:
        """Tell listeners what another engine, or a shard of ours, wants of workers."""
        for directive in directives:
            for wanted, listener in list(self._listeners):
                try:
                    if wanted(directive):
                        listener(directive)
                except Exception:
                    _LOG.exception("a listener to directives failed")

    def health(self) -> Health:
        """Return how the engine is."""
        shards = [runner.health for runner in self.runners.values()]
        cluster = None if self.membership is None else cluster_health(self.membership)
        return Health(
            ready=self._open and all(shard.state == "serving" for shard in shards) and not _lacking(cluster),
            store=self.store.url,
            tier=self.store.tier,
            address=self.address,
            owner=next((runner.owner.hex() for runner in self.runners.values()), ""),
            shards=shards,
            cluster=cluster,
        )

    def trouble(self) -> str | None:
        """Say why commands are not served, or None where they are."""
        health = self.health()
        for shard in health.shards:
            if shard.state != "serving":
                return shard.reason or f"shard {shard.shard} is {shard.state}"
        if not self._open:
            return "the engine is not open"
        return _lacking(health.cluster)

    @property
    def _open(self) -> bool:
        return bool(self.runners) or self.membership is not None

    @property
    def pending_bytes(self) -> int:
        """Return how many bytes are accepted and not yet durable."""
        return sum(runner.intake.admission.bytes for runner in self.runners.values())

    def metrics(self) -> list[Metrics]:
        """Return the counters of each shard, with the gauges as of now."""
        for runner in self.runners.values():
            metrics, intake = runner.metrics, runner.intake
            metrics.pending_commands = intake.admission.commands
            metrics.pending_bytes = intake.admission.bytes
            metrics.parked = intake.parked
            metrics.durable = runner.barrier.durable
            metrics.position = runner.barrier.durable if intake.shard is None else intake.shard.position
        return [runner.metrics for runner in self.runners.values()]


def _lacking(cluster: ClusterHealth | None) -> str | None:
    """Say what keeps the coordinators from having every shard served."""
    if cluster is None:
        return None
    if cluster.trouble is not None:
        return cluster.trouble
    for shard, holder in enumerate(cluster.holders):
        if holder is None:
            return f"shard {shard} belongs to nobody"
    return None


def _give_up(change: asyncio.Future[int]) -> None:
    change.cancel()


def _of_tenant(record: LogRecord, tenant: str) -> LogRecord:
    return msgspec.structs.replace(record, changes=[c for c in record.changes if c.tenant == tenant])
