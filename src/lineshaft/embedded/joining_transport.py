"""The transport of an embedded App: to the coordinator of this process, or by it to that of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lineshaft.embedded.joining_calls import repeatable
from lineshaft.embedded.threaded import ThreadedCoordinator
from lineshaft.embedded.transport import RETRY_FOR, InProcessTransport
from lineshaft.sdk.forking import whole_imports
from lineshaft.sdk.transport import PushSession
from lineshaft.wire import Call, Hello

if TYPE_CHECKING:
    from lineshaft.sdk.http import HttpTransport


class JoiningTransport(InProcessTransport):
    """See `Transport`. Calls outlive whoever has the file: they are made again at its successor."""

    def __init__(
        self, coordinator: ThreadedCoordinator, *, api_key: str | None = None, retry_for: float = RETRY_FOR
    ) -> None:
        super().__init__(coordinator, retry_for=retry_for)
        self._threaded = coordinator
        self._api_key = api_key
        self._lines: dict[str, HttpTransport] = {}
        """For sessions, which are of the event loop that uses them."""

    async def call(
        self,
        call: Call,
        *,
        id: str | None = None,
        query: msgspec.Struct | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """See `Transport.call`."""
        return await super().call(call, id=id, query=query, body=repeatable(call, body), timeout=timeout)

    async def session(self, hello: Hello) -> PushSession | None:
        """Open a session with the process that has the store; none where that is this one."""
        url = await self.there(self._threaded.where())
        if url is None:
            return None
        with whole_imports:
            from lineshaft.sdk.http import HttpTransport

        line = self._lines.get(url)
        if line is None:
            await self.close()
            line = self._lines[url] = HttpTransport(url, api_key=self._api_key, retry_for=0)
        return await line.session(hello)

    async def close(self) -> None:
        """Hang up; the coordinator belongs to the App."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.close()
