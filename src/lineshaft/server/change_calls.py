"""The change feed, and verbs for many tasks."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from lineshaft.core import commands
from lineshaft.core.batch import Change
from lineshaft.errors import CursorExpired, Invalid
from lineshaft.server import fields, views
from lineshaft.server.calling import Calling
from lineshaft.server.identity import Identity
from lineshaft.store.base import LogRecord, Query
from lineshaft.wire import Changes, ChangesQuery, Sweep, SweepQuery, Swept, TaskChange

_CURSOR = re.compile("([0-9]{1,18})(?:-([0-9]{1,9}))?")
_PAGE = 1_000
_DEFAULT_LIMIT = 1_000

Verb = Literal["cancel", "retry", "promote", "delete"]


class Expired(CursorExpired):
    """`earliest` is the first cursor from which the log can still be followed."""

    def __init__(self, reason: str, earliest: str) -> None:
        super().__init__(reason, field="after")
        self.earliest = earliest


class Followed(msgspec.Struct, frozen=True):
    """Changes, each with the cursor right after it, and the cursor to go on from."""

    changes: list[tuple[TaskChange, str]]
    next: str


class ChangeCalls(Calling):
    """Wire structs in, wire structs out; errors are `LineshaftError`s that name the field."""

    # -- the change feed ---------------------------------------------------------------------------

    async def changes(self, identity: Identity, query: ChangesQuery) -> Changes:
        """Return what changed after the cursor, waiting for the first if there is nothing yet."""
        limit = _DEFAULT_LIMIT if query.limit is None else query.limit
        followed = await self.follow(identity, query.after, limit=limit, wait=fields.wait(query.wait))
        return Changes(changes=[change for change, _ in followed.changes], next=followed.next)

    async def follow(self, identity: Identity, after: str | None, *, limit: int, wait: int) -> Followed:
        """Return at most `limit` changes after a cursor (without one: none), waiting up to `wait` ms."""
        if after is None:
            return Followed([], str(await self.reach(identity)))
        position, index = _parsed(after)
        until = self.engine.clock.monotonic() + wait / 1000
        while True:
            reached = await self.reach(identity)
            if position > reached:
                raise Invalid("this cursor is not one of this store", field="after")
            followed = await self._read(identity, position, index, limit=limit)
            if followed.changes:
                return followed
            position, index = _parsed(followed.next)
            left = until - self.engine.clock.monotonic()
            if left <= 0 or not await self.engine.committed(identity.tenant, position, timeout=left):
                return followed

    async def _read(self, identity: Identity, position: int, index: int, *, limit: int) -> Followed:
        """Read on from `position`, where `index` changes of the commit after it were told already."""
        log = await self.engine.log(identity.tenant, position, limit=_PAGE)
        if log.earliest > position + 1:
            raise Expired(
                f"the log begins at {log.earliest - 1}: read the state anew and go on from there",
                str(log.earliest - 1),
            )
        told: list[tuple[TaskChange, str]] = []
        after = str(position) if not index else f"{position}-{index}"
        for record in log.records:
            for number, change, last in _numbered(record, identity.tenant):
                if record.position == position + 1 and number <= index:
                    continue
                if len(told) == limit:
                    return Followed(told, after)
                after = str(record.position) if last else f"{record.position - 1}-{number}"
                told.append((views.change(change), after))
            after = str(record.position)
        return Followed(told, after)

    # -- verbs for many tasks ----------------------------------------------------------------------

    async def cancel_many(self, identity: Identity, query: SweepQuery | None, body: Sweep) -> Swept:
        """Cancel all tasks that match."""
        return await self._sweep(identity, "cancel", query, body)

    async def retry_many(self, identity: Identity, query: SweepQuery | None, body: Sweep) -> Swept:
        """Run all finished tasks that match again."""
        return await self._sweep(identity, "retry", query, body)

    async def promote_many(self, identity: Identity, query: SweepQuery | None, body: Sweep) -> Swept:
        """Run all scheduled tasks that match now."""
        return await self._sweep(identity, "promote", query, body)

    async def delete_many(self, identity: Identity, query: SweepQuery | None, body: Sweep) -> Swept:
        """Forget all finished tasks that match."""
        return await self._sweep(identity, "delete", query, body)

    async def _sweep(self, identity: Identity, verb: Verb, query: SweepQuery | None, body: Sweep) -> Swept:
        query = query or SweepQuery()
        chosen = fields.task_filter(fields.sweep_filter(query, body))
        if chosen == commands.Filter():
            raise Invalid("a bulk call needs a filter: queue, state, name, tag or q", field="filter")
        dry_run = bool(fields.once("dry_run", query.dry_run, body.dry_run))
        reason = fields.text(body.reason, "reason")
        stats = await self.engine.submit(commands.Stats(tenant=identity.tenant))
        page_query = Query(
            tenant=identity.tenant,
            filter=chosen,
            sort="created_at",
            limit=_PAGE,
            now=self.engine.now(identity.tenant),
            # What is enqueued after the call is never touched.
            max_seq=stats.counters.seq - 1,
        )
        matched = changed = 0
        position = stats.position
        while True:
            page = await self.engine.search(page_query)
            keys = tuple((row.id, row.seq) for row in page.tasks)
            swept = await self.engine.submit(
                commands.Sweep(
                    tenant=identity.tenant,
                    verb=verb,
                    keys=keys,
                    filter=chosen,
                    reason=reason,
                    dry_run=dry_run,
                )
            )
            matched += swept.matched
            changed += 0 if dry_run else swept.changed
            position = swept.position
            if page.next is None:
                return Swept(matched=matched, changed=changed, position=position)
            page_query = msgspec.structs.replace(page_query, after=page.next)


def _parsed(cursor: str) -> tuple[int, int]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise Invalid("this is no cursor of the change feed", field="after")
    return int(found[1]), int(found[2] or 0)


def _numbered(record: LogRecord, tenant: str) -> list[tuple[int, Change, bool]]:
    """Number the changes of one tenant in a commit from 1; the last is marked."""
    own = [change for change in record.changes if change.tenant == tenant]
    return [(number, change, number == len(own)) for number, change in enumerate(own, 1)]
