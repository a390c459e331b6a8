"""Values of Python as JSON and back, by annotation: plain types, dataclasses, msgspec structs, pydantic
models.

pydantic is never imported here: its models are known by the methods they bring along.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_PATH = re.compile(r" - at (?:`(?P<key>key)` in )?`\$(?P<path>[^`]*)`$")


def encode(value: Any) -> bytes:
    """Encode as JSON; TypeError or ValueError where a value has no JSON form."""
    return _encoder.encode(value)


def decoder(annotation: Any) -> msgspec.json.Decoder[Any]:
    """Make a decoder that validates by `annotation`; TypeError where that cannot come out of JSON."""
    unsupported = [found for found in _custom_types(annotation) if not _is_pydantic(found)]
    if unsupported:
        raise TypeError(
            f"`{unsupported[0].__qualname__}` has no JSON form; use plain types, dataclasses, "
            "msgspec.Struct or pydantic models"
        )
    return msgspec.json.Decoder(annotation, dec_hook=_from_json)


def split_path(message: str) -> tuple[str, str]:
    """Split msgspec's message into what is wrong and where (`invoice.lines[0]`, empty for the whole)."""
    found = _PATH.search(message)
    if found is None:
        return message, ""
    what = message[: found.start()]
    return f"{what} as a key" if found["key"] else what, found["path"].lstrip(".")


def _custom_types(annotation: Any) -> list[type]:
    found: list[type] = []
    seen: set[int] = set()
    _collect(msgspec.inspect.type_info(annotation), found, seen)
    return found


def _collect(info: Any, found: list[type], seen: set[int]) -> None:
    if isinstance(info, msgspec.inspect.CustomType):
        found.append(info.cls)
        return
    if id(info) in seen:
        return
    seen.add(id(info))
    for name in getattr(type(info), "__struct_fields__", ()):
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, msgspec.inspect.Field):
                _collect(part.type, found, seen)
            elif isinstance(part, msgspec.inspect.Type):
                _collect(part, found, seen)


def _is_pydantic(kind: type) -> bool:
    return hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump_json")


def _from_json(kind: Any, value: Any) -> Any:
    # Through JSON again, so that pydantic's rules for JSON apply (a strict model takes a date as text).
    return kind.model_validate_json(_encoder.encode(value))


def _to_json(value: Any) -> Any:
    if _is_pydantic(type(value)):
        return msgspec.Raw(value.model_dump_json().encode())
    raise TypeError(f"`{type(value).__qualname__}` has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_to_json)
