"""What all calls stand on: the engine, the clock, ids and limits."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lineshaft.core import commands, replies
from lineshaft.core.task import Task as Row
from lineshaft.engine.engine import Engine
from lineshaft.errors import Invalid, LineshaftError
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.values.ids import TimeOrderedIds

if TYPE_CHECKING:
    from lineshaft.server.partitions.partitioned import Partitioned
    from lineshaft.server.partitions.parts import Elsewhere


class Calling:
    """Base of the calls. `address` is told as the owner's; `responses` counts HTTP answers by status."""

    def __init__(
        self,
        engine: Engine,
        key_ring: KeyRing,
        *,
        max_payload: int = 1 << 20,
        address: str | None = None,
        responses: Mapping[int, int] | None = None,
    ) -> None:
        self.engine = engine
        self.key_ring = key_ring
        self.max_payload = max_payload
        self.address = address
        self.responses: Mapping[int, int] = {} if responses is None else responses
        self.forwarded: Mapping[str, int] = {}
        """Requests that went to other coordinators, by how they ended."""
        self.partitioned: dict[str, Partitioned] = {}
        """Tenants whose calls are split over partitions, by name; see `server.partitions`."""
        self.elsewhere: Elsewhere | None = None
        """The way to shards that other coordinators have; None where all are here."""
        self.started_at = self.now()
        key_ring.layout.on_change = self.arrange_tenants
        self.arrange_tenants()
        # Seeded once: to ask the kernel in every millisecond costs a tenth of an enqueue.
        self._ids = TimeOrderedIds(random.Random(secrets.randbits(256)).getrandbits)

    def arrange_tenants(self) -> None:
        """Split the calls of tenants as the key ring's layout says now."""

    def now(self) -> int:
        """Return the wall clock's time (ms since the epoch)."""
        return self.engine.clock.now()

    def new_id(self) -> str:
        """Return a new time-ordered task id."""
        return self._ids.next(self.now())

    def until(self, identity: Identity, wait: int) -> int | None:
        """Return the instant until which to wait (ms), None where there is no wait."""
        return self.engine.now(identity.tenant) + wait if wait else None

    def is_past(self, row: Row) -> bool:
        """Tell whether the task's result is past its time."""
        expires_at = None if row.run is None else row.run.result_expires_at
        return expires_at is not None and expires_at <= self.engine.now(row.tenant)

    async def operate(self, identity: Identity, op: commands.Op) -> replies.OpReply:
        """Apply one operation on a lease. Raises `NotFound`, `LeaseLost`."""
        reply = await self.engine.submit(commands.Report(tenant=identity.tenant, items=(op,)))
        [item] = reply.items
        if isinstance(item, LineshaftError):
            raise item
        assert isinstance(item, replies.OpReply)
        return item

    async def reach(self, identity: Identity, position: int = 0) -> int:
        """Wait until everything acknowledged so far is durable; return its position.

        Raises `Invalid` for a position that was never acknowledged.
        """
        reached: int = await self.engine.submit(commands.Barrier(tenant=identity.tenant))
        if position > reached:
            raise Invalid(f"position {position} has not been reached", field="min_position")
        return reached
