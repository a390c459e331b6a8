"""The smallest whole, in three terminals:

lineshaft serve · lineshaft worker first_task:app · python first_task.py
"""

from __future__ import annotations

import asyncio

from lineshaft import App

app = App()  # LINESHAFT_URL, else http://127.0.0.1:7077


@app.task(queue="mail", max_retries=5, timeout="5m")
async def send_invoice(invoice_id: int) -> str:
    return f"invoice {invoice_id} is on its way"


async def main() -> None:
    async with app:
        handle = await app.enqueue(send_invoice, invoice_id=3)
        print(await handle.result(timeout="30s"))


if __name__ == "__main__":
    asyncio.run(main())
