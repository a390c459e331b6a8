"""Amounts of resources: `"24GiB"`, `"500MB"` or a number; a size is bytes inside."""

from __future__ import annotations

import math
import re

from lineshaft.errors import Invalid

MAX_SIZE = 1 << 62

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_UNITS |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_SPELLED = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]{0,3})")


def parse_amount(value: str | int | float, *, field: str) -> float:
    """Return the amount of a resource: a number as it is, a size as bytes. Raises `Invalid`."""
    if isinstance(value, str):
        return float(_bounded(_spelled(value, field), field))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid('expected a number or a size such as "24GiB"', field=field)
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid("an amount must be finite", field=field)
    return float(_bounded(value, field))


def _spelled(text: str, field: str) -> int | float:
    found = _SPELLED.fullmatch(text)
    unit = None if found is None else _UNITS.get(found[2])
    if found is None or unit is None:
        raise Invalid('expected a size such as "24GiB", "500MB" or a number of bytes', field=field)
    return round(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def _bounded(number: int | float, field: str) -> int | float:
    if number < 0:
        raise Invalid("must not be negative", field=field)
    if number > MAX_SIZE:
        raise Invalid("must not be above 4 EiB", field=field)
    return number
