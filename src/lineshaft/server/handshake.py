"""Uvicorn's WebSocket protocol, which speaks JSON also where a handshake is none."""

from __future__ import annotations

from typing import Any

import msgspec
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Response

from lineshaft.errors import Malformed
from lineshaft.wire import ErrorBody, ErrorInfo

_encode = msgspec.json.Encoder().encode


class EdgeWebSocket(WebSocketsSansIOProtocol):
    """Uvicorn's WebSocket protocol; a handshake that is none is answered in JSON."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        accept = self.conn.accept
        self.conn.accept = lambda request: _in_json(accept(request))  # type: ignore[method-assign]


def _in_json(response: Response) -> Response:
    if response.status_code != 101:
        reason = (response.body or b"").decode(errors="replace").strip() or "not a WebSocket handshake"
        response.body = _encode(ErrorBody(error=ErrorInfo(type=Malformed.type, reason=reason)))
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(response.body))),
        ):
            del response.headers[name]
            response.headers[name] = value
    return response
