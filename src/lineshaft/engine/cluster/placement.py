"""Which member gets which shard: rendezvous hashing, even within one, and no move without need.

Each member scores each shard by a hash of both, and the highest score wins; so everybody computes the same,
and members that come and go move few shards. Two rules are added to that. Each member has a quota (the
number of shards divided by the number of members, the rest to those that have most already), so that nobody
has two more than another. And who has a shard keeps it, up to its quota: only what is above it, and what
nobody has, goes by score to those with room. So a joining member is given exactly its share, and a leaving
one's shards are all that move.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

NOBODY = b""
"""Stands for the holder of a shard that nobody has."""


def score(shard: int, member: bytes) -> int:
    """Return how much a member wants a shard; the same for everybody who asks."""
    return int.from_bytes(blake2b(b"%d/" % shard + member, digest_size=8).digest())


def place(members: Sequence[bytes], holders: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the holder that each shard should have, given who has it now (`NOBODY` where nobody does).

    Without members nobody has anything. What is placed stays placed: placing again changes nothing.
    """
    if not members:
        return (NOBODY,) * len(holders)
    kept: dict[bytes, list[int]] = {member: [] for member in members}
    for shard, holder in enumerate(holders):
        if holder in kept:
            kept[holder].append(shard)
    quotas = _quotas(kept, len(holders))
    placed = [NOBODY] * len(holders)
    for member, shards in kept.items():
        shards.sort(key=lambda shard: score(shard, member), reverse=True)
        del shards[quotas[member] :]
        for shard in shards:
            placed[shard] = member
    room = {member: quotas[member] - len(shards) for member, shards in kept.items()}
    free = [shard for shard, holder in enumerate(placed) if holder == NOBODY]
    wanted = sorted(
        ((score(shard, member), shard, member) for shard in free for member in members if room[member]),
        reverse=True,
    )
    for _, shard, member in wanted:
        if placed[shard] == NOBODY and room[member]:
            placed[shard] = member
            room[member] -= 1
    return tuple(placed)


def _quotas(kept: dict[bytes, list[int]], shards: int) -> dict[bytes, int]:
    share, rest = divmod(shards, len(kept))
    by_need = sorted(kept, key=lambda member: (-len(kept[member]), member))
    return {member: share + (number < rest) for number, member in enumerate(by_need)}
