"""A few connections for each kind of work, made when they are needed and kept.

Each statement is a transaction of its own, nothing is prepared, and no setting outlives a statement: so a
pooler in transaction mode may stand between.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.pq import TransactionStatus

from lineshaft.errors import Unavailable
from lineshaft.store.postgres.arrays import DUMPERS

Row: TypeAlias = tuple[Any, ...]
Connection: TypeAlias = AsyncConnection[Row]
Result = TypeVar("Result")


async def connect(conninfo: str) -> Connection:
    """Return a connection that commits each statement. Raises `psycopg.Error`."""
    connection: Connection = await AsyncConnection.connect(
        conninfo, autocommit=True, prepare_threshold=None, cursor_factory=AsyncRawCursor
    )
    for kind, dumper in DUMPERS:
        connection.adapters.register_dumper(kind, dumper)
    return connection


class Connections:
    """At most `most` connections; whoever finds none waits."""

    def __init__(self, conninfo: str, most: int) -> None:
        self._conninfo = conninfo
        self._room = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._closed = False

    async def close(self) -> None:
        """Close all; whoever waits for an answer is told at once, and the server ends what it has begun."""
        self._closed = True
        for connection in self._used:
            _hang_up(connection)
        await self._forget_idle()

    async def run(self, sql: str, values: Sequence[Any] = (), *, binary: bool = True) -> list[Row]:
        """Run one statement; return its rows. Raises `psycopg.Error`; see `use`."""

        async def run(connection: Connection) -> list[Row]:
            cursor = connection.cursor(binary=binary)
            await cursor.execute(sql, values)
            return [] if cursor.description is None else await cursor.fetchall()

        return await self.use(run)

    async def use(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Do something with a connection. Raises what it raises.

        Where the connection, kept from before, is found broken it is done again on a new one: the server may
        have done it already.
        """
        while True:
            async with self._one() as (connection, kept):
                try:
                    return await work(connection)
                except psycopg.errors.ReadOnlySqlTransaction:
                    await connection.close()  # the server was demoted: another connection may lead elsewhere
                    raise
                except psycopg.OperationalError:
                    if not kept or not connection.closed or self._closed:
                        raise

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[tuple[Connection, bool]]:
        """Lend a connection, and tell whether it was used before."""
        async with self._room:
            if self._closed:
                raise Unavailable("the store is closed")
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else await connect(self._conninfo)
            self._used.add(connection)
            try:
                yield connection, kept
            finally:
                self._used.discard(connection)
                await self._take_back(connection)

    async def _take_back(self, connection: Connection) -> None:
        if self._closed:
            await connection.close()
        elif connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()
            await self._forget_idle()  # they were made to a server that is not there any more

    async def _forget_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()


def _hang_up(connection: Connection) -> None:
    """End the conversation under somebody who waits for an answer; who is told that it is lost."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # it is closed
