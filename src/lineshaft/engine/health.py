"""What an engine says of itself when asked how it is."""

from __future__ import annotations

import msgspec

from lineshaft.engine.cluster.membership import Membership


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


class MemberHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A coordinator that takes part, as seen from here."""

    id: str
    """Its owner nonce, hexadecimal."""
    address: str
    version: str
    joined_at: int
    leaving: bool
    silent_for: float
    """Seconds since something new was seen of it; 0 of ourselves."""
    shards: list[int]


class ClusterHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinators on the store, and who has which shard."""

    id: str
    """Which of the members is this one."""
    members: list[MemberHealth]
    holders: list[str | None]
    """By number of the shard."""
    trouble: str | None
    """Why the roster could not be kept lately."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The whole engine; `ready` where every shard serves and its store answers."""

    ready: bool
    store: str
    tier: str
    address: str
    owner: str
    """The owner nonce of this engine, hexadecimal."""
    shards: list[ShardHealth]
    """Those that are ours."""
    cluster: ClusterHealth | None = None
    """None where the store is exclusive to this engine."""


def cluster_health(membership: Membership) -> ClusterHealth:
    """Return how the coordinators are, as seen by one of them."""
    roster = membership.roster
    return ClusterHealth(
        id=membership.id.hex(),
        members=[
            MemberHealth(
                id=member.id.hex(),
                address=member.address,
                version=member.version,
                joined_at=member.joined_at,
                leaving=member.leaving,
                silent_for=membership.silent_for(member.id),
                shards=roster.shards_of(member.id),
            )
            for member in roster.members
        ],
        holders=[holder.hex() or None for holder in roster.holders],
        trouble=membership.trouble,
    )
