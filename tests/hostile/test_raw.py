"""Two thousand malformed exchanges: all answered or closed, none with a 5xx, and nobody else notices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.hostile.catalogue import Catalogue
from tests.hostile.content import CONTENT
from tests.hostile.exchange import Attack, Outcome, carry_out, judge
from tests.hostile.framing import FRAMING
from tests.hostile.neighbour import Neighbour
from tests.hostile.target import Target

HTTP = Catalogue(FRAMING, CONTENT)
EXCHANGES = 2_000
WARM_UP = 500
AT_ONCE = 150
GROWTH = 48 << 20
"""How much memory (bytes) may be added between the warm-up and the end, whatever is sent."""


async def wage(target: Target, these: Iterable[Attack]) -> list[Outcome]:
    """Carry out attacks, many at a time; return what came of them, judged."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(attack: Attack) -> Outcome:
        async with room:
            outcome = await carry_out(target.port, attack)
            judge(outcome)
            return outcome

    return list(await asyncio.gather(*[one(attack) for attack in these]))


def hold(target: Target, outcomes: list[Outcome]) -> None:
    """Let the test fail with all that went wrong, one of each kind."""
    wrong = {outcome.attack.kind: str(outcome) for outcome in outcomes if outcome.problems}
    assert not wrong, "\n\n".join(wrong.values())
    assert target.alive
    assert "Traceback" not in target.log, target.log[-3_000:]


@pytest.mark.slow
async def test_no_exchange_is_answered_wrongly_or_hangs(
    target: Target, request: pytest.FixtureRequest
) -> None:
    seed = request.config.getoption("--seed") or time.time_ns() % 100_000
    print(f"\nseed {seed} (again with --seed={seed})")
    target.live_a_task()
    descriptors = target.descriptors()
    with Neighbour(target.port) as quiet:
        await asyncio.sleep(2)
    planned = list(HTTP.attacks(seed, EXCHANGES))
    with Neighbour(target.port) as neighbour:
        hold(target, await wage(target, planned[:WARM_UP]))
        warm = target.rss()
        outcomes = await wage(target, planned[WARM_UP:])
    hold(target, outcomes)
    await asyncio.to_thread(target.settle, descriptors)
    grown = target.rss() - warm
    statuses = Counter(status for outcome in outcomes for status in judge(outcome))
    print(f"{len(planned)} exchanges of {len(HTTP.kinds)} kinds, statuses {dict(sorted(statuses.items()))}")
    print(
        f"memory {warm >> 20} MiB, {grown / (1 << 20):+.1f} MiB; {descriptors} descriptors before and after"
    )
    print(f"a good client's p99: quiet {quiet.p99:.1f} ms, meanwhile {neighbour.p99:.1f} ms")
    assert grown < GROWTH
    assert (quiet.wrong, neighbour.wrong) == ([], [])
    assert len(neighbour.latencies) > 100
    assert target.call("POST", "/_tasks/_search", {"name": "smuggled"})[1]["tasks"] == []
    target.live_a_task()
