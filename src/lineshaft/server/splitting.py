"""The items of an array that as a whole is not JSON, because one of the items is not.

So that of many tasks only the bad one is refused. What is looked for is where each item ends, more leniently
than it will be read afterwards: it may hold NaN, lone surrogates, bytes that are not UTF-8, deep nesting.
"""

from __future__ import annotations

import json
import re

_scan = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str).raw_decode
_BLANK = re.compile(r"[ \t\r\n]*")


def array_parts(raw: bytes, *, most: int) -> list[bytes] | None:
    """Return the items of an array, unread; None where it cannot be told where they end.

    Where there are more than `most`, the first of them, one too many: nobody looks for the end of the rest.
    """
    try:
        return _items(raw.decode("utf-8", "surrogateescape"), most)
    except (ValueError, RecursionError, IndexError):
        return None


def _items(text: str, most: int) -> list[bytes] | None:
    at = _past(text, 0, "[")
    found: list[bytes] = []
    if text[at] != "]":
        while True:
            at, item = _value(text, at)
            found.append(item)
            if len(found) > most:
                return found
            if text[at] == "]":
                break
            at = _past(text, at, ",")
    return found if _blank(text, at + 1) == len(text) else None


def _value(text: str, at: int) -> tuple[int, bytes]:
    """Return where the text goes on after a value, and the value."""
    _, end = _scan(text, at)
    return _blank(text, end), text[at:end].encode("utf-8", "surrogateescape")


def _past(text: str, at: int, mark: str) -> int:
    """Return where the text goes on after a mark. Raises `ValueError` where another stands there."""
    at = _blank(text, at)
    if text[at] != mark:
        raise ValueError(f"expected {mark}")
    return _blank(text, at + 1)


def _blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None
    return found.end()
