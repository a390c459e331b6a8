"""Claims of one worker that must not be under way at the same time, since what it has it has once."""

from __future__ import annotations

import asyncio


class Turn:
    """Whose turn it is among the claims of a worker with resources. One that only waits lets others pass."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._standing: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Wait for one's turn; a claim that stands and waits is asked to let this one pass."""
        if self._standing is not None and not self._standing.done():
            self._standing.set_result(None)
        await self._lock.acquire()

    def end(self) -> None:
        """Let the next one go on."""
        self._standing = None
        self._lock.release()

    async def let_pass(self) -> None:
        """Let others have their turn, if there are any, before going on."""
        self.end()
        await self._lock.acquire()

    def stand(self) -> asyncio.Future[None]:
        """Return what is done as soon as another claim wants its turn."""
        self._standing = asyncio.get_running_loop().create_future()
        return self._standing
