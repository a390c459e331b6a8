"""How a page of tasks is chosen: the filter, the order and the cursor, alike for every store.

Order is by (key, arrival), both in the direction of the sort, so that a page is continued by comparing one
pair. Unfinished tasks are last when sorting by `finished_at`, whichever the direction. What a filter means
is the core's `matches`, so that a sweep judges as a search found.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import msgspec

from lineshaft.core.control import matches
from lineshaft.core.task import Task
from lineshaft.errors import Invalid
from lineshaft.store.base import SORT_FIELDS, Page, Query

LAST = 2**63 - 1
FIRST = -(2**63)


class Sort(msgspec.Struct, frozen=True):
    """A sort field and its direction."""

    field: str
    descending: bool


class Cursor(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Where a page ended: the sort it was made for, the key and the arrival of its last task."""

    sort: str
    key: int
    seq: int


def parse_sort(text: str) -> Sort:
    """Read a sort such as `"-run_at"`. Raises `Invalid` (field "sort")."""
    field = text.removeprefix("-")
    if field not in SORT_FIELDS:
        raise Invalid(
            f"cannot sort by {text!r}: use one of {', '.join(SORT_FIELDS)}, with - before it", field="sort"
        )
    return Sort(field, text.startswith("-"))


def sort_key(sort: Sort, task: Task) -> tuple[int, int]:
    """Return what tasks are ordered by: (key, arrival)."""
    match sort.field:
        case "run_at":
            return task.run_at, task.seq
        case "priority":
            return task.spec.priority, task.seq
        case "finished_at":
            finished_at = None if task.run is None else task.run.finished_at
            if finished_at is None:
                finished_at = FIRST if sort.descending else LAST
            return finished_at, task.seq
        case _:
            return task.seq, task.seq


def write_cursor(query: Query, key: tuple[int, int]) -> str:
    """Return the URL-safe cursor of the page after `key`."""
    raw = msgspec.msgpack.encode(Cursor(query.sort, *key))
    return base64.urlsafe_b64encode(_checksum(raw) + raw).rstrip(b"=").decode()


def read_cursor(query: Query) -> tuple[int, int] | None:
    """Return the key after which the page begins. Raises `Invalid` (field "after") for a foreign cursor."""
    if query.after is None:
        return None
    try:
        padded = query.after.encode("ascii") + b"=" * (-len(query.after) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        if _checksum(raw[4:]) != raw[:4]:
            raise ValueError("checksum")
        cursor = msgspec.msgpack.decode(raw[4:], type=Cursor)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise Invalid("not a cursor that a page was answered with", field="after") from None
    if cursor.sort != query.sort:
        raise Invalid(
            f"the cursor belongs to a page sorted by {cursor.sort!r}, not {query.sort!r}", field="after"
        )
    return cursor.key, cursor.seq


def page_of(query: Query, found: list[Task]) -> Page:
    """Make a page of what was found in order, one task more than the limit where there are more."""
    tasks = found[: query.limit]
    if len(found) <= query.limit:
        return Page(tasks, None)
    return Page(tasks, write_cursor(query, sort_key(parse_sort(query.sort), tasks[-1])))


def visible(query: Query, task: Task) -> bool:
    """Tell whether the query, but for its cursor, finds the task."""
    if task.tenant != query.tenant or (query.max_seq is not None and task.seq > query.max_seq):
        return False
    prune_at = None if task.run is None else task.run.prune_at
    if task.state.terminal and prune_at is not None and prune_at <= query.now:
        return False
    return matches(query.filter, task)


def _checksum(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(4, "big")
