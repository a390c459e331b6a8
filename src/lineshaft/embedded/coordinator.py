"""A coordinator inside a process: store, engine and calls, without HTTP but by the same rules.

What is sent is encoded and read again by the very readers of the HTTP edge, so what is refused there
(nesting, sizes, ranges) is refused here, and nothing that the caller changes later can reach the shard.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from lineshaft.embedded.joining_door import Door
from lineshaft.engine.clock import Clock
from lineshaft.engine.engine import Engine
from lineshaft.errors import TooLarge
from lineshaft.server.calls import Calls
from lineshaft.server.endpoints import Endpoint
from lineshaft.server.identity import Identity, KeyRing
from lineshaft.server.settings import Limits
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.urls import open_store
from lineshaft.wire import CALLS, Call, PushedDirective

_encode = msgspec.json.Encoder().encode


class Coordinator:
    """Serves the calls of the protocol in the event loop that opened it, as the default tenant."""

    def __init__(self, engine: Engine, calls: Calls, keys: KeyRing, door: Door | None = None) -> None:
        self.engine = engine
        self._door = door
        self.calls = calls
        self.keys = keys
        self.loop = asyncio.get_running_loop()
        self._identity = Identity()
        self._endpoints = {name: Endpoint(call, Limits()) for name, call in CALLS.items()}

    @classmethod
    async def open(cls, url: str, *, clock: Clock | None = None) -> Coordinator:
        """Open the store at `url` and take it over; let the other processes in that open the same file.

        Raises StoreInUse, SchemaTooNew, StoreCorrupt, StoreUnusable.
        """
        store = open_store(url)
        engine = Engine(store, clock=clock, address=f"an App inside {sys.argv[0] or 'python'}")
        door: Door | None = None
        try:
            if isinstance(store, SQLiteStore):
                await store.open(address=engine.address)
                door = Door.open(store)  # before it is loaded, so that nobody need try again meanwhile
            await engine.__aenter__()
            keys = KeyRing(engine, engine.clock.now)
            await keys.load()
        except BaseException:
            if door is not None:
                await door.close()
            await engine.close()
            raise
        calls = Calls(engine, keys)
        if door is not None:
            door.serve(calls, keys)
        return cls(engine, calls, keys, door)

    async def call(
        self,
        call: Call,
        *,
        id: str | None,
        query: msgspec.Struct | None,
        body: Any,
        traceparent: str | None,
        timeout: float | None = None,
    ) -> Any:
        """Make a call and return its answer struct. Raises LineshaftError."""
        read = None if body is None else self._read(call, _encode(body))
        return await self.make(call, id=id, query=query, body=read, traceparent=traceparent)

    async def make(
        self, call: Call, *, id: str | None, query: Any, body: Any, traceparent: str | None
    ) -> Any:
        """Make a call whose body was read, and return its answer struct. Raises LineshaftError."""
        return await self.calls.call(
            call, self._identity, id=id, query=query, body=body, traceparent=traceparent
        )

    def give_back(self, answer: Any) -> None:
        """See `Serves.give_back`."""
        self.calls.give_back(self._identity, answer)

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """Tell of what concerns workers (id and incarnation) at once, until cancelled."""
        known = frozenset(workers)
        with self.calls.directives(self._identity, lambda *worker: worker in known, tell):
            await asyncio.Event().wait()

    async def close(self) -> None:
        """Answer whoever waits, store what is acknowledged, close the store; idempotent."""
        if self._door is not None:
            await self._door.close()
        await self.engine.close()

    def _read(self, call: Call, body: bytes) -> Any:
        endpoint = self._endpoints[call.name]
        if len(body) > endpoint.limit:
            raise TooLarge(f"a body of {len(body)} bytes is above the limit of {endpoint.limit}")
        return endpoint.read_body(body, "application/json")
