"""The life of one attempt as a pipeline: decode, middleware, handler, judge, hook. The result is an outcome,
a value.

Nothing that a handler raises leaves this module. What it does not know of is leases, reports and queues.
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import functools
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from lineshaft.sdk import threads
from lineshaft.sdk.context import Context
from lineshaft.sdk.failures import WrongArgument
from lineshaft.sdk.outcomes import Cancel, Cancelled, Completed, Failed, Outcome, Snooze, Snoozed, TaskError
from lineshaft.sdk.task import AfterExecution, Definition, Middleware
from lineshaft.sdk.threads import Threads
from lineshaft.sdk.tracing import traceparent

MAX_NAMES = 1_000
"""What a claim may name; an App with more tasks than that asks for any."""
MAX_STACK = 16_384
MAX_MESSAGE = 4_096

_logger = logging.getLogger("lineshaft.worker")


class Executor:
    """Executes attempts by the definitions of an App; `threads` run the handlers that are plain functions."""

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        *,
        middleware: Iterable[Middleware] = (),
        after_execution: Iterable[AfterExecution] = (),
        threads: Threads,
    ) -> None:
        self._definitions = definitions
        self._middleware = tuple(middleware)
        self._hooks = tuple(after_execution)
        self._threads = threads

    @property
    def names(self) -> list[str] | None:
        """The types of tasks to ask for: those that are defined by now; None asks for any."""
        names = [name for name, one in list(self._definitions.items()) if one.handler is not None]
        return names if len(names) <= MAX_NAMES else None

    async def execute(self, name: str, payload: bytes, context: Context) -> Outcome:
        """Execute one attempt; raises CancelledError only where the attempt was interrupted from outside."""
        definition = self._definitions.get(name)
        if definition is None or definition.handler is None or definition.arguments is None:
            return self._unknown(name)
        try:
            positional, keywords = definition.arguments.decode(payload, context)
        except WrongArgument as error:
            return Failed(type="wrong_argument", message=error.reason, retry=False)
        if context.traceparent is not None:
            traceparent.set(context.traceparent)
        outcome = await self._attempt(definition, context, positional, keywords)
        if self._hooks or definition.after_execution is not None:
            outcome = await self._after(definition, context, outcome)
        return outcome

    async def _attempt(
        self, definition: Definition, context: Context, positional: list[Any], keywords: dict[str, Any]
    ) -> Outcome:
        try:
            if self._middleware:
                result = await self._chain(definition, context, positional, keywords)
            elif definition.is_async:
                result = await definition.handler(*positional, **keywords)  # type: ignore[misc]  # checked by execute
            else:
                result = await self._in_thread(definition, positional, keywords)
        except asyncio.CancelledError as error:
            if context.cancelled:
                raise
            # The handler let a cancellation of its own making escape; for the task that is a failure.
            return judge(error, definition)
        except (KeyboardInterrupt, SystemExit) as error:
            return judge(error, definition)
        except BaseException as error:
            return judge(error, definition)
        match result:
            case Snooze(delay=delay):
                return Snoozed(delay)
            case Cancel(reason=reason):
                return Cancelled(reason)
            case _:
                return Completed(result)

    async def _chain(
        self, definition: Definition, context: Context, positional: list[Any], keywords: dict[str, Any]
    ) -> Any:
        async def innermost() -> Any:
            if definition.is_async:
                return await definition.handler(*positional, **keywords)  # type: ignore[misc]  # checked by execute
            return await self._in_thread(definition, positional, keywords)

        call: Callable[[], Awaitable[Any]] = innermost
        for middleware in reversed(self._middleware):
            call = functools.partial(middleware, context, call)
        return await call()

    async def _in_thread(
        self, definition: Definition, positional: list[Any], keywords: dict[str, Any]
    ) -> Any:
        run = functools.partial(contextvars.copy_context().run, definition.handler, *positional, **keywords)  # type: ignore[arg-type]  # checked by execute
        result = await self._threads.run(run)
        # A plain function may hand back a coroutine (a wrapper around an async def): finish it here.
        return await result if inspect.iscoroutine(result) else result

    async def _after(self, definition: Definition, context: Context, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Completed | Failed):
            return outcome
        hooks = (*self._hooks, definition.after_execution) if definition.after_execution else self._hooks
        for hook in hooks:
            try:
                changed: Any = hook(context, outcome)
                if inspect.isawaitable(changed):
                    changed = await changed
            except Exception as error:
                return judge(error, definition)
            if changed is None:
                continue
            if not isinstance(changed, Completed | Failed):
                message = f"after_execution returned {changed!r}: expected Completed, Failed or None"
                return Failed(type="invalid_outcome", message=message[:MAX_MESSAGE], retry=False)
            outcome = changed
        return outcome

    def _unknown(self, name: str) -> Failed:
        # Retried: while a new version is rolled out, another worker may know it.
        near = difflib.get_close_matches(name, self._definitions, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        _logger.warning("no handler for task %r in this worker%s", name, hint)
        return Failed(type="unknown_task", message=f"this worker has no handler for `{name}`{hint}")


def judge(error: BaseException, definition: Definition) -> Outcome:
    """Decide what an exception means for the task."""
    if isinstance(error, Snooze):
        return Snoozed(error.delay)
    if isinstance(error, Cancel):
        return Cancelled(error.reason)
    retry, retry_after, data, kind = True, None, None, None
    if isinstance(error, TaskError):
        retry, retry_after, data, kind = error.retry, error.retry_after, error.data, error.type
    if definition.retry_on is not None and not isinstance(error, TaskError):
        retry = isinstance(error, definition.retry_on)
    if isinstance(error, definition.discard_on):
        retry = False
    return Failed(
        type=kind or type(error).__name__,
        message=_text(error)[:MAX_MESSAGE],
        stack=_stack(error),
        data=data,
        retry=retry,
        retry_after=retry_after,
    )


def _text(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "replace").decode()
    except Exception:
        return f"({type(error).__name__} whose text cannot be read)"


_OURS = frozenset((__file__, threads.__file__, functools.__file__))


def _stack(error: BaseException) -> str | None:
    # The frames of ours say nothing to the author of the handler.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        return None
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_STACK else "…" + text[-MAX_STACK:]
