"""A transport without a socket: to a coordinator in this process, from whatever event loop calls."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Collection, Coroutine
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
        self,
        call: Call,
        *,
        id: str | None,
        query: msgspec.Struct | None,
        body: Any,
        traceparent: str | None,
        timeout: float | None = None,
    ) -> Any:
        """Make a call and return its answer struct; `timeout` is in seconds. Raises LineshaftError."""

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
        """Make a call, repeating it while that may help; `timeout` (s) counts where the coordinator turns out
        to be in another process.
        """
        trace = traceparent.get()
        coordinator = self._coordinator

        async def once() -> Any:
            return await self.there(
                coordinator.call(call, id=id, query=query, body=body, traceparent=trace, timeout=timeout)
            )

        return await repeat(once, retry_for=self._retry_for)

    async def directives(
        self, workers: Collection[tuple[str, str | None]], tell: Callable[[PushedDirective], None]
    ) -> None:
        """See `TellsDirectives`."""
        await self.there(self._coordinator.directives(workers, tell))

    async def there(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await work of the coordinator where it runs."""
        bridge = self._bridge_home()
        return await work if bridge is None else await bridge.run(work)

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
