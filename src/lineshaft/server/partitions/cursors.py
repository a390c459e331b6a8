"""Cursors over all partitions, URL-safe: where each of them stands.

A cursor of a search has, for each partition, the cursor of the page that was being read and how far; one of
the change feed has the partitions' own cursors with dots between.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import msgspec

from lineshaft.errors import Invalid


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """How far a partition was read: `consumed` tasks of the page after the cursor `after`.

    `key` is of the last task of these, and `last` has checksums of the last few ids: what is gone from the
    page since would make the count wrong.
    """

    after: str | None = None
    consumed: int = 0
    key: str | int | None = None
    last: tuple[int, ...] = ()
    done: bool = False
    """Nothing is left."""


class _Cursor(msgspec.Struct, frozen=True, array_like=True, tag=2):
    sort: str
    marks: list[Mark]


def write_marks(sort: str, marks: list[Mark]) -> str:
    """Return the cursor of the page that goes on where the marks stand."""
    raw = msgspec.msgpack.encode(_Cursor(sort, marks))
    return base64.urlsafe_b64encode(_checksum(raw) + raw).rstrip(b"=").decode()


def read_marks(cursor: str | None, *, sort: str, partitions: int) -> list[Mark]:
    """Return where to go on. Raises `Invalid` (field "after") for a cursor of another kind or sort."""
    if cursor is None:
        return [Mark()] * partitions
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        if _checksum(raw[4:]) != raw[:4]:
            raise ValueError("checksum")
        found = msgspec.msgpack.decode(raw[4:], type=_Cursor)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise Invalid("not a cursor that a page was answered with", field="after") from None
    if found.sort != sort:
        raise Invalid(f"the cursor belongs to a page sorted by {found.sort!r}, not {sort!r}", field="after")
    if len(found.marks) != partitions:
        raise Invalid(f"the cursor is one of {len(found.marks)} partitions, not {partitions}", field="after")
    return found.marks


def join_cursors(cursors: list[str]) -> str:
    """Return the cursor of a change feed over all partitions."""
    return ".".join(cursors)


def split_cursors(cursor: str, *, partitions: int) -> list[str]:
    """Return the partitions' own cursors; "0" is where each begins. Raises `Invalid` (field "after")."""
    parts = ["0"] * partitions if cursor == "0" else cursor.split(".")
    if len(parts) != partitions:
        raise Invalid("this is no cursor of the change feed", field="after")
    return parts


def _checksum(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(4, "big")
