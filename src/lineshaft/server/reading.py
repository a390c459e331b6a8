"""From bytes to request structs: strict, and fast where nothing is wrong.

Most bodies are read in one go (`whole.py`). One that is not is screened in a few passes of C (encoding,
surrogates, depth), decoded by msgspec, and checked for duplicate keys by one regular expression; only what
fails or looks suspicious is read again, to tell syntax (400) from meaning (422) and to name the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from lineshaft.errors import Invalid, LineshaftError, Malformed
from lineshaft.server.router import unquote
from lineshaft.server.whole import WholeReader
from lineshaft.values.rawjson import MAX_DEPTH, check_json, screen

_RAW_FIELDS = frozenset(
    {"payload", "result", "checkpoint", "usage", "metadata", "carry", "data"}
    | {"unique", "group", "limits", "weight", "depends_on"}
)
_LARGE = 256
_KEY = re.compile(rb'"([^"\\]*)"\s*:')


class BodyReader:
    """Read bodies of one type. `levels` is how deep a payload may lie inside the message.

    With `items_apart` the items of the message are read (and checked for duplicate keys) one by one later.
    """

    def __init__(self, type: Any, *, levels: int = 1, items_apart: bool = False) -> None:
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(type).decode
        self._max_depth = MAX_DEPTH + levels
        self._whole = None if items_apart else WholeReader(type, max_depth=self._max_depth)
        self._items_apart = items_apart
        self._raw_fields = _raw_fields_of(type)
        try:
            self._empty_allowed = self._decode(b"{}") is not None
        except msgspec.ValidationError:
            self._empty_allowed = False

    def read(self, body: bytes, *, at: str = "") -> Any:
        """Return the struct. Raises `Malformed` (400) or `Invalid` (422), naming the field (under `at`)."""
        try:
            return self._read(body)
        except LineshaftError as error:
            if at:
                error.field = at if error.field is None else f"{at}.{error.field}"
            raise

    def _read(self, body: bytes) -> Any:
        if not body:
            if self._empty_allowed:
                return self._decode(b"{}")
            raise Malformed("the body is empty, but fields are required")
        if self._whole is not None and (known := self._whole.read(body)) is not None:
            return known
        screen(body, max_depth=self._max_depth)
        try:
            message = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._diagnosed(body, error) from None
        if self._repeats_keys(self._without_payloads(body, message)):
            raise _duplicate(body)
        return message

    def _without_payloads(self, body: bytes, message: Any) -> bytes:
        """Leave large values out of a readable message, in which keys may repeat and need not be looked at.

        Where the value's text stands elsewhere too, the other is left out instead: as good a place.
        """
        if len(body) > _LARGE:
            for name in self._raw_fields:
                value = getattr(message, name, None)
                if type(value) is msgspec.Raw and len(text := bytes(value)) > _LARGE:
                    body = body.replace(text, b"0", 1)
        return body

    def _diagnosed(self, body: bytes, error: Exception) -> LineshaftError:
        try:
            check_json(body, max_depth=self._max_depth)
        except Malformed as malformed:
            return malformed
        if self._repeats_keys(body):
            return _duplicate(body)
        return from_validation(error)

    def _repeats_keys(self, body: bytes) -> bool:
        if self._items_apart:
            return repeats_outer_keys(body)
        return has_duplicate_keys(body)


def has_duplicate_keys(body: bytes) -> bool:
    """Tell whether an object of the message itself (not one inside a payload) has a key twice."""
    keys = _KEY.findall(body)
    # Where no two keys are alike there is nothing to find; an escape may spell a key in another way.
    if len(keys) == len(set(keys)) and b"\\u" not in body:
        return False
    return find_duplicate_key(body) is not None


def repeats_outer_keys(body: bytes) -> bool:
    """Tell whether the outermost object has a key twice; of arrays, False."""
    suspicious = any(body.count(key) > 1 for key in (b'"items"', b'"claim"')) or b"\\u" in body
    if not suspicious or body.lstrip(b" \t\r\n").startswith(b"["):
        return False
    pairs = json.loads(body, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    return isinstance(pairs, _Pairs) and len({key for key, _ in pairs}) < len(pairs)


def find_duplicate_key(body: bytes) -> str | None:
    """Return the first key that stands twice in an object of the message itself."""
    return _duplicate_in(json.loads(body, object_pairs_hook=_Pairs, parse_int=str, parse_float=str))


class _Pairs(list[tuple[str, Any]]):
    """The pairs of an object, as they came."""


def _duplicate_in(value: Any) -> str | None:
    if isinstance(value, _Pairs):
        seen = set()
        for key, inner in value:
            if key in seen:
                return key
            seen.add(key)
            if key not in _RAW_FIELDS and (found := _duplicate_in(inner)) is not None:
                return found
    elif isinstance(value, list):
        for inner in value:
            if (found := _duplicate_in(inner)) is not None:
                return found
    return None


def _raw_fields_of(type: Any) -> list[str]:
    structs = getattr(type, "__args__", (type,))
    names = {name for struct in structs for name in getattr(struct, "__struct_fields__", ())}
    return sorted(names & _RAW_FIELDS)


def _duplicate(body: bytes) -> Malformed:
    key = find_duplicate_key(body)
    return Malformed(f"the key {key!r} stands twice", field=key)


_PLACE = re.compile(r"(?P<what>.*) - at `(?:key in )?\$(?P<path>.*)`", re.DOTALL)
_NAMED = re.compile(r"(?:unknown|required) field `(?P<name>[^`]*)`")


def from_validation(error: Exception) -> Invalid:
    """Return the refusal that msgspec's complaint amounts to, naming the field by its path."""
    text = str(error)
    path = ""
    if (placed := _PLACE.fullmatch(text)) is not None:
        text, path = placed["what"], placed["path"].removeprefix(".")
    if (named := _NAMED.search(text)) is not None:
        path = f"{path}.{named['name']}" if path else named["name"]
    return Invalid(text[:500], field=path or None)


class QueryReader:
    """Read query strings into one struct; None takes no parameters."""

    def __init__(self, type: type[msgspec.Struct] | None) -> None:
        self._type = type
        self._convert: dict[str, Callable[[str, str], Any]] = {}
        if type is not None:
            for field in msgspec.structs.fields(type):
                self._convert[field.encode_name] = _converter(field.type)

    def read(self, query: str) -> Any:
        """Return the struct (None where the call has none). Raises `Malformed` (400), `Invalid` (422)."""
        if not query:
            return None if self._type is None else self._type()
        values: dict[str, Any] = {}
        for name, value in [_pair(part) for part in query.split("&") if part]:
            if name not in self._convert:
                raise Invalid("unknown query parameter", field=name)
            if name in values:
                raise Invalid("given twice", field=name)
            values[name] = self._convert[name](value, name)
        if self._type is None:
            return None
        try:
            return msgspec.convert(values, self._type)
        except msgspec.ValidationError as error:
            raise from_validation(error) from None


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.replace("+", " ").partition("=")
    return unquote(name), unquote(value, field=unquote(name))


def _converter(annotation: Any) -> Callable[[str, str], Any]:
    kinds = {type(kind) for kind in _kinds(msgspec.inspect.type_info(annotation))}
    if msgspec.inspect.StrType in kinds or msgspec.inspect.LiteralType in kinds:
        return lambda text, field: text
    if msgspec.inspect.BoolType in kinds:
        return _boolean
    return _integer


def _kinds(info: Any) -> list[Any]:
    if isinstance(info, msgspec.inspect.UnionType):
        return [kind for inner in info.types for kind in _kinds(inner)]
    if isinstance(info, msgspec.inspect.Metadata):
        return _kinds(info.type)
    return [info]


def _boolean(text: str, field: str) -> bool:
    if text not in ("true", "false"):
        raise Invalid("expected true or false", field=field)
    return text == "true"


def _integer(text: str, field: str) -> int:
    if re.fullmatch("-?[0-9]{1,19}", text) is None:
        raise Invalid("expected an integer", field=field)
    return int(text)
