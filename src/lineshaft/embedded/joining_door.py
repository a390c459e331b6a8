"""How the process that has a file lets the others in: the server's edge on a unix socket beside the file.

The socket is there as soon as the file is ours; the server behind it is only loaded when somebody knocks, so
an App that is alone pays nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lineshaft.embedded.joining_socket import ListeningSocket
from lineshaft.sdk.forking import leave_sockets_to_parent, whole_imports
from lineshaft.server.calls import Calls
from lineshaft.server.identity import ANYBODY, Identity, KeyRing
from lineshaft.server.settings import Limits, ServerSettings
from lineshaft.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from lineshaft.server.serve import Server

GRACE = 5.0
"""Seconds that calls under way of other processes are given when the owner closes."""

IDLE = 3600.0
"""Seconds after which an idle line is closed; by its end the others see ours."""

_log = logging.getLogger("lineshaft.embedded")


class Door:
    """Serves the other processes of this user that open the same file."""

    def __init__(self, listening: ListeningSocket) -> None:
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._serving: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._closed = False
        leave_sockets_to_parent(self)

    @classmethod
    def open(cls, store: SQLiteStore) -> Door | None:
        """Listen for those who find the open store in use; None where this machine gives us no place."""
        try:
            listening = ListeningSocket(store.path)
        except OSError as error:
            _log.warning("other processes cannot join this one at %s: %s", store.path, error)
            return None
        store.announce(listening.url)
        return cls(listening)

    def serve(self, calls: Calls, keys: KeyRing) -> None:
        """Let in whoever knocks, from now on; who has knocked before was waiting."""
        calls.address = self._listening.url
        self._loop.add_reader(self._listening.socket, self._begin, calls, keys)

    async def close(self) -> None:
        """Let nobody in any more, send away who waits, and finish what is under way; idempotent."""
        self._closed = True
        if self._serving is None:
            self._loop.remove_reader(self._listening.socket)
        else:
            if self._server is not None:
                self._server.should_exit = True
            await asyncio.wait([self._serving])
        self._listening.close()

    def sockets(self) -> Iterable[socket.socket]:
        """See `HasSockets`."""
        yield self._listening.socket
        if self._server is not None:
            for connection in list(self._server.server_state.connections):
                transport: Any = getattr(connection, "transport", None)
                connected = None if transport is None else transport.get_extra_info("socket")
                if connected is not None:
                    yield connected

    def _begin(self, calls: Calls, keys: KeyRing) -> None:
        self._loop.remove_reader(self._listening.socket)
        self._serving = self._loop.create_task(self._serve(calls, keys))

    async def _serve(self, calls: Calls, keys: KeyRing) -> None:
        try:
            self._server = _server(calls, keys)
            if not self._closed:
                await self._server.serve(sockets=[self._listening.socket])
        except Exception:
            _log.exception("the other processes that open this file are not served")
        finally:
            self._listening.close()  # nobody shall wait at a door that does not open


def _server(calls: Calls, keys: KeyRing) -> Server:
    with whole_imports:
        # Here and not above: an App that is alone needs none of it.
        from lineshaft.server.app import Application
        from lineshaft.server.hosts import AllowedHosts
        from lineshaft.server.serve import Server, configuration

        settings = ServerSettings(limits=Limits(keep_alive=IDLE), grace=GRACE)
        hosts = AllowedHosts("localhost")
        application = Application(calls, _OfThisUser(keys), hosts=hosts, limits=settings.limits)
        config = configuration(application, settings)
        config.load()
        return Server(config, application)


class _OfThisUser(KeyRing):
    """Who comes through the door may read the file itself, so it needs no key; one that it brings counts."""

    def __init__(self, keys: KeyRing) -> None:
        self._ring = keys
        keys.on_void = lambda key_id: None if key_id is None else self.on_void(key_id)
        self.on_void: Callable[[str | None], None] = lambda key_id: None

    def identify(self, authorization: str | None) -> Identity:
        """Return who calls. Raises `Unauthorized` for a key that is not valid."""
        return ANYBODY if authorization is None else self._ring.identify(authorization)

    def confirm(self, identity: Identity) -> None:
        """Raise `Unauthorized` where a key that was brought is valid no more."""
        if identity.key_id is not None:
            self._ring.confirm(identity)
