"""Run a coordinator: the store opened, the engine running, uvicorn before it, until a signal says to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn

from lineshaft.engine.clock import Clock
from lineshaft.engine.engine import Engine
from lineshaft.engine.limits import Limits as EngineLimits
from lineshaft.errors import Invalid
from lineshaft.server.app import Application
from lineshaft.server.calls import Calls
from lineshaft.server.cluster import Cluster
from lineshaft.server.handshake import EdgeWebSocket
from lineshaft.server.hosts import AllowedHosts, is_loopback, split_address
from lineshaft.server.identity import KeyRing
from lineshaft.server.protocol import protocol_with
from lineshaft.server.settings import ServerSettings
from lineshaft.store.base import Store
from lineshaft.store.urls import open_store
from lineshaft.version import __version__

_log = logging.getLogger("lineshaft.server")
_BACKLOG = 2_048
_MANY_FILES = 1 << 20
_FAREWELL = 1.0
"""Seconds for which a coordinator that leaves others behind still answers, each connection once more."""
_GLANCE = 0.02
_ECHO = 0.25
"""Seconds within which a second signal is the first one's echo: `timeout` and process managers signal a
process and then its group.
"""
_SWITCH = 0.0003
"""Seconds after which a thread that wants to run is let. The store's needs it a dozen times a commit, for
moments; with the usual 5 ms a commit does not overlap with the requests that come meanwhile."""


class InsecureListen(Invalid):
    """The address can be reached from other machines and there is no API key: make one, or allow it."""


class Coordinator:
    """A coordinator that serves. `url` is where; `engine` and `calls` are for whoever shares the process."""

    def __init__(self, url: str, engine: Engine, calls: Calls, server: Server) -> None:
        self.url = url
        self.engine = engine
        self.calls = calls
        self._server = server

    @property
    def startup_line(self) -> str:
        """Return the one line to print: address, store, what a 2xx survives."""
        store, membership = self.engine.store, self.engine.membership
        line = f"lineshaft {__version__} serves {self.url}, store {store.url}, durability: {store.tier}"
        if membership is None:
            return line
        return (
            f"{line}, one of {len(membership.roster.members)} coordinators, reached at {self.engine.address}"
        )

    def stop(self) -> None:
        """Begin to shut down: no new connections, waits are answered, requests under way are finished."""
        self._server.should_exit = True

    def stop_at_once(self) -> None:
        """Shut down without waiting for requests under way."""
        self._server.leave_at_once()


async def serve(settings: ServerSettings, *, announce: Callable[[Coordinator], None] | None = None) -> None:
    """Run a coordinator until SIGTERM or SIGINT; a second signal ends it at once.

    `announce` is called when it takes work (default: print the startup line). Raises `InsecureListen`,
    `StoreInUse` and what else opening the store or the address raises.
    """
    _raise_file_limit()
    sys.setswitchinterval(_SWITCH)
    async with running(settings) as coordinator:
        with _signals(coordinator):
            (announce or _announce)(coordinator)
            await coordinator._server.finished.wait()


def _announce(coordinator: Coordinator) -> None:
    sys.stdout.write(coordinator.startup_line + "\n")
    sys.stdout.flush()


@contextlib.asynccontextmanager
async def running(
    settings: ServerSettings, *, store: Store | None = None, clock: Clock | None = None
) -> AsyncIterator[Coordinator]:
    """Run a coordinator for the length of the block, in the running event loop.

    `settings.listen` with port 0 takes a free one. `store` and `clock` replace what the settings name.
    """
    try:
        host, _ = split_address(settings.listen)
    except ValueError as error:
        raise Invalid(str(error), field="listen") from None
    named = _named(settings.address)
    with _bound(settings.listen) as listening:
        url = _url(host, listening)
        engine = Engine(
            store or open_store(settings.store),
            clock=clock,
            limits=_engine_limits(settings),
            address=settings.address or url,
            version=__version__,
            tune_gc=store is None,
        )
        async with engine, contextlib.AsyncExitStack() as stack:
            keys = KeyRing(engine, engine.clock.now)
            cluster: Cluster | None = None
            if engine.membership is None:
                await keys.load()
            else:
                cluster = await stack.enter_async_context(Cluster.join(engine, keys))
            if not is_loopback(host) and not keys.required and not settings.insecure:
                raise InsecureListen(
                    f"{settings.listen} can be reached from other machines, but there is no API key: make "
                    "one (`lineshaft keys create NAME --scope admin --store URL`), listen on 127.0.0.1, "
                    "or say --insecure",
                    field="listen",
                )
            calls = Calls(engine, keys, max_payload=settings.limits.payload, address=engine.address)
            if cluster is not None:
                cluster.serve(calls)
            hosts = AllowedHosts(host, (*settings.allowed_hosts, *named))
            application = Application(calls, keys, hosts=hosts, limits=settings.limits, cluster=cluster)
            server = Server(configuration(application, settings), application, engine=engine)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                await server.ready(serving)
                yield Coordinator(url, engine, calls, server)
            finally:
                server.should_exit = True
                await serving


class Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to us and sends away whoever waits before it shuts down."""

    def __init__(
        self, config: uvicorn.Config, application: Application, *, engine: Engine | None = None
    ) -> None:
        """`engine` is told to hand over to other coordinators, if there are any, before the end."""
        self._leaving = asyncio.Event()
        self._at_once = asyncio.Event()
        super().__init__(config)
        self._application = application
        self._engine = engine
        self.finished = asyncio.Event()

    @property
    def should_exit(self) -> bool:
        """Whether it is to leave; uvicorn asks for it, and sets it."""
        return self._leaving.is_set()

    @should_exit.setter
    def should_exit(self, wanted: bool) -> None:
        if wanted:
            self._leaving.set()

    def leave_at_once(self) -> None:
        """Shut down without waiting for anybody."""
        self.force_exit = True
        self._at_once.set()
        self._leaving.set()

    async def main_loop(self) -> None:
        """Wait until it is to leave; uvicorn would look ten times a second, also where nothing happens."""
        await self._leaving.wait()

    async def ready(self, serving: asyncio.Task[None]) -> None:
        """Wait until connections are taken. Raises what kept it from that."""
        while not self.started:
            if serving.done():
                serving.result()
                raise RuntimeError("the server ended before it began")
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        engine = self._engine
        others = engine is not None and engine.membership is not None
        if engine is not None and others:
            # Still listening: what comes meanwhile waits and goes to the new owners.
            await self._unless_at_once(engine.hand_over(), self.config.timeout_graceful_shutdown)
        self._application.close()
        if others:
            await self._unless_at_once(self._see_off(), _FAREWELL)
        await self._stop_listening()
        late = asyncio.ensure_future(self._send_late_ones_away())
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()
            await asyncio.wait([late])
            for connection in list(self.server_state.connections):
                transport: Any = getattr(connection, "transport", None)
                if transport is not None:
                    transport.abort()
            await asyncio.sleep(0)  # in which they are closed

    async def _stop_listening(self) -> None:
        """Take no more connections, but finish making those that were taken, which asyncio would forget."""
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)

    async def _send_late_ones_away(self) -> None:
        """Close connections that were on their way in when we stopped listening: their end is waited for."""
        known = set(self.server_state.connections)
        while True:
            await asyncio.sleep(_GLANCE)
            for connection in self.server_state.connections - known:
                connection.shutdown()
            known |= self.server_state.connections

    async def _see_off(self) -> None:
        """Answer on, each answer the last of its connection: so nobody is cut off in the middle of asking."""
        protocol: Any = self.config.http_protocol_class
        protocol.farewell = True
        while self.server_state.connections:  # noqa: ASYNC110  # uvicorn tells nobody when the last has gone
            await asyncio.sleep(_GLANCE)

    async def _unless_at_once(self, work: Coroutine[Any, Any, None], seconds: float | None) -> None:
        """Do something for so long, or until it is to leave at once."""
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(work),
            asyncio.ensure_future(self._at_once.wait()),
        ]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not tasks[0].cancelled() and (error := tasks[0].exception()) is not None:
            _log.error("the shutdown went wrong", exc_info=error)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.finished.set()


def _engine_limits(settings: ServerSettings) -> EngineLimits:
    if not 1 <= settings.ownership_lease <= 300:
        raise Invalid("expected 1s to 5m", field="ownership_lease")
    return EngineLimits(ownership_lease=round(settings.ownership_lease * 1000))


def _named(address: str | None) -> list[str]:
    """Return the host of an address that is given, for it is one by which we are called."""
    if address is None:
        return []
    wrong = Invalid(f"expected http://HOST:PORT, not {address!r}", field="address")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if host is None or port == 0 or "@" in parts.netloc or parts.scheme not in ("http", "https"):
        raise wrong
    if f"{parts.scheme}://{parts.netloc}" != address.rstrip("/"):
        raise wrong
    return [host]


def configuration(application: Application, settings: ServerSettings) -> uvicorn.Config:
    """Return how uvicorn serves an application; `settings.listen` is not looked at."""
    files = _file_limit()
    backlog = min(_BACKLOG, max(4, files // 16))
    limits = settings.limits
    if limits.connections is None:
        # Never all: asyncio takes up to `backlog` at one go, a few times before we hear of the first, and
        # where it is out of files it tries, and complains, as often in every second.
        room = files - 4 * backlog - min(64, files // 4)
        limits = msgspec.structs.replace(limits, connections=room)
    return uvicorn.Config(
        application,
        http=protocol_with(limits, application.respond),
        ws=EdgeWebSocket,
        ws_max_size=limits.batch,
        ws_ping_interval=limits.ping,
        ws_ping_timeout=limits.ping,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",  # what it says of its own life would stand beside our startup line
        access_log=False,
        server_header=False,
        date_header=False,  # the protocol writes it
        proxy_headers=False,
        timeout_keep_alive=max(1, round(limits.keep_alive)),
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        backlog=backlog,
    )


def _file_limit() -> int:
    """Return how many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY_FILES if soft == resource.RLIM_INFINITY else min(soft, _MANY_FILES)


def _raise_file_limit() -> None:
    """Ask for as many open files as we may have: each client is one, and the usual limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else hard
    if _file_limit() < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _bound(listen: str) -> Iterator[socket.socket]:
    """Bind before the store is opened: of two coordinators started alike, the second fails at once."""
    host, port = split_address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns off Nagle's delay (40 ms an answer) only where it is.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise Invalid(f"cannot listen on {listen}: {error.strerror or error}", field="listen") from None
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        yield listening
    finally:
        listening.close()


def _url(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Stopping:
    """What signals do to a coordinator: the first stops it in order, a later one ends it at once."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._first_at: float | None = None

    def came(self, now: float) -> None:
        """Take a signal; `now` is in seconds of the loop's clock."""
        if self._first_at is None:
            self._first_at = now
            self._coordinator.stop()
        elif now - self._first_at >= _ECHO:
            self._coordinator.stop_at_once()


@contextlib.contextmanager
def _signals(coordinator: Coordinator) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    stopping = Stopping(coordinator)
    caught = (signal.SIGTERM, signal.SIGINT)
    for number in caught:
        loop.add_signal_handler(number, lambda: stopping.came(loop.time()))
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
