"""What two stores must have alike: how many tasks of each tenant and state, and a sum over all that is there.

The sum does not depend on the order or the numbers of arrival, so stores with different shards compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from lineshaft.core.batch import Blob, Record
from lineshaft.core.task import State, Task

_BITS = 1 << 128
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Digest:
    """Counts and sums of what is in a store; fill it and compare."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, State]] = Counter()
        self.values = 0
        self.records = 0
        self._sums: Counter[str] = Counter()

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return self.counts.total()

    @property
    def tenants(self) -> set[str]:
        """Whose tasks there are."""
        return {tenant for tenant, _ in self.counts}

    def add_task(self, task: Task, values: Sequence[tuple[Blob, bytes]]) -> None:
        """Add a row and its values, whatever its number of arrival."""
        alike = task.snapshot()
        alike.seq = 0
        self.counts[task.tenant, task.state] += 1
        self.values += len(values)
        self._add(task.tenant, _encode((alike, [(int(kind), data) for kind, data in values])))

    def add_record(self, record: Record) -> None:
        """Add a record."""
        self.records += 1
        self._add(record.tenant, _encode(record))

    def difference(self, other: Digest) -> str | None:
        """Say where another has not the same; None where it has."""
        for tenant, state in sorted(self.counts.keys() | other.counts.keys()):
            ours, theirs = self.counts[tenant, state], other.counts[tenant, state]
            if ours != theirs:
                return f"tenant {tenant} has {theirs} tasks that are {state.word}, not {ours}"
        if self.records != other.records:
            return f"there are {other.records} records, not {self.records}"
        for tenant in sorted(self._sums.keys() | other._sums.keys()):
            if self._sums[tenant] != other._sums[tenant]:
                return f"what tenant {tenant} has is not the same"
        return None

    def _add(self, tenant: str, content: bytes) -> None:
        number = int.from_bytes(blake2b(content, digest_size=16).digest())
        self._sums[tenant] = (self._sums[tenant] + number) % _BITS
