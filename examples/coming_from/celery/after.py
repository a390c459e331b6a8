"""The same shop in Lineshaft. In three terminals:

lineshaft serve · lineshaft worker after:app · python after.py
"""

from __future__ import annotations

import asyncio

from lineshaft import App, Context

app = App()


@app.task(
    max_retries=5, retry_on=ConnectionError, retry_policy={"backoff": "fixed", "base": 0.2}, timeout="60s"
)
def fetch_price(ctx: Context, sku: str) -> int:
    if ctx.attempt <= 2:
        raise ConnectionError("the price list does not answer")
    return {"tea": 3, "milk": 2}[sku]


@app.task(queue="mail")
def send_receipt(order: int, *, total: int) -> str:
    return f"order {order}: {total} paid"


async def main() -> None:
    async with app:
        prices = await app.enqueue_many(fetch_price.bind(sku) for sku in ("tea", "milk"))
        total = sum([await price.result(timeout="30s") for price in prices])
        receipt = await app.enqueue(send_receipt.configure(delay=0.5), 7, total=total)
        print(await receipt.result(timeout="30s"))


if __name__ == "__main__":
    asyncio.run(main())
