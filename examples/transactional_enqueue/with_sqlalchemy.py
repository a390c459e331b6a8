"""The same with SQLAlchemy: the task is enqueued by the session, and committed or rolled back with it.

lineshaft serve --store $DATABASE_URL · lineshaft worker shipping:app · python with_sqlalchemy.py
"""

from __future__ import annotations

import json
import os
import time

from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from lineshaft import App
from lineshaft.errors import NotFound

app = App()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "sqlalchemy_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    amount: Mapped[int]


def enqueue(session: Session, name: str, payload: object, **options: object) -> str:
    """Enqueue within the session's transaction; return the id of the task."""
    arguments = "".join(f", {option} => :{option}" for option in options)
    statement = text(f"SELECT lineshaft.enqueue(:name, CAST(:payload AS json){arguments})")
    return session.execute(statement, {"name": name, "payload": json.dumps(payload), **options}).scalar_one()


def place_order(session: Session, item: str, *, amount: int) -> str:
    """Add an order and enqueue what is to be done about it."""
    order = Order(item=item, amount=amount)
    session.add(order)
    session.flush()  # it has its id now
    task_id = enqueue(
        session,
        "ship",
        {"order_id": order.id, "item": item},
        task_id=f"ship-sqlalchemy-{order.id}",
        queue="shipping",
    )
    if amount <= 0:
        raise ValueError("nothing is ordered")
    return task_id


def result_of(task_id: str) -> str:
    """Wait for the result; the coordinator hears of a task some milliseconds after the commit."""
    while True:
        try:
            return str(app.sync.handle(task_id).result(timeout="30s"))
        except NotFound:
            time.sleep(0.01)


def main() -> None:
    url = os.environ["DATABASE_URL"].partition("?")[0].replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with app.sync:
        try:
            with Session(engine) as session, session.begin():
                place_order(session, "a belt", amount=0)
        except ValueError as error:
            print(f"rolled back: {error}")

        with Session(engine) as session, session.begin():
            task_id = place_order(session, "a pulley", amount=2)
        print("committed:", result_of(task_id))

        with Session(engine) as session:
            orders = session.scalar(select(func.count()).select_from(Order))
            tasks = session.scalar(
                text("SELECT count(*) FROM lineshaft.tasks WHERE id LIKE 'ship-sqlalchemy-%'")
            )
        print(f"orders: {orders}, tasks: {tasks}")
    engine.dispose()


if __name__ == "__main__":
    main()
