"""The log goes on in a new index once the present one is large, and old ones are dropped whole.

The next generation is made first and told to all afterwards, so no commit waits for it. Each shard moves on
by a record of its own: a frozen owner's next slot in the old generation is that one or an earlier one, so it
is taken. A generation is dropped when every shard has moved on from it, the checkpoint is beyond it, and the
change feed needs it no longer; whoever is still there then finds the alias gone, and knows that it is fenced.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from lineshaft.errors import Unavailable
from lineshaft.store.elastic import setup
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.names import Names
from lineshaft.store.elastic.shard import Checkpoint, Shard

_LOG = logging.getLogger("lineshaft.store")

LARGEST = 1024 * 1024 * 1024
"""Bytes of an index of the log after which the next is begun."""
MOST_SLOTS = 500_000
"""Slots of one shard, likewise."""


class _Current(msgspec.Struct):
    generation: int = 1


class _Source(msgspec.Struct):
    data: _Current


class _Found(msgspec.Struct):
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)
    source: _Source | None = msgspec.field(name="_source", default=None)


class _Size(msgspec.Struct):
    size_in_bytes: int = 0


class _Primaries(msgspec.Struct):
    store: _Size = msgspec.field(default_factory=_Size)


class _All(msgspec.Struct):
    primaries: _Primaries = msgspec.field(default_factory=_Primaries)


class _Stats(msgspec.Struct):
    all: _All = msgspec.field(name="_all", default_factory=_All)


_found = msgspec.json.Decoder(_Found)
_stats = msgspec.json.Decoder(_Stats)
_indices = msgspec.json.Decoder(dict[str, Any])


class Generations:
    """Which generation of the log is the present one of a store."""

    def __init__(self, client: Client, names: Names) -> None:
        self.current = 1
        self._client = client
        self._names = names

    def next_of(self, shard: Shard) -> int:
        """Return the generation to go on in behind the next record of a shard; 0: the same."""
        return self.current if self.current > shard.generation else 0

    async def look(self) -> None:
        """Learn what the others have agreed on."""
        self.current = max(self.current, (await self._read())[0])

    async def roll_where_large(self, shards: list[Shard]) -> None:
        """Begin the next generation where the present one is large."""
        await self.look()
        filled = max((s.slots_in_generation for s in shards if s.generation == self.current), default=0)
        if filled < MOST_SLOTS:
            target = f"/{self._names.log(self.current)}/_stats/store"
            stats = await self._client.ask(target, None, _stats, method="GET", timeout=30.0)
            if stats.all.primaries.store.size_in_bytes < LARGEST:
                return
        await self.roll()

    async def roll(self) -> None:
        """Begin the next generation."""
        current, seq_no, term = await self._read()
        await setup.make_index(self._client, self._names.log(current + 1), setup.LOG)
        place = f"/{self._names.control}"
        target = (
            f"{place}/_create/generation"
            if seq_no < 0
            else f"{place}/_doc/generation?if_seq_no={seq_no}&if_primary_term={term}"
        )
        document = {"what": "generation", "data": _Current(current + 1)}
        # Where somebody else was first, it is the same one.
        await self._client.do("PUT", target, document, expect=(409,))
        await self.look()

    async def drop_unneeded(self, shards: int) -> list[str]:
        """Drop the generations that no shard needs any more; return their names."""
        needed = []
        for shard in range(shards):
            checkpoint = await setup.read_checkpoint(self._client, self._names, shard)
            if checkpoint is None:
                raise Unavailable(f"there is no checkpoint of shard {shard}: no generation is dropped")
            needed.append(_first_needed(checkpoint))
        first = min(needed)
        dropped = []
        for index in await self._present():
            number = index.removeprefix(self._names.log(0)[:-6])
            if number.isdigit() and int(number) < first:
                _LOG.info("%s is dropped: nothing needs it any more", index)
                await self._client.do("DELETE", f"/{index}", expect=(404,), timeout=30.0)
                dropped.append(index)
        return dropped

    async def _present(self) -> list[str]:
        pattern = self._names.log(0)[:-6] + "*"
        answer = await self._client.ask(f"/{pattern}/_alias", None, _indices, method="GET")
        return sorted(answer)

    async def _read(self) -> tuple[int, int, int]:
        target = f"/{self._names.control}/_doc/generation"
        found = await self._client.ask(target, None, _found, method="GET")
        return (found.source.data.generation if found.source else 1), found.seq_no, found.primary_term


def _first_needed(checkpoint: Checkpoint) -> int:
    return checkpoint.generations[0][1]
