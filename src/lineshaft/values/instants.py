"""Instants: RFC 3339 on the wire, milliseconds since the epoch inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from lineshaft.errors import Invalid

MAX_INSTANT = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_SPELLED = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)


def parse_instant(text: object, *, field: str) -> int:
    """Return milliseconds since the epoch, rounded up: what is due then must not run before.

    Takes any RFC 3339 offset. Raises `Invalid` for other spellings, dates that do not exist and years
    outside 1970 to 9999.
    """
    found = _SPELLED.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Invalid('expected an RFC 3339 instant such as "2026-01-02T03:04:05.678Z"', field=field)
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = found.groups()
    leap = second == "60"  # RFC 3339 knows leap seconds, the epoch does not
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second), tzinfo=UTC
        )
        if sign is not None:
            moment = moment.replace(tzinfo=_offset(sign, int(hours), int(minutes)))
    except ValueError as error:
        raise Invalid(f"no such instant: {error}", field=field) from None
    instant = _milliseconds(moment) + (1_000 if leap else 0) + _rounded_up(fraction)
    if not 0 <= instant <= MAX_INSTANT:
        raise Invalid("an instant must lie in the years 1970 to 9999", field=field)
    return instant


def format_instant(instant: int) -> str:
    """Return RFC 3339 in UTC with millisecond precision, such as `2026-01-02T03:04:05.678Z`."""
    second, rest = divmod(instant, 1_000)
    return f"{_second(second)}.{rest:03d}Z"


@lru_cache(maxsize=4_096)
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _offset(sign: str, hours: int, minutes: int) -> timezone:
    if minutes > 59:
        raise ValueError("offset minutes must be in 0..59")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if sign == "-" else offset)


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _rounded_up(fraction: str | None) -> int:
    if fraction is None:
        return 0
    whole = int(fraction[:3].ljust(3, "0"))
    return whole + 1 if fraction[3:].strip("0") else whole
