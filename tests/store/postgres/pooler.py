"""A real PgBouncer before a server, in transaction mode."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.servers import PostgresServer, debian, run

PATIENCE = 20
"""Seconds until it must have started."""


@contextlib.contextmanager
def pgbouncer(server: PostgresServer, folder: Path) -> Iterator[str]:
    """Start one with three connections to the server; give the URL up to the name of a database."""
    program = debian.program("pgbouncer", package="pgbouncer")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 3\n"
    )
    uid = run.unprivileged()
    place = {} if uid < 0 else {"user": uid, "group": uid, "extra_groups": []}
    with open(folder / "output", "wb") as output, open(settings, "rb") as told:
        process = subprocess.Popen(
            [program, "-q", f"/proc/self/fd/{told.fileno()}"],
            stdout=output,
            stderr=output,
            pass_fds=(told.fileno(),),
            cwd="/",
            **place,  # type: ignore[call-overload]
        )
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}"
        _wait_until_it_answers(process, url, folder / "output")
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, output: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(output.read_text()) from None
            time.sleep(0.02)
