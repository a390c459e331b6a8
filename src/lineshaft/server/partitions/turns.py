"""Claims of one worker that must not be under way at the same time, since what it has it has once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

_MOST = 10_000


class Turn:
    """Whose turn it is among the claims of a worker with resources. One that only waits lets others pass."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._standing: asyncio.Future[None] | None = None
        self._called = False
        """What is free may be more than when the present turn began."""

    async def begin(self) -> None:
        """Wait for one's turn; a claim that stands and waits is asked to let this one pass."""
        self.call()
        await self.go_on()

    async def go_on(self) -> None:
        """Wait for one's turn, after others that wait already."""
        await self._lock.acquire()
        self._called = False

    def call(self) -> None:
        """Let a claim that stands and waits look again at what is free, after others."""
        self._called = True
        if self._standing is not None and not self._standing.done():
            self._standing.set_result(None)

    def end(self) -> None:
        """Let the next one go on."""
        self._standing = None
        self._lock.release()

    def stand(self) -> asyncio.Future[None]:
        """Return what is done as soon as the claim should look again, or let another have its turn."""
        self._standing = asyncio.get_running_loop().create_future()
        if self._called:
            self._standing.set_result(None)
        return self._standing


class Holders:
    """Whose turn is to be called when a lease ends: who holds tasks that take resources, by token.

    Those that were told first are forgotten where there are too many: they wait until they look again.
    """

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, tokens: Iterable[str], turn: Turn) -> None:
        """Remember who holds leases."""
        for token in tokens:
            self._turns[token] = turn
        while len(self._turns) > _MOST:
            del self._turns[next(iter(self._turns))]

    def ended(self, token: str) -> None:
        """A lease has ended, or may have."""
        turn = self._turns.pop(token, None)
        if turn is not None:
            turn.call()
