"""Durations: `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"` or a number of seconds; milliseconds inside."""

from __future__ import annotations

import math
import re

from lineshaft.errors import Invalid

MAX_DURATION = 36_500 * 86_400_000
"""A hundred years: every instant reached by adding durations to now stays printable."""

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "": 1_000}
_SPELLED = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|)")


def parse_duration(value: str | int | float, *, field: str) -> int:
    """Return milliseconds (rounded, but never to 0 what is more than 0).

    A string is a number and a unit (ms, s, m, h, d; seconds without one), a number is seconds.
    Raises `Invalid` for anything else, for what is negative and for more than a hundred years.
    """
    if isinstance(value, str):
        return _spelled(value, field)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid('expected a duration such as "30s" or a number of seconds', field=field)
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid("a duration must be finite", field=field)
    return _bounded(value, 1_000, field)


def seconds(duration: int) -> int | float:
    """Return milliseconds as seconds: an int when whole, else a float."""
    whole, rest = divmod(duration, 1_000)
    return duration / 1_000 if rest else whole


def _spelled(text: str, field: str) -> int:
    found = _SPELLED.fullmatch(text)
    if found is None:
        if text.startswith("-") and _SPELLED.fullmatch(text[1:]):
            raise Invalid("a duration must not be negative", field=field)
        raise Invalid(
            'expected a duration such as "250ms", "30s", "5m", "1h", "7d" or a number of seconds', field=field
        )
    number, unit = found.groups()
    return _bounded(float(number) if "." in number else int(number), _UNITS[unit], field)


def _bounded(number: int | float, unit: int, field: str) -> int:
    if number < 0:
        raise Invalid("a duration must not be negative", field=field)
    if number * unit > MAX_DURATION:
        raise Invalid("a duration must not be longer than 36500 days", field=field)
    if not number:
        return 0
    return max(1, round(number * unit))
