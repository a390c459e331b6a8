"""Uvicorn's WebSocket protocol with what a coordinator that faces anybody needs besides.

* A handshake that is none is answered in JSON.
* Who does not answer our closing waits no longer than who does not answer a ping.
* Text that is not UTF-8 is the client's affair (1007), and nothing to be logged with a stack trace.
"""

from __future__ import annotations

from typing import Any

import msgspec
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Response
from websockets.protocol import State

from lineshaft.errors import Malformed
from lineshaft.wire import ErrorBody, ErrorInfo

_encode = msgspec.json.Encoder().encode


class EdgeWebSocket(WebSocketsSansIOProtocol):
    """One push session's line."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.close_timeout = self.config.ws_ping_timeout or self.close_timeout
        accept = self.conn.accept
        self.conn.accept = lambda request: _in_json(accept(request))  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go at once of what has come in: the parser refers to itself, and cycles are collected late."""
        super().connection_lost(exc)
        self.conn.parser.close()
        self.conn.parser_exc = None
        vars(self.conn).pop("accept", None)

    def send_receive_event_to_app(self) -> None:
        """Hand over a message that has come whole."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(self.frames):
            self.frames = []
            if self.conn.state is State.OPEN:  # else the client has said in the same breath that it goes
                self.conn.send_close(1007, "text is UTF-8")
                self.handle_parser_exception()
            return
        super().send_receive_event_to_app()


def _is_text(pieces: list[bytes]) -> bool:
    text = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return True


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
