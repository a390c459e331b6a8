"""What follows the address in the URL of a call."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from lineshaft.wire.calls import Call


def target(call: Call, id: str | None, query: msgspec.Struct | None) -> str:
    """Return path and query of a call, percent-encoded."""
    path = call.path if id is None else call.path.replace("{id}", quote(id, safe=""))
    if query is None:
        return path
    given = {name: _spelled(value) for name, value in msgspec.to_builtins(query).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(one) for one in value)
    return str(value)
