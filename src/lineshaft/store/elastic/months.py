"""The months of which there are indices; made when the first task of a month is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from lineshaft.store.elastic import setup
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.names import Names

_indices = msgspec.json.Decoder(dict[str, Any])


class Months:
    """Which months there are, the latest first."""

    def __init__(self, client: Client, names: Names) -> None:
        self.known: list[str] = []
        self._client = client
        self._names = names
        self._lock = asyncio.Lock()

    async def look(self) -> None:
        """Learn of months that others have made or dropped."""
        self._set(await self._present())

    async def make(self, months: Iterable[str]) -> None:
        """See that there are indices of these months."""
        if all(month in self.known for month in months):
            return
        async with self._lock:
            await self._make(set(months) - set(self.known))
            self._set([*self.known, *months])

    async def make_again(self) -> None:
        """Make what somebody has dropped meanwhile though it is needed."""
        async with self._lock:
            # Of a month, tasks may be there and values not.
            await self._make(set(self.known))

    async def _make(self, months: set[str]) -> None:
        for month in sorted(months):
            await asyncio.gather(
                setup.make_index(self._client, self._names.tasks(month), setup.TASKS),
                setup.make_index(self._client, self._names.values(month), setup.VALUES),
            )

    async def _present(self) -> list[str]:
        answer = await self._client.ask(
            f"/{self._names.all_tasks}/_alias?expand_wildcards=open", None, _indices, method="GET"
        )
        start = self._names.tasks("")
        return [index.removeprefix(start) for index in answer if index.startswith(start)]

    def _set(self, months: list[str]) -> None:
        self.known = sorted(set(months), reverse=True)
