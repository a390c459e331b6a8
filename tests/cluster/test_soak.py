"""A short soak on each store in every run; `python -m tests.cluster.soak` is the long one."""

from __future__ import annotations

import pytest

from tests.cluster.soak import WRONG, soak

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("kind", ["valkey", "postgres", "opensearch"])
async def test_nothing_is_lost_whatever_happens_to_coordinators_and_servers(kind: str) -> None:
    verdict = await soak(kind, tasks=2_000, seed=1)
    assert {what: verdict[what] for what in WRONG} == dict.fromkeys(WRONG, 0)


@pytest.mark.parametrize("kind", ["valkey-replica"])  # three search nodes: `make soak-stores`
async def test_nothing_is_lost_when_a_replica_takes_over(kind: str) -> None:
    verdict = await soak(kind, tasks=200, seed=1, mishaps="servers")
    assert {what: verdict[what] for what in WRONG} == dict.fromkeys(WRONG, 0)
