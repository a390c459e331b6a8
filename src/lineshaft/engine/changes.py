"""Who waits for something to change; woken by commits, so nothing polls."""

from __future__ import annotations

import asyncio

from lineshaft.core.batch import Batch


class Changes:
    """The waiters of one shard, by tenant."""

    def __init__(self) -> None:
        self._last = 0
        """The last position that may have changed something, for any tenant."""
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}

    def loaded(self, position: int) -> None:
        """Another owner may have changed anything up to what was loaded."""
        if position > self._last:
            self._last = position
            self.wake_all(position)

    def after(self, tenant: str, position: int) -> asyncio.Future[int]:
        """Return a position above `position` that may have changed tasks of the tenant, to come."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._last > position:
            future.set_result(self._last)
            return future
        waiting = self._waiting.setdefault(tenant, [])
        waiting[:] = [waiter for waiter in waiting if not waiter.done()]
        waiting.append(future)
        return future

    def tell(self, batch: Batch) -> None:
        """Wake those whose tasks a durable batch has changed."""
        if not batch.changes:
            return
        self._last = batch.position
        if self._waiting:
            for tenant in dict.fromkeys(change.tenant for change in batch.changes):
                self._wake(tenant, batch.position)

    def wake_all(self, position: int) -> None:
        """Wake everybody: the engine closes."""
        for tenant in list(self._waiting):
            self._wake(tenant, position)

    def _wake(self, tenant: str, position: int) -> None:
        for waiter in self._waiting.pop(tenant, ()):
            if not waiter.done():
                waiter.set_result(position)
