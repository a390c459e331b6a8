"""The clocks that an engine may be given."""

from __future__ import annotations

import asyncio
import gc

from lineshaft.core.commands import Claim, Enqueue, NewTask
from lineshaft.core.task import Spec
from lineshaft.engine import Engine, ManualClock, SystemClock
from lineshaft.store.memory import MemoryStore
from lineshaft.store.sqlite import SQLiteStore
from tests.engine.world import START, T

HOUR = 3_600_000


async def test_a_manual_clock_moves_timer_by_timer() -> None:
    clock = ManualClock(START)
    heard: list[tuple[str, int]] = []
    clock.call_later(2.0, lambda: heard.append(("second", clock.now() - START)))
    first = clock.call_later(1.0, lambda: heard.append(("first", clock.now() - START)))
    clock.call_later(0.5, lambda: heard.append(("never", 0))).cancel()
    clock.call_later(0.0, lambda: heard.append(("at once", clock.now() - START)))
    assert clock.next_timer() == 0
    sleeper = asyncio.ensure_future(clock.sleep(1.5))
    await clock.advance(1_500)
    first.cancel()
    assert heard == [("at once", 0), ("first", 1_000)] and sleeper.done()
    assert clock.next_timer() == 500 and clock.monotonic() == 1.5
    await clock.advance(HOUR)
    assert heard[-1] == ("second", 2_000) and clock.now() == START + 1_500 + HOUR
    assert clock.next_timer() is None


async def test_an_engine_on_a_manual_clock_waits_until_it_is_told() -> None:
    clock = ManualClock(START)
    async with Engine(MemoryStore(), clock=clock) as engine:
        await engine.submit(Enqueue(tenant=T, tasks=(NewTask(id="a", spec=Spec(name="x"), delay=HOUR),)))
        claim = engine.submit(Claim(tenant=T, wait_until=START + 2 * HOUR))
        await clock.advance(HOUR - 1)
        assert not claim.done()
        await clock.advance(1)
        assert [task.id for task in (await claim).tasks] == ["a"]


async def test_an_engine_on_the_machines_own_clocks(tmp_path: object) -> None:
    clock = SystemClock()
    for restart in (False, True):
        async with Engine(SQLiteStore(f"{tmp_path}/tasks.db"), clock=clock) as engine:
            new = NewTask(id="a", spec=Spec(name="x"), payload=b"[1]", given=True)
            reply = await engine.submit(Enqueue(tenant=T, tasks=(new,)))
            assert reply.items[0].created is not restart
            claimed = await engine.submit(Claim(tenant=T, wait_until=engine.now(T) + 5))
            assert len(claimed.tasks) == (0 if restart else 1)
            assert (await engine.read(T, [(0, 0)])) == [b"[1]"]  # type: ignore[list-item]
            assert engine.health().ready and engine.trouble() is None


async def test_the_default_nonces_differ() -> None:
    engines = [Engine(MemoryStore()) for _ in range(2)]
    for engine in engines:
        async with engine:
            pass
    assert len({engine.health().owner for engine in engines}) == 2


async def test_a_server_keeps_what_it_loaded_from_the_collector() -> None:
    before = gc.get_threshold()
    try:
        async with Engine(MemoryStore(), tune_gc=True):
            assert gc.get_freeze_count() > 0 and gc.get_threshold()[0] == 50_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
