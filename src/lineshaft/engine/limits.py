"""What bounds an engine: so that overload refuses instead of dropping, and no wait is for ever."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Durations are milliseconds, sizes bytes."""

    pending_bytes: int = 64 * 1024 * 1024
    """Accepted and not yet durable; beyond it everything is refused."""
    pending_commands: int = 50_000
    report_headroom: float = 0.25
    """Share of both that only workers' reports may use: finishing work is what ends an overload."""
    batch_bytes: int = 8 * 1024 * 1024
    """What gathers for one commit; beyond it commands wait for the next."""
    batch_commands: int = 5_000
    stall: int = 1_000
    """A commit in flight for longer than this is a stall: leases stop running out."""
    reply: int = 10_000
    """A reply that is not durable after this (at most twice this) is answered with 503."""
    close: int = 10_000
    """How long closing waits for the store."""
    finished_in_memory: int = 10_000
    cache_bytes: int = 16 * 1024 * 1024
    """Payloads and results written lately, over all shards."""
    prune_every: int = 60_000
    log_retention: int = 24 * 3_600_000
    max_ahead: int = 24 * 3_600_000
    """How far the store's time may be ahead of the wall clock at start."""
    backoff: int = 50
    """First wait before something is tried again at the store; doubled up to `backoff_cap`."""
    backoff_cap: int = 5_000
    ownership_lease: int = 5_000
    """For how long other coordinators on the same store wait for this one before they take its shards."""
