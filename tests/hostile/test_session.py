"""Push sessions with frames that lie: each is closed in good order, none hangs, nobody else notices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from tests.hostile.frames import FRAMES, judge_frames
from tests.hostile.neighbour import Neighbour
from tests.hostile.target import Target
from tests.hostile.test_raw import GROWTH, hold, wage

EXCHANGES = 400
WARM_UP = 150


@pytest.mark.slow
async def test_no_session_ends_wrongly_or_hangs(target: Target, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed") or time.time_ns() % 100_000
    print(f"\nseed {seed} (again with --seed={seed})")
    target.live_a_task()
    descriptors = target.descriptors()
    planned = list(FRAMES.attacks(seed, EXCHANGES))
    with Neighbour(target.port) as neighbour:
        hold(target, await wage(target, planned[:WARM_UP]))
        warm = target.rss()
        outcomes = await wage(target, planned[WARM_UP:])
    await asyncio.to_thread(target.settle, descriptors)
    codes = Counter(judge_frames(outcome) for outcome in outcomes if b" 101 " in outcome.received[:20])
    hold(target, outcomes)
    print(f"{len(planned)} sessions of {len(FRAMES.kinds)} kinds, closed with {dict(codes)}")
    print(
        f"memory {warm >> 20} MiB, {(target.rss() - warm) / (1 << 20):+.1f} MiB; p99 {neighbour.p99:.1f} ms"
    )
    assert target.rss() - warm < GROWTH
    assert neighbour.wrong == []
    target.live_a_task()
