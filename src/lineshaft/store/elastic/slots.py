"""The log: slots that are written once, by `create` of a document that must not exist.

What holds it together:

* One slot in flight. Whoever does not know whether its record took a slot writes *the same record there
  again*: 201, or 409 and then the nonce says whose it is. Reading never settles it: what is absent may be on
  its way.
* An owner begins with an epoch record, in the first slot that is free. A stale owner's next slot is that one
  or an earlier one, so it is taken. Readers skip records of an epoch below the highest so far.
* Before something is built on a record that was only read (a conflict with one's own, or the last one before
  an epoch record), it is written again as it is, under its sequence number (`touch`). An answer means that
  all copies have it, so no failover can leave a hole where it was.
* Documents of the log are never deleted, as their slots would be free again; whole generations are, and
  writes go through an alias that goes with its generation, so that nobody makes it anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lineshaft.errors import Fenced, Unavailable
from lineshaft.store.base import Rejected, StoreCorrupt
from lineshaft.store.elastic.client import Answer, Client
from lineshaft.store.elastic.names import Names, alias, slot_id
from lineshaft.store.elastic.records import LogDocument, Place, decode, decode_place
from lineshaft.store.elastic.refusals import cause, refusal
from lineshaft.store.elastic.shard import Shard

_AT_ONCE = 500
_BYTES_AT_ONCE = 8 * 1024 * 1024
_PROBES = 16


class GenerationGone(Unavailable):
    """The generation that is asked for was dropped: everybody has moved on long ago."""


class Found(msgspec.Struct):
    """A document as the cluster answers it."""

    id: str = msgspec.field(name="_id", default="")
    found: bool = False
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))
    error: dict[str, Any] | None = None


class _Several(msgspec.Struct):
    docs: list[Found]


_found = msgspec.json.Decoder(Found)
_several = msgspec.json.Decoder(_Several)


class Slots:
    """Reads and writes slots of all shards."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names

    async def create(self, shard: Shard, slot: int, body: bytes) -> bool:
        """Write a record to a free slot; tell whether it was free. Raises as `Store.commit` does."""
        index = alias(self._names.log(shard.generation))
        answer = await self._client.send(
            "PUT", f"/{index}/_create/{shard.number}-{slot}?require_alias=true", body
        )
        if answer.status == 201:
            return True
        if answer.status == 409:
            return False
        raise self._refused(answer, index)

    async def touch(self, shard: Shard, slot: int) -> LogDocument:
        """Write a record that is there again as it is, so that it is on all copies; return it."""
        generation = self._names.log(shard.generation_of(slot))
        id = slot_id(shard.number, slot)
        for _ in range(10):
            found = await self.find(shard, slot)
            if found is None:
                raise Unavailable(f"slot {slot} of shard {shard.number} is taken, but cannot be read yet")
            condition = f"if_seq_no={found.seq_no}&if_primary_term={found.primary_term}"
            answer = await self._client.send(
                "PUT", f"/{alias(generation)}/_doc/{id}?require_alias=true&{condition}", bytes(found.source)
            )
            if answer.ok:
                return decode(found.source)
            if answer.status != 409:
                raise self._refused(answer, generation)
        raise Unavailable(f"slot {slot} of shard {shard.number} is written again by many at once")

    async def find(self, shard: Shard, slot: int) -> Found | None:
        """Read one slot; None where there is nothing, which does not mean that it stays so."""
        index = self._names.log(shard.generation_of(slot))
        found = await self._client.ask(
            f"/{index}/_doc/{slot_id(shard.number, slot)}", None, _found, method="GET"
        )
        if found.error:
            raise GenerationGone(f"{index} is gone: everybody has moved on")
        return found if found.found else None

    async def follow(self, shard: Shard) -> None:
        """Read on from the head to the first slot that is free, and apply what is there."""
        size, looked_again = 8, False
        while True:
            # Nothing is applied by anybody else meanwhile: whoever calls this holds the shard's lock.
            generation = shard.generation
            slots = range(shard.head + 1, shard.head + 1 + size)
            documents = await self._read(shard.number, generation, slots)
            length = 0
            ended = False
            for slot, raw in zip(slots, documents, strict=True):
                if raw is None:
                    ended = True
                    break
                length += len(raw)
                shard.apply(slot, decode(raw))
                looked_again = False
                if shard.generation != generation:
                    break
            if ended and any(raw is not None for raw in documents[shard.head + 1 - slots.start :]):
                # Slots behind a free one: it was taken while we read, or is lost.
                if looked_again:
                    raise StoreCorrupt(
                        f"the log of shard {shard.number} has no record in slot {shard.head + 1}, but later "
                        f"ones: was a document of {self._names.log(generation)} deleted, "
                        "or an old snapshot restored?"
                    )
                looked_again = True
            elif ended:
                return
            size = max(1, min(_AT_ONCE, 4 * size, _BYTES_AT_ONCE * len(slots) // max(1, length)))

    async def records(self, shard: Shard, first: int, last: int) -> list[tuple[int, LogDocument]]:
        """Read slots of one generation, as many as one answer should hold at most."""
        generation = shard.generation_of(first)
        for start, number in shard.generations:
            if start > first and number != generation:
                last = min(last, start - 1)
                break
        slots = range(first, min(last, first + _AT_ONCE - 1) + 1)
        documents = await self._read(shard.number, generation, slots)
        return [(slot, decode(raw)) for slot, raw in zip(slots, documents, strict=True) if raw is not None]

    async def first_where(
        self, shard: Shard, holds: Callable[[Place], bool], *, first: int, guess: int | None = None
    ) -> int:
        """Return the first slot from `first` on where `holds`; head + 1 where none. Once true it stays."""
        low, high = first, shard.head + 1  # the answer is one of low to high
        while low < high:
            step = max(1, (high - low) // _PROBES)
            probes = set(range(low, high, step))
            if guess is not None:
                probes |= {slot for slot in (guess - 1, guess) if low <= slot < high}
                guess = None
            for slot, place in await self._places(shard, sorted(probes)):
                if holds(place):
                    high = min(high, slot)
                    break
                low = slot + 1
        return low

    async def place(self, shard: Shard, slot: int) -> Place:
        """Return where in the log a slot is that has a record."""
        [(_, place)] = await self._places(shard, [slot])
        return place

    async def _places(self, shard: Shard, slots: list[int]) -> list[tuple[int, Place]]:
        documents = [
            {
                "_index": self._names.log(shard.generation_of(slot)),
                "_id": slot_id(shard.number, slot),
                "_source": ["position", "at"],
            }
            for slot in slots
        ]
        answer = await self._client.ask("/_mget", {"docs": documents}, _several)
        if any(found.error for found in answer.docs):
            raise GenerationGone("a generation of the log that was read is gone: everybody has moved on")
        return [
            (slot, decode_place(found.source))
            for slot, found in zip(slots, answer.docs, strict=True)
            if found.found
        ]

    async def _read(self, shard: int, generation: int, slots: range) -> list[msgspec.Raw | None]:
        index = self._names.log(generation)
        body = {"ids": [slot_id(shard, slot) for slot in slots]}
        answer = await self._client.ask(f"/{index}/_mget", body, _several, timeout=20.0)
        if any(found.error for found in answer.docs):
            raise GenerationGone(f"{index} is gone: everybody has moved on")
        return [found.source if found.found else None for found in answer.docs]

    def _refused(self, answer: Answer, index: str) -> Exception:
        kind, reason = cause(answer.body)
        if answer.status == 404 and kind == "index_not_found_exception":
            return Fenced(f"{index} is gone: everybody has moved on long ago ({reason})")
        if answer.status == 400 and kind not in _OF_THE_BATCH:
            return Unavailable(f"the cluster refuses a record of the log ({kind}: {reason})")
        error = refusal(answer.status, answer.body, index)
        if isinstance(error, Rejected) and answer.status not in (400, 413):
            return Unavailable(error.reason)
        return error


_OF_THE_BATCH = (
    "mapper_parsing_exception",
    "document_parsing_exception",
    "illegal_argument_exception",
    "parse_exception",
    "x_content_parse_exception",
    "not_x_content_exception",
)
"""Types of errors that say that a record cannot be stored, however often it is sent."""
