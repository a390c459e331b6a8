"""One attempt: what a handler returns or raises, and what becomes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from lineshaft import App, Cancel, Completed, Context, Failed, Snooze, TaskError
from lineshaft.sdk import reports
from lineshaft.sdk.execution import Executor
from lineshaft.sdk.outcomes import Cancelled, Outcome, Snoozed
from lineshaft.sdk.threads import Threads
from lineshaft.wire import ClaimedTask
from lineshaft.wire.workers import CancelItem, CompleteItem, FailItem, ReleaseItem, SnoozeItem

app = App("http://127.0.0.1:9")


def claimed(name: str, payload: bytes = b"{}", **more: Any) -> ClaimedTask:
    return ClaimedTask(
        task_id="t-1",
        lease_token="1-1",
        name=name,
        queue="default",
        attempt=2,
        max_retries=3,
        fence=7,
        lease_ttl=30,
        enqueued_at="2026-01-02T03:04:05.678Z",
        payload=msgspec.Raw(payload),
        **more,
    )


async def execute(own: App, name: str, payload: bytes = b"{}", **more: Any) -> Outcome:
    threads = Threads()
    executor = Executor(
        own.definitions, middleware=own.middlewares, after_execution=own.hooks, threads=threads
    )
    try:
        return await executor.execute(name, payload, Context(claimed(name, payload, **more), own))
    finally:
        threads.close()


async def outcome_of(handler: Callable[..., Any], payload: bytes = b"{}", **options: Any) -> Outcome:
    own = App("http://127.0.0.1:9")
    own.task("it", **options)(handler)
    return await execute(own, "it", payload)


async def test_what_a_coroutine_returns_is_the_result() -> None:
    async def handler(ctx: Context, n: int) -> int:
        return n + ctx.fence

    assert await outcome_of(handler, b'{"n":1}') == Completed(8)


async def test_a_plain_function_runs_in_a_thread() -> None:
    def handler() -> str:
        return threading.current_thread().name

    outcome = await outcome_of(handler)
    assert isinstance(outcome, Completed)
    assert outcome.result.startswith("lineshaft-handler")


class Declined(TaskError):
    retry = False


def raising(error: BaseException) -> Callable[[], None]:
    def handler() -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "options", "expected"),
    [
        (ValueError("no"), {}, ("ValueError", "no", True, None)),
        (ValueError("no"), {"discard_on": ValueError}, ("ValueError", "no", False, None)),
        (ValueError("no"), {"retry_on": (OSError,)}, ("ValueError", "no", False, None)),
        (ConnectionError("no"), {"retry_on": (OSError,)}, ("ConnectionError", "no", True, None)),
        (Declined("card"), {"retry_on": OSError}, ("Declined", "card", False, None)),
        (TaskError("later", retry_after="1m"), {}, ("TaskError", "later", True, "1m")),
        (StopIteration(3), {}, ("RuntimeError", "StopIteration: 3", True, None)),
        (SystemExit(3), {}, ("SystemExit", "3", True, None)),
        (KeyboardInterrupt(), {}, ("KeyboardInterrupt", "", True, None)),
        (asyncio.CancelledError(), {}, ("CancelledError", "", True, None)),
    ],
)
async def test_what_is_raised_fails_the_task(
    error: BaseException, options: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    failed = await outcome_of(raising(error), **options)
    assert isinstance(failed, Failed)
    assert (failed.type, failed.message, failed.retry, failed.retry_after) == expected


async def test_a_failure_carries_the_handlers_stack_and_data_but_no_frame_of_ours() -> None:
    async def handler() -> None:
        raise TaskError("broken", data={"line": 3})

    failed = await outcome_of(handler)
    assert isinstance(failed, Failed)
    assert failed.data == {"line": 3}
    assert failed.stack is not None
    assert 'raise TaskError("broken"' in failed.stack
    assert "execution.py" not in failed.stack.replace("test_execution.py", "")


async def test_the_stack_of_a_plain_function_has_no_frame_of_ours_either() -> None:
    def handler() -> None:
        raise ValueError("broken")

    failed = await outcome_of(handler)
    assert isinstance(failed, Failed) and failed.stack is not None
    assert [line.strip() for line in failed.stack.splitlines()][2:] == [
        'raise ValueError("broken")',
        "ValueError: broken",
    ]


@pytest.mark.parametrize("raised", [True, False])
async def test_snooze_and_cancel_may_be_raised_or_returned(raised: bool) -> None:
    def handler(kind: str) -> Any:
        outcome = Snooze("5m") if kind == "snooze" else Cancel("obsolete")
        if raised:
            raise outcome
        return outcome

    assert await outcome_of(handler, b'{"kind":"snooze"}') == Snoozed("5m")
    assert await outcome_of(handler, b'{"kind":"cancel"}') == Cancelled("obsolete")


async def test_wrong_arguments_fail_for_good_and_are_named() -> None:
    def handler(n: int) -> None: ...

    failed = await outcome_of(handler, b'{"n":"x"}')
    assert failed == Failed(
        type="wrong_argument", message="it(): argument `n`: expected `int`, got `str`", retry=False
    )


async def test_an_unknown_task_is_tried_again_elsewhere() -> None:
    failed = await execute(app_with("send_mail"), "send_mial")
    assert failed == Failed(
        type="unknown_task", message="this worker has no handler for `send_mial`; did you mean `send_mail`?"
    )


def app_with(name: str) -> App:
    own = App("http://127.0.0.1:9")
    own.task(name)(lambda: None)
    return own


async def test_middleware_wraps_from_the_outside_in_and_may_replace_the_result() -> None:
    own = App("http://127.0.0.1:9")
    seen: list[str] = []

    @own.middleware
    async def outer(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(f"outer {ctx.name}")
        result = await call_next()
        seen.append("outer after")
        return result * 2

    @own.middleware
    async def inner(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
        ctx.state["from"] = "inner"
        return await call_next()

    @own.task("it")
    def handler(ctx: Context) -> int:
        seen.append(ctx.state["from"])
        return 4

    assert await execute(own, "it") == Completed(8)
    assert seen == ["outer it", "inner", "outer after"]


async def test_middleware_sees_what_the_handler_raises() -> None:
    own = App("http://127.0.0.1:9")

    @own.middleware
    async def forgiving(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call_next()
        except ZeroDivisionError:
            return "infinite"

    @own.task("it")
    async def handler() -> float:
        return 1 / 0

    assert await execute(own, "it") == Completed("infinite")


async def test_after_execution_may_change_the_result_and_how_long_it_is_kept() -> None:
    own = App("http://127.0.0.1:9")

    @own.after_execution
    async def shorten(ctx: Context, outcome: Completed | Failed) -> Completed | Failed | None:
        return Completed(f"{ctx.name}: done", result_ttl="1h") if isinstance(outcome, Completed) else None

    own.task("it", after_execution=lambda ctx, outcome: None)(lambda: "long")
    own.task("bad")(raising(ValueError("x")))
    assert await execute(own, "it") == Completed("it: done", result_ttl="1h")
    failed = await execute(own, "bad")
    assert isinstance(failed, Failed)
    assert failed.type == "ValueError"


async def test_a_hook_that_returns_no_outcome_fails_the_task() -> None:
    failed = await outcome_of(lambda: 1, after_execution=lambda ctx, outcome: "done")
    assert isinstance(failed, Failed)
    assert (failed.type, failed.retry) == ("invalid_outcome", False)
    assert "after_execution returned 'done'" in failed.message


@pytest.mark.requires("pydantic")
async def test_a_validator_that_raises_anything_fails_the_task() -> None:
    import pydantic

    class Odd(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def break_down(cls, value: int) -> int:
            raise OSError("no database")

    own = App("http://127.0.0.1:9")

    @own.task("it")
    async def handler(odd: Odd) -> None: ...

    failed = await execute(own, "it", b'{"odd":{"n":1}}')
    assert isinstance(failed, Failed)
    assert (failed.type, failed.retry) == ("wrong_argument", False)
    assert "no database" in failed.message


async def test_the_context_tells_of_the_task() -> None:
    seen: dict[str, Any] = {}

    async def handler(ctx: Context) -> None:
        seen.update(
            id=ctx.task_id, attempt=ctx.attempt, fence=ctx.fence, tags=ctx.tags, who=ctx.metadata["who"],
            before=ctx.previous_checkpoint, typed=ctx.resume(dict[str, int]), extra=ctx.log.extra,
        )  # fmt: skip

    own = App("http://127.0.0.1:9")
    own.task("it")(handler)
    more = {"tags": ["a"], "metadata": msgspec.Raw(b'{"who":"me"}'), "checkpoint": msgspec.Raw(b'{"row":9}')}
    assert await execute(own, "it", **more) == Completed(None)
    assert seen == {
        "id": "t-1", "attempt": 2, "fence": 7, "tags": ("a",), "who": "me",
        "before": {"row": 9}, "typed": {"row": 9},
        "extra": {"task_id": "t-1", "task_name": "it", "queue": "default", "attempt": 2},
    }  # fmt: skip


def item(outcome: Outcome) -> Any:
    return reports.outcome(claimed("it"), outcome)


def test_outcomes_become_items_of_a_report() -> None:
    lease = {"task_id": "t-1", "lease_token": "1-1"}
    assert item(Completed({"a": 1}, result_ttl="1h")) == CompleteItem(
        **lease, result=msgspec.Raw(b'{"a":1}'), result_ttl="1h"
    )
    assert item(Snoozed("5m")) == SnoozeItem(**lease, for_="5m")
    assert item(Cancelled("no")) == CancelItem(**lease, reason="no")
    assert isinstance(item(reports.Released()), ReleaseItem)
    failed = item(Failed(type="X", message="y", retry=False, retry_after=3, data={"a": 1}))
    assert isinstance(failed, FailItem)
    assert failed.error is not None
    assert (failed.retry, failed.retry_after, failed.error.type) == (False, 3, "X")
    assert failed.error.data == msgspec.Raw(b'{"a":1}')


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        (Completed(object()), "result_not_json", "has no JSON form"),
        (Completed(1, result_ttl="soon"), "invalid_outcome", "`result_ttl` of it"),
        (Snoozed("soon"), "invalid_outcome", "it snoozed for 'soon'"),
        (Snoozed(object()), "invalid_outcome", "it snoozed for <object"),  # type: ignore[arg-type]
    ],
)
def test_an_outcome_that_cannot_be_said_fails_the_task_for_good(
    outcome: Outcome, kind: str, reason: str
) -> None:
    failed = item(outcome)
    assert isinstance(failed, FailItem)
    assert failed.error is not None
    assert failed.error.message is not None
    assert (failed.error.type, failed.retry) == (kind, False)
    assert reason in failed.error.message
