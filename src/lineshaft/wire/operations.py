"""Messages of operation: queues, workers, health, statistics, API keys."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lineshaft.wire.grammar import Reserved
from lineshaft.wire.messages import Answer, Instant, Request, Seconds

Scope = Literal["enqueue", "work", "read", "admin"]


class Root(Answer, kw_only=True):
    """What answers here: `features` are the words of what this version can do beyond the first."""

    name: str
    version: str
    protocol: str
    features: list[str]


class PutQueue(Request, kw_only=True):
    """Settings of a queue; absent ones stay. `limits` and `weight` are reserved: 422 `not_supported`."""

    paused: bool | None = None
    closed: bool | None = None
    limits: Reserved = None
    weight: Reserved = None


class Queue(Answer, kw_only=True):
    """A queue: `backlog` could run now, `oldest_age` is how long (seconds) the first of them has waited."""

    queue: str
    paused: bool
    closed: bool
    backlog: int
    running: int
    oldest_age: Seconds
    workers: int
    counts: dict[str, int]
    """Tasks by state, finished ones included while they are retained."""
    position: int


class QueueList(Answer, kw_only=True):
    """All queues, by name."""

    queues: list[Queue]


class Scale(Answer, kw_only=True):
    """For autoscalers: `wanted` is how many tasks could run at once if there were workers enough."""

    queue: str
    backlog: int
    running: int
    oldest_age: Seconds
    wanted: int
    workers: int


class Drain(Request, kw_only=True):
    """Drain only this incarnation of the worker, or (without) whichever runs now."""

    incarnation: str | None = None


class WorkerInfo(Answer, kw_only=True):
    """A worker seen lately: what it declared, what of it is free, how many tasks it holds."""

    worker_id: str
    held: int
    waiting: bool
    draining: bool
    seen_at: Instant
    capabilities: list[str]
    resources: dict[str, float]
    free: dict[str, float]
    incarnation: str | None = None
    name: str | None = None
    version: str | None = None
    host: str | None = None
    pid: int | None = None
    queues: list[str] | None = None
    names: list[str] | None = None
    position: int | None = None


class WorkerList(Answer, kw_only=True):
    """All workers seen lately."""

    workers: list[WorkerInfo]


class CoordinatorInfo(Answer, kw_only=True):
    """A coordinator on the same store, as seen by the one that was asked (`here`)."""

    address: str
    """Where the others reach it; empty where they cannot."""
    shards: list[int]
    here: bool
    leaving: bool
    version: str
    joined_at: Instant
    silent_for: Seconds
    """Since something was heard of it; past 7/10 of its ownership lease it is taken for dead."""


class Health(Answer, kw_only=True):
    """`status` is "ok", or what is wrong; `tier` names what a 2xx survives, `owner` who owns the shards.

    Where several coordinators may share the store, `coordinators` are all of them with their shards, and
    `owner` is the one that was asked.

    Where all is well, `reason` is what one should know of the store all the same, such as what a failover of
    its server has lost.
    """

    status: str
    store: str | None = None
    tier: str | None = None
    owner: str | None = None
    reason: str | None = None
    coordinators: list[CoordinatorInfo] | None = None


class Stats(Answer, kw_only=True):
    """Counts by state and gauges of the caller's tenant; `totals` since the coordinator started."""

    counts: dict[str, int]
    queues: int
    workers: int
    waiting_claims: int
    waiting_results: int
    leases: int
    totals: dict[str, int]
    position: int
    now: Instant
    uptime: Seconds
    store: str
    tier: str
    version: str


class PutTenant(Request, kw_only=True):
    """Over how many partitions a tenant's tasks are spread: 1 to the number of the store's shards."""

    partitions: Annotated[int, Meta(ge=1, le=65_536)]


class TenantInfo(Answer, kw_only=True):
    """A tenant, and the shard of each of its partitions."""

    tenant: str
    partitions: int
    shards: list[int]


class TenantList(Answer, kw_only=True):
    """All tenants that are known by an API key or by their partitions, by name."""

    tenants: list[TenantInfo]


class NewKey(Request, kw_only=True):
    """An API key to make. `tenant` None is the tenant of the caller."""

    name: str
    scopes: list[Scope]
    tenant: str | None = None


class Key(Answer, kw_only=True):
    """An API key; `key` (the secret) only in the answer that makes it."""

    key_id: str
    name: str
    tenant: str
    scopes: list[Scope]
    created_at: Instant
    key: str | None = None


class KeyList(Answer, kw_only=True):
    """All API keys, without their secrets."""

    keys: list[Key]


class Revoked(Answer, kw_only=True):
    """A key that is no longer valid."""

    key_id: str
