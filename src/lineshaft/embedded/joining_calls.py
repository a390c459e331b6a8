"""Calls that may be made again at another coordinator, because they name what they ask for."""

from __future__ import annotations

import random
import time
from typing import Any

import msgspec

from lineshaft.wire import Call, Claim, Enqueue


def repeatable(call: Call, body: Any) -> Any:
    """Return the body of a call with ids where it brings none: by them a repetition is known.

    Else the owner may have done what was asked, and ended before it could say so.
    """
    if call.name == "bulk":
        return [_named(one) for one in body]
    if call.name == "enqueue":
        return _named(body)
    if isinstance(body, Claim) and body.claim_id is None:
        return msgspec.structs.replace(body, claim_id=_new_id())
    return body


def _named(body: Any) -> Any:
    if isinstance(body, Enqueue) and body.task_id is None:
        return msgspec.structs.replace(body, task_id=_new_id())
    return body


def _new_id() -> str:
    # Each from chance alone: processes forked off from one another must not count on from the same number.
    return f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(55):014x}"
