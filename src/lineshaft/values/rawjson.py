"""JSON that is kept as bytes: checked strictly, never decoded, so that every number survives as spelled.

Strict means RFC 8259 in UTF-8 and no more: no NaN or Infinity, no lone surrogates (not even escaped), no
byte order mark, no control characters in strings, and no nesting deeper than a limit. Duplicate keys are
kept. The checks are few passes in C over the whole text.
"""

from __future__ import annotations

import re

import msgspec

from lineshaft.errors import Malformed

MAX_DEPTH = 64

_skim = msgspec.json.Decoder(msgspec.Raw).decode
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")


def check_json(raw: bytes, *, field: str | None = None, max_depth: int = MAX_DEPTH) -> bytes:
    """Return `raw` if it is strict JSON nested no deeper than `max_depth`, else raise `Malformed`."""
    screen(raw, field=field, max_depth=max_depth)
    try:
        _skim(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"not JSON: {_reason(error)}", field=field) from None
    return raw


def screen(raw: bytes, *, field: str | None = None, max_depth: int = MAX_DEPTH) -> None:
    """Check what decoders that skip values leave unseen: encoding, surrogates, depth; raise `Malformed`."""
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"not UTF-8: {error.reason} at byte {error.start}", field=field) from None
    if b"\\u" in raw and _has_lone_surrogate(raw):
        raise Malformed("a string holds a lone surrogate", field=field)
    if raw.count(b"[") + raw.count(b"{") > max_depth and is_deeper(raw, max_depth):
        raise Malformed(f"nested deeper than {max_depth}", field=field)


def is_deeper(raw: bytes, depth: int) -> bool:
    """Tell whether arrays and objects nest deeper than `depth` (or never close)."""
    brackets = _without_strings(raw).translate(_TO_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        without_leaves = brackets.replace(b"[]", b"")
        if len(without_leaves) == len(brackets):
            break
        brackets = without_leaves
    return bool(brackets)


def _without_strings(raw: bytes) -> bytes:
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(raw.split(b'"')[::2])


def _has_lone_surrogate(raw: bytes) -> bool:
    escapes = raw.replace(b"\\\\", b"\x00")  # so that every backslash left begins an escape
    return _SURROGATE.search(escapes) is not None and _SURROGATE.search(_PAIR.sub(b"", escapes)) is not None


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
