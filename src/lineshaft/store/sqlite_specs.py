"""What tasks enqueued alike share: a tenant and a spec, kept once in the database and once in memory.

A row names them by a number. Numbers are given by the writer, within the transaction that needs them first,
and never change their meaning while the store is open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import msgspec

from lineshaft.core.task import Spec, Task
from lineshaft.store.rows import decode_row, encode, share_numbers

_KEPT = 20_000
_MANY = 50_000

_decode_spec = msgspec.msgpack.Decoder(Spec).decode

Shared = tuple[str, Spec]


class Connection(sqlite3.Connection):
    """A connection that remembers the specs it has read."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # as sqlite3.connect hands them over
        self._read: dict[int, Shared] = {}

    def read_tasks(self, rows: Iterable[tuple[int, bytes]]) -> list[Task]:
        """Decode rows of (spec, row)."""
        return share_numbers(self._decoded(rows))

    def read_all_specs(self) -> None:
        """Read every spec at once, before very many rows are read."""
        tenants: dict[str, str] = {}
        for number, tenant, data in self.execute("SELECT id, tenant, data FROM spec"):
            self._read[number] = (tenants.setdefault(tenant, tenant), _decode_spec(data))

    def _decoded(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[Task]:
        known = self._read
        for number, row in rows:
            task = decode_row(row)
            task.tenant, task.spec = known.get(number) or self._read_spec(number)
            yield task

    def _read_spec(self, number: int) -> Shared:
        tenant, data = self.execute("SELECT tenant, data FROM spec WHERE id = ?", (number,)).fetchone()
        if len(self._read) >= _KEPT:
            self._read.clear()
        shared = self._read[number] = (tenant, _decode_spec(data))
        return shared


class SpecNumbers:
    """The numbers of specs as the writer needs them; specs that are the same object are not compared."""

    def __init__(self) -> None:
        self._by_object: dict[int, tuple[Spec, str, int]] = {}

    def clear(self) -> None:
        """Forget all, since a transaction was rolled back that may have given numbers."""
        self._by_object.clear()

    def number(self, connection: sqlite3.Connection, task: Task) -> int:
        """Return the number of the task's tenant and spec."""
        known = self._by_object.get(id(task.spec))
        if known is not None and known[1] == task.tenant:
            return known[2]
        spec, tenant = task.spec, task.tenant
        number = _number(connection, tenant, spec)
        if len(self._by_object) >= _KEPT:
            self._by_object.clear()
        # The spec is kept too: only as long as it lives is its id its own.
        self._by_object[id(spec)] = (spec, tenant, number)
        return number


def forget_unused(connection: sqlite3.Connection) -> None:
    """Where tasks were so various that specs are many, delete those that no task has any more."""
    (many,) = connection.execute("SELECT count(*) FROM spec").fetchone()
    if many >= _MANY:
        connection.execute("DELETE FROM spec WHERE id NOT IN (SELECT spec FROM task)")


def _number(connection: sqlite3.Connection, tenant: str, spec: Spec) -> int:
    data = encode(spec)
    found = connection.execute("SELECT id FROM spec WHERE tenant = ? AND data = ?", (tenant, data)).fetchone()
    if found is None:
        found = connection.execute(
            "INSERT INTO spec (tenant, queue, name, priority, data) VALUES (?, ?, ?, ?, ?) RETURNING id",
            (tenant, spec.queue, spec.name, spec.priority, data),
        ).fetchall()[0]
    return int(found[0])
