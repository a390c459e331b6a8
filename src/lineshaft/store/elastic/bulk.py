"""Writes documents in bulk, until all are there; an older version that meets a later one is as good."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from lineshaft.errors import LineshaftError, Unavailable
from lineshaft.store.elastic.client import Client
from lineshaft.store.elastic.refusals import refusal

_LOG = logging.getLogger("lineshaft.store")

Line = Any
Pair = tuple[Line, Line]
"""An action and a document."""


class _Reason(msgspec.Struct):
    type: str = ""
    reason: str | None = None


class _Item(msgspec.Struct):
    status: int
    error: _Reason | None = None


class _Outcome(msgspec.Struct):
    errors: bool
    items: list[dict[str, _Item]] = []


_decode = msgspec.json.Decoder(_Outcome).decode

_FILTER = "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"


class MissingIndex(Exception):
    """Something is to be written to an index that is not there (any more)."""


async def write(client: Client, pairs: list[Pair], *, barely: Callable[[Pair], Pair | None]) -> list[Pair]:
    """Write once; return what is to be written again, since the cluster was too busy for it.

    `barely` returns a document that cannot be refused in place of one that was, None where there is no such.
    Raises `MissingIndex`, and `Unavailable` where nothing is known of any.
    """
    lines = [line for pair in pairs for line in pair]
    answer = await client.send_lines(_FILTER, lines)
    if answer.status == 413 and len(pairs) > 1:
        half = len(pairs) // 2
        again = await write(client, pairs[:half], barely=barely)
        return again + await write(client, pairs[half:], barely=barely)
    if not answer.ok:
        raise Unavailable(refusal(answer.status, answer.body, "the documents").reason, retry_after=1.0)
    outcome = _decode(answer.body)
    if not outcome.errors:
        return []
    again = []
    last: _Item | None = None
    for pair, items in zip(pairs, outcome.items, strict=True):
        [item] = items.values()
        last = item
        if item.error is None or item.status == 409:
            continue
        if item.status == 404:
            raise MissingIndex(item.error.reason)
        if item.status == 400:
            _LOG.error("a document is refused (%s: %s): %s", item.error.type, item.error.reason, pair[0])
            bare = barely(pair)
            again.append(pair if bare is None else bare)
        else:
            error = refusal(item.status, msgspec.json.encode({"error": item.error}), "the documents")
            _LOG.debug("a document is to be written again: %s", error)
            again.append(pair)
    if len(again) == len(pairs) and last is not None and last.status != 400:
        raise _told(last)
    return again


def _told(item: _Item) -> LineshaftError:
    error = refusal(item.status, msgspec.json.encode({"error": item.error}), "the documents")
    return Unavailable(error.reason, retry_after=1.0)
