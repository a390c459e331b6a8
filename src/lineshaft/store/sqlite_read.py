"""What the SQLite store reads: rows by identity, blobs, pages of a search, the log, and all for a load."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from lineshaft.core.batch import Blob, Census, Record, Snapshot
from lineshaft.core.commands import Filter
from lineshaft.core.control import matches
from lineshaft.core.task import OPEN, Spec, State, Task
from lineshaft.store.base import Log, LogRecord, Ownership, Page, Query
from lineshaft.store.paging import FIRST, LAST, page_of, parse_sort, read_cursor
from lineshaft.store.rows import decode_changes, decode_counters, decode_row, encode
from lineshaft.store.sqlite_idents import Generations
from lineshaft.store.sqlite_rows import marks, read_rows, slices
from lineshaft.store.sqlite_schema import BLOB_TABLES
from lineshaft.store.sqlite_specs import Connection
from lineshaft.store.sqlite_write import require_owned


def install_functions(connection: sqlite3.Connection) -> None:
    """Teach a connection the part of a filter that SQL has no words for."""
    connection.create_function("passes", 3, _passes, deterministic=True)


def get(
    connection: Connection, generations: Generations, keys: Sequence[tuple[str, str]]
) -> list[Task | None]:
    """Read rows by (tenant, id), in order of `keys`."""
    found: list[Task | None] = [None] * len(keys)
    wanted = [(number, *place) for number, key in enumerate(keys) for place in generations.places(*key)]
    with _one_instant(connection):
        for part in slices(wanted):
            sql = (
                f"WITH wanted (number, at, digest) AS (VALUES {marks(3, len(part))})"
                " SELECT number, spec, row FROM wanted CROSS JOIN ident USING (at, digest)"
                " CROSS JOIN task USING (seq)"
            )
            rows = connection.execute(sql, [value for place in part for value in place]).fetchall()
            tasks = connection.read_tasks([row[1:] for row in rows])
            for (number, _, _), task in zip(rows, tasks, strict=True):
                if (task.tenant, task.id) == keys[number]:
                    found[number] = task
    return found


def read(connection: sqlite3.Connection, keys: Sequence[tuple[Blob, int]]) -> list[bytes | None]:
    """Read blobs by (kind, seq), in order of `keys`."""
    found: dict[tuple[Blob, int], bytes] = {}
    with _one_instant(connection):
        for kind in {kind for kind, _ in keys}:
            wanted = [seq for each, seq in keys if each == kind]
            rows = read_rows(connection, f"SELECT seq, data FROM {BLOB_TABLES[kind]}", wanted)
            found.update({(kind, seq): data for seq, data in rows})
    return [found.get(key) for key in keys]


def load(connection: Connection, ownership: Ownership) -> Snapshot:
    """Read what a shard holds in memory, as of one instant."""
    with _one_instant(connection):
        position, counters = require_owned(connection, ownership)
        rows = connection.execute(
            "SELECT spec, row FROM task INDEXED BY task_open WHERE state < 5 ORDER BY seq"
        )
        records = connection.execute("SELECT kind, tenant, key, data FROM record ORDER BY kind, tenant, key")
        finished = connection.execute(
            "SELECT tenant, queue, state, sum(n) FROM (SELECT spec, state, count(*) AS n FROM task"
            " INDEXED BY task_finished WHERE state >= 5 GROUP BY spec, state) AS counted"
            " JOIN spec ON spec.id = counted.spec GROUP BY tenant, queue, state ORDER BY tenant, queue, state"
        )
        connection.read_all_specs()
        return Snapshot(
            position=position,
            counters=decode_counters(counters or encode(())),
            tasks=connection.read_tasks(rows),
            records=[Record(*row) for row in records],
            finished=[Census(tenant, queue, State(state), n) for tenant, queue, state, n in finished],
        )


def log(connection: sqlite3.Connection, after: int, limit: int) -> Log:
    """Read the log after a position, and where it begins."""
    with _one_instant(connection):
        rows = connection.execute(
            "SELECT position, at, data FROM log WHERE position > ? ORDER BY position LIMIT ?", (after, limit)
        )
        records = [LogRecord(position, at, decode_changes(data)) for position, at, data in rows]
        (earliest,) = connection.execute(
            "SELECT coalesce((SELECT min(position) FROM log), (SELECT position + 1 FROM shard WHERE id = 0))"
        ).fetchone()
        return Log(records, earliest)


def search(connection: Connection, query: Query) -> Page:
    """Find a page of tasks, continued by comparing (key, arrival)."""
    sort = parse_sort(query.sort)
    key, way, past = _key(sort.field, descending=sort.descending)
    condition = _Condition(query)
    if (after := read_cursor(query)) is not None:
        if key == "seq":
            condition.add(f"seq {past} ?", after[1])
        else:
            condition.add(f"({key}, seq) {past} (?, ?)", *after)
    order = f"{key} {way}" if key == "seq" else f"{key} {way}, seq {way}"
    sql = f"SELECT spec, row FROM task {condition.source} WHERE {condition.text} ORDER BY {order} LIMIT ?"
    return page_of(
        query, connection.read_tasks(connection.execute(sql, [*condition.values, query.limit + 1]))
    )


def count(connection: sqlite3.Connection, query: Query) -> int:
    """Count what a query finds."""
    condition = _Condition(query)
    sql = f"SELECT count(*) FROM task {condition.source} WHERE {condition.text}"
    (found,) = connection.execute(sql, condition.values).fetchone()
    return int(found)


@contextmanager
def _one_instant(connection: sqlite3.Connection) -> Iterator[None]:
    """See one state of the database over several statements."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


class _Condition:
    """The WHERE clause of a query and the values in it."""

    def __init__(self, query: Query) -> None:
        self._terms: list[str] = []
        self.values: list[Any] = []
        # The planner knows neither how few tasks are open nor that a page is soon full: both are said here.
        self.source = "NOT INDEXED"
        chosen = query.filter
        self._add_specs(query.tenant, chosen)
        if chosen.states is not None:
            self._add_states(chosen.states)
        self.add("(state < 5 OR prune_at IS NULL OR prune_at > ?)", query.now)
        if query.max_seq is not None:
            self.add("seq <= ?", query.max_seq)
        if chosen.tags or chosen.text:
            self._add_content(chosen)

    @property
    def text(self) -> str:
        return " AND ".join(self._terms)

    def add(self, term: str, *values: Any) -> None:
        self._terms.append(term)
        self.values.extend(values)

    def _add_specs(self, tenant: str, chosen: Filter) -> None:
        specs, values = "SELECT id FROM spec WHERE tenant = ?", [tenant]
        for column, names in (("queue", chosen.queues), ("name", chosen.names)):
            if names is not None:
                specs += f" AND {column} IN (SELECT value FROM json_each(?))"
                values.append(msgspec.json.encode(sorted(names)).decode())
        self.add(f"spec IN ({specs})", *values)

    def _add_states(self, states: frozenset[State]) -> None:
        self.add(f"state IN ({','.join(str(int(state)) for state in sorted(states))})")
        if states and states <= frozenset(OPEN):
            self.add("state < 5")
            self.source = "INDEXED BY task_open"

    def _add_content(self, chosen: Filter) -> None:
        """Let SQL leave out most rows by their bytes, and the function judge the others."""
        sieve = ["instr(row, ?)"] * len(chosen.tags)
        values: list[Any] = [tag.encode() for tag in chosen.tags]
        if part := _plain_part(chosen.text or ""):
            named = "spec IN (SELECT id FROM spec WHERE instr(lower(name), ?))"
            sieve.append(f"(instr(lower(CAST(row AS TEXT)), ?) OR {named})")
            values += [part, part]
        passes = "passes((SELECT name FROM spec WHERE spec.id = task.spec), row, ?)"
        term = f"CASE WHEN {' AND '.join(sieve)} THEN {passes} ELSE 0 END" if sieve else passes
        self.add(term, *values, encode(Filter(tags=chosen.tags, text=chosen.text)))


def _key(field: str, *, descending: bool) -> tuple[str, str, str]:
    """Return the SQL of a sort: its key, its direction, and the comparison that continues it."""
    way, past = ("DESC", "<") if descending else ("ASC", ">")
    if field == "created_at":
        return "seq", way, past
    if field == "finished_at":
        return f"ifnull(finished_at, {FIRST if descending else LAST})", way, past
    if field == "priority":
        return "(SELECT priority FROM spec WHERE spec.id = task.spec)", way, past
    return field, way, past


def _plain_part(text: str) -> str:
    """Return the longest part of a text that stands in the bytes of every row that contains the text.

    SQLite's lower() knows ASCII only, and there are letters outside ASCII whose lower case holds a k or an i.
    """
    return max(re.split(r"[^\x01-\x7f]|[ki]", text.lower()), key=len)


@functools.lru_cache(maxsize=64)
def _filter(raw: bytes) -> Filter:
    return msgspec.msgpack.decode(raw, type=Filter)


def _passes(name: str, row: bytes, raw: bytes) -> bool:
    task = decode_row(row)
    task.spec = Spec(name=name)  # the rest of it is judged by SQL
    return matches(_filter(raw), task)
