"""Messages read in one go, where nothing about them is suspicious.

To judge a text with care, each item of a batch for itself, so that a bad one spoils nothing else, costs ten
times what decoding does. So it is decoded first, whole, and believed if a few counts agree with it: then no
key stands twice and nothing is nested too deeply. Where one does not, the message may still be right, and
is read with care.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lineshaft.values.rawjson import is_deeper

_encode = msgspec.json.Encoder().encode


class WholeReader:
    """Read messages of one type, nested no deeper than `max_depth`."""

    def __init__(self, type: Any, *, max_depth: int) -> None:
        self._decode = msgspec.json.Decoder(type).decode
        self._max_depth = max_depth

    def read(self, body: bytes) -> Any:
        """Return the message; None where it is wrong or must be looked at with care."""
        if b"\\u" in body:
            return None
        try:
            if not body.isascii():
                body.decode()  # what is kept as it came is not looked into by the decoder
            message = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        # Encoded again it has each key once, and nothing that says no more than a default. Of the rest every
        # character is there again, so a key that stood twice, or a needless one, is a colon less.
        if _encode(message).count(b":") != body.count(b":"):
            return None
        # What lies side by side does not lie within each other.
        items = message if type(message) is list else getattr(message, "items", ())
        opened = body.count(b"{") + body.count(b"[") - max(0, len(items) - 1)
        if opened > self._max_depth and is_deeper(body, self._max_depth):
            return None
        return message
