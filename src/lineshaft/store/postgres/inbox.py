"""What users' own transactions have enqueued: read for the shard, and heard of the moment it is committed.

One connection of the store listens, while anybody watches; it costs nothing where nothing happens. A pooler
in transaction mode passes no notifications on: there the URL names where to listen (`listen=postgresql://…`),
or the store looks once a second, and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import psycopg

from lineshaft.core.batch import Batch
from lineshaft.core.commands import NewTask
from lineshaft.core.task import DEFAULT_LEASE, DEFAULT_RETENTION, Affinity, Spec
from lineshaft.store.base import InboxItem, Ownership
from lineshaft.store.postgres.arrays import integers
from lineshaft.store.postgres.connections import Connection, Connections, connect
from lineshaft.store.postgres.schema import channel

LOOK_EVERY = 1.0
"""Seconds between looks into the inbox where no notification can be heard."""

_RETRY = 1.0
"""Seconds after which a lost connection is made again."""

_LOG = logging.getLogger("lineshaft.store")

_COLUMNS = (
    "id, tenant, task_id, name, queue, priority, max_retries, run_at, expires_at, lease, timeout, retention,"
    " result_ttl, tags, capability, metadata, traceparent, payload"
)


class Inboxes:
    """The inboxes of all shards."""

    def __init__(self, schema: str, connections: Connections) -> None:
        self._schema = schema
        self._connections = connections
        self._handed_out: dict[int, dict[tuple[str, str], int]] = {}

    async def read(self, ownership: Ownership, limit: int) -> list[InboxItem]:
        """Read what is there for the shard, the oldest first."""
        shard = ownership.shard
        rows = await self._connections.run(
            f"SELECT {_COLUMNS} FROM {self._schema}.inbox WHERE shard = $1 ORDER BY id LIMIT $2",
            (shard, limit),
        )
        items = [_item(*row) for row in rows]
        self._handed_out[shard] = {(item.tenant, item.task.id): item.number for item in reversed(items)}
        return items

    def taken(self, shard: int, batch: Batch) -> list[int]:
        """Return the items that a batch makes tasks of."""
        handed_out = self._handed_out.get(shard)
        if not handed_out:
            return []
        keys = ((task.tenant, task.id) for task in batch.tasks)
        return [handed_out[key] for key in keys if key in handed_out]

    def settled(self, shard: int, numbers: Sequence[int]) -> None:
        """Items are not in the inbox any more."""
        handed_out, gone = self._handed_out.get(shard), set(numbers)
        if handed_out and gone:
            self._handed_out[shard] = {
                key: number for key, number in handed_out.items() if number not in gone
            }

    async def clear(self, shard: int, numbers: Sequence[int]) -> None:
        """Delete items."""
        await self._connections.run(
            f"DELETE FROM {self._schema}.inbox WHERE id = ANY ($1)", (integers(list(numbers)),)
        )
        self.settled(shard, numbers)


class Listener:
    """Hears that there is something in an inbox, and tells whoever watches it."""

    def __init__(self, url: str, conninfo: str, schema: str, *, direct: bool) -> None:
        """`direct` where the caller has seen to it that no pooler stands between."""
        self._url = url
        self._conninfo = conninfo
        self._schema = schema
        self._channel = channel(schema)
        self._direct = direct
        self._watchers: dict[int, list[Callable[[], None]]] = {}
        self.notice: str | None = None
        """What people should know of how it hears."""
        self._task: asyncio.Task[None] | None = None

    def watch(self, shard: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever there may be something for the shard; return what ends that."""
        self._watchers.setdefault(shard, []).append(wake)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._listen())

        def unwatch() -> None:
            if wake in self._watchers.get(shard, ()):
                self._watchers[shard].remove(wake)

        return unwatch

    async def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _listen(self) -> None:
        while True:
            try:
                connection = await connect(self._conninfo)
                try:
                    await self._hear(connection)
                finally:
                    await connection.close()
            except psycopg.Error as error:
                if self.notice is None:  # once for each time that it is lost
                    _LOG.warning("%s: notifications are not heard, it is tried again: %s", self._url, error)
                self.notice = f"notifications are not heard, it is tried again: {error}"
            await asyncio.sleep(_RETRY)

    async def _hear(self, connection: Connection) -> None:
        if not self._direct and await _is_pooled(connection):
            self.notice = (
                "the server is reached through a pooler, which passes no notifications on: what transactions "
                f"enqueue is looked for every {LOOK_EVERY:g} s; name the server itself as "
                "listen=postgresql://… in the URL to have it at once"
            )
            _LOG.warning("%s: %s", self._url, self.notice)
            while True:
                await asyncio.sleep(LOOK_EVERY)
                cursor = await connection.execute(f"SELECT DISTINCT shard FROM {self._schema}.inbox")
                for (shard,) in await cursor.fetchall():
                    self._wake(shard)
        await connection.execute(f'LISTEN "{self._channel}"')
        self.notice = None
        self._wake_all()  # what came before that was not heard
        async for notification in connection.notifies():
            if notification.payload.isdigit():
                self._wake(int(notification.payload))

    def _wake_all(self) -> None:
        for shard in list(self._watchers):
            self._wake(shard)

    def _wake(self, shard: int) -> None:
        for wake in list(self._watchers.get(shard, ())):
            wake()


async def _is_pooled(connection: Connection) -> bool:
    """Tell whether the server's process is another than the one that answered when we connected."""
    cursor = await connection.execute("SELECT pg_backend_pid()")
    row = await cursor.fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def _item(
    number: int,
    tenant: str,
    task_id: str,
    name: str,
    queue: str,
    priority: int,
    max_retries: int,
    run_at: int | None,
    expires_at: int | None,
    lease: int | None,
    timeout: int | None,
    retention: int | None,
    result_ttl: int | None,
    tags: list[str],
    capability: list[str],
    metadata: bytes | None,
    traceparent: str | None,
    payload: bytes,
) -> InboxItem:
    spec = Spec(
        name=name,
        queue=queue,
        priority=priority,
        max_retries=max_retries,
        lease=DEFAULT_LEASE if lease is None else lease,
        timeout=timeout,
        affinity=Affinity(capability=tuple(sorted(set(capability)))),
        retention=DEFAULT_RETENTION if retention is None else retention,
        result_ttl=result_ttl,
    )
    task = NewTask(
        id=task_id,
        spec=spec,
        payload=bytes(payload),
        run_at=run_at,
        expires_at=expires_at,
        tags=tuple(dict.fromkeys(tags)),
        metadata=None if metadata is None else bytes(metadata),
        traceparent=traceparent,
        given=True,
    )
    return InboxItem(number, tenant, task)
