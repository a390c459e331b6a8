"""Connections to the servers: to one, to whom sentinels call the primary, or to the nodes of a cluster.

The library's own retries are off: an unknown outcome is settled by the engine, which sends the same batch
again. Only what finds a connection closed is sent once more over a new one; every function of ours may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from lineshaft.errors import Invalid
from lineshaft.store.redis.errors import code_of
from lineshaft.store.redis.options import Options

Command = Sequence[Any]

_IDLE_KEPT = 32
_DEMOTED = ("READONLY", "MASTERDOWN")


class Client(Protocol):
    """What the store needs of its servers."""

    def call(self, key: str, *commands: Command) -> Coroutine[Any, Any, list[Any]]:
        """Run commands on the server that has the key, in one round trip; an error reply is raised."""

    async def everywhere(self, command: Command) -> list[Any]:
        """Run a command on every primary."""

    async def close(self) -> None:
        """Close all connections."""


def connect(options: Options) -> Client:
    """Return a client, which connects when it is first used. Raises `Invalid` (field "store")."""
    if find_spec("redis") is None:
        kind = options.url.partition(":")[0]
        raise Invalid(
            f"a store of kind {kind} needs the package redis: pip install 'lineshaft[redis]'", field="store"
        )
    return ClusterClient(options) if options.cluster else ServerClient(options)


class ServerClient:
    """One server, named or found by sentinels."""

    def __init__(self, options: Options) -> None:
        import redis
        import redis.asyncio
        from redis.asyncio import sentinel

        self._closed_by_peer = redis.ConnectionError
        self._timed_out = redis.TimeoutError
        self._refused = redis.ResponseError
        common = _settings(options) | {"db": options.db}
        self._sentinels: Any = None
        if options.service is None:
            host, port = options.hosts[0]
            made = redis.asyncio.Redis(host=host, port=port, **common)
        else:
            make_sentinel: Any = sentinel.Sentinel  # it is not typed
            self._sentinels = make_sentinel(
                list(options.hosts),
                sentinel_kwargs=_settings(options)
                | {"username": options.sentinel_username, "password": options.sentinel_password},
                **common,
            )
            made = self._sentinels.master_for(options.service)
        self._pool: Any = made.connection_pool
        self._idle: list[Any] = []
        self._busy: set[Any] = set()

    async def call(self, key: str, *commands: Command) -> list[Any]:
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._exchange(connection, commands)
            except self._timed_out:
                raise
            except self._closed_by_peer:
                continue
        return await self._exchange(self._pool.make_connection(), commands)

    async def everywhere(self, command: Command) -> list[Any]:
        return await self.call("", command)

    async def close(self) -> None:
        await self._forget_idle()
        for connection in list(self._busy):
            await connection.disconnect(nowait=True)
        for sentinel in self._sentinels.sentinels if self._sentinels is not None else ():
            await sentinel.aclose()

    async def _forget_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def _exchange(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        self._busy.add(connection)
        sound = False
        refusal: Exception | None = None
        try:
            if not connection.is_connected:
                await connection.connect()
            packed = b"".join([_packed(connection, command) for command in commands])
            await connection.send_packed_command(packed, check_health=False)
            answers = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except self._refused as error:
                    refusal = refusal or error
            if refusal is not None and code_of(refusal) in _DEMOTED:
                await self._forget_idle()  # the name may be another server's by now
            else:
                sound = connection.is_connected
        finally:
            self._busy.discard(connection)
            if sound and len(self._idle) < _IDLE_KEPT:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)
        if refusal is not None:
            raise refusal
        return answers


class ClusterClient:
    """The nodes of a cluster; the library follows moved slots."""

    def __init__(self, options: Options) -> None:
        import redis
        from redis.asyncio.cluster import ClusterNode, RedisCluster

        self._closed_by_peer = redis.ConnectionError
        self._timed_out = redis.TimeoutError
        self._cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in options.hosts],
            **_settings(options),
        )
        self._lock = asyncio.Lock()

    async def call(self, key: str, *commands: Command) -> list[Any]:
        answers = []
        for command in commands:
            try:
                answers.append(await self._run(key, command))
            except self._timed_out:
                raise
            except self._closed_by_peer:
                await self._learn()  # it may be another node's now
                answers.append(await self._run(key, command))
        return answers

    async def everywhere(self, command: Command) -> list[Any]:
        await self._cluster.initialize()
        return [
            await self._cluster.execute_command(*command, target_nodes=node)
            for node in self._cluster.get_primaries()
        ]

    async def close(self) -> None:
        await self._cluster.aclose()

    async def _run(self, key: str, command: Command) -> Any:
        await self._cluster.initialize()
        node = self._cluster.get_node_from_key(key)
        return await self._cluster.execute_command(*command, target_nodes=node)

    async def _learn(self) -> None:
        async with self._lock:
            await self._cluster.nodes_manager.initialize()


def _packed(connection: Any, command: Command) -> bytes:
    """Encode a command, in C where that is installed: a commit has thousands of arguments."""
    try:
        import hiredis
    except ImportError:
        return b"".join(connection.pack_command(*command))
    packed: bytes = hiredis.pack_command(tuple(command))
    return packed


def _settings(options: Options) -> dict[str, Any]:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    settings: dict[str, Any] = {
        "username": options.username,
        "password": options.password,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": min(options.timeout, 2.0),
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if options.tls:
        given = {"ca": options.ca, "cert": options.cert, "key": options.key}
        files = {name: _existing(name, path) for name, path in given.items() if path is not None}
        called = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
        settings |= {"ssl": True} | {called[name]: path for name, path in files.items()}
    return settings


def _existing(name: str, path: str) -> str:
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise Invalid(f"the file of {name} cannot be read: {error}", field="store") from None
