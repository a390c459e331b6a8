"""Test a retry after an hour in milliseconds: pytest testing_a_retry.py

Only time is not real. The coordinator that decides here is the one of production, inside the test.
"""

from __future__ import annotations

from lineshaft import App, Context
from lineshaft.testing import sync_harness

app = App()


@app.task(max_retries=1, retry_policy={"backoff": "fixed", "base": "1h", "jitter": 0})
async def charge(ctx: Context, invoice_id: int) -> str:
    """Fail at first, as the payment provider does on Mondays."""
    if ctx.attempt == 1:
        raise ConnectionError("the provider does not answer")
    return f"charged {invoice_id}"


def test_charge_is_tried_again_after_an_hour() -> None:
    with sync_harness(app) as test:
        handle = app.sync.enqueue(charge, invoice_id=3)

        [first] = test.run_until_idle()
        assert first.attempt == 1
        test.assert_state(handle, "scheduled")

        assert test.advance("59m") == []
        [second] = test.advance("1m")
        assert second.attempt == 2
        assert handle.result() == "charged 3"
