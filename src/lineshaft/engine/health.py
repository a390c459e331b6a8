"""What an engine says of itself when asked how it is."""

from __future__ import annotations

import msgspec


class ShardHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. `state` is loading, serving, stalled, unowned or closed; instants are milliseconds."""

    shard: int
    state: str
    reason: str | None
    epoch: int | None
    durable: int
    not_answering_since: int | None
    pending_commands: int
    pending_bytes: int
    clock_jump: int | None
    """By how much the wall clock has jumped while that is not believed (ms)."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The whole engine; `ready` where every shard serves and its store answers."""

    ready: bool
    store: str
    tier: str
    address: str
    owner: str
    """The owner nonce of this engine, hexadecimal."""
    shards: list[ShardHealth]
