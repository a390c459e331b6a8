"""Which ids cannot be in the store, so that nobody needs to look.

Most clients choose the ids of their tasks, so that they can repeat a request, and make them by the clock (26
digits, see `values.ids.TimeOrderedIds`). What a shard has created since it was loaded is in its memory until
it is evicted. So an id of that form is new which is above all that was stored before the load, and above all
that was evicted since. What was stored before the load was created before the load, and its id is not far
ahead of that: where one is, since some client's clock is fast, a record says how far.
"""

from __future__ import annotations

AHEAD = 10_000
"""Milliseconds by which ids may be ahead of the shard's time without a record."""

RECORD = "ahead"
"""Kind of the record of a tenant's ids that were further ahead; its key is empty."""

_LENGTH = 26
_SPAN = 8
"""Leading digits that a record tells apart: 65 s, so that a client whose clock is fast writes few of them."""


def is_time_ordered(task_id: str) -> bool:
    """Tell whether an id may be one that sorts by time; where it only looks like one, that costs look-ups."""
    return len(task_id) == _LENGTH and task_id[0] == "0"


def last_id_of(instant: int) -> str:
    """Return an id above all that were made at an instant (ms) or before."""
    return f"{instant:012x}~"


def last_id_like(task_id: str) -> str:
    """Return an id above one that is ahead and all that were made soon after it."""
    return f"{task_id[:_SPAN]}~"
