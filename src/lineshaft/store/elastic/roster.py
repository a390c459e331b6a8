"""The roster: one document, replaced only where nobody has replaced it since it was read."""

from __future__ import annotations

import msgspec

from lineshaft.store.base import Roster
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.names import Names


class _Answer(msgspec.Struct):
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)


class _Source(msgspec.Struct):
    data: Roster


class _Found(_Answer):
    source: _Source | None = msgspec.field(name="_source", default=None)


_written = msgspec.json.Decoder(_Answer).decode
_found = msgspec.json.Decoder(_Found)


class Rosters:
    """Reads and swaps the roster."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._control = f"/{names.control}"
        self._known: tuple[int, int, int] | None = None
        """Version, sequence number and primary term that were seen last."""

    async def read(self) -> Roster:
        """Read the roster."""
        found = await self._client.ask(f"{self._control}/_doc/roster", None, _found, method="GET")
        if found.source is None:
            return Roster(0, b"")
        self._known = (found.source.data.version, found.seq_no, found.primary_term)
        return found.source.data

    async def swap(self, expected: int, data: bytes) -> Roster:
        """Replace it if its version is still `expected`; return what is there then."""
        if expected == 0:
            target = f"{self._control}/_create/roster"
        else:
            if self._known is None or self._known[0] != expected:
                there = await self.read()
                if there.version != expected or self._known is None:
                    return there
            _, seq_no, term = self._known
            target = f"{self._control}/_doc/roster?if_seq_no={seq_no}&if_primary_term={term}"
        swapped = Roster(expected + 1, data)
        answer = await self._client.do("PUT", target, {"what": "roster", "data": swapped}, expect=(409,))
        if not answer.ok:
            return await self.read()
        written = _written(answer.body)
        self._known = (swapped.version, written.seq_no, written.primary_term)
        return swapped
