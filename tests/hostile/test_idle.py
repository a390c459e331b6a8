"""Clients that say nothing, or never listen: they are left behind after a while, in nobody's way."""

from __future__ import annotations

import asyncio

import pytest

from tests.hostile.exchange import RESET, Attack, carry_out
from tests.hostile.neighbour import Neighbour
from tests.hostile.requests import GET, enqueue
from tests.hostile.target import LIMITS, Target
from tests.hostile.test_raw import GROWTH, hold

SILENT = 500


@pytest.mark.slow
async def test_five_hundred_who_say_nothing_are_sent_away(target: Target) -> None:
    target.live_a_task()
    descriptors = target.descriptors()
    with Neighbour(target.port) as neighbour:
        outcomes = await asyncio.gather(
            *[carry_out(target.port, Attack([], kind="silence", number=number)) for number in range(SILENT)]
        )
    hold(target, outcomes)
    assert all(outcome.ended and not outcome.received for outcome in outcomes)
    assert neighbour.wrong == []
    await asyncio.to_thread(target.settle, descriptors)
    target.live_a_task()


@pytest.mark.slow
async def test_who_is_slow_between_requests_is_closed_and_who_is_slow_within_one_is_told(
    target: Target,
) -> None:
    silent, slow = await asyncio.gather(
        carry_out(target.port, Attack([GET])), carry_out(target.port, Attack([enqueue()[:-5]]))
    )
    assert (silent.ended, silent.received.count(b"HTTP/1.1 200")) == (True, 1)
    assert (slow.ended, slow.received.count(b"HTTP/1.1 408")) == (True, 1)


@pytest.mark.slow
async def test_who_never_reads_is_not_written_to_without_end(target: Target) -> None:
    """The answers to one client that wait for it are bounded, and gone when it goes."""
    target.live_a_task()
    descriptors, warm = target.descriptors(), target.rss()
    described = GET.replace(b"/ ", b"/openapi.json ") * 2_000  # 100 MB of answers, were they all made
    deaf = Attack([described, LIMITS["keep_alive"], RESET], reads=False, kind="deaf")
    outcomes = await asyncio.gather(*[carry_out(target.port, deaf) for _ in range(20)])
    hold(target, outcomes)
    assert target.rss() - warm < GROWTH
    await asyncio.to_thread(target.settle, descriptors)
    target.live_a_task()
