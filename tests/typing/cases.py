"""What mypy sees of the public types; `# E:` at the end of a line is followed by the error that must be
there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, assert_type

from lineshaft import App, Completed, Context, Failed, Handle, Snooze, Task
from lineshaft.sdk.sync import SyncHandle

app = App()


@dataclasses.dataclass
class Receipt:
    number: int


@app.task(queue="mail", max_retries=5, timeout="5m")
async def send_invoice(ctx: Context, invoice_id: int, *, copy: bool = False) -> str:
    ctx.progress(1, 2)
    return str(invoice_id)


@app.task()
def resize(path: str, width: int = 100) -> Receipt:
    return Receipt(width)


@app.task("with-context")
def count(ctx: Context, upto: int) -> None:
    raise Snooze("5m")


@app.task()
async def plain(n: int) -> list[int]:
    return [n]


@app.task
async def bare(n: int) -> list[int]:
    return [n]


@app.task
def bare_with_context(ctx: Context, path: str) -> Receipt:
    return Receipt(ctx.attempt)


async def calls() -> None:
    assert_type(await app.enqueue(bare, 1), Handle[list[int]])
    assert_type(await app.enqueue_and_wait(bare_with_context, path="a.png"), Receipt)
    await app.enqueue(bare, "1")  # E: incompatible type "str"; expected "int"
    await app.enqueue(bare_with_context)  # E: Missing positional argument "path"
    assert_type(await app.enqueue(send_invoice, invoice_id=3), Handle[str])
    assert_type(await app.enqueue(send_invoice, 3, copy=True), Handle[str])
    assert_type(await (await app.enqueue(send_invoice, 3)).result(timeout="30s"), str)
    assert_type(await app.enqueue(resize, "a.png", width=3), Handle[Receipt])
    assert_type(await app.enqueue_and_wait(resize, "a.png"), Receipt)
    assert_type(await app.enqueue_and_wait(plain, 1), list[int])
    assert_type(await app.enqueue(count, upto=3), Handle[None])
    print(await app.enqueue_and_wait(plain, 1), await (await app.enqueue(resize, "a.png")).result())
    print(app.sync.enqueue_and_wait(send_invoice, 3))
    handles: list[Handle[object]] = [await app.enqueue(resize, "a.png"), await app.enqueue(count, 3)]
    await app.enqueue_many([send_invoice.bind(3), resize.bind("a.png"), *(plain.bind(n) for n in range(3))])
    text: str | None = await app.enqueue_and_wait(send_invoice, invoice_id=3)
    print(handles, text)
    assert_type(await app.enqueue_many(resize.bind(str(n)) for n in range(3)), list[Handle[Receipt]])
    assert_type(app.handle("x", send_invoice), Handle[str])
    assert_type(app.handle("x"), Handle[Any])
    assert_type(await app.enqueue(send_invoice.configure(delay="10m", priority=-5), 3), Handle[str])
    assert_type(app.sync.enqueue(resize, "a.png"), SyncHandle[Receipt])
    assert_type(app.sync.enqueue(resize, "a.png").result(), Receipt)

    await app.enqueue(send_invoice, invoice=3)  # E: Unexpected keyword argument "invoice"
    await app.enqueue(send_invoice)  # E: Missing positional argument "invoice_id"
    await app.enqueue(send_invoice, "3")  # E: incompatible type "str"; expected "int"
    await app.enqueue(send_invoice, 3, copi=True)  # E: Unexpected keyword argument "copi"
    await app.enqueue_and_wait(resize, path=1)  # E: incompatible type "int"; expected "str"
    resize.bind()  # E: Missing positional argument "path"
    send_invoice.configure(dely="10m")  # E: Unexpected keyword argument "dely"
    send_invoice.configure(priority="high")  # E: incompatible type "str"
    app.sync.enqueue(resize)  # E: Missing positional argument "path"
    _: int = await app.enqueue_and_wait(send_invoice, 3)  # E: incompatible type "Task[


@app.middleware
async def timed(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


@app.after_execution
def keep(ctx: Context, outcome: Completed | Failed) -> Completed | Failed | None:
    return Completed("short", result_ttl="1h") if isinstance(outcome, Completed) else None


@app.task(queu="mail")  # E: Unexpected keyword argument "queu"
async def misspelt(n: int) -> None: ...


def takes_tasks(task: Task[[int], str]) -> None: ...


def repeat(n: int) -> str:
    return "x" * n


takes_tasks(app.task()(repeat))
