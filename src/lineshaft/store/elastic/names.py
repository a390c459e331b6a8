"""The names of indices, aliases and documents of one store."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

_LONGEST_ID = 512  # bytes that Elasticsearch takes as a document's id


class Names(msgspec.Struct, frozen=True):
    """All that one store has in a cluster; everything starts with its prefix."""

    prefix: str

    @property
    def control(self) -> str:
        """Return the index of the few small documents that are changed in place."""
        return f"{self.prefix}-control"

    def log(self, generation: int) -> str:
        """Return the index of one generation of the log."""
        return f"{self.prefix}-log-{generation:06d}"

    def tasks(self, month: str) -> str:
        """Return the index of the tasks that were created in a month."""
        return f"{self.prefix}-tasks-{month}"

    def values(self, month: str) -> str:
        """Return the index of the payloads, results, checkpoints and carries of a month's tasks."""
        return f"{self.prefix}-values-{month}"

    @property
    def all_tasks(self) -> str:
        """Return the pattern of all months' tasks."""
        return f"{self.prefix}-tasks-*"

    @property
    def all_values(self) -> str:
        """Return the pattern of all months' values."""
        return f"{self.prefix}-values-*"


def alias(index: str) -> str:
    """Return the name under which an index is written: it goes with the index, so nobody makes it anew."""
    return f"{index}-write"


def slot_id(shard: int, slot: int) -> str:
    """Return the id of a record of the log."""
    return f"{shard}-{slot}"


def task_id(tenant: str, id: str) -> str:
    """Return the id of a task's document."""
    return _fitting(f"{tenant}/{id}")


def value_id(shard: int, seq: int, kind: int) -> str:
    """Return the id of a value's document."""
    return f"{shard}-{seq}-{kind}"


def record_id(shard: int, kind: str, tenant: str, key: str) -> str:
    """Return the id of a small row that is not a task."""
    return _fitting(f"record-{shard}-{kind}/{tenant}/{key}")


def month_of(instant: int) -> str:
    """Return the month (UTC) of an instant in milliseconds, such as "2026.11"."""
    return _month(instant // 86_400_000)


@lru_cache(maxsize=1024)
def _month(day: int) -> str:
    try:
        return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y.%m")
    except (ValueError, OverflowError, OSError):
        return "9999.12"


def _fitting(id: str) -> str:
    if len(id) * 4 <= _LONGEST_ID or len(id.encode()) <= _LONGEST_ID:
        return id
    return "#" + hashlib.sha256(id.encode()).hexdigest()
