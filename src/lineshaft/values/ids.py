"""Task ids, names and queues: what they may look like, and ids that sort by time."""

from __future__ import annotations

import re
from collections.abc import Callable

from lineshaft.errors import Invalid

TASK_ID_PATTERN = r"[A-Za-z0-9.\-:/@+=][A-Za-z0-9._\-:/@+=]{0,255}"
NAME_PATTERN = r"[A-Za-z0-9._\-:/]{1,128}"
_TASK_ID = re.compile(TASK_ID_PATTERN)
_NAME = re.compile(NAME_PATTERN)
_RANDOM_BITS = 56

is_task_id = _TASK_ID.fullmatch
"""Whether a string is a task id (truthy or None): the check of `check_task_id` for hot paths."""
is_name = _NAME.fullmatch
"""Whether a string is a name (truthy or None): the check of `check_name` for hot paths."""


def check_task_id(text: str, *, field: str) -> str:
    """Return the id: 1 to 256 letters, digits and `. _ - : / @ + =`, no `_` first; else raise `Invalid`."""
    if is_task_id(text) is None:
        raise Invalid(
            "a task id is 1 to 256 of the letters, digits and . _ - : / @ + = and does not start with _",
            field=field,
        )
    return text


def check_name(text: str, *, field: str) -> str:
    """Return the name (of a type, a queue): 1 to 128 letters, digits, `. _ - : /`; else raise `Invalid`."""
    if is_name(text) is None:
        raise Invalid("a name is 1 to 128 of the letters, digits and . _ - : /", field=field)
    return text


class TimeOrderedIds:
    """Make ids of 26 hex digits that sort by time: 48 bits of milliseconds, 56 bits of chance.

    Within one generator ids rise strictly, also when the clock stands or runs back.
    `random_bits(n)` must return a random integer of n bits, as `random.getrandbits` does.
    """

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        self._random_bits = random_bits
        self._last = -1
        self._low = 0
        self._prefix = ""

    def next(self, now: int) -> str:
        """Return a new id for the instant `now` (ms since the epoch)."""
        if now > self._last:
            self._turn(now)
        else:
            self._low += 1
            if self._low >> _RANDOM_BITS:
                self._turn(self._last + 1)
        return f"{self._prefix}{self._low:014x}"

    def _turn(self, millisecond: int) -> None:
        self._last = millisecond
        self._low = self._random_bits(_RANDOM_BITS - 1)  # the top bit is left free to count up into
        self._prefix = f"{millisecond:012x}"
