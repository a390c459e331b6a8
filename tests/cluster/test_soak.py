"""A short soak on each store in every run; `python -m tests.cluster.soak` is the long one."""

from __future__ import annotations

import pytest

from tests.cluster.soak import soak

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", ["valkey", "postgres", "opensearch"])
async def test_nothing_is_lost_whatever_happens_to_coordinators(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store: str = request.getfixturevalue(f"{kind}_url")
    verdict = await soak(store, tasks=2_000, seed=1)
    assert (verdict["lost"], verdict["unexpected"], verdict["completed twice"]) == (0, 0, 0)
