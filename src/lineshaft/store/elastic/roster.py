"""The roster: one document, whose version is the roster's."""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.store.base import Roster
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.names import Names


class _Kept(msgspec.Struct):
    data: bytes


class _Answer(msgspec.Struct):
    found: bool = False
    version: int = msgspec.field(name="_version", default=0)
    source: _Kept | None = msgspec.field(name="_source", default=None)


_answer = msgspec.json.Decoder(_Answer)


class Rosters:
    """Reads and swaps the roster."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._place = f"/{names.control}/_doc/roster"

    async def read(self) -> Roster:
        """Read the roster."""
        found = await self._client.ask(self._place, None, _answer, method="GET")
        return Roster(0, b"") if found.source is None else Roster(found.version, found.source.data)

    async def swap(self, expected: int, data: bytes) -> Roster:
        """Replace it if its version is still `expected`; return what is there then.

        Versions are given by us and rise by one, so "greater than what is there" is "the next".
        """
        document: dict[str, Any] = {"what": "roster", "data": msgspec.to_builtins(data)}
        answer = await self._client.do(
            "PUT", f"{self._place}?version={expected + 1}&version_type=external", document, expect=(409,)
        )
        return Roster(expected + 1, data) if answer.ok else await self.read()
