"""What a worker is told: from where it takes tasks, how many at once, what it can do, how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import msgspec

from lineshaft.errors import Invalid
from lineshaft.sdk.options import checked, duration, integer, named, seconds
from lineshaft.sdk.outcomes import Duration
from lineshaft.values.ids import check_name

DEFAULT_CONCURRENCY = 10

Queues = Mapping[str, int] | Sequence[str] | None
"""A mapping: each queue has its own concurrency; a sequence: they share one; None: any queue."""


class WorkerOptions(TypedDict, total=False):
    """What may be said of a worker besides its queues; see `WorkerSettings`."""

    prefetch: int
    grace: Duration
    lease: Duration
    name: str
    capability: Sequence[str]
    resources: Mapping[str, float | str]
    push: bool


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told; durations in seconds. Plain values, so that a supervisor can hand them to a
    process.
    """

    pools: tuple[tuple[list[str] | None, int], ...] = ((None, DEFAULT_CONCURRENCY),)
    """Queues (None: any) and how many tasks of them at once."""
    prefetch: int = 0
    grace: float = 30.0
    lease: str | int | float | None = None
    name: str | None = None
    capability: list[str] | None = None
    resources: dict[str, float | str] | None = None
    push: bool = True

    @property
    def slots(self) -> int:
        """How many tasks the worker holds at most."""
        return sum(concurrency + self.prefetch for _, concurrency in self.pools)


def worker_settings(
    queues: Queues = None,
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    prefetch: int = 0,
    grace: Duration = 30,
    lease: Duration | None = None,
    name: str | None = None,
    capability: Sequence[str] | None = None,
    resources: Mapping[str, float | str] | None = None,
    push: bool = True,
) -> WorkerSettings:
    """Check what a user says of a worker; Invalid names the field.

    `queues` as a mapping gives each its own concurrency; as a list they share `concurrency`; None is any
    queue.
    """
    needs = checked({"capability": capability, "resources": resources})
    affinity = needs.get("worker_affinity")
    return WorkerSettings(
        pools=_pools(queues, concurrency),
        prefetch=integer(0, 1000)(prefetch, "prefetch"),
        grace=named(seconds, grace, "grace"),
        lease=None if lease is None else named(duration, lease, "lease"),
        name=None if name is None else named(_worker_id, name, "name"),
        capability=None if affinity is None else affinity.capability,
        resources=None if affinity is None else affinity.resources,
        push=push,
    )


def _worker_id(value: str, field: str) -> str:
    return check_name(value, field=field)


def _pools(queues: Queues, concurrency: int) -> tuple[tuple[list[str] | None, int], ...]:
    if queues is None:
        return ((None, _at_once(concurrency, "concurrency")),)
    if isinstance(queues, str):
        raise Invalid(f"`queues` must be a list or a mapping, not the string {queues!r}", field="queues")
    if not queues:
        raise Invalid("`queues` is empty; leave it out to take from any queue", field="queues")
    for queue in queues:
        check_name(queue, field="queues")
    if isinstance(queues, Mapping):
        return tuple(([queue], _at_once(most, f"queues.{queue}")) for queue, most in queues.items())
    return ((list(queues), _at_once(concurrency, "concurrency")),)


_at_once = integer(1, 10_000)
