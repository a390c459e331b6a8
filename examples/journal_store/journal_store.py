"""A small store: a journal of everything that was done to a memory store, done again at the start.

It is whole: it passes `lineshaft.store.conformance`, survives power loss, and refuses a second process. It is
small because it leaves out what costs lines: the journal only grows (a start reads all of it, however long it
has become), all tasks are in memory, and each commit holds the coordinator up for one fsync. Take SQLite for
work that goes on for weeks.
"""
# ruff: noqa: ASYNC230, ASYNC240 (it blocks, and says so)

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from lineshaft.core.batch import Batch, Census
from lineshaft.errors import Fenced, Invalid, Unavailable
from lineshaft.store.base import Ownership, Roster, StoreCorrupt
from lineshaft.store.file_lock import FileLock
from lineshaft.store.memory import MemoryStore


class Did(msgspec.Struct, omit_defaults=True):
    """One line of the journal: what was asked of the store, whether it was then fenced or not."""

    acquire: tuple[int, bytes] | None = None
    release: Ownership | None = None
    commit: tuple[Ownership, Batch] | None = None
    prune: tuple[Ownership, int, int, int] | None = None
    swap_roster: tuple[int, bytes] | None = None


class JournalStore(MemoryStore):
    """Write down what changes the memory store, then change it: the same calls give the same state."""

    tier = "power loss"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.url, self._path, self._file = f"journal:///{path}", path, -1

    async def open(self, *, address: str) -> None:
        self._lock = FileLock(os.path.realpath(self._path), address=address)
        super().__init__()  # forgets, for the journal remembers
        self.url = f"journal:///{self._path}"
        await super().open(address=address)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _make_durable(os.path.dirname(os.path.realpath(self._path)))  # the name of a new file
        self._end, torn = 0, False
        with open(self._path, "rb") as lines:
            for line in lines:
                if torn:
                    await self.close()
                    raise StoreCorrupt(f"{self._path} is damaged at byte {self._end}: restore a backup of it")
                crc, _, raw = line.rstrip(b"\n").partition(b" ")
                # Only the last line may be: a crash cut it off, so nobody was told that it is done.
                torn = not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(raw)
                if not torn:
                    self._end += len(line)
                    with contextlib.suppress(Fenced, Invalid):  # as it was the first time
                        await self._do(msgspec.json.decode(raw, type=Did))
        os.ftruncate(self._file, self._end)

    async def close(self) -> None:
        await super().close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._lock.release()

    async def acquire(self, shard: int, owner: bytes) -> Ownership:
        ownership: Ownership = await self._write_and_do(Did(acquire=(shard, owner)))
        return ownership

    async def release(self, ownership: Ownership) -> None:
        await self._write_and_do(Did(release=ownership))

    async def commit(self, ownership: Ownership, batch: Batch) -> None:
        await self._write_and_do(Did(commit=(ownership, batch)))

    async def swap_roster(self, expected: int, data: bytes) -> Roster:
        roster: Roster = await self._write_and_do(Did(swap_roster=(expected, data)))
        return roster

    async def prune(
        self, ownership: Ownership, *, before: int, log_before: int, limit: int = 10_000
    ) -> list[Census]:
        removed: list[Census] = await self._write_and_do(Did(prune=(ownership, before, log_before, limit)))
        return removed

    async def _write_and_do(self, did: Did) -> Any:
        if self._file < 0:
            raise Unavailable("the store is closed")
        raw = msgspec.json.encode(did)
        line = b"%08x %s\n" % (zlib.crc32(raw), raw)
        try:
            if os.write(self._file, line) < len(line):
                raise OSError("the disk is full")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._end)  # or the next line would be one with what is left of this
            raise Unavailable(f"{self._path} cannot be written: {error}") from error
        self._end += len(line)
        return await self._do(did)

    async def _do(self, did: Did) -> Any:
        match did:
            case Did(acquire=(shard, owner)):
                return await super().acquire(shard, owner)
            case Did(release=Ownership() as ownership):
                return await super().release(ownership)
            case Did(commit=(ownership, batch)):
                return await super().commit(ownership, batch)
            case Did(swap_roster=(expected, data)):
                return await super().swap_roster(expected, data)
            case Did(prune=(ownership, before, log_before, limit)):
                return await super().prune(ownership, before=before, log_before=log_before, limit=limit)


def _make_durable(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def make_store(url: str, options: Mapping[str, str]) -> JournalStore:
    """Make the store of `journal:///relative.journal` or `journal:////absolute.journal`."""
    path = url.removeprefix("journal:///")
    if path in (url, "") or options:
        raise Invalid(f"{url!r}: use journal:///jobs.journal, without options", field="store")
    return JournalStore(path)
