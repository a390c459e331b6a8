"""Arguments and options that several commands take, each spelled and checked in one place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from lineshaft.cli.completion import STATES, complete_queue, complete_state
from lineshaft.errors import LineshaftError
from lineshaft.values.durations import parse_duration
from lineshaft.values.rawjson import check_json

T = TypeVar("T")


def check_states(values: list[str] | None) -> list[str] | None:
    """Return states as they are given. Raises BadParameter for a word that is none."""
    for value in values or ():
        if value not in STATES:
            raise typer.BadParameter(f"{value!r} is no state; expected one of {', '.join(STATES)}")
    return values


def spelled(check: Callable[..., object], field: str) -> Callable[[str | None], str | None]:
    """Make the callback of an option that goes to the coordinator as it is spelled, if `check` takes it.

    Its error becomes one of usage, which names the option.
    """

    def checked_value(value: str | None) -> str | None:
        try:
            if value is not None:
                check(value, field=field)
        except LineshaftError as error:
            raise typer.BadParameter(f"`{field}` cannot be {value!r}: {error.reason}") from None
        return value

    return checked_value


TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.", show_default=False)]
TaskIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]…", help="Ids of tasks, or a filter.", show_default=False)
]
Queue = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", help="Of this queue (may be repeated).", autocompletion=complete_queue),
]
State = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        "-s",
        help="In this state (may be repeated).",
        autocompletion=complete_state,
        callback=check_states,
    ),
]
Name = Annotated[list[str] | None, typer.Option("--name", help="Of this type (may be repeated).")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="With this tag (may be repeated: all of them).")]
Text = Annotated[
    str | None,
    typer.Option("--text", help="With this in the id, the name, a tag or the error.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the task has ended.")]
WaitFor = Annotated[
    str | None,
    typer.Option(
        "--wait-for", metavar="DURATION", help="Wait at most so long, such as 30s.", show_default=False
    ),
]


def checked(check: Callable[[], T], hint: str | None = None) -> T:
    """Return what `check` returns; its error becomes one of usage that names `hint`, else its field."""
    try:
        return check()
    except LineshaftError as error:
        option = hint or (f"--{error.field}" if error.field else None)
        raise typer.BadParameter(error.reason, param_hint=option) from None


def seconds_of(text: str, hint: str) -> float:
    """Return a duration such as "30s" in seconds. Raises BadParameter."""
    return checked(lambda: parse_duration(text, field=hint), hint) / 1000


def payload_of(text: str) -> bytes:
    """Return the JSON that an argument stands for: itself, the file after `@`, or standard input for `-`."""
    raw = _raw(text).strip()
    if not raw:
        raise typer.BadParameter("there is nothing to read where JSON was expected", param_hint="JSON")
    try:
        return check_json(raw)
    except LineshaftError as error:
        hint = "" if text[:1] in '@-{["' else """; a string needs quotes of its own: '"text"'"""
        raise typer.BadParameter(f"{error.reason}{hint}", param_hint="JSON") from None


def _raw(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"cannot read {text[1:]}: {error.strerror}", param_hint="JSON") from None
    return text.encode("utf-8", "surrogateescape")


def pairs_of(items: list[str] | None, hint: str) -> dict[str, str]:
    """Return `name=value` items as a dict. Raises BadParameter."""
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise typer.BadParameter(f"{item!r} is not of the form name=value", param_hint=hint)
        found[name] = value
    return found


def amounts_of(given: dict[str, str]) -> dict[str, str | float] | None:
    """Return amounts of resources with numbers as numbers; sizes such as "24GiB" stay as they are."""
    amounts: dict[str, str | float] = {}
    for name, text in given.items():
        try:
            amounts[name] = float(text) if "." in text else int(text)
        except ValueError:
            amounts[name] = text
    return amounts or None
