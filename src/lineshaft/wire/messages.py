"""What all messages share: how requests and answers are declared, and the types of their fields.

Requests refuse unknown fields; answers are read leniently. `None` in a request means absent. Durations,
instants and sizes in requests stay as the user spelled them; the coordinator reads them, so that an error
names the field. In answers instants are RFC 3339 in UTC, durations seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Duration: TypeAlias = str | int | float
"""`"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"` or a number of seconds."""
Instant: TypeAlias = str
"""RFC 3339, such as `"2026-01-02T03:04:05.678Z"`."""
Amount: TypeAlias = str | int | float
"""A number, or a size such as `"24GiB"`."""
Seconds: TypeAlias = int | float
if TYPE_CHECKING:
    OptionalRaw: TypeAlias = Raw | None
else:
    # msgspec decodes a union of Raw and None as None alone; a JSON null arrives as Raw(b"null").
    OptionalRaw = Raw

Priority: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Batch: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]
StateWord: TypeAlias = Literal[
    "scheduled", "waiting", "queued", "claimed", "running", "completed", "failed", "cancelled"
]
Directive: TypeAlias = Literal["continue", "cancel", "drain"]

_SHOWN = 200
"""Characters of a payload or a result that are shown of it."""


class Request(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Base of what clients send."""


class Answer(Struct, kw_only=True, omit_defaults=True, gc=False):
    """Base of what the coordinator answers: fields that may grow, absent ones left out."""

    def __repr__(self) -> str:
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}={_shown(value)}" for name, value in values if not _is_nothing(value))
        return f"{type(self).__name__}({', '.join(shown)})"


class ErrorInfo(Answer, kw_only=True):
    """Why a call failed: `type` for programs, `reason` for people, and what it was about."""

    type: str
    reason: str
    field: str | None = None
    task_id: str | None = None
    earliest: str | None = None
    """The first cursor that the log still knows, with `cursor_expired`."""


class ErrorBody(Answer, kw_only=True):
    """The body of every answer that is not a success. `retry_after` (seconds) accompanies 429 and 503."""

    error: ErrorInfo
    retry_after: float | None = None
    position: int | None = None
    """Of an answer to a write: everything up to there is durable."""


def _is_nothing(value: object) -> bool:
    """Tell whether there is nothing to show."""
    return value is None or value is UNSET or value == [] or (isinstance(value, Raw) and not bytes(value))


def _shown(value: object) -> str:
    """Return a field as people read it; Raw as the JSON that it is."""
    if not isinstance(value, Raw):
        return repr(value)
    text = bytes(value).decode("utf-8", "replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def raw(value: object) -> Raw:
    """Return `value` encoded as the raw JSON that payloads and results are carried as."""
    return Raw(msgspec.json.encode(value))


__all__ = [
    "UNSET",
    "Amount",
    "Answer",
    "Batch",
    "Count",
    "Directive",
    "Duration",
    "ErrorBody",
    "ErrorInfo",
    "Instant",
    "OptionalRaw",
    "Priority",
    "Raw",
    "Request",
    "Seconds",
    "StateWord",
    "UnsetType",
    "raw",
]
