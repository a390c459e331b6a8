"""A transport that asks only for tasks of some names, for a worker whose pools know queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lineshaft.sdk.transport import PushSession, Transport
from lineshaft.values.ids import check_name
from lineshaft.wire import Call, Claim, Hello, Report


class ByName:
    """Adds `names` to every claim that goes through to `transport`."""

    def __init__(self, transport: Transport, names: Sequence[str]) -> None:
        self._transport = transport
        self._names = [check_name(name, field="name") for name in names]

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a call; see `Transport.call`."""
        if isinstance(body, Claim):
            body = msgspec.structs.replace(body, names=self._names)
        elif isinstance(body, Report) and body.claim is not None:
            body = msgspec.structs.replace(body, claim=msgspec.structs.replace(body.claim, names=self._names))
        return await self._transport.call(call, id=id, query=query, body=body, timeout=timeout)

    async def session(self, hello: Hello) -> PushSession | None:
        """Open a push session; see `Transport.session`."""
        return await self._transport.session(msgspec.structs.replace(hello, names=self._names))

    async def close(self) -> None:
        """Give back connections; idempotent."""
        await self._transport.close()
