"""What a filter, an order and a page mean in the query language of the cluster."""

from __future__ import annotations

import re
from typing import Any

from lineshaft.core.commands import Filter
from lineshaft.store.base import Query
from lineshaft.store.elastic.finding import ENDED, OPEN
from lineshaft.store.elastic.shard import Shard
from lineshaft.store.paging import FIRST, LAST, Sort, parse_sort, read_cursor
from lineshaft.values.partitions import split_partition

Clause = dict[str, Any]

_FIELDS = {"created_at": "seq"}
_TEXTS = ("task_id", "name", "tags", "text")


def tasks_of(shard: Shard, *more: Clause, states: list[str]) -> Clause:
    """Return the query of a shard's tasks in some states, without what was pruned."""
    return {
        "bool": {
            "filter": [{"term": {"shard": shard.number}}, {"terms": {"state": states}}, *more],
            "must_not": shard.pruned.queries("prune_at"),
        }
    }


def open_tasks(shard: Shard) -> Clause:
    """Return the query of what a load brings."""
    return tasks_of(shard, states=OPEN)


def ended_tasks(shard: Shard, *more: Clause) -> Clause:
    """Return the query of finished tasks."""
    return tasks_of(shard, *more, states=ENDED)


def query_of(shard: Shard, query: Query) -> Clause:
    """Return the query of what a search finds, its cursor left out."""
    tenant, partition = split_partition(query.tenant)
    must: list[Clause] = [{"term": {"shard": shard.number}}, {"term": {"tenant": tenant}}]
    must += _filter(query.filter)
    if query.max_seq is not None:
        must.append({"range": {"seq": {"lte": query.max_seq}}})
    hidden = [{"range": {"prune_at": {"lte": query.now}}}, *shard.pruned.queries("prune_at")]
    if partition is None:
        hidden.append({"exists": {"field": "partition"}})
    else:
        must.append({"term": {"partition": partition}})
    return {"bool": {"filter": must, "must_not": hidden}}


def page_after(query: Query) -> Clause | None:
    """Return the query of what is behind the cursor, None without one. Raises `Invalid` (sort, after)."""
    sort = parse_sort(query.sort)
    cursor = read_cursor(query)
    if cursor is None:
        return None
    key, seq = cursor
    field = _FIELDS.get(sort.field, sort.field)
    beyond = "lt" if sort.descending else "gt"
    if field == "seq":
        return {"range": {"seq": {beyond: seq}}}
    later = {"range": {"seq": {beyond: seq}}}
    unfinished = {"bool": {"must_not": [{"exists": {"field": field}}]}}
    if field == "finished_at" and key in (FIRST, LAST):
        return {"bool": {"filter": [unfinished, later]}}
    ways: list[Clause] = [
        {"range": {field: {beyond: key}}},
        {"bool": {"filter": [{"term": {field: key}}, later]}},
    ]
    if field == "finished_at":
        ways.append(unfinished)
    return {"bool": {"should": ways}}


def order(sort: Sort) -> list[Clause]:
    """Return the order of a page; unfinished tasks are last by `finished_at`, in both directions."""
    field, way = _FIELDS.get(sort.field, sort.field), "desc" if sort.descending else "asc"
    by_arrival: Clause = {"seq": {"order": way}}
    return [by_arrival] if field == "seq" else [{field: {"order": way, "missing": "_last"}}, by_arrival]


def _filter(filter: Filter) -> list[Clause]:
    must: list[Clause] = []
    if filter.states is not None:
        must.append({"terms": {"state": sorted(state.word for state in filter.states)}})
    if filter.queues is not None:
        must.append({"terms": {"queue": sorted(filter.queues)}})
    if filter.names is not None:
        must.append({"terms": {"name": sorted(filter.names)}})
    must += [{"term": {"tags": tag}} for tag in filter.tags]
    if filter.text:
        pattern = "*" + re.sub(r"([*?\\])", r"\\\1", filter.text.lower()) + "*"
        must.append({"bool": {"should": [{"wildcard": {name: {"value": pattern}}} for name in _TEXTS]}})
    return must
