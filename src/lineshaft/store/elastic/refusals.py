"""What a cluster answers when it does not do as told, in words that say what to do about it."""

from __future__ import annotations

import msgspec

from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.base import Rejected


class _Cause(msgspec.Struct):
    type: str = ""
    reason: str | None = None
    caused_by: _Cause | None = None


class _Body(msgspec.Struct):
    error: _Cause | str = ""


_decode = msgspec.json.Decoder(_Body).decode

FULL = (
    "the cluster has made {place} read-only ({reason}): free disk space or add a node "
    "(a block that stays is taken off by PUT {place}/_settings "
    '{{"index.blocks.read_only_allow_delete": null}}); '
    "nothing is lost, it goes on by itself"
)


def cause(body: bytes) -> tuple[str, str]:
    """Return type and reason of the error in an answer; empty where it has none."""
    try:
        error = _decode(body).error
    except msgspec.MsgspecError:
        return "", ""
    if isinstance(error, str):
        return "", error
    reason = error.reason or ""
    if error.caused_by is not None and error.caused_by.reason:
        reason = f"{reason}: {error.caused_by.reason}"
    return error.type, reason


def refusal(status: int, body: bytes, place: str) -> LineshaftError:
    """Return the error for an answer that is none of those expected."""
    kind, reason = cause(body)
    told = (reason or kind or body[:200].decode("utf-8", "replace") or "no reason given")[:400]
    if kind == "cluster_block_exception" and status != 503:
        return Unavailable(FULL.format(place=place, reason=told), retry_after=5.0)
    match status:
        case 401:
            return Unavailable(
                f"the cluster does not know who asks ({told}): correct the user and password, or the "
                "api_key, in the store's URL",
                retry_after=5.0,
            )
        case 403:
            return Unavailable(
                f"the cluster does not allow it ({told}): give the user the role for {place} "
                "that the documentation of this store lists",
                retry_after=5.0,
            )
        case 413:
            return Rejected(f"the cluster takes no request as large as this one ({told})")
        case 400:
            return Rejected(f"the cluster cannot take it: {told}")
        case 429:
            return Unavailable(
                f"the cluster is overloaded ({told}): give it more nodes or memory, or send less; "
                "nothing is lost, it goes on by itself",
                retry_after=1.0,
            )
        case 502 | 503 | 504:
            return Unavailable(
                f"the cluster is starting, or has no master or no primary of {place} ({told}): "
                "see GET _cluster/health; nothing is lost, it goes on by itself",
                retry_after=1.0,
            )
    return Unavailable(f"the cluster answered {status} about {place}: {told}")


def unreachable(error: Exception, hosts: str) -> Unavailable:
    """Return the error for an answer that did not come."""
    what = getattr(error, "message", None) or str(error) or type(error).__name__
    return Unavailable(
        f"no answer from the cluster at {hosts} ({what}): is it running, and can it be reached?"
    )
