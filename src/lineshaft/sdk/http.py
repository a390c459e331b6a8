"""The transport over HTTP: calls from the table as requests, errors as the classes they were on the other
side.

Every call of the SDK may be repeated (it brings its own task ids, claim ids and lease tokens), so a lost
connection, 429 and 503 are met by repeating the same request, with jitter and not before `Retry-After`, for
`retry_for` seconds. A coordinator that cannot be reached at all is warned of at once.
"""

from __future__ import annotations

import logging
import os
import weakref
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from lineshaft.errors import Invalid, LineshaftError, Retryable, Unavailable
from lineshaft.sdk.backoff import repeat
from lineshaft.sdk.forking import leave_to_parent
from lineshaft.sdk.push import WebSocketSession
from lineshaft.sdk.refusals import error_of_status, refusal
from lineshaft.sdk.tracing import traceparent
from lineshaft.sdk.transport import PushSession
from lineshaft.wire import SESSION_PATH, Call, ErrorBody, Health, Hello
from lineshaft.wire.targets import target
from lineshaft.wire.workers import ClaimedTasks

DEFAULT_TIMEOUT = 15.0
RETRY_FOR = 10.0

_logger = logging.getLogger("lineshaft.http")
_JSON = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder().encode


class HttpTransport:
    """Speaks to `http://host:port`, `https://…` or `unix:///path/of/socket`; bound to the loop that first
    uses it.
    """

    def __init__(self, url: str, *, api_key: str | None = None, retry_for: float = RETRY_FOR) -> None:
        self.url = url
        self._base, self._socket = _parse(url)
        self._headers = {"Authorization": f"ApiKey {api_key}"} if api_key else {}
        self._retry_for = retry_for
        self._session: aiohttp.ClientSession | None = None
        self._is_down = False
        self._has_answered = False
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a call, repeating it while that may help; see `Transport.call`."""
        url = URL(self._base + target(call, id, query), encoded=True)
        data = _encode(body) if body is not None else b"{}" if call.body is not None else None
        limit = timeout or DEFAULT_TIMEOUT
        try:
            raw = await repeat(
                lambda: self._once(call.method, url, data, limit),
                retry_for=self._retry_for,
                on_failure=self._failed,
            )
        except Unavailable as error:
            if self._retry_for:
                error.reason = f"{error.reason} (tried for {self._retry_for:g} s)"
                error.args = (error.reason,)
            raise
        self._has_answered = True
        if self._is_down:
            self._is_down = False
            _logger.info("the coordinator at %s answers again", self.url)
        return self._decode(call, raw)

    async def session(self, hello: Hello) -> PushSession | None:
        """Open a push session over WebSocket; None where the coordinator has none."""
        url = self._base + SESSION_PATH
        try:
            return await WebSocketSession.open(self._open(), url, hello, self._headers)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (404, 405, 426, 501):
                return None
            raise _refusal(error.status, b"", None) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from None

    async def close(self) -> None:
        """Close the connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _once(self, method: str, url: URL, data: bytes | None, timeout: float) -> bytes:
        session = self._open()
        try:
            async with session.request(
                method,
                url,
                data=data,
                headers=_headers(data),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=5.0),
            ) as response:
                raw = await response.read()
                if response.status >= 300:
                    raise _refusal(response.status, raw, response.headers.get("Retry-After"))
                return raw
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                _UnixConnector(self._socket, limit=0)
                if self._socket is not None
                else _TCPConnector(limit=0, ttl_dns_cache=30)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Content-Type"),
            )
            weakref.finalize(self, self._session.detach)
        return self._session

    def _decode(self, call: Call, raw: bytes) -> Any:
        if call.answer is str:
            return raw.decode()
        decoder = self._decoders.get(call.name)
        if decoder is None:
            # The SDK always says `max`, so a claim is always answered with a list.
            decoder = msgspec.json.Decoder(ClaimedTasks if call.name == "claim" else call.answer)
            self._decoders[call.name] = decoder
        try:
            return decoder.decode(raw)
        except msgspec.MsgspecError as error:
            raise LineshaftError(
                f"{self.url} answered `{call.name}` with something that is not Lineshaft's protocol: {error}"
            ) from None

    def _failed(self, times: int, error: Retryable) -> None:
        # One that has answered before may be restarting, and is back in no time.
        if self._retry_for and times == (3 if self._has_answered else 1) and not self._is_down:
            self._is_down = True
            _logger.warning("%s; trying again", error.reason)

    def _unreachable(self, error: BaseException) -> Unavailable:
        if isinstance(error, TimeoutError):
            return Unavailable(f"the coordinator at {self.url} did not answer in time")
        cause = getattr(error, "os_error", None) or error
        if isinstance(cause, ConnectionError) and cause.errno:
            reason = os.strerror(cause.errno)
        else:
            reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return Unavailable(
            f"cannot reach the coordinator at {self.url} ({reason}); is `lineshaft serve` running there? "
            "The address comes from App(url) or LINESHAFT_URL"
        )


# A script that ends without closing its App, or whose event loop has ended, has done nothing wrong: the
# sockets go with the loop. So nothing is said of sessions (`detach`) and connectors that were not closed.


class _Quiet(aiohttp.BaseConnector):
    def __del__(self) -> None:  # type: ignore[override]  # aiohttp passes itself a module there
        pass

    async def _create_connection(self, *arguments: Any) -> Any:
        protocol = await super()._create_connection(*arguments)
        leave_to_parent(protocol.transport)
        return protocol


class _TCPConnector(_Quiet, aiohttp.TCPConnector):
    pass


class _UnixConnector(_Quiet, aiohttp.UnixConnector):
    pass


def _parse(url: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError as error:
        raise Invalid(f"`{url}` is not an address of a coordinator: {error}", field="url") from None
    if parts.scheme == "unix" and parts.path:
        return "http://localhost", unquote(parts.path)
    if parts.scheme in ("http", "https") and parts.hostname:
        if parts.query or parts.fragment or parts.username:
            raise Invalid(f"`{url}` must be only scheme, host and port; give the key as api_key", field="url")
        return url.rstrip("/"), None
    raise Invalid(
        f"`{url}` is not an address of a coordinator: expected http://host:port, https://host:port, "
        "unix:///path, memory:// or sqlite:///path",
        field="url",
    )


def _headers(data: bytes | None) -> dict[str, str] | None:
    if data is None:
        return None
    trace = traceparent.get()
    return _JSON if trace is None else {**_JSON, "traceparent": trace}


def _refusal(status: int, raw: bytes, retry_after: str | None) -> LineshaftError:
    """Make the error that an answer stands for; a proxy's own pages become the error nearest to their
    status.
    """
    pause = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        body = msgspec.json.decode(raw, type=ErrorBody)
    except msgspec.MsgspecError:
        reason = _unready(raw) or f"status {status} without an explanation"
        return error_of_status(status)(reason, retry_after=pause)
    return refusal(body.error, status=status, retry_after=body.retry_after if pause is None else pause)


def _unready(raw: bytes) -> str | None:
    """Return what a coordinator says that is there and not ready: its answer is the same as when it is."""
    try:
        return msgspec.json.decode(raw, type=Health).reason
    except msgspec.MsgspecError:
        return None
