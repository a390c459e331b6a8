"""An order and the task that ships it, in one transaction: the one exists exactly if the other does.

lineshaft serve --store $DATABASE_URL · lineshaft worker shipping:app · python with_psycopg.py

DATABASE_URL is that of the store, such as postgresql://postgres@localhost/shop.
"""

from __future__ import annotations

import os
import time

import psycopg
from psycopg.types.json import Json

from lineshaft import App
from lineshaft.errors import NotFound

app = App()


def place_order(connection: psycopg.Connection, item: str, *, amount: int) -> str:
    """Insert an order and enqueue what is to be done about it; return the id of the task."""
    with connection.transaction():
        [(order_id,)] = connection.execute(
            "INSERT INTO psycopg_orders (item, amount) VALUES (%s, %s) RETURNING id", (item, amount)
        ).fetchall()
        [(task_id,)] = connection.execute(
            "SELECT lineshaft.enqueue('ship', %s, task_id => %s, queue => 'shipping', max_retries => 5)",
            (Json({"order_id": order_id, "item": item}), f"ship-psycopg-{order_id}"),
        ).fetchall()
        if amount <= 0:
            raise ValueError("nothing is ordered")  # and so nothing is enqueued
    return str(task_id)


def result_of(task_id: str) -> str:
    """Wait for the result; the coordinator hears of a task some milliseconds after the commit."""
    while True:
        try:
            return str(app.sync.handle(task_id).result(timeout="30s"))
        except NotFound:
            time.sleep(0.01)


def main() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection, app.sync:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS psycopg_orders (id serial PRIMARY KEY, item text, amount int)"
        )
        try:
            place_order(connection, "a belt", amount=0)
        except ValueError as error:
            print(f"rolled back: {error}")

        task_id = place_order(connection, "a pulley", amount=2)
        print("committed:", result_of(task_id))

        orders = connection.execute("SELECT count(*) FROM psycopg_orders").fetchone()
        tasks = connection.execute(
            "SELECT count(*) FROM lineshaft.tasks WHERE id LIKE 'ship-psycopg-%'"
        ).fetchone()
        print(f"orders: {orders[0]}, tasks: {tasks[0]}")


if __name__ == "__main__":
    main()
