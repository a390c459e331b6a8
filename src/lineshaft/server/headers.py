"""The few request headers that mean something here, taken out in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lineshaft.errors import Malformed, UnsupportedMediaType

_ONCE = {b"host", b"content-type", b"authorization", b"origin", b"last-event-id", b"content-encoding"}
FORWARDED = b"lineshaft-forwarded"
"""For whom another coordinator asks, signed; see `trust.py`."""
ROSTER = b"lineshaft-roster"
"""The version of the roster by which that coordinator asks us."""
HURRY = b"lineshaft-hurry"
"""The request is not to wait for anything."""
_KEPT = _ONCE | {b"accept", b"traceparent", b"content-length", b"transfer-encoding", FORWARDED, ROSTER, HURRY}

JSON = "application/json"
NDJSON = "application/x-ndjson"


class Headers:
    """Raises `Malformed` where a header that must be single is there twice."""

    __slots__ = ("_values",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        values: dict[bytes, bytes] = {}
        for name, value in raw:
            if name in _KEPT:
                if name in values and name in _ONCE:
                    raise Malformed(f"the header {name.decode()} is there twice")
                values[name] = value
        self._values = values

    @property
    def host(self) -> bytes | None:
        """Return the Host header."""
        return self._values.get(b"host")

    @property
    def origin_host(self) -> bytes | None:
        """Return the authority of the Origin that a browser sends, b"" for an opaque one, None without."""
        origin = self._values.get(b"origin")
        return None if origin is None else origin.partition(b"://")[2]

    @property
    def authorization(self) -> str | None:
        """Return the credentials."""
        return self._text(b"authorization")

    @property
    def forwarded(self) -> bytes | None:
        """Return what another coordinator says of whom it asks for, unchecked."""
        return self._values.get(FORWARDED)

    @property
    def roster_version(self) -> int:
        """Return by which version of the roster we are asked."""
        told = self._values.get(ROSTER, b"")
        return int(told) if told.isdigit() and len(told) < 19 else 0

    @property
    def hurries(self) -> bool:
        """Whether the request is not to wait."""
        return HURRY in self._values

    @property
    def traceparent(self) -> str | None:
        """Return the trace context, unchecked."""
        return self._text(b"traceparent") if b"traceparent" in self._values else None

    @property
    def last_event_id(self) -> str | None:
        """Return the cursor from which an event stream resumes."""
        return self._text(b"last-event-id")

    @property
    def wants_events(self) -> bool:
        """Whether the client takes Server-Sent Events."""
        accept = self._values.get(b"accept", b"").lower()
        return b"text/event-stream" in accept and any(map(_takes_events, accept.split(b",")))

    @property
    def announces_body(self) -> bool:
        """Whether a body follows."""
        return self._values.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self._values

    def media_type(self) -> str | None:
        """Return `application/json` or `application/x-ndjson`, None where nothing is said.

        Raises `UnsupportedMediaType` for any other, another charset than UTF-8 and compressed bodies.
        """
        encoding = self._values.get(b"content-encoding", b"identity").strip().lower()
        if encoding != b"identity":
            raise UnsupportedMediaType("compressed bodies are not taken")
        value = self._values.get(b"content-type")
        if value is None:
            return None
        known = _MEDIA.get(value)
        return _judged(value) if known is None else known

    def _text(self, name: bytes) -> str | None:
        value = self._values.get(name)
        return None if value is None else value.decode("latin-1")


def _takes_events(media_range: bytes) -> bool:
    media, *parameters = [part.strip() for part in media_range.split(b";")]
    refused = any(_ZERO.fullmatch(parameter) for parameter in parameters)
    return media == b"text/event-stream" and not refused


_ZERO = re.compile(rb"q\s*=\s*0(\.0*)?")
_MEDIA = {b"application/json": JSON, b"application/x-ndjson": NDJSON}


def _judged(value: bytes) -> str:
    media, *parameters = [part.strip() for part in value.decode("latin-1").lower().split(";")]
    if media not in (JSON, NDJSON):
        raise UnsupportedMediaType(f"expected Content-Type: {JSON}")
    for parameter in parameters:
        name, _, charset = parameter.partition("=")
        if name.strip() == "charset" and charset.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("JSON is taken in UTF-8 only")
    return media
