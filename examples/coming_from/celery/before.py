"""A shop's two tasks in Celery. In two terminals, with a Redis at REDIS_URL:

celery -A before worker --pool=threads -Q celery,mail · python before.py
"""

from __future__ import annotations

import os

from celery import Celery, group

app = Celery("before", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(task_acks_late=True, task_routes={"before.send_receipt": {"queue": "mail"}})


@app.task(
    bind=True,
    autoretry_for=(ConnectionError,),
    retry_kwargs={"max_retries": 5, "countdown": 0.2},
    time_limit=60,
)
def fetch_price(self, sku):
    if self.request.retries < 2:
        raise ConnectionError("the price list does not answer")
    return {"tea": 3, "milk": 2}[sku]


@app.task
def send_receipt(order, *, total):
    return f"order {order}: {total} paid"


def main():
    prices = group(fetch_price.s(sku) for sku in ("tea", "milk"))()
    total = sum(prices.get(timeout=30))
    receipt = send_receipt.apply_async((7,), {"total": total}, countdown=0.5)
    print(receipt.get(timeout=30))


if __name__ == "__main__":
    main()
