"""A task: a handler with its options and the types of its arguments and result."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

import msgspec

from lineshaft.errors import Invalid
from lineshaft.sdk import encoding
from lineshaft.sdk.arguments import Arguments
from lineshaft.sdk.context import Context
from lineshaft.sdk.failures import WrongArgument, WrongDefinition
from lineshaft.sdk.options import DEFAULT_QUEUE, TaskOptions, checked, seconds
from lineshaft.sdk.outcomes import Completed, Duration, Failed
from lineshaft.values.ids import check_name

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Exceptions = type[BaseException] | tuple[type[BaseException], ...]
Ended = Completed | Failed
AfterExecution = Callable[[Context, Ended], "Awaitable[Ended | None] | Ended | None"]
"""Called when a handler has returned or raised; what it returns takes the place of the outcome, None leaves
it.
"""


class Middleware(Protocol):
    """Wraps the execution of a task: does what it likes before and after `await call_next()`, and returns a
    result.
    """

    def __call__(self, ctx: Context, call_next: Callable[[], Awaitable[Any]], /) -> Awaitable[Any]:
        """Run the rest of the chain by `call_next`, or do without."""


class Definition(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a worker needs to execute a task; `handler` is None where another program executes it."""

    name: str
    queue: str = DEFAULT_QUEUE
    """Where it waits unless a call says otherwise."""
    handler: Callable[..., Any] | None = None
    arguments: Arguments | None = None
    is_async: bool = True
    retry_on: tuple[type[BaseException], ...] | None = None
    discard_on: tuple[type[BaseException], ...] = ()
    after_execution: AfterExecution | None = None
    result: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class Task(Generic[P, R_co]):
    """Something that can be enqueued; made by `app.task`, changed for one call by `configure`. Calling it
    runs the handler.
    """

    def __init__(
        self, definition: Definition, fields: Mapping[str, Any], *, wait: float | None = None
    ) -> None:
        self.definition = definition
        self.fields = fields
        self.wait = wait
        self.__name__ = definition.name
        if definition.handler is not None:
            self.__module__ = getattr(definition.handler, "__module__", None) or __name__
            self.__doc__ = definition.handler.__doc__
            self.__wrapped__ = definition.handler

    @property
    def name(self) -> str:
        """The task's type, by which workers find the handler."""
        return self.definition.name

    def configure(self, *, wait: Duration | None = None, **options: Unpack[TaskOptions]) -> Task[P, R_co]:
        """Return this task with other options; what is not given stays. `wait` bounds `enqueue_and_wait`.

        Raises Invalid, which names the option that is wrong.
        """
        fields = {**self.fields, **checked(options)}
        for one, other in (("delay", "run_at"), ("run_at", "delay")):
            if one in options:
                fields.pop(other, None)
        limit = self.wait if wait is None else seconds(wait, "wait")
        return Task(self.definition, fields, wait=limit)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R_co]:
        """Bind arguments for `enqueue_many`; WrongArgument names the one that does not fit."""
        return Bound(self, encode_call(self, args, kwargs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler directly, here and now, as the plain function that it is (`ctx` included)."""
        if self.definition.handler is None:
            raise TypeError(f"{self.name} is executed by another program; it can only be enqueued")
        return self.definition.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class Bound(Generic[R_co]):
    """A task with its arguments: one item of `enqueue_many`. `payload` is JSON."""

    __slots__ = ("payload", "task")

    def __init__(self, task: Task[Any, R_co], payload: bytes) -> None:
        self.task = task
        self.payload = payload


class TaskDecorator(Protocol):
    """What `app.task(…)` returns: keeps the handler's parameters (but for its Context) and its result."""

    @overload
    def __call__(
        self, handler: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> Task[P, R]: ...


def encode_call(task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Encode a call's arguments as the payload of `task`; WrongArgument names the one that does not fit."""
    if not hasattr(task, "definition"):
        raise WrongArgument(
            f"expected a task, not {task!r}: @app.task makes one of a function, enqueue_named takes a name",
            field="task",
        )
    arguments = task.definition.arguments
    if arguments is not None:
        return arguments.encode(args, kwargs)
    if args:
        raise Invalid(f"{task.name}: arguments of a task that is executed elsewhere travel by name")
    return encode_payload(kwargs)


def encode_payload(value: Any) -> bytes:
    """Encode any JSON value as a payload; Invalid where it has no JSON form."""
    try:
        return encoding.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the payload has no JSON form: {error}", field="payload") from None


def define(
    handler: Callable[..., Any],
    *,
    name: str | None,
    queue: str,
    scope: Mapping[str, Any],
    retry_on: Exceptions | None = None,
    discard_on: Exceptions = (),
    after_execution: AfterExecution | None = None,
) -> Definition:
    """Make the definition of a handler; WrongDefinition says what about it cannot be a task."""
    if not callable(handler):
        raise WrongDefinition(f"a task needs a function, not {handler!r}: put `@app.task` above its `def`")
    name = name or getattr(handler, "__name__", None) or type(handler).__name__
    check_name(name, field="name")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise WrongDefinition(f"{name} is a generator; a task returns its result", field="name")
    arguments = Arguments(handler, task=name, scope=scope)
    return Definition(
        name=name,
        queue=queue,
        handler=handler,
        arguments=arguments,
        is_async=inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__),
        retry_on=None if retry_on is None else _exceptions(retry_on, "retry_on"),
        discard_on=_exceptions(discard_on, "discard_on"),
        after_execution=after_execution,
        result=_result_decoder(name, arguments.result_type),
    )


def _result_decoder(name: str, annotation: Any) -> msgspec.json.Decoder[Any]:
    try:
        return encoding.decoder(annotation)
    except TypeError as error:
        raise WrongDefinition(
            f"{name}: its result cannot be awaited as annotated: {error}", field="return"
        ) from None


def _exceptions(value: Any, field: str) -> tuple[type[BaseException], ...]:
    classes = tuple(value) if isinstance(value, tuple | list) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise WrongDefinition(f"`{field}` takes exception classes, not {one!r}", field=field)
    return classes
