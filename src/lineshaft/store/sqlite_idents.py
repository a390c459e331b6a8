"""Where the SQLite store finds a task by its id: an index of small numbers instead of texts.

An id becomes a pair: where it stands in time, and 47 bits more. Ids that the SDK and the coordinator make
begin with their time, so they lie side by side in the order in which they come. Of other ids chance decides
where they lie, and in one tree of millions every task would touch a page of its own; so they are kept by
generations of arrival, each small enough for the page cache, and a look-up asks every generation that there
is. Two ids may have one pair: whoever looks up compares the ids of the rows found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b

GENERATION = 1 << 18
"""Arrivals in a generation: about 6 MB of index, which the page cache holds."""

_TIMED_LENGTH = 26
_CHANCE_BITS = 56
_MASK = (1 << 47) - 1  # what SQLite keeps in six bytes

Place = tuple[int, int]
"""Time or generation, and the bits that tell ids within it apart."""


def _timed(id: str) -> Place | None:
    """Read an id of our own making as the number that it is; None for any other."""
    if len(id) != _TIMED_LENGTH:
        return None
    try:
        number = int(id, 16)
    except ValueError:
        return None
    time = number >> _CHANCE_BITS
    # Only 512 ids of a millisecond have the same lowest bits, so nobody can make very many lie in one place.
    return (time, number & _MASK) if time > 0 else None


def _digest(tenant: str, id: str) -> int:
    raw = blake2b(f"{tenant}\0{id}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") & _MASK


def ident(tenant: str, id: str, seq: int) -> tuple[int, int, int]:
    """Return the row of the index for a task."""
    at, number = _timed(id) or (-1 - seq // GENERATION, _digest(tenant, id))
    return at, number, seq


class Generations:
    """The generations that the index has, told by the writer and asked by readers, in whatever thread."""

    def __init__(self) -> None:
        self._known: frozenset[int] = frozenset()

    def load(self, connection: sqlite3.Connection) -> None:
        """Find them, stepping from one to the next."""
        found = []
        at: int | None = -(1 << 62)
        while at is not None:
            (at,) = connection.execute("SELECT min(at) FROM ident WHERE at > ? AND at < 0", (at,)).fetchone()
            found.append(at)
        self._known = frozenset(each for each in found if each is not None)

    def add(self, idents: Iterable[tuple[int, int, int]]) -> None:
        """Note generations that are about to be written; one too many does no harm."""
        new = {at for at, _, _ in idents if at < 0} - self._known
        if new:
            self._known |= new

    def drop_empty(self, connection: sqlite3.Connection) -> None:
        """Forget those of which everything was deleted."""
        empty = [
            at
            for at in self._known
            if connection.execute("SELECT 1 FROM ident WHERE at = ? LIMIT 1", (at,)).fetchone() is None
        ]
        self._known = self._known.difference(empty)

    def places(self, tenant: str, id: str) -> list[Place]:
        """Return where the index may have a tenant's id."""
        timed = _timed(id)
        if timed is not None:
            return [timed]
        number = _digest(tenant, id)
        return [(at, number) for at in self._known]
