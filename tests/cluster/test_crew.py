"""Several coordinators on one store: who has what, and how that changes."""

from __future__ import annotations

import asyncio

import pytest

from lineshaft.core.commands import Cancel, Enqueue, Get, NewTask
from lineshaft.core.task import State
from lineshaft.errors import NotFound, NotOwner, Unavailable
from tests.cluster.crew import LEASE, SPEC, TENANTS, Crew, with_crew


@with_crew("a")
async def test_one_alone_has_everything_at_once(crew: Crew) -> None:
    [a] = crew.mates
    assert a.shards == [0, 1, 2, 3] and a.engine.health().ready
    await crew.enqueue("t1", "x")
    assert (await crew.get("t1", "x")).id == "x"


@with_crew("a")
async def test_who_joins_is_given_its_share_at_once(crew: Crew) -> None:
    await crew.enqueue("t1", "x")
    for name, loads in (("b", [2, 2]), ("c", [1, 1, 2]), ("d", [1, 1, 1, 1])):
        await crew.hire(name)
        took = await crew.until(lambda: crew.settled, within=LEASE)
        assert took < 0.5, "they are told at once"
        assert sorted(len(mate.shards) for mate in crew.mates) == loads
    assert (await crew.get("t1", "x")).id == "x"


@with_crew("a")
async def test_who_is_not_told_finds_out_by_its_next_beat(crew: Crew) -> None:
    crew.tells = False
    await crew.hire("b")
    assert await crew.until(lambda: crew.settled, within=LEASE) <= 0.5 * LEASE


@with_crew("a", "b")
async def test_what_is_asked_of_another_is_not_owner_and_says_whose_it_is(crew: Crew) -> None:
    a, b = crew.mates
    tenant = next(t for t in TENANTS if a.engine.shard_of(t) in b.shards)
    with pytest.raises(NotOwner, match="http://b"):
        await a.ask(Get(tenant=tenant, id="x"))
    assert not a.engine.has(tenant) and b.engine.has(tenant)


@with_crew("a", "b", "c")
async def test_after_a_kill_the_others_serve_within_the_lease(crew: Crew) -> None:
    for tenant in TENANTS:
        await crew.enqueue(tenant, "x")
    victim = crew.mates[1]
    crew.kill(victim)
    assert await crew.until(lambda: crew.settled, within=2 * LEASE) <= LEASE
    for tenant in TENANTS:
        assert (await crew.get(tenant, "x")).id == "x"


@with_crew("a", "b")
async def test_who_leaves_in_order_is_missed_by_nobody(crew: Crew) -> None:
    a, b = crew.mates
    for tenant in TENANTS:
        await crew.enqueue(tenant, "x")
    held = b.shards
    await b.engine.hand_over()
    assert b.shards == [] and b.engine.runners == {}
    await crew.until(lambda: a.shards == [0, 1, 2, 3], within=0.5)
    assert b.membership is not None, "it goes on to know who has what"
    assert all(b.membership.holder(shard).address == "http://a" for shard in held)
    await crew.dismiss(b)
    assert [member.address for member in crew.roster.members] == ["http://a"]


@with_crew("a", "b")
async def test_a_parked_claim_is_answered_with_nothing_when_its_shard_moves(crew: Crew) -> None:
    a, _ = crew.mates
    tenant = next(t for t in TENANTS if a.engine.shard_of(t) in a.shards)
    claim = a.engine.submit(crew.claim(tenant, wait=30_000))
    await crew.pass_time(0.1)
    assert not claim.done()
    await a.engine.hand_over()
    assert (await claim).tasks == []


@with_crew("a", "b")
async def test_what_is_under_way_when_a_shard_moves_is_answered(crew: Crew) -> None:
    a, _ = crew.mates
    tenant = next(t for t in TENANTS if a.engine.shard_of(t) in a.shards)

    def enqueue(id: str) -> asyncio.Future[object]:
        return a.engine.submit(Enqueue(tenant=tenant, tasks=(NewTask(id=id, spec=SPEC, given=True),)))

    before = [enqueue(f"before {n}") for n in range(20)]
    leaving = asyncio.ensure_future(a.engine.hand_over())
    refused = stored = 0
    while not leaving.done():
        handle = enqueue(f"meanwhile {stored}")
        await asyncio.wait([handle])
        if handle.exception() is None:
            stored += 1
        else:
            assert isinstance(handle.exception(), NotOwner)
            refused += 1
        await asyncio.sleep(0)
    await asyncio.gather(*before)
    assert refused, "the story is about what comes while it moves"
    for id in (*(f"before {n}" for n in range(20)), *(f"meanwhile {n}" for n in range(stored))):
        assert (await crew.get(tenant, id)).id == id


@with_crew("a", "b")
async def test_who_is_cut_off_answers_nothing_from_memory_once_another_may_have_its_shards(
    crew: Crew,
) -> None:
    a, b = crew.mates
    tenant = next(t for t in TENANTS if a.engine.shard_of(t) in a.shards)
    await crew.enqueue(tenant, "x")
    old = a.membership.id
    a.line.cut.set()
    await crew.pass_time(0.55 * LEASE)
    assert a.engine.submit(Get(tenant=tenant, id="x")).done(), "its tenure still lasts"
    await crew.until(lambda: b.shards == [0, 1, 2, 3], within=LEASE)
    read = a.engine.submit(Get(tenant=tenant, id="x"))
    await crew.pass_time(0.1)
    assert not read.done(), "b may have changed it meanwhile"
    a.line.cut.clear()
    with pytest.raises(Unavailable):
        await read
    await crew.until(lambda: crew.settled, within=2 * LEASE)
    assert a.membership.id != old and len(a.shards) == 2
    assert a.membership.counts.evicted == 1 and b.membership.counts.evictions == 1


@with_crew("a")
async def test_who_is_taken_for_dead_while_it_gives_a_shard_away_shows_nothing_old(crew: Crew) -> None:
    [a] = crew.mates
    for tenant in TENANTS:
        await crew.enqueue(tenant, "x")
    a.line.hangs.add("swap_roster")
    await crew.pass_time(0.65 * LEASE)
    reads = [a.engine.submit(Get(tenant=tenant, id="x")) for tenant in TENANTS]
    await crew.pass_time(0.01)
    assert not any(read.done() for read in reads), "its tenure is over"
    b = await crew.hire("b")
    await crew.until(lambda: bool(a.engine.holdings._moving), within=1.0)
    await crew.until(lambda: b.shards == [0, 1, 2, 3], within=LEASE)
    for tenant in TENANTS:
        await b.ask(Cancel(tenant=tenant, id="x"))
    a.line.hangs.clear()
    await crew.until(lambda: crew.settled, within=3 * LEASE)
    for read in reads:
        with pytest.raises((NotOwner, Unavailable)):
            await read
    assert (await crew.get("t1", "x")).state is State.CANCELLED


@with_crew("b")
async def test_an_acquisition_that_lands_late_serves_nobody(crew: Crew) -> None:
    [b] = crew.mates
    line = crew.shared.line()
    gate = line.gates["acquire"] = asyncio.Event()
    crew.shared.line = lambda: line  # type: ignore[method-assign]
    a = await crew.hire("a")
    await crew.until(lambda: len(a.engine.runners) == 2, within=LEASE)
    tenant = next(t for t in TENANTS if a.engine.has(t))
    enqueued = a.engine.submit(Enqueue(tenant=tenant, tasks=(NewTask(id="x", spec=SPEC, given=True),)))
    line.hangs.add("swap_roster")
    await crew.until(lambda: b.shards == [0, 1, 2, 3], within=2 * LEASE)
    gate.set()  # its epoch is the highest now, and the shard is another's
    await crew.pass_time(1.0)
    line.hangs.clear()
    with pytest.raises(NotOwner):
        await enqueued
    await crew.until(lambda: crew.settled, within=3 * LEASE)
    with pytest.raises(NotFound):
        await crew.get(tenant, "x")


@with_crew()
async def test_who_joins_while_another_still_loads_harms_nobody(crew: Crew) -> None:
    line = crew.shared.line()
    gate = line.gates["load"] = asyncio.Event()
    crew.shared.line, lines = (lambda: line), crew.shared.line  # type: ignore[method-assign]
    loading = asyncio.ensure_future(crew.hire("a"))
    await crew.until(lambda: "load" in line.calls, within=1.0)
    crew.shared.line = lines  # type: ignore[method-assign]
    await crew.hire("b")
    await crew.pass_time(0.5)
    gate.set()
    await loading
    await crew.until(lambda: crew.settled, within=LEASE)


@with_crew()
async def test_who_is_taken_for_dead_while_it_loads_takes_part_all_the_same(crew: Crew) -> None:
    line = crew.shared.line()
    gate = line.gates["load"] = asyncio.Event()
    crew.shared.line, lines = (lambda: line), crew.shared.line  # type: ignore[method-assign]
    loading = asyncio.ensure_future(crew.hire("a"))
    await crew.until(lambda: "load" in line.calls, within=1.0)
    crew.shared.line = lines  # type: ignore[method-assign]
    line.hangs.add("swap_roster")  # as if the load blocked its event loop
    b = await crew.hire("b")
    await crew.until(lambda: b.shards == [0, 1, 2, 3], within=2 * LEASE)
    line.hangs.clear()
    gate.set()
    await loading
    await crew.until(lambda: crew.settled, within=2 * LEASE)
    assert sorted(len(mate.shards) for mate in crew.mates) == [2, 2]


@with_crew("a")
async def test_a_beat_counts_from_when_it_was_sent(crew: Crew) -> None:
    [a] = crew.mates
    await crew.pass_time(0.1)
    a.line.gates["swap_roster"] = asyncio.Event()
    sent, before = crew.clock.monotonic(), a.membership.counts.beats
    a.membership.ask()
    await crew.pass_time(0.5 * LEASE)
    a.line.gates.pop("swap_roster").set()  # it lands, and is answered, half a lease after it was sent
    a.line.hangs.add("swap_roster")
    await crew.pass_time(0.1)
    assert a.membership.counts.beats == before + 1
    assert a.membership.until == pytest.approx(sent + 0.6 * LEASE)
    a.line.hangs.clear()


@with_crew("a", "b", "c")
async def test_nobody_is_taken_for_dead_because_the_store_was_away(crew: Crew) -> None:
    ids = {mate.membership.id for mate in crew.mates}
    for mate in crew.mates:
        mate.line.refuses |= {"swap_roster", "read_roster"}
    await crew.pass_time(10 * LEASE)
    assert not crew.mates[0].engine.health().ready
    for mate in crew.mates:
        mate.line.refuses.clear()
    await crew.until(lambda: all(mate.engine.health().ready for mate in crew.mates), within=LEASE)
    assert {mate.membership.id for mate in crew.mates} == ids
    assert all(mate.membership.counts.evictions == 0 for mate in crew.mates)


@with_crew("a", "b")
async def test_a_beat_whose_answer_is_lost_does_no_harm(crew: Crew) -> None:
    for mate in crew.mates:
        mate.line.loses.add("swap_roster")
    await crew.pass_time(0.5 * LEASE)
    for mate in crew.mates:
        mate.line.loses.clear()
    await crew.pass_time(2 * LEASE)
    assert crew.settled and all(mate.membership.counts.evicted == 0 for mate in crew.mates)


@with_crew("a", "b", "c")
async def test_an_idle_crew_beats_and_does_nothing_else(crew: Crew) -> None:
    await crew.pass_time(2.0)
    for mate in crew.mates:
        mate.line.calls.clear()
    await crew.pass_time(20 * LEASE)
    for mate in crew.mates:
        assert set(mate.line.calls) <= {"swap_roster", "prune"}
        assert 100 <= mate.line.calls.count("swap_roster") <= 201, (
            "one a beat, and again where another came first"
        )


@with_crew("a", "b")
async def test_all_can_be_stopped_and_the_next_one_finds_everything(crew: Crew) -> None:
    for tenant in TENANTS:
        await crew.enqueue(tenant, "x")
    for mate in list(crew.mates):
        await crew.dismiss(mate)
    assert crew.roster.members == () and set(crew.roster.holders) == {b""}
    await crew.hire("c")
    assert crew.settled
    for tenant in TENANTS:
        assert (await crew.get(tenant, "x")).id == "x"


@with_crew("a")
async def test_a_shard_that_cannot_be_loaded_is_tried_again_and_said(crew: Crew) -> None:
    b_line = crew.shared.line()
    b_line.refuses.add("load")
    crew.shared.line = lambda: b_line  # type: ignore[method-assign]
    b = await crew.hire("b")
    await crew.pass_time(1.0)
    assert b.shards == [] and len(b.engine.runners) == 2
    assert "store refused" in (b.engine.trouble() or "")
    b_line.refuses.clear()
    await crew.until(lambda: crew.settled, within=2 * LEASE)
