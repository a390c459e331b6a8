"""The change feed as Server-Sent Events: `id:` is the cursor, `Last-Event-ID` resumes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from lineshaft.errors import NotOwner, Retryable
from lineshaft.server.calls import Calls
from lineshaft.server.identity import Identity
from lineshaft.wire import ChangesQuery

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_BATCH = 1_000
_KEEP_ALIVE = 15_000
"""Milliseconds after which a comment is sent, so that proxies and clients see that the line is alive."""
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_encode = msgspec.json.Encoder().encode


async def stream_changes(calls: Calls, identity: Identity, query: ChangesQuery, send: Send) -> None:
    """Send changes until the client goes or the task is cancelled.

    The first read is made before the head goes out, so that a bad or expired cursor is an ordinary error.
    """
    followed = await calls.follow(identity, query.after, limit=_BATCH, wait=0)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    if query.after is None:
        # Whoever is cut off before the first change resumes here; with a cursor of one's own one has that.
        await _chunk(send, b"id: %s\n\n" % followed.next.encode())
    try:
        while True:
            lines = [
                b"id: %s\ndata: %s\n\n" % (cursor.encode(), _encode(change))
                for change, cursor in followed.changes
            ]
            await _chunk(send, b"".join(lines) or b": still here\n\n")
            followed = await calls.follow(identity, followed.next, limit=_BATCH, wait=_KEEP_ALIVE)
    except (asyncio.CancelledError, NotOwner, Retryable):
        # The client has gone, or the coordinator goes, or the shard: who follows comes back with its cursor.
        await send({"type": "http.response.body", "body": b""})


async def _chunk(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
