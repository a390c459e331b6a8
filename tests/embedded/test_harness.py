"""`lineshaft.testing`: an hour passes in milliseconds, and what is asserted reads well when it fails."""

from __future__ import annotations

from typing import Any

import pytest

from lineshaft import (
    App,
    Cancel,
    Completed,
    Context,
    Failed,
    ResultTimeout,
    Snooze,
    TaskCancelled,
    TaskError,
    TaskFailed,
)
from lineshaft.testing import Executed, harness, sync_harness

app = App("memory://")
charges: list[int] = []


class Declined(TaskError):
    retry_after = "1h"


@app.task(queue="money")
async def charge(ctx: Context, order: int, fail_first: bool = False) -> str:
    charges.append(order)
    if fail_first and ctx.attempt == 1:
        raise Declined("card")
    return f"charged {order} in attempt {ctx.attempt}"


@app.task()
def resize(path: str, width: int = 100) -> dict[str, int]:
    return {path: width}


@app.task()
async def order_all(orders: list[int]) -> int:
    for order in orders:
        await app.enqueue(charge.configure(task_id=f"charge-{order}"), order)
    return len(orders)


@app.task()
async def ask_for(order: int) -> str:
    return await app.enqueue_and_wait(charge, order)


@app.task()
async def step_by_step(ctx: Context, rows: int) -> int:
    done = ctx.previous_checkpoint or 0
    for row in range(done, rows):
        ctx.progress(row + 1, rows)
        if row == 2 and ctx.attempt == 1:
            await ctx.checkpoint(row)
            raise TaskError("power cut", retry_after=0)
    return done


async def test_a_retry_after_an_hour_is_there_as_soon_as_the_test_says_so() -> None:
    async with harness(app) as test:
        handle = await app.enqueue(charge, order=3, fail_first=True)
        await test.run_until_idle()
        await test.assert_state(handle, "scheduled")
        assert await test.advance("59m") == []
        [again] = await test.advance("1m")
        assert (again.name, again.attempt) == ("charge", 2)
        assert await handle.result() == "charged 3 in attempt 2"


async def test_waiting_for_a_result_makes_the_task_run() -> None:
    async with harness(app):
        assert await app.enqueue_and_wait(resize, "a.png", width=3) == {"a.png": 3}
        handle = await app.enqueue(charge, 1)
        assert await handle.result(timeout="30s") == "charged 1 in attempt 1"


async def test_waiting_for_what_time_must_bring_says_so() -> None:
    async with harness(app) as test:
        handle = await app.enqueue(charge.configure(delay="10m"), 1)
        with pytest.raises(ResultTimeout, match=r"is scheduled until .* `advance` the clock"):
            await handle.result()
        await test.advance("10m")
        assert await handle.result() == "charged 1 in attempt 1"


async def test_a_task_may_enqueue_others_and_wait_for_them() -> None:
    async with harness(app) as test:
        await app.enqueue(order_all, [1, 2])
        made = await test.drain()
        assert [(one.name, one.task_id) for one in made][1:] == [
            ("charge", "charge-1"),
            ("charge", "charge-2"),
        ]
        assert await app.enqueue_and_wait(ask_for, 9) == "charged 9 in attempt 1"


async def test_priorities_and_delays_are_those_of_the_real_shard() -> None:
    charges.clear()
    async with harness(app) as test:
        await app.enqueue(charge.configure(priority=5), 1)
        await app.enqueue(charge, 2)
        await app.enqueue(charge.configure(delay="1h"), 3)
        await app.enqueue(charge.configure(priority=-5), 4)
        await test.run_until_idle()
        assert charges == [4, 2, 1]
        await test.skip("1h")
        assert charges == [4, 2, 1]
        await test.run_until_idle()
        assert charges == [4, 2, 1, 3]


async def test_retries_fall_due_one_after_another_as_time_passes() -> None:
    own = App("memory://")

    @own.task(max_retries=3, retry_policy={"backoff": "exponential", "base": "10s", "factor": 2, "jitter": 0})
    async def always_fails() -> None:
        raise ValueError("no")

    async with harness(own, now=1_000_000) as test:
        handle = await own.enqueue(always_fails)
        made = await test.advance("1h")
        assert [one.attempt for one in made] == [1, 2, 3, 4]
        with pytest.raises(TaskFailed, match="ValueError: no") as caught:
            await handle.result()
        assert caught.value.failure_type == "ValueError"
        assert "always_fails" in (caught.value.stack or "")
        assert test.now == 1_003_600


async def test_checkpoints_and_progress_arrive() -> None:
    async with harness(app) as test:
        handle = await app.enqueue(step_by_step, 5)
        await test.run_until_idle()
        assert await handle.result() == 2
        info = await handle.info()
        assert info.progress is not None
        assert (info.progress.done, info.progress.total) == (5, 5)


async def test_snooze_and_cancel_are_outcomes() -> None:
    own = App("memory://")

    @own.task()
    async def polite(ctx: Context, kind: str) -> Any:
        if kind == "cancel":
            raise Cancel("obsolete")
        return Snooze("5m") if not ctx.tags else ctx.attempt

    async with harness(own) as test:
        cancelled = await own.enqueue(polite, "cancel")
        snoozed = await own.enqueue(polite, "snooze")
        await test.run_until_idle()
        with pytest.raises(TaskCancelled):
            await cancelled.result()
        assert (await test.assert_state(snoozed, "scheduled")).attempt == 0


async def test_tasks_for_capable_workers_run_where_the_worker_is_said_to_be() -> None:
    own = App("memory://")

    @own.task(capability=["gpu"])
    async def render() -> int:
        return 1

    async with harness(own) as test:
        handle = await own.enqueue(render)
        await test.run_until_idle()
        assert await handle.state() == "queued"
    async with harness(own, capability=["gpu"]):
        assert await own.enqueue_and_wait(render) == 1


async def test_what_other_programs_execute_stays_where_it_is() -> None:
    async with harness(app) as test:
        handle = await app.enqueue_named("elsewhere", 1)
        assert await test.run_until_idle() == []
        await test.assert_state(handle, "queued")
    async with harness(App("http://127.0.0.1:9")) as test:
        assert await test.run_until_idle() == []


async def test_what_was_enqueued_can_be_asserted() -> None:
    async with harness(app) as test:
        await app.enqueue(charge, 3)
        await app.enqueue_many(resize.bind(path) for path in ("a", "b"))
        await app.enqueue_named("elsewhere", [1, 2], queue="go", priority=3)
        assert test.assert_enqueued(charge, order=3).queue == "money"
        test.assert_enqueued(resize, path="b")
        elsewhere = test.assert_enqueued("elsewhere")
        assert (elsewhere.arguments, elsewhere.options) == ([1, 2], {"queue": "go", "priority": 3})
        test.assert_not_enqueued(charge, order=4)
        with pytest.raises(AssertionError) as caught:
            test.assert_enqueued(charge, order=4)
        assert str(caught.value) == (
            "no charge(order=4) was enqueued; there were: charge(order=3), resize(path='a'), "
            "resize(path='b'), elsewhere([1, 2])"
        )
        with pytest.raises(AssertionError, match=r"charge\(order=3\) was enqueued"):
            test.assert_not_enqueued(charge, order=3)


async def test_a_failed_assertion_of_state_tells_the_error() -> None:
    own = App("memory://")

    @own.task(discard_on=ValueError)
    def bad() -> None:
        raise ValueError("of no use")

    async with harness(own) as test:
        handle = await own.enqueue(bad)
        await test.run_until_idle()
        with pytest.raises(AssertionError, match=r"\(bad\) is failed, not completed.*of no use"):
            await test.assert_state(handle, "completed")


async def test_a_task_that_enqueues_itself_for_ever_is_noticed() -> None:
    own = App("memory://")

    @own.task()
    async def endless() -> None:
        await own.enqueue(endless)

    async with harness(own) as test:
        await own.enqueue(endless)
        with pytest.raises(AssertionError, match="still busy"):
            await test.run_until_idle(limit=100)


async def test_a_result_is_kept_as_long_as_the_hook_says() -> None:
    own = App("memory://")

    @own.after_execution
    def keep_shortly(ctx: Context, outcome: Completed | Failed) -> Completed | Failed | None:
        return Completed("brief", result_ttl="1h") if isinstance(outcome, Completed) else None

    @own.task()
    def long() -> str:
        return "long"

    async with harness(own) as test:
        handle = await own.enqueue(long)
        await test.run_until_idle()
        assert await handle.result() == "brief"
        await test.advance("1h")
        with pytest.raises(TypeError, match="no longer than its result_ttl"):
            await own.handle(handle.task_id, long).result()


async def test_code_under_test_may_open_and_close_its_app() -> None:
    async def program() -> str:
        async with app:
            return (await app.enqueue(charge, 7)).task_id

    async with harness(app) as test:
        task_id = await program()
        await test.run_until_idle()
        assert await app.handle(task_id, charge).result() == "charged 7 in attempt 1"


async def test_the_app_is_as_before_after_the_block() -> None:
    own = App("http://127.0.0.1:9")
    before = own.connections
    async with harness(own):
        assert own.connections is not before
    assert own.connections is before
    with pytest.raises(RuntimeError, match="within its block"):
        await harness(own).run_until_idle()


def test_the_same_without_await() -> None:
    with sync_harness(app) as test:
        handle = app.sync.enqueue(charge, order=3, fail_first=True)
        assert [one.attempt for one in test.run_until_idle()] == [1]
        assert handle.state() == "scheduled"
        [again] = test.advance("1h")
        assert isinstance(again, Executed)
        assert handle.result() == "charged 3 in attempt 2"
        test.assert_enqueued(charge, order=3)
        assert app.sync.enqueue_and_wait(resize, "a") == {"a": 100}
        assert test.task(handle.task_id).state == "completed"
