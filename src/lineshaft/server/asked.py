"""A request that was matched to a call and to who makes it, and the end of the line that it came by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from lineshaft.server.endpoints import Endpoint
from lineshaft.server.exchange import Request
from lineshaft.server.headers import Headers
from lineshaft.server.identity import SYSTEM_TENANT, Identity

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Line(Protocol):
    """The connection that a request came by."""

    def mind_leaving(self) -> None:
        """Take the end of what the client says for its leaving. Raises `ClientGone` where it has."""

    async def reach(self) -> None:
        """Wait until an answer could be written. Raises `ClientGone` where the client hangs up instead."""

    def leave(self) -> None:
        """End the request being served without an answer."""


class Cancellable(Protocol):
    """What serves a request: a task or an exchange."""

    def cancel(self) -> Any:
        """End it with `CancelledError`."""


class Asked(msgspec.Struct, frozen=True):
    """What is to be served."""

    request: Request
    endpoint: Endpoint
    id: str | None
    identity: Identity
    headers: Headers
    line: Line | None
    serving: Cancellable
    send: Send | None
    """Where an answer goes that is a stream; None where nothing is streamed."""

    @property
    def tenant(self) -> str:
        """Return the tenant whose shard it is about."""
        return SYSTEM_TENANT if self.endpoint.of_all_tenants else self.identity.tenant

    @property
    def leases(self) -> bool:
        """Tell whether an answer may lease tasks."""
        return self.endpoint.call.name in ("claim", "report")
