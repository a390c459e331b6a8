"""`App`: the SDK's client at the coordinator that its URL names, over HTTP or inside this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

from lineshaft.errors import Invalid
from lineshaft.sdk.client import Client
from lineshaft.sdk.connections import Connections
from lineshaft.sdk.forking import whole_imports
from lineshaft.sdk.options import seconds
from lineshaft.sdk.outcomes import Duration
from lineshaft.sdk.transport import Transport
from lineshaft.wire import CALLS

if TYPE_CHECKING:
    from lineshaft.embedded.threaded import ThreadedCoordinator

DEFAULT_URL = "http://127.0.0.1:7077"

_REMOTE = ("http", "https", "unix")
_ALONE = ("memory", "sqlite")
_SHARED = ("postgresql", "postgres", "redis", "rediss", "valkey", "valkeys", "elasticsearch", "opensearch")


class App(Client):
    """Tasks, and the coordinator that keeps them.

    `url`: `http://host:port`, `https://…` or `unix:///path` of a coordinator; or a store, whose coordinator
    then runs inside this process: `memory://`, `sqlite:///jobs.db` (relative), `sqlite:////srv/jobs.db`
    (absolute), or of a kind that an installed package brings. Several processes may open one file: the first
    has it and serves the others, and when it ends another takes over. Without it LINESHAFT_URL, else
    http://127.0.0.1:7077. `api_key`: without it LINESHAFT_API_KEY.
    On a store that several coordinators share (`postgresql://…`, `redis://…`, `opensearch://…`) it is one of
    them: it listens at `listen` (HOST:PORT, default a free port of 127.0.0.1), and the others reach it at
    `address` (http://HOST:PORT, default where it listens); set both where they are on other machines.
    `retry_for` is how long a call is repeated while the coordinator is away or cannot.
    Nothing is opened before first use; `await app.close()` or `async with app:` gives everything back.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retry_for: Duration = 10,
        listen: str | None = None,
        address: str | None = None,
    ) -> None:
        self.url = url or os.environ.get("LINESHAFT_URL") or DEFAULT_URL
        self._api_key = api_key or os.environ.get("LINESHAFT_API_KEY") or None
        self._retry_for = seconds(retry_for, "retry_for")
        scheme = self.url.partition("://")[0]
        kind = scheme.removesuffix("+sentinel")
        shared = kind in _SHARED
        self.embedded = kind in _ALONE or shared or (scheme not in _REMOTE and _is_brought(scheme))
        for name, given in (("listen", listen), ("address", address)):
            if given is not None and (scheme in _REMOTE or scheme in _ALONE):
                raise Invalid(
                    f"`{name}` is for a store that several coordinators share, not for {scheme}://",
                    field=name,
                )
        self._listen = listen
        self._address = address
        if not self.embedded and scheme not in _REMOTE:
            raise Invalid(
                f"`{self.url}` is neither a coordinator (http://host:port, https://host:port, unix:///path) "
                "nor a store (memory://, sqlite:///path, postgresql://…, redis://…, opensearch://…)",
                field="url",
            )
        self._coordinator: ThreadedCoordinator | None = None
        super().__init__(
            self._open_embedded if self.embedded else self._open_remote, forkable=scheme != "memory"
        )

    def _open_remote(self) -> Transport:
        with whole_imports:
            from lineshaft.sdk.http import HttpTransport

        return HttpTransport(self.url, api_key=self._api_key, retry_for=self._retry_for)

    def _open_embedded(self) -> Transport:
        with whole_imports:
            from lineshaft.embedded.joining_search import Manner
            from lineshaft.embedded.joining_transport import JoiningTransport
            from lineshaft.embedded.threaded import ThreadedCoordinator

        if self._coordinator is None:
            manner = Manner(api_key=self._api_key, listen=self._listen, address=self._address)
            self._coordinator = ThreadedCoordinator(self.url, manner)
        return JoiningTransport(self._coordinator, api_key=self._api_key, retry_for=self._retry_for)

    def served_at(self, url: str) -> None:
        """Find the coordinator at `url` from now on, with this App's key."""
        self.embedded = False
        self.url = url
        self.reconnect(self._open_remote)

    @contextlib.asynccontextmanager
    async def serving_processes(self) -> AsyncIterator[str | None]:
        """Serve the worker processes of a supervisor within a block: the store is this process's, they are
        not.

        Gives the URL for them, None where they find their own way because the coordinator is elsewhere
        anyway.
        """
        if not self.embedded:
            yield None
            return
        from lineshaft.sdk.http import HttpTransport
        from lineshaft.server.serve import running
        from lineshaft.server.settings import ServerSettings
        from lineshaft.store.base import StoreInUse

        async with contextlib.AsyncExitStack() as serving:
            settings = ServerSettings(store=self.url, listen="127.0.0.1:0")
            coordinator = None
            with contextlib.suppress(StoreInUse):
                coordinator = await serving.enter_async_context(running(settings))
            if coordinator is None:
                yield None  # each of them joins who has the file, as this process does
                return
            url = coordinator.url
            connections = Connections(lambda: HttpTransport(url, api_key=self._api_key))
            with self.connected_through(connections):
                try:
                    yield url
                finally:
                    await connections.close()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self.embedded:
            try:
                await self.call(
                    CALLS["root"]
                )  # opens the store now, so that what is wrong with it is said here
            except BaseException:
                await self.close()
                raise
        return self

    async def close(self) -> None:
        """Give back connections, and close the store where it is this App's own; idempotent."""
        await super().close()
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            await coordinator.close()


def _is_brought(scheme: str) -> bool:
    # Imported here: only what is none of our own is looked up among the installed packages.
    from lineshaft.store.registry import is_brought

    return is_brought(scheme)
