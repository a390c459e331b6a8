"""Arrays as PostgreSQL reads them fastest: in its binary format, made in a few calls.

An array of many small elements is the bulk of a commit; element by element it would take longer to write
than to store.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack

from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

NOTHING = -(2**63)
"""Stands for null in an array of integers."""

_INT8, _TEXT, _BYTEA = 20, 25, 17
_INT8_ARRAY, _TEXT_ARRAY, _BYTEA_ARRAY = 1016, 1009, 1001
_HEAD = Struct(">5i")  # dimensions, whether there are nulls, type of the elements, how many, first index
_LENGTH = Struct(">i").pack


class Int8Array(bytes):
    """An `int8[]`, ready to be sent."""


class TextArray(bytes):
    """A `text[]`, ready to be sent."""


class ByteaArray(bytes):
    """A `bytea[]`, ready to be sent."""


def integers(values: Sequence[int]) -> Int8Array | None:
    """Return an array of integers; None for an empty one. Raises `struct.error` beyond 64 bits."""
    if not values:
        return None
    flat = [8] * (2 * len(values))
    flat[1::2] = values
    return Int8Array(_HEAD.pack(1, 0, _INT8, len(values), 1) + pack(">" + "iq" * len(values), *flat))


def texts(values: Sequence[str]) -> TextArray | None:
    """Return an array of texts; None for an empty one. Raises `UnicodeEncodeError`."""
    if not values:
        return None
    return TextArray(_head(_TEXT, len(values)) + _joined([value.encode() for value in values]))


def byte_strings(values: Sequence[bytes]) -> ByteaArray | None:
    """Return an array of byte strings; None for an empty one."""
    if not values:
        return None
    return ByteaArray(_head(_BYTEA, len(values)) + _joined(values))


def _head(kind: int, count: int) -> bytes:
    return _HEAD.pack(1, 0, kind, count, 1)


def _joined(values: Sequence[bytes]) -> bytes:
    parts: list[bytes] = [b""] * (2 * len(values))
    parts[0::2] = [_LENGTH(len(value)) for value in values]
    parts[1::2] = values
    return b"".join(parts)


class _ReadyDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> Buffer:
        return obj


class Int8ArrayDumper(_ReadyDumper):
    """Sends an `Int8Array` as it is."""

    oid = _INT8_ARRAY


class TextArrayDumper(_ReadyDumper):
    """Sends a `TextArray` as it is."""

    oid = _TEXT_ARRAY


class ByteaArrayDumper(_ReadyDumper):
    """Sends a `ByteaArray` as it is."""

    oid = _BYTEA_ARRAY


DUMPERS = ((Int8Array, Int8ArrayDumper), (TextArray, TextArrayDumper), (ByteaArray, ByteaArrayDumper))
