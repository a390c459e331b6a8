"""A worker on a line that loses requests and answers: nothing is lost, nothing is done twice, no attempt is
burned.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from lineshaft import App, Cancel, Context, TaskCancelled, TaskError, TaskFailed
from lineshaft.embedded.app import App as EmbeddedApp
from lineshaft.errors import Malformed, TooLarge, Unavailable
from lineshaft.sdk.transport import Transport
from lineshaft.wire import CALLS, Call, Hello, Report


class FlakyLine:
    """Loses a share of requests and as many answers; refuses reports that it is told to refuse."""

    def __init__(self, inner: Transport, draw: random.Random, *, losses: float) -> None:
        self._inner = inner
        self._draw = draw
        self._losses = losses
        self.most_items = 1000
        self.down = False

    async def call(self, call: Call, **what: Any) -> Any:
        if self.down or self._draw.random() < self._losses:
            raise Unavailable("the request was lost")
        body = what.get("body")
        if isinstance(body, Report) and len(body.items) > self.most_items:
            raise TooLarge("too many items for this line")
        answer = await self._inner.call(call, **what)
        if self._draw.random() < self._losses:
            raise Unavailable("the answer was lost")
        return answer

    async def session(self, hello: Hello) -> None:
        return None

    async def close(self) -> None:
        await self._inner.close()


def flaky(app: EmbeddedApp, seed: int, *, losses: float) -> list[FlakyLine]:
    """Put every transport that the app's workers open on a flaky line; give those lines."""
    lines: list[FlakyLine] = []
    opener = app.open_transport

    def open_flaky() -> FlakyLine:
        lines.append(FlakyLine(opener(), random.Random(seed + len(lines)), losses=losses))
        return lines[-1]

    app.open_transport = open_flaky  # type: ignore[method-assign]
    return lines


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("attempt", range(3))
async def test_every_task_is_done_once(attempt: int, prefetch: int) -> None:
    done: Counter[int] = Counter()
    async with App("memory://") as app:

        @app.task()
        async def count(ctx: Context, n: int) -> int:
            done[n] += 1
            await asyncio.sleep(0)
            if n % 10 == 0 and ctx.attempt == 1:
                raise ValueError("once more")
            return n

        flaky(app, attempt, losses=0.2)
        async with app.worker(concurrency=7, prefetch=prefetch):
            fast = count.configure(retry_policy={"base": 0})
            handles = await app.enqueue_many(fast.bind(n) for n in range(100))
            assert [await handle.result("60s") for handle in handles] == list(range(100))
            infos = [await handle.info() for handle in handles]
    assert {n: times for n, times in done.items() if times != (2 if n % 10 == 0 else 1)} == {}
    assert [info.lost_leases for info in infos] == [0] * 100


async def test_a_report_that_is_too_large_is_halved_until_it_fits() -> None:
    async with App("memory://") as app:

        @app.task()
        async def echo(n: int) -> int:
            return n

        lines = flaky(app, 1, losses=0)
        async with app.worker(concurrency=50):
            while not lines:  # noqa: ASYNC110 (nothing else tells)
                await asyncio.sleep(0)
            lines[0].most_items = 3
            handles = await app.enqueue_many(echo.bind(n) for n in range(100))
            assert [await handle.result("20s") for handle in handles] == list(range(100))


async def test_an_outcome_that_no_line_takes_is_replaced_by_a_failure_and_then_given_up() -> None:
    class Picky(FlakyLine):
        async def call(self, call: Call, **what: Any) -> Any:
            body = what.get("body")
            if isinstance(body, Report) and any(self.refuses(item) for item in body.items):
                raise Malformed("this line takes no results")
            return await self._inner.call(call, **what)

        def refuses(self, item: Any) -> bool:
            return type(item).__name__ == "CompleteItem"

    async with App("memory://") as app:
        opener = app.open_transport
        app.open_transport = lambda: Picky(opener(), random.Random(), losses=0)  # type: ignore[method-assign]

        @app.task()
        async def echo(n: int) -> int:
            return n

        async with app.worker():
            handle = await app.enqueue(echo, 1)
            with pytest.raises(TaskFailed, match="this line takes no results") as caught:
                await handle.result("10s")
            assert caught.value.failure_type == "result_refused"


async def test_a_worker_that_cannot_deliver_says_so_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineshaft.sdk.worker.DELIVER", 0.2)
    monkeypatch.setattr("lineshaft.sdk.worker.UNWIND", 0.1)
    async with App("memory://") as app:
        gate, started = asyncio.Event(), asyncio.Event()

        @app.task()
        async def slow() -> None:
            started.set()
            await gate.wait()

        lines = flaky(app, 1, losses=0)
        async with app.worker(grace="100ms"):
            handle = await app.enqueue(slow)
            await started.wait()
            for line in lines:
                line.down = True
            gate.set()
    assert (
        f"outcomes could not be delivered; their tasks run again when their leases end: {handle.task_id}"
        in caplog.text
    )


async def test_a_checkpoint_that_is_refused_costs_neither_lease_nor_task() -> None:
    async with App("memory://") as app:

        @app.task(lease="1s")
        async def hoards(ctx: Context) -> str:
            try:
                await ctx.checkpoint("x" * 2_000_000)
            except TooLarge as error:
                await asyncio.sleep(1.2)
                return error.reason
            return "taken"

        async with app.worker():
            handle = await app.enqueue(hoards)
            assert "the limit is" in await handle.result("10s")
            assert (await handle.info()).lost_leases == 0


async def test_odd_words_of_a_handler_hurt_nobody() -> None:
    from fractions import Fraction

    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async with App("memory://") as app:

        @app.task(max_retries=0)
        async def odd(ctx: Context, kind: str) -> None:
            ctx.progress(Fraction(1, 3), None, "\ud800")  # type: ignore[arg-type]
            if kind == "surrogate":
                raise TaskError("\ud800", data={"\ud800": object()})
            if kind == "cancel":
                raise Cancel("\ud800")
            raise OddError

        async with app.worker():
            handles = [await app.enqueue(odd, kind) for kind in ("surrogate", "cancel", "unreadable")]
            with pytest.raises(TaskFailed, match=r"\?"):
                await handles[0].result("10s")
            with pytest.raises(TaskCancelled):
                await handles[1].result("10s")
            with pytest.raises(TaskFailed, match="whose text cannot be read"):
                await handles[2].result("10s")


async def test_the_calls_of_a_worker_are_those_of_the_table() -> None:
    assert {"claim", "report"} <= set(CALLS)
