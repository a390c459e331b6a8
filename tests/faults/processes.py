"""Coordinators and workers as processes of their own, to be killed, frozen and starved."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("raw_worker.py")
PATIENCE = 60.0


class Process:
    """One process of ours; whatever becomes of the test, it is killed in the end."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self.process = subprocess.Popen(arguments, text=True, **options)

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def freeze(self) -> None:
        """Let it run no more until it is thawed."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run on."""
        self.process.send_signal(signal.SIGCONT)


class Coordinator(Process):
    """`lineshaft serve`, ready to take work."""

    def __init__(self, store: str, port: int = 0) -> None:
        self.store = store
        super().__init__(*serve(store, port), stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "serves http://" in line, line
        self.port = int(line.split(",")[0].rpartition(":")[2])

    def restarted(self) -> Coordinator:
        """Kill it, and return another on the same store and port."""
        self.kill()
        return Coordinator(self.store, self.port)

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = PATIENCE) -> tuple[int, Any]:
        """Make one call on a connection of its own."""
        return call(self.port, method, path, body, timeout=timeout)

    def rss(self) -> int:
        """Return how much memory it takes (bytes)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Return how many files and sockets it has open, but for those of the store, opened as needed."""
        opened = Path(f"/proc/{self.process.pid}/fd")
        return sum(".db" not in target for target in map(_target, opened.iterdir()))


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ".db"  # closed meanwhile


def serve(store: str, port: int = 0) -> list[str]:
    """Return the command line of a coordinator."""
    listen = f"127.0.0.1:{port}"
    return [sys.executable, "-m", "lineshaft", "serve", "--store", store, "--listen", listen]


def call(
    port: int, method: str, path: str, body: Any = None, *, timeout: float = PATIENCE
) -> tuple[int, Any]:
    """Make one call on a connection of its own; return status and body. Raises `OSError`, `HTTPException`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        read = response.read()
        return response.status, json.loads(read) if read else None
    finally:
        connection.close()


class Line:
    """A client's connection that is kept, and made again when it breaks. For one thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def insist(self, method: str, path: str, body: Any = None, *, timeout: float = 5.0) -> tuple[int, Any]:
        """Repeat a call until it is answered with something else than "not now"."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                status, answer = self.call(method, path, body, timeout=timeout)
            except (OSError, http.client.HTTPException):
                self.close()
            else:
                if status not in (429, 503):
                    return status, answer
            assert time.monotonic() < until, f"{method} {path} was not answered"
            time.sleep(0.05)

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = 5.0) -> tuple[int, Any]:
        """Make one call; return status and body. Raises `OSError`, `HTTPException`."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        read = response.read()
        return response.status, json.loads(read) if read else None

    def close(self) -> None:
        """Hang up; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def insist(port: int, method: str, path: str, body: Any = None, *, timeout: float = 5.0) -> tuple[int, Any]:
    """Repeat a call, on a connection of its own, until it is answered with something else than "not now"."""
    line = Line(port)
    try:
        return line.insist(method, path, body, timeout=timeout)
    finally:
        line.close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(true: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Look until something has come true."""
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


@contextlib.contextmanager
def ending(*processes: Process | None) -> Iterator[list[Process]]:
    """Kill, at the end of the block, what is given and what is added to the list."""
    running = [process for process in processes if process is not None]
    try:
        yield running
    finally:
        for process in running:
            process.thaw()
            process.kill()


def all_tasks(port: int, **filter: Any) -> list[dict[str, Any]]:
    """Return all tasks, page by page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        status, page = call(port, "POST", "/_tasks/_search", {"limit": 1000} | filter | after)
        assert status == 200, page
        found += page["tasks"]
        if "next" not in page:
            return found
        after = {"after": page["next"]}
