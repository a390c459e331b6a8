"""The arguments of a handler: bound by name into a payload, and from a payload back into a call.

The payload of a Python task is a JSON object of its arguments by name. A call is checked by decoding what it
encodes to, with the very decoder that the worker will use: what passes here binds there.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lineshaft.sdk import encoding
from lineshaft.sdk.context import Context
from lineshaft.sdk.failures import WrongArgument, WrongDefinition
from lineshaft.sdk.outcomes import Cancel, Snooze

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = re.compile(r"^Object (?P<what>missing required|contains unknown) field `(?P<name>[^`]*)`$")
_QUOTED_FIELD = re.compile(r"^(?P<name>\w+)")


class Arguments:
    """What one handler takes. `context` is the name of its `Context` parameter, or None."""

    def __init__(self, handler: Callable[..., Any], *, task: str, scope: Mapping[str, Any]) -> None:
        self.task = task
        hints = _hints(handler, task, scope)
        self.result_type = _result_type(hints.pop("return", Any))
        parameters = inspect.signature(handler).parameters
        if next(iter(parameters), None) in ("self", "cls"):
            raise WrongDefinition(
                f"{task} is a method, and no object travels with a task; make it a function", field="self"
            )
        self.context = _context_parameter(task, parameters, hints)
        self._positional: list[str] = []
        self._keywords: list[str] = []
        self._extra: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        self._has_extra = False
        fields: list[Any] = []
        for name, parameter in parameters.items():
            self._take(name, parameter, hints, fields)
        self._struct = msgspec.defstruct(
            "Arguments", fields, kw_only=True, forbid_unknown_fields=not self._has_extra
        )
        self._decoder = encoding.decoder(self._struct)
        self._names = [name for name in self._positional if name != self.context]
        # The lean path of a worker: every argument in the order of the signature, none by keyword.
        by_position = self.context is None or self._positional[:1] == [self.context]
        self._in_order = by_position and not self._keywords and not self._has_extra

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Bind a call's arguments and encode them; WrongArgument names the one that does not fit."""
        given = self._by_name(args, kwargs)
        try:
            payload = encoding.encode(given)
        except Exception:  # a model's own serializer may raise anything
            raise self._unencodable(given) from None
        self._check(payload)
        if self._has_extra:
            self._extras(payload)
        return payload

    def decode(self, payload: bytes, context: Context) -> tuple[list[Any], dict[str, Any]]:
        """Bind a payload for `handler(*positional, **keywords)`; WrongArgument where it does not fit."""
        values = self._check(b"{}" if payload == b"null" else payload)
        if self._in_order:
            positional = list(msgspec.structs.astuple(values))
            return ([context, *positional] if self.context else positional), {}
        bound = {self.context: context} if self.context else {}
        for name in self._struct.__struct_fields__:
            bound[name] = getattr(values, name)
        keywords = {name: bound[name] for name in self._keywords}
        if self._has_extra:
            keywords |= self._extras(payload)
        return [bound[name] for name in self._positional], keywords

    def _take(
        self, name: str, parameter: inspect.Parameter, hints: Mapping[str, Any], fields: list[Any]
    ) -> None:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise WrongDefinition(
                f"{self.task}: `*{name}` cannot be a parameter of a task: arguments travel by name",
                field=name,
            )
        annotation = hints.get(name, Any)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            self._extra = self._decoder_for(name, annotation)
            self._has_extra = True
            return
        (self._positional if parameter.kind in _POSITIONAL else self._keywords).append(name)
        if name == self.context:
            return
        self._decoder_for(name, annotation)
        if parameter.default is inspect.Parameter.empty:
            fields.append((name, annotation))
        else:
            default = parameter.default
            fields.append((name, annotation, msgspec.field(default_factory=lambda: default)))

    def _decoder_for(self, name: str, annotation: Any) -> msgspec.json.Decoder[Any]:
        try:
            return encoding.decoder(annotation)
        except TypeError as error:
            raise WrongDefinition(f"{self.task}: parameter `{name}`: {error}", field=name) from None

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if not args:
            return kwargs
        if len(args) > len(self._names):
            raise WrongArgument(
                f"{self.task}() takes {len(self._names)} positional arguments, {len(args)} were given",
                field=self._names[-1] if self._names else None,
            )
        given = dict(zip(self._names, args, strict=False))
        for name in kwargs:
            if name in given:
                raise WrongArgument(f"{self.task}(): argument `{name}` was given twice", field=name)
        return given | kwargs

    def _check(self, payload: bytes) -> Any:
        try:
            return self._decoder.decode(payload)
        except msgspec.ValidationError as error:
            raise self._wrong(str(error)) from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise WrongArgument(f"{self.task}(): the payload is not JSON: {error}") from None
        except Exception as error:  # a model's own validator may raise anything
            raise WrongArgument(f"{self.task}(): the arguments are refused: {error!r}") from error

    def _wrong(self, message: str) -> WrongArgument:
        what, path = encoding.split_path(message)
        named = _NAMED.match(what)
        if named is not None and not path:
            kind = "missing argument" if named["what"] == "missing required" else "unexpected argument"
            return WrongArgument(f"{self.task}(): {kind} `{named['name']}`", field=named["name"])
        if not path:
            return WrongArgument(
                f"{self.task}(): the payload must be an object of arguments by name ({what})"
            )
        found = _QUOTED_FIELD.match(path)
        return WrongArgument(
            f"{self.task}(): argument `{path}`: {what[:1].lower()}{what[1:]}",
            field=found["name"] if found else path,
        )

    def _unencodable(self, given: dict[str, Any]) -> WrongArgument:
        for name, value in given.items():
            try:
                encoding.encode(value)
            except Exception as error:
                reason = (
                    "it is nested too deeply or contains itself"
                    if isinstance(error, RecursionError)
                    else error
                )
                return WrongArgument(f"{self.task}(): argument `{name}`: {reason}", field=name)
        return WrongArgument(f"{self.task}(): the arguments cannot be written as JSON")

    def _extras(self, payload: bytes) -> dict[str, Any]:
        known = set(self._struct.__struct_fields__)
        extras: dict[str, Any] = {}
        for name, raw in msgspec.json.decode(payload, type=dict[str, msgspec.Raw]).items():
            if name in known:
                continue
            try:
                extras[name] = self._extra.decode(raw)
            except msgspec.ValidationError as error:
                raise WrongArgument(f"{self.task}(): argument `{name}`: {error}", field=name) from None
        return extras


def _hints(handler: Callable[..., Any], task: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function, localns=dict(scope), include_extras=True)
    except NameError as error:
        raise WrongDefinition(
            f"{task}: an annotation cannot be resolved ({error}); import the type at run time, "
            "not only under TYPE_CHECKING"
        ) from None


def _result_type(annotation: Any) -> Any:
    """Give what a result may be: an outcome that a handler may return instead is none."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None if annotation in (Snooze, Cancel) else annotation
    kinds = [kind for kind in typing.get_args(annotation) if kind not in (Snooze, Cancel)]
    return typing.Union[tuple(kinds)] if kinds else None  # noqa: UP007 (made of a list)


def _context_parameter(
    task: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
) -> str | None:
    found = [name for name in parameters if hints.get(name) is Context]
    if len(found) > 1:
        raise WrongDefinition(f"{task}: more than one parameter is a Context", field=found[1])
    return found[0] if found else None
