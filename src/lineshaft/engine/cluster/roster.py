"""Who takes part and who has which shard: the one record that coordinators share, and what may be done to it.

Every step is a pure function from a roster to the next; the store swaps the one for the other if nobody else
has come first (`membership.py`). So of two steps decided at once one is decided again, on what the other
left.

In a roster that any step returns, each shard has at most one holder, which is a member; and where there is a
member that does not leave, none is without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from lineshaft.engine.cluster.placement import NOBODY, place
from lineshaft.store.base import StoreCorrupt, StoreUnusable

FORMAT = 1


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One coordinator, from when it joined until it leaves or is taken for dead."""

    id: bytes
    """Also its owner nonce at the store; one that was evicted comes back under another."""
    address: str
    """Where the others reach it; empty where they cannot."""
    beat: int
    """Rises with all that it does; while it stands still its member says nothing."""
    joined_at: int
    """By its own wall clock (ms), for people."""
    version: str
    lease: int
    """How long (ms) the others wait for it, and how long it believes itself alive; see `membership.py`."""
    leaving: bool = False
    """It gives its shards away and wants no more."""


class Roster(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The record, decoded."""

    format: int = FORMAT
    secret: bytes
    """Known to those who can read the store: by it coordinators know each other."""
    keys_version: int = 0
    """Rises with every change of API keys."""
    holders: tuple[bytes, ...]
    """By number of the shard, the id of the member that has it; `NOBODY` where nobody does."""
    members: tuple[Member, ...] = ()

    def member(self, id: bytes) -> Member | None:
        """Return a member by its id."""
        return next((member for member in self.members if member.id == id), None)

    def shards_of(self, id: bytes) -> list[int]:
        """Return the numbers of the shards that a member has."""
        return [shard for shard, holder in enumerate(self.holders) if holder == id]

    @property
    def staying(self) -> list[bytes]:
        """Return the ids of those who take shards."""
        return [member.id for member in self.members if not member.leaving]

    @property
    def shape(self) -> tuple[object, ...]:
        """Return what is the same for as long as nothing happens but beats."""
        members = tuple((member.id, member.address, member.leaving) for member in self.members)
        return self.holders, members, self.keys_version


def encode(roster: Roster) -> bytes:
    """Return the record of a roster."""
    return msgspec.msgpack.encode(roster)


def decode(data: bytes, *, shards: int) -> Roster:
    """Return the roster of a record. Raises `StoreCorrupt`, `StoreUnusable` where it is not of this store."""
    try:
        roster = msgspec.msgpack.decode(data, type=Roster)
    except msgspec.MsgspecError as error:
        raise StoreCorrupt(f"the roster of coordinators cannot be read: {error}") from error
    if roster.format != FORMAT:
        raise StoreUnusable(
            f"the roster has format {roster.format}, this version reads {FORMAT}: upgrade this coordinator"
        )
    if len(roster.holders) != shards:
        raise StoreUnusable(f"the roster is of {len(roster.holders)} shards, the store has {shards}")
    return roster


def empty(shards: int, secret: bytes) -> Roster:
    """Return the first roster of a store."""
    return Roster(secret=secret, holders=(NOBODY,) * shards)


# -- steps -------------------------------------------------------------------------------------------


def join(roster: Roster, member: Member) -> Roster:
    """Take a member in. It gets what nobody has; its share of the rest comes when the others give it away."""
    members = [known for known in roster.members if known.id != member.id]
    return _settled(roster, (*members, member))


def beat(roster: Roster, id: bytes) -> Roster:
    """Say that a member lives."""
    return _changed(roster, id, lambda member: msgspec.structs.replace(member, beat=member.beat + 1))


def begin_to_leave(roster: Roster, id: bytes) -> Roster:
    """Give a member no more shards; what it has it keeps until it hands it over."""
    return _changed(roster, id, lambda member: msgspec.structs.replace(member, leaving=True))


def remove(roster: Roster, ids: Collection[bytes]) -> Roster:
    """Take out members that leave or are dead; what they had goes to those who stay."""
    return _settled(roster, [member for member in roster.members if member.id not in ids])


def due(roster: Roster, id: bytes) -> dict[int, bytes]:
    """Return which of its shards a member should give away, and to whom."""
    wanted = place(roster.staying, roster.holders)
    return {shard: wanted[shard] for shard in roster.shards_of(id) if wanted[shard] not in (id, NOBODY)}


def hand_over(roster: Roster, id: bytes, shard: int) -> Roster:
    """Give a shard to whom it should belong by now, which may be whoever has it."""
    target = due(roster, id).get(shard)
    if target is None:
        return roster
    holders = list(roster.holders)
    holders[shard] = target
    return msgspec.structs.replace(roster, holders=tuple(holders))


def keys_changed(roster: Roster) -> Roster:
    """Say that API keys have changed."""
    return msgspec.structs.replace(roster, keys_version=roster.keys_version + 1)


def _changed(roster: Roster, id: bytes, change: Callable[[Member], Member]) -> Roster:
    members = tuple(change(member) if member.id == id else member for member in roster.members)
    return msgspec.structs.replace(roster, members=members)


def _settled(roster: Roster, members: Collection[Member]) -> Roster:
    """Return the roster with these members, and a holder for every shard that none of them has."""
    left = msgspec.structs.replace(roster, members=tuple(sorted(members, key=lambda member: member.id)))
    there = {member.id for member in members}
    holders = tuple(holder if holder in there else NOBODY for holder in roster.holders)
    wanted = place(left.staying, holders)
    settled = tuple(wanted[shard] if holder == NOBODY else holder for shard, holder in enumerate(holders))
    return msgspec.structs.replace(left, holders=settled)
