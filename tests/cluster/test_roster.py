"""Whatever steps are made in whatever order: one holder a shard, a live one where there is any."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lineshaft.engine.cluster import roster as steps
from lineshaft.engine.cluster.placement import NOBODY
from lineshaft.engine.cluster.roster import Member, Roster
from lineshaft.engine.cluster.sightings import Sightings
from lineshaft.store.base import StoreCorrupt, StoreUnusable

SHARDS = 7


def member(id: bytes, **more: object) -> Member:
    fields: dict[str, object] = {"address": "", "beat": 0, "joined_at": 0, "version": "1", "lease": 5_000}
    return Member(id=id, **(fields | more))  # type: ignore[arg-type]


class Steps(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.roster: Roster = steps.empty(SHARDS, b"secret")
        self.count = 0

    def some(self, data: st.DataObject) -> bytes:
        return data.draw(st.sampled_from([member.id for member in self.roster.members]))

    @rule()
    def join(self) -> None:
        before = self.roster
        self.count += 1
        self.roster = steps.join(before, member(b"m%d" % self.count))
        kept = [n for n, holder in enumerate(before.holders) if holder != NOBODY]
        assert all(self.roster.holders[n] == before.holders[n] for n in kept)

    @precondition(lambda self: self.roster.members)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        id, before = self.some(data), self.roster
        self.roster = steps.beat(before, id)
        assert self.roster.shape == before.shape and self.roster != before

    @precondition(lambda self: self.roster.members)
    @rule(data=st.data())
    def begin_to_leave(self, data: st.DataObject) -> None:
        self.roster = steps.begin_to_leave(self.roster, self.some(data))

    @precondition(lambda self: self.roster.members)
    @rule(data=st.data())
    def leave_or_die(self, data: st.DataObject) -> None:
        id, before = self.some(data), self.roster
        self.roster = steps.remove(before, [id])
        others = [n for n, holder in enumerate(before.holders) if holder not in (id, NOBODY)]
        assert all(self.roster.holders[n] == before.holders[n] for n in others)

    @precondition(lambda self: any(self.roster.holders))
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        shard = data.draw(st.sampled_from([n for n, holder in enumerate(self.roster.holders) if holder]))
        self.roster = steps.hand_over(self.roster, self.roster.holders[shard], shard)

    @rule()
    def all_give_what_is_due(self) -> None:
        moves = 0
        while due := [(m.id, n) for m in self.roster.members for n in steps.due(self.roster, m.id)]:
            self.roster = steps.hand_over(self.roster, *due[0])
            moves += 1
            assert moves <= SHARDS
        loads = [len(self.roster.shards_of(id)) for id in self.roster.staying]
        assert not loads or max(loads) - min(loads) <= 1
        if loads:
            assert not any(self.roster.shards_of(m.id) for m in self.roster.members if m.leaving)

    @invariant()
    def every_shard_has_a_live_holder_if_there_is_one(self) -> None:
        there = {member.id for member in self.roster.members}
        assert all(holder in there or holder == NOBODY for holder in self.roster.holders)
        if self.roster.staying:
            assert NOBODY not in self.roster.holders

    @invariant()
    def it_survives_the_store(self) -> None:
        assert steps.decode(steps.encode(self.roster), shards=SHARDS) == self.roster


TestSteps = Steps.TestCase


def test_what_is_no_roster_of_this_store_is_said() -> None:
    roster = steps.empty(4, b"secret")
    with pytest.raises(StoreUnusable, match="4 shards, the store has 16"):
        steps.decode(steps.encode(roster), shards=16)
    with pytest.raises(StoreCorrupt):
        steps.decode(b"rubbish", shards=4)


def test_a_newer_member_may_say_more() -> None:
    roster = steps.join(steps.empty(1, b"s"), member(b"a"))
    import msgspec

    told = msgspec.msgpack.decode(steps.encode(roster))
    told.append("something new")
    told[4][0].append("and more")
    assert steps.decode(msgspec.msgpack.encode(told), shards=1) == roster


# -- who is dead --------------------------------------------------------------------------------------


def test_a_member_is_dead_when_its_beat_has_stood_still_for_seven_tenths_of_its_lease() -> None:
    sightings = Sightings(5_000)
    for now in (0.0, 1.0, 2.0, 3.0):
        sightings.see([member(b"a", beat=7), member(b"b", beat=int(now))], now)
        assert sightings.dead(now) == []
    assert sightings.next_death == 3.5
    assert sightings.dead(3.49) == []
    assert sightings.dead(3.5) == [b"a"]


def test_each_members_own_lease_counts() -> None:
    sightings = Sightings(5_000)
    for now in range(11):
        sightings.see([member(b"a", lease=20_000)], float(now))
        assert sightings.dead(float(now)) == []


def test_nobody_is_dead_for_whom_nobody_looked() -> None:
    sightings = Sightings(5_000)
    sightings.see([member(b"a")], 0.0)
    sightings.see([member(b"a")], 1.0)
    assert sightings.dead(60.0) == []  # we slept, or the store did
    sightings.see([member(b"a")], 60.0)
    assert sightings.dead(60.0) == []
    for now in (61.0, 62.0, 63.0):
        sightings.see([member(b"a")], now)
    assert sightings.dead(63.5) == [b"a"]
