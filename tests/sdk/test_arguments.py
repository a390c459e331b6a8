"""Arguments: bound by name, checked by annotation, before anything is enqueued."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest

from lineshaft import App, Cancel, Context, Snooze, Task, WrongArgument, WrongDefinition
from lineshaft.sdk.outcomes import Completed
from lineshaft.sdk.task import encode_call

app = App("http://127.0.0.1:9")


@dataclasses.dataclass
class Address:
    street: str
    number: int


class Line(msgspec.Struct):
    sku: str
    count: int = 1


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    colour: str


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


def encoded(task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    return msgspec.json.decode(encode_call(task, args, kwargs))


def bound(task: Task[..., Any], payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    arguments = task.definition.arguments
    assert arguments is not None
    return arguments.decode(payload, CONTEXT)


CONTEXT: Context = object.__new__(Context)


def a_task(handler: Any) -> Task[..., Any]:
    return App("http://127.0.0.1:9").task()(handler)


async def ship(ctx: Context, order: int, to: Address, lines: list[Line], express: bool = False) -> None: ...


SHIP = a_task(ship)


def test_a_call_becomes_an_object_of_its_arguments_by_name() -> None:
    payload = encoded(SHIP, 7, Address("Kai", 1), lines=[Line("a", 2)])
    assert payload == {"order": 7, "to": {"street": "Kai", "number": 1}, "lines": [{"sku": "a", "count": 2}]}


def test_a_payload_becomes_the_call_again_with_the_defaults_of_the_worker() -> None:
    positional, keywords = bound(SHIP, b'{"order":7,"to":{"street":"Kai","number":1},"lines":[{"sku":"a"}]}')
    assert positional == [CONTEXT, 7, Address("Kai", 1), [Line("a")], False]
    assert keywords == {}


@pytest.mark.parametrize(
    ("arguments", "field", "reason"),
    [
        ({"order": "7"}, "order", "ship(): argument `order`: expected `int`, got `str`"),
        ({"to": Address("Kai", "one")}, "to", "ship(): argument `to.number`: expected `int`, got `str`"),  # type: ignore[arg-type]
        (
            {"lines": [Line("a"), Line(3)]},
            "lines",
            "ship(): argument `lines[1].sku`: expected `str`, got `int`",
        ),  # type: ignore[arg-type]
        ({"lines": None}, "lines", "ship(): argument `lines`: expected `array`, got `null`"),
        ({"colour": "red"}, "colour", "ship(): unexpected argument `colour`"),
        ({"order": float("nan")}, "order", "ship(): argument `order`: expected `int`, got `null`"),
        ({"order": object()}, "order", "ship(): argument `order`: `object` has no JSON form"),
        ({"lines": [Line("\ud800")]}, "lines", None),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], field: str, reason: str | None) -> None:
    call = {"order": 7, "to": Address("Kai", 1), "lines": []} | arguments
    with pytest.raises(WrongArgument) as caught:
        encoded(SHIP, **call)
    assert caught.value.field == field
    assert reason is None or caught.value.reason == reason


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(WrongArgument, match=r"^ship\(\): missing argument `to`$") as caught:
        encoded(SHIP, 7, lines=[])
    assert caught.value.field == "to"


def test_too_many_positional_arguments_are_refused() -> None:
    with pytest.raises(WrongArgument, match="takes 4 positional arguments, 5 were given"):
        encoded(SHIP, 7, Address("Kai", 1), [], True, "more")


def test_an_argument_given_twice_is_refused() -> None:
    with pytest.raises(WrongArgument, match="argument `order` was given twice"):
        encoded(SHIP, 7, order=8, to=Address("Kai", 1), lines=[])


def test_a_wrong_argument_is_also_the_type_error_that_python_would_raise() -> None:
    with pytest.raises(TypeError):
        encoded(SHIP)


def test_an_argument_that_contains_itself_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WrongArgument) as caught:
        encoded(a_task(_takes_anything), value=loop)
    assert caught.value.field == "value"


async def _takes_anything(value: Any) -> None: ...


def test_plain_types_pass_through_json_and_come_back() -> None:
    async def handler(
        when: datetime.datetime,
        day: datetime.date,
        ident: UUID,
        at: Point,
        size: Size,
        kind: Literal["a", "b"],
        options: Options,
        pairs: dict[str, tuple[int, str]],
        blob: bytes,
        big: int,
    ) -> None: ...

    task = a_task(handler)
    values: dict[str, Any] = {
        "when": datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC),
        "day": datetime.date(2026, 1, 2),
        "ident": UUID(int=5),
        "at": Point(1, 2),
        "size": Size.LARGE,
        "kind": "b",
        "options": {"colour": "red"},
        "pairs": {"one": (1, "x")},
        "blob": b"\x00\xff",
        "big": 2**70,
    }
    positional, _ = bound(task, encode_call(task, (), values))
    assert positional == list(values.values())


def test_keyword_only_positional_only_and_a_context_anywhere() -> None:
    def handler(first: int, /, second: int, ctx: Context, *, third: int = 3) -> None: ...

    task = a_task(handler)
    positional, keywords = bound(task, encode_call(task, (1, 2), {}))
    assert positional == [1, 2, CONTEXT]
    assert keywords == {"third": 3}


def test_a_handler_that_takes_anything_by_name_is_given_it() -> None:
    def handler(ctx: Context, first: int, **more: int) -> None: ...

    task = a_task(handler)
    positional, keywords = bound(task, encode_call(task, (), {"first": 1, "x": 2, "y": 3}))
    assert (positional, keywords) == ([CONTEXT, 1], {"x": 2, "y": 3})
    with pytest.raises(WrongArgument) as caught:
        bound(task, b'{"first":1,"x":"no"}')
    assert caught.value.field == "x"


def test_what_is_taken_by_any_name_is_checked_before_enqueue() -> None:
    @app.task("any-int")
    async def anything(**numbers: int) -> None: ...

    with pytest.raises(WrongArgument, match="argument `b`: Expected `int`, got `str`"):
        encode_call(anything, (), {"a": 1, "b": "two"})


def test_a_wrong_key_names_its_argument() -> None:
    @app.task("by-number")
    async def by_number(names: dict[int, str]) -> None: ...

    with pytest.raises(WrongArgument, match="argument `names`: expected `int`, got `str` as a key") as caught:
        encode_call(by_number, (), {"names": {"x": "y"}})
    assert caught.value.field == "names"


def test_partials_and_callable_objects_are_handlers_with_their_annotations() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    class Times:
        async def __call__(self, n: int) -> int:
            return n

    partial: Any = app.task("partial")(functools.partial(add, 1))
    times: Any = app.task("times")(Times())
    assert encode_call(partial, (), {"b": 2}) == b'{"b":2}'
    for task, given in ((partial, {"b": "x"}), (times, {"n": "x"})):
        with pytest.raises(WrongArgument, match="expected `int`"):
            encode_call(task, (), given)


async def test_what_is_no_task_is_told_how_to_become_one() -> None:
    own: Any = App("memory://")

    def handler() -> None: ...

    for wrong in (handler, "handler"):
        with pytest.raises(WrongArgument, match=r"@app\.task makes one of a function"):
            await own.enqueue(wrong)
    task = own.task()(handler)
    with pytest.raises(WrongArgument, match=r"expected what `task\.bind\(…\)` makes"):
        await own.enqueue_many([task])
    await own.close()


@pytest.mark.parametrize("kind", [str | Snooze, Snooze | Cancel, Cancel, str | None | Cancel])
def test_an_outcome_in_the_annotation_of_a_result_is_no_result(kind: Any) -> None:
    def handler() -> Any: ...

    handler.__annotations__["return"] = kind
    task = App("memory://").task()(handler)
    wanted = b'"x"' if str in getattr(kind, "__args__", ()) else b"null"
    assert task.definition.result.decode(wanted) == msgspec.json.decode(wanted)


def test_a_method_cannot_be_a_task() -> None:
    with pytest.raises(WrongDefinition, match="no object travels with a task"):

        class Shop:
            @app.task()
            async def sell(self, n: int) -> None: ...


def test_a_payload_of_null_is_a_call_without_arguments() -> None:
    def handler(ctx: Context, first: int = 1) -> None: ...

    assert bound(a_task(handler), b"null") == ([CONTEXT, 1], {})


def test_a_payload_that_is_no_object_says_what_is_expected() -> None:
    with pytest.raises(WrongArgument, match="must be an object of arguments by name"):
        bound(SHIP, b"[1,2]")


def test_a_mutable_default_is_the_handlers_own() -> None:
    def handler(names: list[str] = ["a"]) -> None: ...  # noqa: B006 (the point of the test)

    assert bound(a_task(handler), b"{}")[0] == [["a"]]


@pytest.mark.requires("pydantic")
def test_pydantic_models_are_validated_by_their_own_rules() -> None:
    import pydantic

    class Order(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True)
        number: int = pydantic.Field(gt=0)
        day: datetime.date

    def handler(orders: list[Order]) -> Order: ...  # type: ignore[empty-body]

    task = App("http://127.0.0.1:9").task()(handler)
    order = Order(number=3, day=datetime.date(2026, 1, 2))
    payload = encode_call(task, (), {"orders": [order]})
    assert payload == b'{"orders":[{"number":3,"day":"2026-01-02"}]}'
    assert bound(task, payload)[0] == [[order]]
    with pytest.raises(WrongArgument) as caught:
        encode_call(task, (), {"orders": [{"number": 0, "day": "2026-01-02"}]})
    assert caught.value.field == "orders"
    assert "orders[0]" in caught.value.reason
    assert "greater than 0" in caught.value.reason
    assert task.definition.result.decode(b'{"number":3,"day":"2026-01-02"}') == order


class Strange: ...


def _defined_with_star() -> None:
    def handler(*args: int) -> None: ...

    a_task(handler)


def _defined_with_strange() -> None:
    def handler(it: list[Strange]) -> None: ...

    a_task(handler)


def _defined_with_strange_result() -> None:
    def handler() -> Strange: ...  # type: ignore[empty-body]

    a_task(handler)


def _defined_with_two_contexts() -> None:
    def handler(a: Context, b: Context) -> None: ...

    a_task(handler)


def _generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("handler", "field", "reason"),
    [
        (_defined_with_star, "args", "cannot be a parameter of a task"),
        (_defined_with_strange, "it", "`Strange` has no JSON form"),
        (_defined_with_strange_result, "return", "`Strange` has no JSON form"),
        (_defined_with_two_contexts, "b", "more than one parameter is a Context"),
        (lambda: a_task(_generator), "name", "is a generator"),
        (lambda: a_task(7), None, "needs a function"),
    ],
)
def test_what_cannot_be_a_task_is_said_at_the_decorator(handler: Any, field: str | None, reason: str) -> None:
    with pytest.raises(WrongDefinition) as caught:
        handler()
    assert reason in caught.value.reason
    assert caught.value.field == field


def test_the_decorator_needs_no_parentheses() -> None:
    own = App("http://127.0.0.1:9")

    @dataclasses.dataclass
    class Parcel:  # known only inside this function, as the annotations' names may be
        weight: int

    @own.task
    def weigh(parcel: Parcel) -> int:
        return parcel.weight

    assert (weigh.name, weigh(Parcel(3))) == ("weigh", 3)
    assert weigh.bind(Parcel(3)).payload == b'{"parcel":{"weight":3}}'
    assert own.definitions["weigh"] is weigh.definition


def test_two_tasks_of_one_name_are_refused() -> None:
    own = App("http://127.0.0.1:9")
    own.task("mail")(ship)
    with pytest.raises(WrongDefinition, match="two tasks of the name `mail`"):
        own.task("mail")(_takes_anything)


def test_a_task_can_be_called_as_the_function_that_it_is() -> None:
    def double(n: int) -> int:
        """Double."""
        return 2 * n

    task = App("http://127.0.0.1:9").task()(double)
    assert task(4) == 8
    assert task.__doc__ == "Double."


def test_an_outcome_is_a_value() -> None:
    assert Completed(1) == Completed(1, None)
