"""Payloads and results: those written lately from memory, the others from the store, many in one read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from lineshaft.core.batch import Batch, Blob
from lineshaft.engine.answers import not_durable, unreadable
from lineshaft.store.base import Store

Key = tuple[Blob, int]
Request = tuple[Sequence[Key], "asyncio.Future[list[bytes | None]]"]

_KEYS_AT_ONCE = 2_000
_OVERHEAD = 200
"""Bytes that an entry costs beside its JSON."""
_HOLES = 1_000


class CacheRoom:
    """The bytes that the caches of all shards share; what came first goes first, whosever it is.

    A shard that is busy has all the room while the others are idle.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self.count = 0
        """Entries over all caches."""
        self._order: deque[tuple[BlobCache, Key]] = deque()
        """Entries as they came, some of which may be gone. The first key of a dict from whose front much was
        deleted would be found only behind all the holes."""

    def took(self, cache: BlobCache, key: Key) -> None:
        """Note that a cache has an entry more; its bytes are counted already."""
        self.count += 1
        self._order.append((cache, key))

    def keep_bounds(self) -> None:
        """Drop what is too much."""
        while self.bytes > self.most_bytes:
            cache, key = self._order.popleft()
            cache.drop(key)
        if len(self._order) > 2 * self.count + _HOLES:
            self._order = deque(dict.fromkeys((cache, key) for cache, key in self._order if key in cache))


class BlobCache:
    """The blobs of one shard that were committed lately.

    Only commits fill it: what was read could be older than a commit that landed meanwhile.
    """

    def __init__(self, room: CacheRoom) -> None:
        self._room = room
        self._data: dict[Key, bytes] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._data

    def get(self, key: Key) -> bytes | None:
        return self._data.get(key)

    def add(self, batch: Batch) -> None:
        """Take over what a batch, now durable, has written."""
        for gone in batch.forgotten:
            for kind in Blob:
                self.drop((kind, gone.seq))
        known, room, largest = self._data, self._room, self._room.most_bytes // 8
        for kind, seq, data in batch.blobs:
            key = (kind, seq)
            if key in known:
                self.drop(key)
            if data is not None and len(data) <= largest:
                known[key] = data
                room.bytes += len(data) + _OVERHEAD
                room.took(self, key)
        room.keep_bounds()

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._data):
            self.drop(key)

    def drop(self, key: Key) -> None:
        """Forget an entry, if it is there."""
        data = self._data.pop(key, None)
        if data is not None:
            self._room.bytes -= len(data) + _OVERHEAD
            self._room.count -= 1


class BlobReader:
    """Reads from the store; what is asked for while one read is under way becomes the next."""

    def __init__(self, store: Store, shard: int) -> None:
        self._store = store
        self._shard = shard
        self._waiting: list[Request] = []
        self._task: asyncio.Task[None] | None = None

    def read(self, keys: Sequence[Key]) -> asyncio.Future[list[bytes | None]]:
        """Return the blobs in order of the keys, to come; fails with `Unavailable`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[bytes | None]] = loop.create_future()
        self._waiting.append((keys, future))
        if self._task is None:
            self._task = loop.create_task(self._run(), name=f"lineshaft-blobs-{self._shard}")
        return future

    async def stop(self) -> None:
        """Read no more, and let nobody wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(not_durable("the coordinator has closed"))

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._read_some(self._take())
        finally:
            self._task = None

    def _take(self) -> list[Request]:
        taken: list[Request] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0][0]) <= _KEYS_AT_ONCE):
            taken.append(self._waiting.pop(0))
            size += len(taken[-1][0])
        return taken

    async def _read_some(self, requests: list[Request]) -> None:
        keys = list(dict.fromkeys(key for asked, _ in requests for key in asked))
        try:
            found = dict(zip(keys, await self._store.read(self._shard, keys), strict=True))
        except (Exception, asyncio.CancelledError) as error:
            for _, future in requests:
                if not future.done():
                    future.set_exception(unreadable(error))
            if not isinstance(error, Exception):
                raise
            return
        for asked, future in requests:
            if not future.done():
                future.set_result([found[key] for key in asked])
