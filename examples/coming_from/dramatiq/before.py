"""A shop's two actors in Dramatiq. In two terminals, with a Redis at REDIS_URL:

dramatiq before · python before.py
"""

from __future__ import annotations

import os

import dramatiq
from dramatiq import group
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["REDIS_URL"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["REDIS_URL"])))
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=5, min_backoff=200, max_backoff=200, time_limit=60_000, store_results=True)
def fetch_price(sku):
    if CurrentMessage.get_current_message().options.get("retries", 0) < 2:
        raise ConnectionError("the price list does not answer")
    return {"tea": 3, "milk": 2}[sku]


@dramatiq.actor(queue_name="mail", store_results=True)
def send_receipt(order, *, total):
    return f"order {order}: {total} paid"


def main():
    prices = group([fetch_price.message(sku) for sku in ("tea", "milk")]).run()
    total = sum(prices.get_results(block=True, timeout=30_000))
    receipt = send_receipt.send_with_options(args=(7,), kwargs={"total": total}, delay=500)
    print(receipt.get_result(block=True, timeout=30_000))


if __name__ == "__main__":
    main()
