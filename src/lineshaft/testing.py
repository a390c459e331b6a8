"""Tests of tasks in milliseconds: an App on a coordinator in memory, with a clock that the test moves.

    async def test_a_declined_card_is_tried_again_after_an_hour():
        async with harness(app) as test:
            handle = await app.enqueue(charge, order=3)
            await test.run_until_idle()
            await test.advance("1h")
            assert await handle.result() == "charged"

Tests that do not await use `sync_harness` and `app.sync`.
"""

from __future__ import annotations

from lineshaft.embedded.harness import Enqueued, Executed, Harness
from lineshaft.embedded.sync_harness import SyncHarness

__all__ = ["Enqueued", "Executed", "Harness", "SyncHarness", "harness", "sync_harness"]

harness = Harness
sync_harness = SyncHarness
