"""Coordinators in network namespaces, cut off from the store, from each other, or from both, under load."""

from __future__ import annotations

import pytest

from tests.cluster.namespaces import parted
from tests.cluster.soak import WRONG, Soak

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", ["valkey", "postgres", "opensearch"])
async def test_nothing_is_lost_when_one_is_cut_off_and_another_takes_over(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store: str = request.getfixturevalue(f"{kind}_url")
    async with parted(store, 2) as (clients, mishaps):
        soak = Soak(clients, tasks=300, seed=1, patience=5)
        took = await soak.run(mishaps, producers=2, workers=3)
        verdict = await soak.verdict()
        print(f"{kind}: {len(soak.sent)} tasks in {took:.0f} s; {dict(soak.mishaps)}; {verdict}")
        print(f"{kind}: asked again after {dict(soak.repeated)}")
        assert {what: verdict[what] for what in WRONG} == dict.fromkeys(WRONG, 0)
