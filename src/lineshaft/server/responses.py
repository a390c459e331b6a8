"""What goes out: an answer, or the refusal that an error amounts to."""

from __future__ import annotations

import math
import time
from email.utils import formatdate

import msgspec

from lineshaft.errors import LineshaftError, Retryable
from lineshaft.server.router import NoSuchMethod
from lineshaft.server.views import error_info
from lineshaft.wire import ErrorBody

_encode = msgspec.json.Encoder().encode
_JSON = b"application/json"


class Response(msgspec.Struct, frozen=True):
    """What goes out: `media` None for none, as with 204."""

    status: int
    body: bytes = b""
    media: bytes | None = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers with the length and the media type."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        if self.media is not None:
            headers.append((b"content-type", self.media))
        return headers


INTERNAL = Response(
    500, b'{"error":{"type":"internal","reason":"an internal error; the coordinator\'s log tells more"}}'
)


def refusal(error: LineshaftError, *, position: int | None = None) -> Response:
    """Return the answer that an error amounts to; `position` where it answers a write."""
    more: list[tuple[bytes, bytes]] = []
    retry_after = None
    if isinstance(error, Retryable):
        retry_after = 1.0 if error.retry_after is None else error.retry_after
        more.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after))))
    if isinstance(error, NoSuchMethod):
        more.append((b"allow", ", ".join(error.allowed).encode()))
    if error.status == 401:
        more.append((b"www-authenticate", b"ApiKey"))
    body = _encode(ErrorBody(error=error_info(error), retry_after=retry_after, position=position))
    return Response(error.status, body, headers=tuple(more))


_date = (0, b"")


def date_line() -> bytes:
    """Return the Date header as it stands in a head."""
    global _date  # noqa: PLW0603  # one text a second for everybody
    second = int(time.time())
    if _date[0] != second:
        _date = (second, b"date: %s\r\n" % formatdate(second, usegmt=True).encode())
    return _date[1]
