"""A transport without a socket: to a coordinator in this process, from whatever event loop calls."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Collection
from typing import Any, Protocol

import msgspec

from lineshaft.embedded.bridge import Bridge
from lineshaft.sdk.backoff import repeat
from lineshaft.sdk.tracing import traceparent
from lineshaft.sdk.transport import PushSession
from lineshaft.wire import Call, Hello, PushedDirective

RETRY_FOR = 30.0


class Serves(Protocol):
    """A coordinator in this process; `loop` is where it runs, and what `call` must be awaited in."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the coordinator. Raises what kept it from opening."""

    async def call(
        self, call: Call, *, id: str | None, query: msgspec.Struct | None, body: Any, traceparent: str | None
    ) -> Any:
        """Make a call and return its answer struct. Raises LineshaftError."""

    def give_back(self, answer: Any) -> None:
        """Release what an answer of `call` leases, in `loop`: it came too late for whoever called."""

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """Tell of what concerns workers, in `loop`, until cancelled."""


class InProcessTransport:
    """See `Transport`. Cancelling a call tells the coordinator that the requester has gone, as hanging up
    does.
    """

    def __init__(self, coordinator: Serves, *, retry_for: float = RETRY_FOR) -> None:
        self._coordinator = coordinator
        self._retry_for = retry_for
        self._bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge]
        self._bridges = weakref.WeakKeyDictionary()

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a call, repeating it while that may help; `timeout` is of no use where nothing can be lost."""
        trace = traceparent.get()
        coordinator = self._coordinator

        async def once() -> Any:
            bridge = self._bridge_home()
            made = coordinator.call(call, id=id, query=query, body=body, traceparent=trace)
            return await made if bridge is None else await bridge.run(made)

        return await repeat(once, retry_for=self._retry_for)

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """See `TellsDirectives`."""
        bridge = self._bridge_home()
        telling = self._coordinator.directives(workers, tell)
        await (telling if bridge is None else bridge.run(telling))

    def _bridge_home(self) -> Bridge | None:
        """Give the bridge from the running loop to the coordinator's, None where they are the same."""
        here, home = asyncio.get_running_loop(), self._coordinator.loop
        if here is home:
            return None
        bridge = self._bridges.get(here)
        if bridge is None:
            bridge = self._bridges[here] = Bridge(home, self._coordinator.give_back)
        return bridge

    async def session(self, hello: Hello) -> PushSession | None:
        """Give none: a parked claim is answered at once, and costs no connection."""
        return None

    async def close(self) -> None:
        """Do nothing: the coordinator belongs to the App."""
