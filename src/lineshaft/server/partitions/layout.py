"""How many partitions each tenant has: rows of the system tenant, as API keys are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from lineshaft.core.batch import Record
from lineshaft.core.commands import Command, PutRecord, Records

_KIND = "tenant"


class StoredTenant(msgspec.Struct, frozen=True, array_like=True):
    """The row of a tenant."""

    tenant: str
    partitions: int


class Submits(Protocol):
    """The part of an engine that this needs."""

    def submit(self, command: Command) -> Awaitable[object]:
        """Apply a command and return its reply once it is durable."""


class Layout:
    """The tenants with partitions, by name. `load` before use, and again where others may have changed it."""

    def __init__(self, engine: Submits, *, system: str) -> None:
        """`system` is the tenant whose rows these are."""
        self._engine = engine
        self._system = system
        self.partitions: dict[str, int] = {}
        """Of each tenant for which it was ever said."""
        self.on_change: Callable[[], None] = lambda: None
        """Told when `partitions` may be others than before."""
        self.on_put: Callable[[], Awaitable[None]] | None = None
        """Awaited when something was put, before that is answered."""

    def of(self, tenant: str) -> int:
        """Return how many partitions a tenant has; 1 where nobody said otherwise."""
        return self.partitions.get(tenant, 1)

    async def load(self) -> None:
        """Read from the store."""
        rows = await self._engine.submit(Records(tenant=self._system, kind=_KIND))
        assert isinstance(rows, list)
        stored = [
            msgspec.msgpack.decode(row.data, type=StoredTenant)
            for row in rows
            if isinstance(row, Record) and row.data is not None
        ]
        self.replace({tenant.tenant: tenant.partitions for tenant in stored})

    def replace(self, partitions: dict[str, int]) -> None:
        """Know these and no others."""
        self.partitions = partitions
        self.on_change()

    async def put(self, tenant: str, partitions: int) -> None:
        """Say how many partitions a tenant has."""
        data = msgspec.msgpack.encode(StoredTenant(tenant, partitions))
        await self._engine.submit(PutRecord(tenant=self._system, kind=_KIND, key=tenant, data=data))
        self.partitions[tenant] = partitions
        self.on_change()
        if self.on_put is not None:
            await self.on_put()
