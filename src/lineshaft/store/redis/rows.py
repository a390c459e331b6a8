"""How tasks, their specs and identities become bytes, and back.

A row begins with the digest of its tenant and spec (10 bytes), its state (1) and its identity (12), and where
it has ended with when it and its result are due to go (8 each). So the server moves, counts and finds rows,
and a search passes over most of them, without reading what follows: the task without tenant and spec.

A bucket holds 256 arrivals; within it a row, and each of its blobs, is named by one byte.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import msgspec

from lineshaft.core.batch import Change
from lineshaft.core.task import Spec, State, Task
from lineshaft.store.rows import decode_changes, decode_row, encode, encode_row

BUCKET_BITS = 8
OPEN_HEAD = 23
ENDED_HEAD = 39

decode_record_key = msgspec.msgpack.Decoder(tuple[str, str, str]).decode
_decode_shared = msgspec.msgpack.Decoder(tuple[str, Spec]).decode

FIELDS = [bytes((number,)) for number in range(1 << BUCKET_BITS)]
_MASK = (1 << BUCKET_BITS) - 1
_DUE = struct.Struct(">dd")
_KEPT = 50_000
_SMALL = 400
_COMPRESSED = b"\xc1"  # what no message begins with


def place(seq: int) -> tuple[str, bytes]:
    """Return the bucket of an arrival, and its name within."""
    return str(seq >> BUCKET_BITS), FIELDS[seq & _MASK]


def arrival(bucket: str, field: bytes) -> int:
    """Return the arrival of a place."""
    return (int(bucket) << BUCKET_BITS) | field[0]


def identity(tenant: str, id: str) -> bytes:
    """Return the digest under which a task is found by its id."""
    return blake2b(f"{tenant}\0{id}".encode(), digest_size=12).digest()


def encode_headed(task: Task, shared: bytes) -> bytes:
    """Encode a task behind its head; `shared` is the digest of its tenant and spec."""
    row = encode_row(task, task.id)
    head = shared + FIELDS[task.state] + identity(task.tenant, task.id)
    if task.state < State.COMPLETED:
        return head + row
    run = task.run
    prune_at = -1 if run is None or run.prune_at is None else run.prune_at
    expires_at = -1 if run is None or run.result_expires_at is None else run.result_expires_at
    return head + _DUE.pack(prune_at, expires_at) + row


def prune_at(row: bytes) -> float:
    """Return when an ended row is due to go, -1 for never."""
    due: float = _DUE.unpack_from(row, OPEN_HEAD)[0]
    return due


def pack_changes(changes: list[Change]) -> bytes:
    """Encode what the log tells of a commit, compressed where that is worth it: it is all alike."""
    raw = encode(changes)
    return raw if len(raw) < _SMALL else _COMPRESSED + zlib.compress(raw, 1)


def unpack_changes(data: bytes) -> list[Change]:
    """Read what `pack_changes` made."""
    return decode_changes(zlib.decompress(data[1:]) if data[:1] == _COMPRESSED else data)


class Specs:
    """What tasks share, by digest: it never changes its meaning, so what was read once is known for ever."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, Spec]] = {}
        self._digests: dict[int, tuple[Spec, str, bytes]] = {}

    def digest(self, task: Task) -> bytes:
        """Return the digest of a task's tenant and spec."""
        spec = task.spec
        known = self._digests.get(id(spec))
        if known is not None and known[1] == task.tenant:
            return known[2]
        digest = blake2b(shared(task), digest_size=10).digest()
        if len(self._digests) >= _KEPT:
            self._digests.clear()
        # The spec is kept too: only as long as it lives is its id its own.
        self._digests[id(spec)] = (spec, task.tenant, digest)
        return digest

    def learn(self, digest: bytes, value: bytes) -> None:
        """Take what was read."""
        self._known[digest] = _decode_shared(value)

    def shared(self, digest: bytes) -> tuple[str, Spec]:
        """Return tenant and spec, which were read before."""
        return self._known[digest]

    def unknown(self, rows: Iterable[bytes]) -> list[bytes]:
        """Return the digests that must be read before the rows are."""
        if len(self._known) >= _KEPT:
            self._known.clear()
        return list({row[:10] for row in rows} - self._known.keys())

    def decode(self, row: bytes) -> Task:
        """Decode a row whose spec is known."""
        task = decode_row(memoryview(row)[ENDED_HEAD if row[10] >= State.COMPLETED else OPEN_HEAD :])
        task.tenant, task.spec = self._known[row[:10]]
        return task


def shared(task: Task) -> bytes:
    """Return what is kept once for all tasks alike."""
    return encode((task.tenant, task.spec))


@lru_cache(maxsize=4096)
def record_key(kind: str, tenant: str, key: str) -> bytes:
    """Return the field of a record."""
    return encode((kind, tenant, key))
