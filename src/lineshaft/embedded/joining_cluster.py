"""An App on a store that several coordinators share: an ordinary member of the cluster, within its process.

It listens, since the others forward to it what concerns its shards; and what concerns theirs it forwards.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Any

from lineshaft.embedded.coordinator import Coordinator
from lineshaft.errors import NotOwner
from lineshaft.sdk.forking import leave_sockets_to_parent, whole_imports
from lineshaft.server.settings import ServerSettings
from lineshaft.store.base import Store
from lineshaft.wire import Call

LISTEN = "127.0.0.1:0"
"""Where an App listens unless it is told: for coordinators of this machine, at any free port."""


class MemberCoordinator(Coordinator):
    """See `Coordinator`; what is not here is asked where it is."""

    _stack: contextlib.AsyncExitStack
    _server: Any

    @classmethod
    async def join(cls, store: Store, *, listen: str | None, address: str | None) -> MemberCoordinator:
        """Open the store, and take part in serving it at `listen` (HOST:PORT), which the others find at
        `address`.

        Raises InsecureListen, Invalid, and what opening the store raises.
        """
        with whole_imports:
            from lineshaft.server.serve import running

        settings = ServerSettings(store=store.url, listen=listen or LISTEN, address=address)
        async with contextlib.AsyncExitStack() as stack:
            served = await stack.enter_async_context(running(settings, store=store))
            self = cls(served.engine, served.calls, served.calls.key_ring)
            self._server = served._server
            self._stack = stack.pop_all()
        leave_sockets_to_parent(self)
        return self

    def sockets(self) -> Iterable[socket.socket]:
        """See `HasSockets`."""
        for server in getattr(self._server, "servers", ()):
            yield from server.sockets
        for connection in list(self._server.server_state.connections):
            transport = getattr(connection, "transport", None)
            connected = None if transport is None else transport.get_extra_info("socket")
            if connected is not None:
                yield connected

    async def make(
        self, call: Call, *, id: str | None, query: Any, body: Any, traceparent: str | None
    ) -> Any:
        """Make a call here or at whoever has the shard. Raises LineshaftError."""
        calls, identity = self.calls, self._identity
        elsewhere = calls.elsewhere
        if elsewhere is None or identity.tenant in calls.partitioned or self.engine.has(identity.tenant):
            with contextlib.suppress(NotOwner):
                return await super().make(call, id=id, query=query, body=body, traceparent=traceparent)
        assert elsewhere is not None
        return await elsewhere.call(call, identity, id=id, query=query, body=body, traceparent=traceparent)

    async def close(self) -> None:
        """Hand over to the others, answer whoever waits, and leave; idempotent."""
        await self._stack.aclose()
