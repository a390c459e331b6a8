"""Requests to a cluster: raw JSON out, raw JSON in, and no retries but those asked for.

A write is sent once: whoever sent it settles an unknown outcome. A read that gets no answer in time is asked
of another node, since a read through a copy that hangs, hangs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from lineshaft.errors import Invalid, Unavailable
from lineshaft.store.elastic.address import Address
from lineshaft.store.elastic.refusals import refusal, unreachable

if TYPE_CHECKING:
    from elastic_transport import AsyncTransport

CONNECT = 2.0
READ = 5.0
WRITE = 10.0
SEARCH = 30.0
"""Seconds until an answer counts as lost."""

_CONNECTIONS = 32
_JSON = {"content-type": "application/json", "accept": "application/json"}
_LINES = {"content-type": "application/x-ndjson", "accept": "application/json"}

Shape = TypeVar("Shape")

encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class Answer(msgspec.Struct, frozen=True):
    """Status and body."""

    status: int
    body: bytes
    product: str | None = None
    """What the header says that is there; OpenSearch says nothing."""

    @property
    def ok(self) -> bool:
        """Tell whether it was done."""
        return 200 <= self.status < 300


class Client:
    """Connections to all nodes of one cluster."""

    def __init__(self, address: Address) -> None:
        """Raises `Invalid` (field "store") where the client library or the CA file is missing."""
        self._hosts = ",".join(f"{host}:{port}" for host, port in address.hosts)
        self._nodes = len(address.hosts)
        self._transport = _make_transport(address)
        self._authorization = (
            {} if address.authorization is None else {"authorization": address.authorization}
        )
        self._json = _JSON | self._authorization
        self._lines = _LINES | self._authorization

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def send(
        self, method: str, target: str, body: bytes | None = None, *, timeout: float = WRITE
    ) -> Answer:
        """Send once. Raises `Unavailable` where no answer comes: the outcome is unknown."""
        return await self._send(method, target, body, self._json, timeout)

    async def send_lines(self, target: str, lines: list[Any], *, timeout: float = 60.0) -> Answer:
        """Send a body of many JSON values, a line each."""
        return await self._send("POST", target, _encode_lines(lines), self._lines, timeout)

    async def do(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        expect: tuple[int, ...] = (),
        timeout: float = WRITE,
    ) -> Answer:
        """Send once; raise what the answer says unless it is a success or a status of `expect`."""
        raw = None if body is None else encode(body)
        answer = await self.send(method, target, raw, timeout=timeout)
        if not answer.ok and answer.status not in expect:
            raise refusal(answer.status, answer.body, target.split("?", maxsplit=1)[0].strip("/"))
        return answer

    async def ask(
        self,
        target: str,
        body: Any,
        shape: msgspec.json.Decoder[Shape],
        *,
        timeout: float = READ,
        method: str = "POST",
    ) -> Shape:
        """Read; where a node does not answer, of another."""
        raw = None if body is None else encode(body)
        for attempt in range(self._nodes + 1):
            try:
                answer = await self.send(method, target, raw, timeout=timeout)
            except Unavailable:
                if attempt == self._nodes:
                    raise
                continue
            if answer.ok or answer.status == 404:
                return shape.decode(answer.body)
            if answer.status not in (502, 503, 504) or attempt == self._nodes:
                raise refusal(answer.status, answer.body, target.split("?", maxsplit=1)[0].strip("/"))
        raise AssertionError("the loop returns or raises")

    async def _send(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout: float
    ) -> Answer:
        from elastic_transport import TransportError

        if asyncio.current_task() is None:
            # Whoever runs coroutines without a task: the client library times its requests by tasks.
            return await asyncio.get_running_loop().create_task(
                self._send(method, target, body, headers, timeout)
            )
        try:
            response = await self._transport.perform_request(
                method, target, body=body, headers=headers, request_timeout=timeout
            )
        except TransportError as error:
            raise unreachable(error, self._hosts) from error
        except RuntimeError as error:
            if "closed" not in str(error):
                raise
            raise Unavailable(f"the store is closed ({error})") from error
        meta = response.meta
        return Answer(meta.status, response.body or b"", meta.headers.get("x-elastic-product"))


def _make_transport(address: Address) -> AsyncTransport:
    try:
        import aiohttp  # noqa: F401  (the transport would miss it only at the first request)
        from elastic_transport import AsyncTransport, NodeConfig

        from lineshaft.store.elastic.node import Node
    except ImportError:
        raise Invalid(
            "a store on Elasticsearch or OpenSearch needs its client library: "
            "pip install 'lineshaft[elasticsearch]'",
            field="store",
        ) from None
    configs = [
        NodeConfig(
            scheme="https" if address.tls else "http",
            host=host,
            port=port,
            connections_per_node=_CONNECTIONS,
            request_timeout=WRITE,
            ca_certs=_existing(address.ca),
            verify_certs=True if address.tls else None,
        )
        for host, port in address.hosts
    ]
    raw: Any = _Raw()
    return AsyncTransport(
        configs,
        node_class=Node,
        max_retries=0,
        meta_header=False,
        max_dead_node_backoff=5.0,
        serializers=dict.fromkeys(
            ("application/json", "application/x-ndjson", "text/plain", "text/html"), raw
        ),
    )


def _existing(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise Invalid(f"the CA file cannot be read: {error}", field="store") from None


class _Raw:
    """Lets bodies through as they are: we know their shapes, and decode them once."""

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, data: bytes) -> bytes:
        return data
