"""What there is while a store is open: its connections, and what is remembered over them."""

from __future__ import annotations

import os

from lineshaft.store.base import Ownership
from lineshaft.store.postgres.address import Address
from lineshaft.store.postgres.connections import Connections
from lineshaft.store.postgres.inbox import Inboxes, Listener
from lineshaft.store.postgres.reading import Reader
from lineshaft.store.postgres.specs import SpecNumbers

COMMITTING, READING, SEARCHING = 4, 2, 2
"""Connections for each kind of work, at most."""


class Opened:
    """What is there while the store is open."""

    def __init__(self, address: Address, shards: int, synchronous: str) -> None:
        self.pid = os.getpid()
        self.schema = address.schema
        self.synchronous = synchronous
        self.committing = Connections(address.conninfo, COMMITTING)
        self.reading = Connections(address.conninfo, READING)
        self.searching = Connections(address.conninfo, SEARCHING)
        self.numbers: dict[int, SpecNumbers] = {}
        self.pruning: dict[tuple[int, int], bytes] = {}
        """The nonce of a portion that was asked for and not answered, by shard and epoch."""
        self._statements: dict[tuple[str, ...], str] = {}
        self.inboxes = Inboxes(self.schema, self.reading)
        self.listener = Listener(
            address.url, address.listen or address.conninfo, self.schema, direct=address.listen is not None
        )
        self._readers = [Reader(self.schema, shard, self.reading) for shard in range(shards)]
        self._loaders = [Reader(self.schema, shard, self.searching) for shard in range(shards)]

    async def close(self) -> None:
        """Close all connections."""
        await self.listener.close()
        for connections in (self.committing, self.reading, self.searching):
            await connections.close()

    def reader(self, shard: int) -> Reader:
        """Return what reads a shard for requests."""
        return self._readers[shard]

    def loader(self, shard: int) -> Reader:
        """Return what reads a shard whole."""
        return self._loaders[shard]

    def commit_statement(self, names: tuple[str, ...]) -> str:
        """Return the statement that names these parameters; there are few kinds of commits."""
        statement = self._statements.get(names)
        if statement is None:
            marks = ", ".join(f"{name} => ${number}" for number, name in enumerate(names, start=1))
            statement = self._statements[names] = f"SELECT {self.schema}.commit_batch({marks})"
        return statement

    async def numbers_of(self, ownership: Ownership) -> SpecNumbers:
        """Return the numbers of the shard's specs; only its owner gives new ones, so they are read once."""
        numbers = self.numbers.get(ownership.shard)
        if numbers is None or numbers.epoch != ownership.epoch:
            specs = await self.reading.run(
                f"SELECT id, tenant, data FROM {self.schema}.spec WHERE shard = $1", (ownership.shard,)
            )
            [(highest,)] = await self.reading.run(
                f"SELECT greatest((SELECT max(seq) FROM {self.schema}.task_open WHERE shard = $1),"
                f" (SELECT max(seq) FROM {self.schema}.task_ended WHERE shard = $1), -9223372036854775808)",
                (ownership.shard,),
            )
            numbers = SpecNumbers(ownership.epoch, specs, highest)
            self.numbers[ownership.shard] = numbers
        return numbers
