"""One store in memory that several engines share, each by a line of its own that can be cut."""

from __future__ import annotations

import asyncio
from typing import Any

from lineshaft.errors import Unavailable
from lineshaft.store.memory import MemoryStore

CALLS = frozenset(
    {"acquire", "renew", "release", "load", "commit", "get", "read", "search", "count", "log", "prune"}
    | {"read_roster", "swap_roster"}
)


class Shared:
    """The store; `line()` gives what one engine opens."""

    def __init__(self, *, shards: int = 4) -> None:
        self.memory = MemoryStore(shards=shards, exclusive=False)

    def line(self) -> Any:
        return Line(self.memory)


class Line:
    """A store, as far as one engine can tell."""

    tier = "none"
    exclusive = False
    largest_commit: int | None = None

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self.url = memory.url
        self.shards = memory.shards
        self.cut = asyncio.Event()
        """Set: nothing goes through, and nothing is said."""
        self.hangs: set[str] = set()
        """Calls of which nothing is heard, nor ever will be."""
        self.gates: dict[str, asyncio.Event] = {}
        """Calls that are long on their way, and are carried out when the gate opens."""
        self.refuses: set[str] = set()
        """Calls that are refused before they are carried out."""
        self.loses: set[str] = set()
        """Calls whose answer is lost."""
        self.calls: list[str] = []

    async def open(self, *, address: str) -> None:
        await self._memory.open(address=address)

    async def close(self) -> None:
        """Leave it open for the others."""

    def congestion(self, shard: int) -> str | None:
        return None

    def gauges(self) -> dict[str, float]:
        return {}

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            raise AttributeError(name)
        method = getattr(self._memory, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            await asyncio.sleep(0)
            if name in self.gates:
                await self.gates[name].wait()
            elif self.cut.is_set() or name in self.hangs:
                await asyncio.Event().wait()
            if name in self.refuses:
                raise Unavailable("the store refused")
            answer = await method(*arguments, **named)
            await asyncio.sleep(0)
            if self.cut.is_set():
                await asyncio.Event().wait()
            if name in self.loses:
                raise Unavailable("the answer was lost")
            return answer

        return call
