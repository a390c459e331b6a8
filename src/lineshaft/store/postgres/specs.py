"""What tasks enqueued alike share: a tenant and a spec, kept once for a shard and named by a number.

The owner of a shard gives the numbers, in the commit that needs them first; what a number means never
changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lineshaft.core.task import Spec, Task
from lineshaft.store.rows import encode

Shared = tuple[str, Spec]
"""A tenant and a spec."""

MANY = 50_000
"""Specs of a shard beyond which those that no task has any more are deleted at a load."""

_KEPT = 20_000

decode_spec = msgspec.msgpack.Decoder(Spec).decode


class NewSpec(msgspec.Struct, frozen=True):
    """A spec that is written with the batch that needs it first."""

    number: int
    tenant: str
    spec: Spec
    data: bytes


class ReadSpecs:
    """The specs of a shard as readers know them."""

    def __init__(self) -> None:
        self.known: dict[int, Shared] = {}

    def learn(self, rows: Sequence[tuple[int, str, bytes]]) -> None:
        """Take in rows of (number, tenant, spec)."""
        if len(self.known) > 2 * MANY:
            self.known.clear()
        tenants: dict[str, str] = {}
        for number, tenant, data in rows:
            self.known[number] = (tenants.setdefault(tenant, tenant), decode_spec(data))

    def unknown(self, numbers: Sequence[int]) -> list[int]:
        """Return the numbers that must be read first."""
        known = self.known
        return list({number for number in numbers if number not in known})

    def put_into(self, tasks: list[Task], numbers: Sequence[int], ids: Sequence[str]) -> None:
        """Complete decoded rows."""
        known = self.known
        for task, number, id in zip(tasks, numbers, ids, strict=True):
            task.tenant, task.spec = known[number]
            task.id = id


class SpecNumbers:
    """The numbers of a shard's specs as its owner gives them, and which tasks have rows, in one epoch."""

    def __init__(self, epoch: int, rows: Sequence[tuple[int, str, bytes]], highest_seq: int) -> None:
        self.epoch = epoch
        self.highest_seq = highest_seq
        """No task above has a row."""
        self._next = max((number for number, _, _ in rows), default=0) + 1
        self._by_value = {(tenant, data): number for number, tenant, data in rows}
        self._by_object: dict[int, tuple[Spec, str, int]] = {}

    def number(self, task: Task, new: dict[tuple[str, bytes], NewSpec]) -> int:
        """Return the number of the task's tenant and spec; where it has none, note one in `new`."""
        known = self._by_object.get(id(task.spec))
        if known is not None and known[1] == task.tenant:
            return known[2]
        spec, tenant = task.spec, task.tenant
        value = (tenant, encode(spec))
        number = self._by_value.get(value)
        if number is None:
            if value not in new:
                new[value] = NewSpec(self._next + len(new), tenant, spec, value[1])
            return new[value].number
        if len(self._by_object) >= _KEPT:
            self._by_object.clear()
        # The spec is kept too: only as long as it lives is its id its own.
        self._by_object[id(spec)] = (spec, tenant, number)
        return number

    def committed(self, new: dict[tuple[str, bytes], NewSpec], highest_seq: int) -> None:
        """What `number` gave is stored."""
        for value, made in new.items():
            self._by_value[value] = made.number
            self._next = max(self._next, made.number + 1)
        self.highest_seq = max(self.highest_seq, highest_seq)
