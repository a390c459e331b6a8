"""Pages of tasks and their number: PostgreSQL filters and sorts.

What SQL has no words for (a tag as it is spelled, a text in any case) it leaves out by the bytes of the row
as far as it can; what is left is judged here, by the same function as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from lineshaft.core.commands import Filter
from lineshaft.core.control import matches
from lineshaft.core.task import OPEN, TERMINAL, Task
from lineshaft.store.base import Page, Query
from lineshaft.store.paging import FIRST, LAST, Sort, page_of, parse_sort, read_cursor, sort_key
from lineshaft.store.postgres.arrays import integers, texts
from lineshaft.store.postgres.connections import Connections
from lineshaft.store.postgres.reading import Reader

_MOST_AT_ONCE = 4_000

_OPEN = (
    "seq, run_at, finished_at, NULL::int8 AS prune_at, spec, state, id, data"
    " FROM @.task_open WHERE shard = $1"
)
_ENDED = "seq, run_at, finished_at, prune_at, spec, state, id, data FROM @.task_ended WHERE shard = $1"


async def search(reader: Reader, connections: Connections, query: Query) -> Page:
    """Find a page of tasks, continued by comparing (key, arrival). Raises `Invalid`."""
    sort = parse_sort(query.sort)
    after = read_cursor(query)
    condition = _Condition(query)
    found: list[Task] = []
    async for tasks in _candidates(reader, connections, condition, sort, after, query.limit + 1):
        found += [task for task in tasks if not condition.judge or matches(query.filter, task)]
        if len(found) > query.limit:
            break
    return page_of(query, found)


async def count(reader: Reader, connections: Connections, query: Query) -> int:
    """Count what a query finds."""
    condition = _Condition(query)
    if condition.judge:
        counted = 0
        async for tasks in _candidates(
            reader, connections, condition, Sort("created_at", False), None, 1_000
        ):
            counted += sum(matches(query.filter, task) for task in tasks)
        return counted
    rows = await connections.run(
        f"SELECT count(*) {condition.source} WHERE {condition.text}".replace("@", reader.schema),
        [reader.shard, *condition.values],
    )
    return int(rows[0][0])


async def _candidates(
    reader: Reader,
    connections: Connections,
    condition: _Condition,
    sort: Sort,
    after: tuple[int, int] | None,
    wanted: int,
) -> AsyncIterator[list[Task]]:
    """Yield tasks in order, a portion at a time; all of which are found where there is nothing to judge."""
    way, past = ("DESC", "<") if sort.descending else ("ASC", ">")
    key = _key(sort)
    while True:
        text, values = condition.text, [reader.shard, *condition.values]
        if after is not None:
            if key == "t.seq":
                values.append(after[1])
                text += f" AND t.seq {past} ${len(values)}"
            else:
                values += after
                text += f" AND ({key}, t.seq) {past} (${len(values) - 1}, ${len(values)})"
        order = f"{key} {way}" if key == "t.seq" else f"{key} {way}, t.seq {way}"
        sql = f"SELECT t.spec, t.id, t.data {condition.source} WHERE {text} ORDER BY {order} LIMIT {wanted}"
        tasks = await reader.tasks(await connections.run(sql.replace("@", reader.schema), values))
        if tasks:
            yield tasks
            after = sort_key(sort, tasks[-1])
        if len(tasks) < wanted:
            return
        wanted = min(wanted * 2, max(wanted, _MOST_AT_ONCE))


class _Condition:
    """The WHERE clause of a query and the values in it; the first parameter is the shard."""

    def __init__(self, query: Query) -> None:
        self._terms: list[str] = []
        self.values: list[Any] = []
        chosen = query.filter
        self.judge = bool(chosen.tags or chosen.text)
        self._choose_tables(chosen)
        self._add("s.tenant = ?", query.tenant)
        for column, names in (("queue", chosen.queues), ("name", chosen.names)):
            if names is not None:
                self._add(f"s.{column} = ANY (?)", texts(sorted(names)))
        if chosen.states is not None:
            self._add("t.state = ANY (?)", integers(sorted(chosen.states)))
        self._add("(t.prune_at IS NULL OR t.prune_at > ?)", query.now)
        if query.max_seq is not None:
            self._add("t.seq <= ?", query.max_seq)
        self._add_content(chosen)

    @property
    def text(self) -> str:
        return " AND ".join(self._terms)

    def _choose_tables(self, chosen: Filter) -> None:
        states = chosen.states
        parts = []
        if states is None or states & frozenset(OPEN):
            parts.append(_OPEN)
        if states is None or states & frozenset(TERMINAL):
            parts.append(_ENDED)
        union = " UNION ALL SELECT ".join(parts or [_OPEN])
        self.source = f"FROM (SELECT {union}) AS t JOIN @.spec AS s ON s.shard = $1 AND s.id = t.spec"
        if states is not None and not states:
            self._add("false")

    def _add(self, term: str, *values: Any) -> None:
        for value in values:
            self.values.append(value)
            term = term.replace("?", f"${len(self.values) + 1}", 1)
        self._terms.append(term)

    def _add_content(self, chosen: Filter) -> None:
        for tag in chosen.tags:
            self._add("position(?::bytea IN t.data) > 0", tag.encode())
        if part := _plain_part(chosen.text or ""):
            self._add(
                "(strpos(lower(encode(t.data, 'escape') COLLATE \"C\"), ?) > 0"
                ' OR strpos(lower(t.id COLLATE "C"), ?) > 0 OR strpos(lower(s.name COLLATE "C"), ?) > 0)',
                part,
                part,
                part,
            )


def _key(sort: Sort) -> str:
    match sort.field:
        case "created_at":
            return "t.seq"
        case "finished_at":
            return f"coalesce(t.finished_at, {FIRST if sort.descending else LAST})"
        case "priority":
            return "s.priority"
        case _:
            return f"t.{sort.field}"


def _plain_part(text: str) -> str:
    """Return the longest part of a text that stands in every row that contains the text, whatever its case.

    The lower() of the C collation knows ASCII only, and there are letters outside ASCII whose lower case
    holds a k or an i; a backslash is what encode() writes all but ASCII with.
    """
    return max(re.split(r"[^\x01-\x7f]|[ki\\]", text.lower()), key=len)
