"""Statements over many rows at once."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

LARGEST = 128
"""Rows in one statement. The lengths used are powers of two, so that few statements are prepared, once."""

Item = TypeVar("Item")


def slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut into pieces whose lengths are powers of two, the largest first."""
    start, size = 0, LARGEST
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size


@functools.lru_cache(maxsize=256)
def marks(width: int, rows: int) -> str:
    """Return the parameters of `rows` rows: `(?,?),(?,?)`."""
    row = "(" + ",".join("?" * width) + ")"
    return ",".join([row] * rows)


def write_rows(
    connection: sqlite3.Connection, head: str, rows: Sequence[tuple[Any, ...]], *, tail: str = ""
) -> None:
    """Run `head VALUES (…), (…) tail` for all rows, in few statements."""
    for part in slices(rows):
        values = list(chain.from_iterable(part))
        connection.execute(f"{head} VALUES {marks(len(part[0]), len(part))} {tail}", values)


def delete_rows(connection: sqlite3.Connection, table: str, keys: Sequence[int]) -> None:
    """Delete the rows of a table keyed by `seq`."""
    for part in slices(keys):
        connection.execute(f"DELETE FROM {table} WHERE seq IN {marks(len(part), 1)}", part)


def read_rows(connection: sqlite3.Connection, select: str, keys: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    """Run `select … WHERE seq IN (…)` for all keys."""
    for part in slices(keys):
        yield from connection.execute(f"{select} WHERE seq IN {marks(len(part), 1)}", part)
