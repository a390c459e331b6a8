"""The shard's present: never backwards, and no leap is believed at once."""

from __future__ import annotations

import pytest

from lineshaft.engine.shard_time import LARGE, ShardTime
from lineshaft.errors import Unavailable
from lineshaft.store.base import StoreUnusable
from tests.engine.scripted_store import ScriptedStore
from tests.engine.world import START, T, World, in_world, virtual, world

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


class Hands:
    """Two clocks moved by hand."""

    def __init__(self) -> None:
        self.wall = START
        self.elapsed = 0.0

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.elapsed

    def pass_time(self, duration: int) -> None:
        self.wall += duration
        self.elapsed += duration / 1000


def time_of(hands: Hands, persisted: int = 0) -> ShardTime:
    time = ShardTime(hands, max_ahead=DAY)  # type: ignore[arg-type]
    time.reach(persisted)
    return time


def test_it_follows_the_wall_clock() -> None:
    hands = Hands()
    time = time_of(hands)
    for _ in range(5):
        hands.pass_time(MINUTE)
        assert time.now() == hands.wall
    assert time.take_step() == 0


def test_it_does_not_begin_before_what_was_decided_last() -> None:
    assert time_of(Hands(), persisted=START + HOUR).now() == START + HOUR


def test_a_store_from_the_future_is_refused_with_what_to_do() -> None:
    with pytest.raises(StoreUnusable, match="set the clock right"):
        time_of(Hands(), persisted=START + DAY + 1)


def test_behind_what_was_decided_it_goes_at_half_speed_until_the_wall_clock_has_caught_up() -> None:
    hands = Hands()
    time = time_of(hands, persisted=START + 10 * SECOND)
    for passed in range(1, 20_001):
        hands.pass_time(1)
        assert abs(time.now() - (START + 10_000 + passed // 2)) <= 1
    hands.pass_time(MINUTE)
    assert time.now() == hands.wall


def test_a_small_step_back_never_turns_it_back() -> None:
    hands = Hands()
    time = time_of(hands)
    before = time.now()
    hands.wall -= MINUTE
    assert time.now() == before
    hands.pass_time(4 * SECOND)
    assert time.now() == before + 2 * SECOND


def test_a_beat_that_does_not_come_is_told_where_one_is_expected() -> None:
    hands = Hands()
    time = time_of(hands)
    hands.pass_time(MINUTE)
    time.now()
    assert time.take_step() == 0, "nobody said that time is asked for every second"
    time.beating = True
    for _ in range(10):
        hands.pass_time(SECOND + 400)
        time.now()
    assert time.take_step() == 0
    hands.pass_time(40 * SECOND)
    assert time.now() == hands.wall
    assert time.take_step() == 40 * SECOND
    hands.pass_time(SECOND)
    time.now()
    assert time.take_step() == 0


@in_world
async def test_while_leases_are_live_no_beat_fails_to_come(w: World) -> None:
    await w.enqueue("a")
    await w.claim()
    await w.pass_time(29.9)
    assert (await w.get("a")).task.run.lease is not None
    await w.pass_time(0.2)
    assert (await w.get("a")).task.run.lease is None, "the beats are on time, so nothing was missed"


def test_a_small_step_forward_is_believed_and_told() -> None:
    hands = Hands()
    time = time_of(hands)
    hands.wall += MINUTE
    assert time.now() == hands.wall
    assert time.take_step() == MINUTE
    assert time.take_step() == 0


@pytest.mark.parametrize("jump", [LARGE + 1, -LARGE - 1, 5 * DAY])
def test_a_large_jump_is_refused_and_forgotten_when_it_is_put_right(jump: int) -> None:
    hands = Hands()
    time = time_of(hands)
    hands.wall += jump
    assert time.now() == START and time.refused_jump == jump
    hands.pass_time(30 * SECOND)
    assert time.now() == START + 30 * SECOND
    hands.wall -= jump
    hands.pass_time(SECOND)
    assert time.now() == START + 31 * SECOND and time.refused_jump is None
    assert time.take_step() == 0


def test_a_large_jump_forward_that_stands_for_a_minute_is_believed() -> None:
    hands = Hands()
    time = time_of(hands)
    hands.wall += 8 * HOUR
    time.now()
    hands.pass_time(59 * SECOND)
    assert time.now() == START + 59 * SECOND
    hands.pass_time(SECOND)
    assert time.now() == hands.wall and time.refused_jump is None
    assert time.take_step() == 8 * HOUR


def test_another_jump_starts_the_minute_anew() -> None:
    hands = Hands()
    time = time_of(hands)
    hands.wall += HOUR
    time.now()
    hands.pass_time(50 * SECOND)
    hands.wall += HOUR
    time.now()
    hands.pass_time(50 * SECOND)
    assert time.now() == START + 100 * SECOND and time.refused_jump == 2 * HOUR


@in_world
async def test_a_step_forward_takes_no_time_from_leases(w: World) -> None:
    await w.enqueue("a")
    await w.claim(lease=10_000)
    w.clock.wall += 5 * MINUTE
    await w.pass_time(8)
    await w.get("a")  # whoever asks lets the shard see the new time, and its deadlines
    await w.pass_time(1)
    assert (await w.get("a")).task.lease is not None
    await w.pass_time(2)
    assert (await w.get("a")).task.lease is None


@in_world
async def test_a_laptop_that_slept_believes_the_clock_soon_without_being_asked(w: World) -> None:
    claim = w.claim(wait=4 * HOUR, queues=("elsewhere",))
    await w.settle()
    w.clock.wall += 8 * HOUR
    await w.pass_time(65)
    assert not claim.done()
    await w.pass_time(60)
    assert claim.done() and (await claim).tasks == []
    assert w.shard_health.clock_jump is None


@in_world
async def test_health_says_what_jump_is_not_believed(w: World) -> None:
    w.clock.wall += 8 * HOUR
    assert w.shard_health.clock_jump == 8 * HOUR
    w.clock.wall -= 8 * HOUR
    assert w.shard_health.clock_jump is None


@in_world
async def test_a_load_makes_no_jump_believable(w: World) -> None:
    w.clock.wall += 8 * HOUR
    before = w.engine.now(T)
    w.store.script.append("fence")
    with pytest.raises(Unavailable):
        await w.enqueue("a")
    await w.settle()
    assert w.shard_health.epoch == 2 and w.engine.now(T) - before < MINUTE


@virtual
async def test_an_engine_refuses_a_store_from_the_future_and_closes_it() -> None:
    store = ScriptedStore()
    async with world(store, wall=START + 3 * DAY) as w:
        await w.enqueue("a")
    with pytest.raises(StoreUnusable, match="clock"):
        async with world(store):
            pass
    assert store.closed
