"""A user's module, as the type checkers of a user see it who has installed the wheel.

`# E: text` ends a line on which mypy must find that error and pyright one too; no other line may have any.
`# R: text` ends a line with a `reveal_type`: what mypy says of it, and after `||` what pyright says where its
words are others.
"""
# ruff: noqa: E501 (what is expected of a line stands at its end)

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Awaitable, Callable
from typing import Any, reveal_type

from lineshaft import (
    App,
    Cancel,
    Completed,
    Context,
    EnqueueFailed,
    Failed,
    Handle,
    LineshaftError,
    ResultTimeout,
    Snooze,
    TaskFailed,
)
from lineshaft.testing import Harness, harness

app = App("sqlite:///jobs.db", retry_for="5s")


@dataclasses.dataclass
class Receipt:
    number: int
    at: datetime.datetime


@app.task
async def bare(n: int) -> list[int]:
    return [n]


@app.task(queue="mail", max_retries=5, timeout="5m", retry_on=(OSError,), discard_on=ValueError)
async def send_invoice(ctx: Context, invoice_id: int, *, copy: bool = False) -> Receipt:
    ctx.progress(1, 2, "half")
    if ctx.attempt > 3:
        raise Cancel("the customer has gone")
    if copy:
        raise Snooze(datetime.timedelta(minutes=5))
    return Receipt(invoice_id, datetime.datetime.now(datetime.UTC))


@app.task("resize-image", resources={"memory": "1GiB"}, capability=["gpu"])
def resize(path: str, width: int = 100) -> str | None:
    return path if width else None


# fmt: off
reveal_type(bare)  # R: Task[[n: int], list[int]] || Task[(n: int), list[int]]
reveal_type(send_invoice)  # R: Task[[invoice_id: int, *, copy: bool =], Receipt] || Task[(invoice_id: int, *, copy: bool = False), Receipt]
reveal_type(resize.configure(delay="10m", tags=["a"]))  # R: Task[[path: str, width: int =], str | None] || Task[(path: str, width: int = 100), str | None]
# fmt: on


async def enqueues() -> None:
    handle = await app.enqueue(send_invoice, invoice_id=3)
    reveal_type(handle)  # R: Handle[Receipt]
    reveal_type(await handle.result(timeout="30s"))  # R: Receipt
    reveal_type(await handle.state())  # R: str
    reveal_type(await app.enqueue_and_wait(resize, "a.png", width=3))  # R: str | None
    reveal_type(await app.enqueue_many([bare.bind(1), bare.bind(n=2)]))  # R: list[Handle[list[int]]]
    reveal_type(app.handle("inv-3", send_invoice))  # R: Handle[Receipt]
    reveal_type(app.sync.enqueue(bare, 1).result())  # R: list[int]
    reveal_type(await app.enqueue_named("any", {"payload": [1, 2]}, priority=-5))  # R: Handle[Any]
    try:
        await handle.result()
    except TaskFailed as failure:
        reveal_type(failure.data)  # R: Any
        reveal_type(failure.failure_type)  # R: str
    except ResultTimeout as late:
        reveal_type(late.task_id)  # R: str | None
    except EnqueueFailed as refused:
        reveal_type(refused.errors)  # R: dict[int, LineshaftError]
    except LineshaftError as error:
        reveal_type(error.reason)  # R: str


async def mistakes() -> None:
    await app.enqueue(bare)  # E: Missing positional argument "n"
    await app.enqueue(bare, "1")  # E: incompatible type "str"; expected "int"
    await app.enqueue(bare, 1, 2)  # E: Too many arguments
    await app.enqueue(send_invoice, invoce_id=3)  # E: Unexpected keyword argument "invoce_id"
    await app.enqueue(send_invoice, 3, True)  # E: Too many positional arguments
    await app.enqueue(len, [1])  # E: incompatible type
    await app.enqueue_many([bare])  # E: incompatible type
    bare.configure(priority="high")  # E: incompatible type "str"; expected "int"
    bare.configure(prioritty=1)  # E: Unexpected keyword argument "prioritty"
    bare.configure(delay=[1])  # E: incompatible type
    number: int = await app.enqueue_and_wait(resize, "a.png")  # E: incompatible type
    receipt: Handle[Receipt] = await app.enqueue(bare, 1)  # E: incompatible type
    app.worker({"mail": "10"})  # E: incompatible type "str": "str"
    app.worker(concurency=3)  # E: Unexpected keyword argument "concurency"
    (await app.enqueue(bare, 1)).reslt()  # E: has no attribute "reslt"
    await app.enqueue_many([bare.bind("1")])  # E: incompatible type "str"; expected "int"
    print(number, receipt)


async def wrong_outcome(ctx: Context) -> None:
    ctx.progress("half")  # E: incompatible type "str"
    raise Snooze([5])  # E: incompatible type


@app.middleware
async def timed(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
    reveal_type(ctx.task_id)  # R: str
    return await call_next()


@app.after_execution
def keep(ctx: Context, outcome: Completed | Failed) -> Completed | Failed | None:
    return Completed("short", result_ttl="1h") if isinstance(outcome, Completed) else None


async def tested() -> None:
    async with harness(app) as world:
        reveal_type(world)  # R: Harness
        await world.run_until_idle()


def uses(world: Harness) -> None:
    world.assert_enqueued(send_invoice)
