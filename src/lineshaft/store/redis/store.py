"""The store on Redis or Valkey; see `functions.lua` for what lies where.

Every commit is one function call: whether the shard is the caller's and the batch the next is checked, and
all rows are written, before the server looks at anybody else. A shard's keys share one hash tag, so that a
cluster keeps them on one node.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lineshaft.core.batch import Batch, Blob, Census, Snapshot
from lineshaft.core.task import State, Task
from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.access import require_same_process, require_shard
from lineshaft.store.base import (
    Log,
    Ownership,
    Page,
    Query,
    Roster,
    SchemaTooNew,
    StoreUnusable,
)
from lineshaft.store.redis.batches import message
from lineshaft.store.redis.checks import check
from lineshaft.store.redis.client import connect
from lineshaft.store.redis.confirmed import Confirmed
from lineshaft.store.redis.errors import translated
from lineshaft.store.redis.fullness import Fullness
from lineshaft.store.redis.functions import SCANS, Functions
from lineshaft.store.redis.history import History
from lineshaft.store.redis.options import DEFAULT_SHARDS, Options
from lineshaft.store.redis.reading import Reader
from lineshaft.store.redis.rows import Specs

FORMAT = 1
_NOT_OWNED, _NOT_NEXT = 1, 2
_DELETED_AT_ONCE = 200


class RedisStore:
    """Keep everything under `prefix` on the servers that the options name."""

    exclusive = False
    largest_commit: int | None = None

    def __init__(self, options: Options) -> None:
        self.url = options.url
        self.tier = "none"
        self.shards = options.shards or DEFAULT_SHARDS
        self.history = History()
        self._options = options
        self._notices: tuple[str, ...] = ()
        self._client = connect(options)
        self._functions = Functions(self._client)
        self._specs = Specs()
        self._pid: int | None = None
        self._committing: dict[int, asyncio.Lock] = {}
        self._fullness: dict[int, Fullness] = {}
        self._confirmed: dict[int, Confirmed] = {}

    async def open(self, *, address: str) -> None:
        if self._pid is not None:
            return
        with translated(self.url, opening=True):
            try:
                findings = await check(self._client, self._options)
                self.tier, self._notices = findings.tier, findings.notices
                self._functions.scans = asyncio.Semaphore(SCANS)  # of this event loop
                await self._functions.install()
                await self._agree()
            except BaseException:
                await self._client.close()
                raise
        self._pid = os.getpid()

    async def inspect(self) -> str:
        """Look at the servers without opening or changing anything; return the tier."""
        with translated(self.url, opening=True):
            try:
                findings = await check(self._client, self._options)
            finally:
                if self._pid is None:
                    await self._client.close()
        self._notices = findings.notices
        return findings.tier

    async def close(self) -> None:
        mine, self._pid = self._pid == os.getpid(), None
        self._committing.clear()
        if mine:
            await self._client.close()

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        known = self.history.of(shard)
        counters = known.counters
        facts = (_now(), known.epoch, known.position, counters.seq, counters.fence)
        answer = await self._call("acquire", shard, owner, *(str(fact) for fact in facts))
        epoch, end, _, is_other, cuts = answer
        known.epoch = int(epoch)
        if self.history.look_at(shard, cuts) is None and is_other:
            self.history.suspect(shard, int(end), tier=self.tier)
        return Ownership(shard, int(epoch), owner)

    async def renew(self, ownership: Ownership) -> None:
        known = self.history.of(ownership.shard)
        code, epoch, position, cuts = await self._owned("look", ownership)
        lost = self.history.look_at(ownership.shard, cuts)
        if code == _NOT_OWNED:
            raise Fenced(lost or _other(ownership, epoch))
        if known.epoch == ownership.epoch and int(position) < known.position:
            raise Fenced(f"shard {ownership.shard} is at position {int(position)}, before {known.position}")

    async def release(self, ownership: Ownership) -> None:
        await self._owned("release", ownership)

    async def load(self, ownership: Ownership) -> Snapshot:
        shard = ownership.shard
        survey = await self._owned("survey", ownership)
        if survey[0] == _NOT_OWNED:
            raise Fenced(_other(ownership, survey[1]))
        with translated(self.url):
            snapshot = await self._reader(shard).load(survey)
        await self.renew(ownership)
        self._confirmed_by(ownership).digests.update(survey[4][::2])
        self.history.of(shard).reached(snapshot.position, snapshot.counters)
        return snapshot

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        shard, wait = ownership.shard, self._options.wait
        key = self._meta(shard)
        async with self._lock(shard):
            confirmed = self._confirmed_by(ownership)
            fullness = self._fullness.setdefault(shard, Fullness())
            values, new, used = message(
                ownership, batch, self._specs, confirmed=confirmed.digests, measure=fullness.is_due()
            )
            confirmed.sending(used)
            with translated(self.url):
                if wait:
                    # What is left of the time that an answer may take.
                    then = ("WAIT", wait, int(self._options.timeout * 800))
                    answer, followers = await self._functions.call("commit", key, *values, then=then)
                else:
                    answer, followers = await self._functions.call("commit", key, *values), 0
            if answer[0] in (_NOT_OWNED, _NOT_NEXT):
                await self._fenced(ownership, batch, answer)
            fullness.learn(answer[1:])
            if followers < wait:
                raise Unavailable(
                    f"only {followers} of {wait} replicas have the commit in time: look at the replicas, or"
                    " ask for fewer by wait= in the store's URL",
                    retry_after=1,
                )
            confirmed.committed(new)
            self.history.of(shard).reached(batch.position, batch.counters)

    async def continue_from(self, ownership: Ownership, position: int) -> None:
        """See `base.Continues`."""
        await self.renew(ownership)
        key, log = self._meta(ownership.shard), f"{self._tag(ownership.shard)}l"
        with translated(self.url):
            await self._client.call(key, ("HSET", key, "position", str(position), "nonce", ""), ("DEL", log))

    async def get(self, shard: int, keys: Sequence[tuple[str, str]]) -> list[Task | None]:
        with self._reading(shard) as reader:
            return await reader.get(keys)

    async def read(self, shard: int, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
        with self._reading(shard) as reader:
            return await reader.read(keys)

    async def search(self, shard: int, query: Query) -> Page:
        with self._reading(shard) as reader:
            return await reader.search(query)

    async def count(self, shard: int, query: Query) -> int:
        with self._reading(shard) as reader:
            return await reader.count(query)

    async def log(self, shard: int, after: int, *, limit: int = 1000) -> Log:
        with self._reading(shard) as reader:
            return await reader.log(after, limit)

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        left = limit
        while left > 0:
            portion = min(left, _DELETED_AT_ONCE)
            looked_at = await self._owned_portion("expire", ownership, before, portion)
            left -= portion
            if looked_at < portion:
                break
        await self._owned_portion("truncate", ownership, log_before, limit)
        removed = await self._prune(ownership, before, limit)
        if not removed:
            await self._sweep_specs(ownership)
        return removed

    async def read_roster(self) -> Roster:
        self._ready()
        with translated(self.url):
            [(version, data)] = await self._client.call(
                self._roster_key, ("HMGET", self._roster_key, "version", "data")
            )
        return Roster(int(version or 0), data or b"")

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        self._ready()
        with translated(self.url):
            answer = await self._functions.call("swap_roster", self._roster_key, str(expected), data)
        return Roster(int(answer[0]), answer[1])

    def congestion(self, shard: int) -> str | None:
        fullness = self._fullness.get(shard)
        return None if fullness is None else fullness.congestion()

    def gauges(self) -> dict[str, float]:
        fullest = max(self._fullness.values(), key=lambda each: each.used, default=Fullness())
        return {
            "server_memory_used_bytes": float(fullest.used),
            "server_memory_limit_bytes": float(fullest.limit),
        }

    def notices(self) -> list[str]:
        """Return what people should know: what could not be checked, and what was found to be lost."""
        return [*self._notices, *self.history.notices]

    # -- how -------------------------------------------------------------------------------------------

    @property
    def _roster_key(self) -> str:
        return f"{{{self._options.prefix}}}:roster"

    def _tag(self, shard: int) -> str:
        return f"{{{self._options.prefix}:{shard}}}:"

    def _meta(self, shard: int) -> str:
        self._ready()
        require_shard(shard, self.shards)
        return f"{self._tag(shard)}m"

    def _ready(self) -> None:
        if self._pid is None:
            raise Unavailable("the store is closed")
        require_same_process(self.url, self._pid)

    def _reader(self, shard: int) -> Reader:
        self._meta(shard)
        return Reader(self._functions, self._tag(shard), self._specs)

    @contextmanager
    def _reading(self, shard: int) -> Iterator[Reader]:
        reader = self._reader(shard)
        with translated(self.url):
            yield reader

    async def _call(self, verb: str, shard: int, *args: str | bytes) -> Any:
        key = self._meta(shard)
        with translated(self.url):
            return await self._functions.call(verb, key, *args)

    async def _owned(self, verb: str, ownership: Ownership, *args: str | bytes) -> Any:
        return await self._call(verb, ownership.shard, str(ownership.epoch), ownership.owner, *args)

    async def _owned_portion(self, verb: str, ownership: Ownership, before: int, limit: int) -> int:
        answer = await self._owned(verb, ownership, str(before), str(limit))
        if answer[0] == _NOT_OWNED:
            raise Fenced(f"shard {ownership.shard} has another owner")
        return int(answer[1])

    async def _prune(self, ownership: Ownership, before: int, limit: int) -> list[Census]:
        removed: Counter[tuple[str, str, State]] = Counter()
        reader = self._reader(ownership.shard)
        while (left := limit - removed.total()) > 0:
            portion = min(left, _DELETED_AT_ONCE)
            answer = await self._owned("prune", ownership, str(before), str(portion))
            if answer[0] == _NOT_OWNED:
                raise Fenced(f"shard {ownership.shard} has another owner")
            looked_at, counts = answer[1], answer[2:]
            with translated(self.url):
                shared = await reader.shared([key[:10] for key in counts[::2]])
            for key, (tenant, spec), count in zip(counts[::2], shared, counts[1::2], strict=True):
                removed[tenant, spec.queue, State(key[10])] += count
            if looked_at < portion:
                break
        return [Census(*key, count) for key, count in sorted(removed.items())]

    def _confirmed_by(self, ownership: Ownership) -> Confirmed:
        found = self._confirmed.get(ownership.shard)
        if found is None or found.epoch != ownership.epoch:
            found = self._confirmed[ownership.shard] = Confirmed(ownership.epoch)
        return found

    async def _sweep_specs(self, ownership: Ownership) -> None:
        confirmed = self._confirmed_by(ownership)
        if not confirmed.are_many():
            return
        with translated(self.url):
            used = await confirmed.look_at_rows(self._functions, self._meta(ownership.shard))
        async with self._lock(ownership.shard):
            for portion in confirmed.take_unused(used):
                await self._owned("sweep_specs", ownership, *portion)

    def _lock(self, shard: int) -> asyncio.Lock:
        return self._committing.setdefault(shard, asyncio.Lock())

    async def _fenced(self, ownership: Ownership, batch: Batch, answer: list[Any]) -> None:
        code, epoch, position = answer
        # Whoever else has the shard may have found that the end of our history is gone.
        *_, cuts = await self._owned("look", ownership)
        lost = self.history.look_at(ownership.shard, cuts)
        if code == _NOT_OWNED:
            raise Fenced(lost or _other(ownership, epoch))
        raise Fenced(f"the store is at position {int(position)}, so {batch.position} is not the next")

    async def _agree(self) -> None:
        """Make the store, or learn how it was made."""
        key, options = f"{{{self._options.prefix}}}:store", self._options
        wanted = options.shards or DEFAULT_SHARDS
        format, shards = await self._functions.call("make", key, str(FORMAT), str(wanted))
        if int(format) > FORMAT:
            raise SchemaTooNew(
                f"the store {self.url} is of format {int(format)}, this Lineshaft knows {FORMAT}: update it"
            )
        self.shards = int(shards)
        if options.shards is not None and options.shards != self.shards:
            raise StoreUnusable(
                f"the store {self.url} was made with shards={self.shards}, which cannot be changed: leave"
                " shards out of the URL"
            )


def _other(ownership: Ownership, epoch: bytes) -> str:
    return f"shard {ownership.shard} is at epoch {int(epoch)}, not {ownership.epoch} of this owner"


def _now() -> int:
    return time.time_ns() // 1_000_000
