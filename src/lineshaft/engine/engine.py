"""The engine: a store, its shards by tenant, and what is read beside them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import zlib
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
from lineshaft.engine.blob_cache import BlobReader
from lineshaft.engine.clock import Clock, SystemClock
from lineshaft.engine.handle import Handle
from lineshaft.engine.health import Health
from lineshaft.engine.limits import Limits
from lineshaft.engine.metrics import Metrics
from lineshaft.engine.runner import Runner
from lineshaft.errors import Invalid
from lineshaft.store.base import Log, LogRecord, Page, Query, Store

Result = TypeVar("Result")

_LOG = logging.getLogger("lineshaft.engine")


class Engine:
    """Runs the shards of a store in the running event loop; use it as `async with Engine(store) as engine`.

    Entering opens the store, takes over and loads every shard, and raises what the store raises where
    that fails (`StoreInUse`, `SchemaTooNew`, `StoreCorrupt`, `StoreUnusable`). Leaving answers everybody
    and closes the store.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        address: str = "",
        nonces: Callable[[], bytes] | None = None,
        tune_gc: bool = False,
    ) -> None:
        """`address` is told to whoever is refused the store; `nonces` gives 16 random bytes at each call;
        `tune_gc` keeps what was loaded from the cyclic collector (for a process that does nothing else)."""
        self.store = store
        self.clock: Clock = SystemClock() if clock is None else clock
        self.limits = Limits() if limits is None else limits
        self.address = address
        self._nonces = nonces or (lambda: secrets.token_bytes(16))
        self._tune_gc = tune_gc
        self._owner = b""
        self._loop: asyncio.AbstractEventLoop
        self.runners: list[Runner] = []
        """The lives of the shards, by number; for those who watch them, such as the tests."""
        self._readers: list[BlobReader] = []
        self._listeners: list[tuple[Callable[[Directive], bool], Callable[[Directive], None]]] = []

    async def __aenter__(self) -> Engine:
        self._loop = asyncio.get_running_loop()
        await self.store.open(address=self.address)
        self._owner = self._nonces()
        try:
            for shard in range(self.store.shards):
                runner = self._runner(shard)
                await runner.start()
                self.runners.append(runner)
                self._readers.append(BlobReader(self.store, shard))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse what comes, flush, answer parked requests, give the shards back, close the store;
        idempotent.
        """
        await asyncio.gather(*(runner.stop() for runner in self.runners if runner.state != "closed"))
        await asyncio.gather(*(reader.stop() for reader in self._readers))
        await self.store.close()

    def _runner(self, shard: int) -> Runner:
        return Runner(
            self.store,
            shard,
            clock=self.clock,
            limits=self.limits,
            nonces=self._nonces,
            owner=self._owner,
            tell=self._tell,
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
        shards = len(self.runners)
        return zlib.crc32(tenant.encode()) % shards if shards > 1 else 0

    async def stats(self) -> list[StatsReply]:
        """Count the tasks of all tenants, shard by shard."""
        return list(
            await asyncio.gather(*(self._submit(Stats(tenant="*"), n) for n in range(len(self.runners))))
        )

    def _submit(self, command: Command, shard: int) -> Handle:
        handle = Handle(command, weigh(command), self._loop)
        self.runners[shard].submit(handle)
        return handle

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, tenant: str, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        """Return JSON values by (kind, seq of the task), in order; None where there is none."""
        shard = self.shard_of(tenant)
        cache = self.runners[shard].cache
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
        runner = self.runners[self.shard_of(tenant)]
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
        return self.runners[self.shard_of(tenant)].changes.after(tenant, position)

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
        """Return the position up to which everything of the tenant's shard is durable."""
        return self.runners[self.shard_of(tenant)].barrier.durable

    def now(self, tenant: str) -> int:
        """Return the present by which the tenant's shard decides (ms)."""
        return self.runners[self.shard_of(tenant)].intake.now()

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

    def _tell(self, directives: list[Directive]) -> None:
        for directive in directives:
            for wanted, listener in list(self._listeners):
                try:
                    if wanted(directive):
                        listener(directive)
                except Exception:
                    _LOG.exception("a listener to directives failed")

    def health(self) -> Health:
        """Return how the engine is."""
        shards = [runner.health for runner in self.runners]
        return Health(
            ready=bool(shards) and all(shard.state == "serving" for shard in shards),
            store=self.store.url,
            tier=self.store.tier,
            address=self.address,
            owner=self._owner.hex(),
            shards=shards,
        )

    def trouble(self) -> str | None:
        """Say why commands are not served, or None where they are."""
        for shard in self.health().shards:
            if shard.state != "serving":
                return shard.reason or f"shard {shard.shard} is {shard.state}"
        return None if self.runners else "the engine is not open"

    @property
    def pending_bytes(self) -> int:
        """Return how many bytes are accepted and not yet durable."""
        return sum(runner.intake.admission.bytes for runner in self.runners)

    def metrics(self) -> list[Metrics]:
        """Return the counters of each shard, with the gauges as of now."""
        for runner in self.runners:
            metrics, intake = runner.metrics, runner.intake
            metrics.pending_commands = intake.admission.commands
            metrics.pending_bytes = intake.admission.bytes
            metrics.parked = intake.parked
            metrics.durable = runner.barrier.durable
            metrics.position = runner.barrier.durable if intake.shard is None else intake.shard.position
        return [runner.metrics for runner in self.runners]


def _give_up(change: asyncio.Future[int]) -> None:
    change.cancel()


def _of_tenant(record: LogRecord, tenant: str) -> LogRecord:
    return msgspec.structs.replace(record, changes=[c for c in record.changes if c.tenant == tenant])
