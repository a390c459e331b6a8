"""Lets every coordinator know the API keys and the partitions of tenants, and of a key's end at once.

All that are rows of the system tenant, whose shard one coordinator owns. It alone changes them; before it
answers it raises the number of their version in the roster and tells the others. Who could not be told finds
the number changed at its next beat, and asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from lineshaft.engine.cluster import roster as steps
from lineshaft.engine.cluster.membership import Evicted, Membership
from lineshaft.engine.cluster.roster import Member
from lineshaft.engine.engine import Engine
from lineshaft.errors import LineshaftError, NotOwner, Unavailable
from lineshaft.server.forwarding import Forwarder
from lineshaft.server.identity import SYSTEM_TENANT, KeyRing, StoredKey
from lineshaft.server.lines import Broken, Unsent

KEYS_PATH = "/_cluster/keys"
_log = logging.getLogger("lineshaft.server")


class Keys(msgspec.Struct, array_like=True, frozen=True):
    """All keys and the partitions of tenants, as of a version."""

    version: int
    keys: list[StoredKey]
    partitions: dict[str, int]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Keys)


class KeySync:
    """Keeps one coordinator's keys the same as all others'; use it as `async with`."""

    def __init__(self, engine: Engine, keys: KeyRing, forwarder: Forwarder) -> None:
        membership = engine.membership
        assert membership is not None
        self._engine = engine
        self._membership: Membership = membership
        self._keys = keys
        self._forwarder = forwarder
        self._version = -1
        """Of the keys that we know."""
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> KeySync:
        """Know the keys; raises what keeps us from it."""
        holdings = self._engine.holdings
        holdings.on_serving.append(self._served)
        holdings.on_change.append(self._look)
        self._keys.on_change = self._keys.layout.on_put = self._tell_all
        await self._know()
        return self

    async def __aexit__(self, *_: object) -> None:
        holdings = self._engine.holdings
        holdings.on_serving.remove(self._served)
        holdings.on_change.remove(self._look)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- knowing ---------------------------------------------------------------------------------

    async def _know(self) -> None:
        """Read the keys where they are: in our own shard, or at its owner."""
        async with self._lock:
            while True:
                if not self._engine.has(SYSTEM_TENANT):
                    await self._fetch()
                    if not self._engine.has(SYSTEM_TENANT):
                        return
                try:
                    version = self._membership.roster.keys_version
                    await self._keys.load()
                except NotOwner:
                    await self._engine.holdings.settled(self._engine.shard_of(SYSTEM_TENANT))
                    await asyncio.sleep(0)
                    continue  # it has moved meanwhile
                self._version = version
                return

    async def _fetch(self) -> None:
        fetched: list[Keys] = []

        async def attempt(member: Member) -> bool:
            answer = await self._forwarder.post(member, KEYS_PATH, b"")
            if not answer:
                return False
            fetched.append(_decoder.decode(answer))
            return True

        if await self._forwarder.reach(SYSTEM_TENANT, attempt, may_repeat=lambda: True):
            self._take(fetched[-1])

    def _take(self, told: Keys) -> None:
        if told.version >= self._version:
            self._version = told.version
            self._keys.replace(told.keys)
            self._keys.layout.replace(told.partitions)

    def _look(self) -> None:
        """The roster has changed, and with it perhaps the version of the keys."""
        if self._membership.roster.keys_version > self._version and not self._engine.has(SYSTEM_TENANT):
            self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        while self._membership.roster.keys_version > self._version:
            try:
                await self._know()
                return
            except LineshaftError as error:
                _log.warning("the API keys could not be read anew: %s", error)
            await asyncio.sleep(1.0)

    # -- telling ---------------------------------------------------------------------------------

    def _served(self, shard: int) -> None:
        """We own a shard: if the keys are in it, what was changed by its last owner may be news to some."""
        if shard == self._engine.shard_of(SYSTEM_TENANT):
            self._spawn(self._take_up())

    async def _take_up(self) -> None:
        try:
            await self._know()
            await self._tell_all()
        except LineshaftError as error:
            _log.warning("the API keys could not be read anew: %s", error)

    async def _tell_all(self) -> None:
        """Let everybody know the keys as they are now; for who cannot be told, wait until it may not act."""
        try:
            roster = await self._membership.change(steps.keys_changed)
        except Evicted:
            raise Unavailable(
                "this coordinator was taken for dead; repeat the request", retry_after=1.0
            ) from None
        self._version = roster.keys_version
        told = _encode(self._all(self._version))
        others = [member for member in roster.members if member.id != self._membership.id]
        await asyncio.gather(*(self._tell(member, told) for member in others if member.address))

    async def _tell(self, member: Member, told: bytes) -> None:
        """Tell a member until it has heard, or takes part no more, or its lease is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + member.lease / 1000
        while self._membership.roster.member(member.id) is not None:
            try:
                async with asyncio.timeout_at(until):
                    await self._forwarder.post(member, KEYS_PATH, told)
                return
            except (Unsent, Broken, TimeoutError) as error:
                reason = error
            if loop.time() >= until:
                _log.warning("%s could not be told of the API keys: %s", member.address, reason)
                return
            await asyncio.sleep(0.1)

    async def answer(self, body: bytes) -> bytes:
        """Answer another coordinator: an empty body asks for the keys, any other tells them.

        Returns nothing where we do not own them. Raises `Malformed`.
        """
        if body:
            self._take(_decoder.decode(body))
            return b""
        if not self._engine.has(SYSTEM_TENANT):
            return b""
        async with self._lock:
            try:
                await self._keys.load()
            except NotOwner:
                return b""
        return _encode(self._all(self._membership.roster.keys_version))

    def _all(self, version: int) -> Keys:
        return Keys(version, self._keys.stored(), dict(self._keys.layout.partitions))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
