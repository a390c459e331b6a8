"""Instants and durations as people read them: `4.2 s`, `3 min`, `2 h ago`."""

from __future__ import annotations

import time

from lineshaft.errors import LineshaftError
from lineshaft.values.instants import parse_instant

_STEPS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def span(seconds: float | None) -> str | None:
    """Return a duration in its largest fitting unit."""
    if seconds is None:
        return None
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    if seconds >= 10 or seconds == 0:
        return f"{seconds:.0f} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def ago(instant: str | None) -> str | None:
    """Return how long ago an RFC 3339 instant was, or in how long it will be."""
    if instant is None:
        return None
    try:
        passed = time.time() - parse_instant(instant, field="") / 1000
    except LineshaftError:
        return instant
    if abs(passed) < 1:
        return "now"
    return f"{span(passed)} ago" if passed > 0 else f"in {span(-passed)}"


def between(start: str | None, end: str | None) -> float | None:
    """Return the seconds from one instant to another; None where one is missing."""
    if start is None or end is None:
        return None
    return (parse_instant(end, field="") - parse_instant(start, field="")) / 1000


def clock(instant: str | None) -> str | None:
    """Return an instant as it is, without the date where it is today's."""
    if instant is None:
        return None
    today = time.strftime("%Y-%m-%dT", time.gmtime())
    return instant.removeprefix(today)
