"""Processes of our own: a coordinator and workers started for a demo or a measurement, and gone with it.

Each runs in a session of its own, so that a Ctrl-C reaches only the command, which then ends them all. Their
output goes to files in a scratch directory, and into the error if one of them ends too soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lineshaft.cli.trouble import Trouble

START = 30.0
"""Seconds that a coordinator may take until it answers."""
_TAIL = 2000


class Child:
    """One process; `log` is what it printed."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self.process.poll() is None

    def freeze(self) -> None:
        """Stop it where it is, with SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Return the end of what it printed."""
        return self.log.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip()


class Processes:
    """Starts `lineshaft` processes in a scratch directory; both are gone when the context ends."""

    def __init__(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="lineshaft-"))
        self.children: list[Child] = []

    def start(self, name: str, *arguments: str, url: str | None = None) -> Child:
        """Start `lineshaft ARGUMENTS…`."""
        log = self.scratch / f"{name}-{len(self.children)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "lineshaft", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.scratch,
                env=_environment(url),
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raise Trouble where a process has ended by itself; `forget` those that are killed on purpose."""
        for child in self.children:
            if not child.alive():
                raise Trouble(
                    f"the {child.name} ended with {child.process.returncode} by itself",
                    hint=child.said() or None,
                )

    def forget(self, child: Child) -> None:
        """Take a process off the list of those that must be alive."""
        self.children.remove(child)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Workers first: a coordinator that goes before them leaves them complaining.
        for child in reversed(self.children):
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        deadline = time.monotonic() + 3
        for child in self.children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)


class LocalCoordinator:
    """A coordinator with an SQLite store in the scratch directory, on a free port of the loopback."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._port = free_port()
        self.store = f"sqlite:///{processes.scratch / 'coordinator.db'}"
        self.url = f"http://127.0.0.1:{self._port}"
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The process id of the coordinator that runs now, or ran last."""
        return 0 if self._child is None else self._child.pid

    async def start(self) -> None:
        """Start it (again), and return when it takes work."""
        listen = f"127.0.0.1:{self._port}"
        child = self._processes.start("coordinator", "serve", "--store", self.store, "--listen", listen)
        self._child = child
        deadline = time.monotonic() + START
        while not await answers(self._port):
            self._processes.check()
            if time.monotonic() > deadline:
                raise Trouble(
                    f"the coordinator does not answer after {START:.0f} s", hint=child.said() or None
                )
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._child is not None
        self._processes.forget(self._child)
        self._child.kill()


async def answers(port: int) -> bool:
    """Tell whether a coordinator on the loopback says that it is ready."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET /_health/ready HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            status = await reader.readline()
            writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the running coroutine as Ctrl-C does, so that its processes end with it."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    numbers = (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _environment(url: str | None) -> dict[str, str]:
    """Return our environment without what it says of coordinators: these processes are for themselves."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("LINESHAFT_")}
    if url is not None:
        found["LINESHAFT_URL"] = url
    return found | {"PYTHONUNBUFFERED": "1"}
