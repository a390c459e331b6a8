"""How fields of requests may be spelled, for `/openapi.json`: said here, judged by the coordinator.

None of this makes msgspec refuse anything: the coordinator does, in words of its own that name the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from lineshaft.values.ids import NAME_PATTERN, TASK_ID_PATTERN
from lineshaft.wire.messages import Duration, OptionalRaw, Raw

_SPELLED = r"^[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)?$"
_CENTURY = 36_500 * 86_400


def _duration(bounds: str, least: int, most: int) -> Meta:
    return Meta(
        description=f"A number of seconds, or a string such as 250ms, 30s, 5m, 1h, 7d ({bounds}).",
        extra_json_schema={"pattern": _SPELLED, "minimum": least, "maximum": most},
    )


TaskId: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": f"^{TASK_ID_PATTERN}$"})]
Name: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME_PATTERN}$"})]
Names: TypeAlias = Annotated[list[Name], Meta(extra_json_schema={"minItems": 1, "maxItems": 1000})]
Identifier: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]
"""Of a claim, a worker, its incarnation: no control characters."""
Tag: TypeAlias = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})]
Tags: TypeAlias = Annotated[list[Tag], Meta(extra_json_schema={"maxItems": 100})]
Text: TypeAlias = Annotated[str, Meta(extra_json_schema={"maxLength": 4096})]
Label: TypeAlias = Annotated[str, Meta(extra_json_schema={"maxLength": 256})]
Span: TypeAlias = Annotated[Duration, _duration("0 to 36500 days", 0, _CENTURY)]
Timeout: TypeAlias = Annotated[Duration, _duration("more than 0, to 36500 days", 0, _CENTURY)]
Wait: TypeAlias = Annotated[Duration, _duration("0 to 50 s", 0, 50)]
Sort: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"pattern": "^-?(created_at|run_at|finished_at|priority)$"})
]
KeyId: TypeAlias = Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{12}$"})]
LeaseSpan: TypeAlias = Annotated[Duration, _duration("1 s to 24 h", 1, 86_400)]

_RESERVED = Meta(
    description="Reserved and not supported yet: 422 `not_supported` where it is given.",
    extra_json_schema={"const": None},
)
if TYPE_CHECKING:
    Reserved: TypeAlias = OptionalRaw
else:
    Reserved = Annotated[Raw, _RESERVED]
