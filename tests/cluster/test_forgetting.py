"""A replica that lacks the end takes over: what is lost is said, the rest goes on, nothing is made up."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from tests.cluster.backing import forgetful_pair
from tests.cluster.processes import crew
from tests.cluster.soak import Soak

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]

WINDOW = 40
"""How many tasks are acknowledged by a primary that nobody follows any more."""


async def test_a_replica_without_the_end_takes_over_and_what_is_lost_is_said() -> None:
    async with forgetful_pair() as pair, crew(pair.url, 2) as clients:
        soak = Soak(clients, tasks=500, seed=1)
        parted_at = died_at = 0.0

        async def fail_over(random: Random) -> None:
            nonlocal parted_at, died_at
            if died_at:
                return
            parted_at = time.monotonic()
            await pair.part()
            before = len(soak.acknowledged)
            while len(soak.acknowledged) < before + WINDOW:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)
            await pair.fail_over()
            died_at = time.monotonic()

        await soak.run({"fail over": fail_over})
        stored = await soak.stored()
        lost = [id for id in soak.acknowledged if id not in stored]
        print(f"{len(soak.acknowledged)} acknowledged, {len(lost)} of them lost in the failover")
        assert lost
        assert all(parted_at < soak.acknowledged[id] for id in lost), "all before had been replicated"
        # An answer of the dead may be on its way when it dies.
        assert all(soak.acknowledged[id] < died_at + 5 for id in lost), "nothing is lost afterwards"
        assert set(stored) <= soak.sent
        assert all(task["state"] == "completed" for task in stored.values())
        said = []
        for served in clients.fleet:
            _, health = await clients.ask(served, "GET", "/_health/ready")
            said.append(health.get("reason") or "")
        assert any("acknowledged by this coordinator" in reason for reason in said), said
