"""Takes what users' own transactions have enqueued: at once, by the ordinary way, each task once.

Nothing is polled: the inbox is read when the shard is taken over, and whenever the store says that there may
be something in it. What cannot be taken now stays there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lineshaft.core.commands import Enqueue
from lineshaft.core.replies import EnqueuedTask
from lineshaft.engine.admission import weigh
from lineshaft.engine.handle import Handle
from lineshaft.errors import Fenced, LineshaftError, NotOwner, Retryable
from lineshaft.store.base import Inbox, InboxItem, Ownership

if TYPE_CHECKING:
    from lineshaft.engine.runner import Runner

_LOG = logging.getLogger("lineshaft.engine")

AT_ONCE = 500
"""Items read and enqueued together."""


class InboxDrain:
    """Drains the inbox of one shard, where the store has one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        store = runner.store
        self._inbox: Inbox | None = store if isinstance(store, Inbox) else None
        self._unwatch: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._refused: set[int] = set()

    def start(self) -> None:
        """The shard was taken over: look into the inbox, now and whenever the store says so."""
        if self._inbox is None:
            return
        if self._unwatch is None:
            self._unwatch = self._inbox.watch_inbox(self._runner.shard_number, self.wake)
        self.wake()

    def wake(self) -> None:
        """Look into the inbox."""
        self._again = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def stop(self) -> None:
        """Look no more."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        runner, attempt = self._runner, 0
        try:
            while self._again and runner.state == "serving" and runner.ownership is not None:
                self._again = False
                try:
                    await self._take_some(runner.ownership)
                    attempt = 0
                except Fenced:
                    return  # whoever takes the shard over looks into the inbox
                except Exception as error:
                    if not attempt:
                        _LOG.warning("shard %d cannot take from its inbox: %s", runner.shard_number, error)
                    self._again = True
                    await runner.clock.sleep(runner.backoff(attempt))
                    attempt += 1
        finally:
            self._task = None

    async def _take_some(self, ownership: Ownership) -> None:
        assert self._inbox is not None
        limit = AT_ONCE + len(self._refused)
        items = await self._inbox.read_inbox(ownership, limit=limit)
        if len(items) == limit:
            self._again = True
        items = [item for item in items if item.number not in self._refused]
        by_tenant: dict[str, list[InboxItem]] = {}
        for item in items:
            by_tenant.setdefault(item.tenant, []).append(item)
        parts, known, trouble = list(by_tenant.values()), list[int](), list[BaseException]()
        while parts:
            handles = [self._enqueue(part) for part in parts]
            answers = await asyncio.gather(*handles, return_exceptions=True)
            again: list[list[InboxItem]] = []
            for part, answer in zip(parts, answers, strict=True):
                if not isinstance(answer, BaseException):
                    known += self._sort_out(part, answer.items)
                elif isinstance(answer, NotOwner | Retryable) or not isinstance(answer, LineshaftError):
                    trouble.append(answer)
                elif len(part) > 1:
                    again += [[item] for item in part]  # one of them spoils it for all
                else:
                    self._refuse(part[0], answer)
            parts = again
        if known:
            await self._inbox.clear_inbox(ownership, known)
        if trouble:
            raise trouble[0]

    def _enqueue(self, items: list[InboxItem]) -> Handle:
        command = Enqueue(tenant=items[0].tenant, tasks=tuple(item.task for item in items), accepted=True)
        handle = Handle(command, weigh(command), asyncio.get_running_loop())
        self._runner.submit(handle)
        return handle

    def _sort_out(self, items: list[InboxItem], answers: list[Any]) -> list[int]:
        """Return the items whose tasks there were before; the commit has deleted those of new ones."""
        known = []
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, EnqueuedTask):
                if not answer.created:
                    known.append(item.number)
            else:
                self._refuse(item, answer)
        return known

    def _refuse(self, item: InboxItem, error: BaseException) -> None:
        """Leave in the inbox what will not be taken as it is."""
        self._refused.add(item.number)
        _LOG.error(
            "task %s of tenant %s stays in the inbox, it cannot be taken: %s",
            item.task.id,
            item.tenant,
            error,
        )
