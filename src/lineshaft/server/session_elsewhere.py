"""A push session that is served by another coordinator: its messages are carried there and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from lineshaft.wire import SUBPROTOCOL

if TYPE_CHECKING:
    import aiohttp

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_RESTARTS = 1012
_ABNORMAL = 1006


async def pass_through(there: aiohttp.ClientWebSocketResponse, receive: Receive, send: Send) -> bool:
    """Carry messages between a client, whose handshake is still to be answered, and a session elsewhere.

    Returns whether it was the client who left.
    """
    await receive()
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    back = asyncio.ensure_future(_carry_back(there, send))
    forth = asyncio.ensure_future(_carry_forth(there, receive))
    try:
        await asyncio.wait([back, forth], return_when=asyncio.FIRST_COMPLETED)
        left = forth.done()
        if not left:
            code = there.close_code
            await _hang_up(send, _RESTARTS if code in (None, _ABNORMAL) else code)
        return left
    finally:
        for task in (back, forth):
            task.cancel()
        await asyncio.wait([back, forth])
        for task in (back, forth):
            if not task.cancelled():
                task.exception()
        await there.close()


async def _carry_forth(there: aiohttp.ClientWebSocketResponse, receive: Receive) -> None:
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            await there.close(code=event.get("code") or 1000)
            return
        text = event.get("text")
        if text is None:
            await there.send_bytes(event.get("bytes") or b"")
        else:
            await there.send_str(text)


async def _carry_back(there: aiohttp.ClientWebSocketResponse, send: Send) -> None:
    from aiohttp import WSMsgType

    async for message in there:
        if message.type is WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        else:
            return


async def _hang_up(send: Send, code: int | None) -> None:
    with contextlib.suppress(Exception):
        await send({"type": "websocket.close", "code": code})
