"""The worker of both examples: lineshaft worker shipping:app --queues shipping."""

from __future__ import annotations

from lineshaft import App

app = App()


@app.task(queue="shipping")
async def ship(order_id: int, item: str) -> str:
    return f"{item} of order {order_id} is on its way"
