"""Real processes for the SDK's tests: a coordinator, and workers of a module of tasks; gone when the test
is.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

STARTED = re.compile(r"serves (http://\S+),")


class Process:
    """A `lineshaft` process; what it prints goes to a file."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.log = folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith("LINESHAFT_")}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lineshaft", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=own | environment,
            )

    def said(self) -> str:
        return self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float = 20.0) -> int:
        return await asyncio.to_thread(self.process.wait, within)


class Coordinator:
    """A coordinator process that can be killed and started again at the same address and store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listen = "127.0.0.1:0"
        self.url = ""
        self.start()

    def start(self) -> None:
        store = f"sqlite:///{self._folder}/coordinator.db"
        self.process = Process(self._folder, "serve", "--store", store, "--listen", self._listen)
        deadline = time.monotonic() + 20
        while (found := STARTED.search(self.process.said())) is None:
            assert self.process.process.poll() is None, self.process.said()
            assert time.monotonic() < deadline, self.process.said()
            time.sleep(0.01)
        self.url = found[1]
        self._listen = self.url.removeprefix("http://")

    def kill(self) -> None:
        self.process.send(signal.SIGKILL)
        self.process.process.wait()


class Workshop:
    """What a test works with: `tasks.py` in a folder, and the processes that serve and execute it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []

    def worker(self, *arguments: str, app: str = "tasks:app", **environment: str) -> Process:
        process = Process(self.folder, "worker", app, *arguments, **environment)
        self.processes.append(process)
        return process

    def events(self) -> list[str]:
        """What handlers have written, line by line."""
        path = self.folder / "events"
        return path.read_text().splitlines() if path.exists() else []

    async def until(self, event: str, times: int = 1, within: float = 20.0) -> None:
        """Wait until handlers have written a line so many times."""

        async def seen() -> int:
            return self.events().count(event)

        await until(seen, times, within, said=lambda: "\n".join(one.said() for one in self.processes))

    def allow(self, name: str) -> None:
        """Let handlers that wait for `name` go on."""
        (self.folder / name).touch()


async def until(
    read: Callable[[], Awaitable[Any]],
    expected: Any,
    within: float = 20.0,
    *,
    said: Callable[[], str] = str,
) -> None:
    """Poll until what is read is as expected."""
    deadline = time.monotonic() + within
    while (seen := await read()) != expected:
        assert time.monotonic() < deadline, f"still {seen}, not {expected}\n{said()}"
        await asyncio.sleep(0.01)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    (tmp_path / "tasks.py").write_text((Path(__file__).parent / "workshop_tasks.py").read_text())
    workshop = Workshop(tmp_path)
    yield workshop
    for process in workshop.processes:
        if process.process.poll() is None:
            process.send(signal.SIGCONT)
            process.process.kill()
            process.process.wait()


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    coordinator = Coordinator(tmp_path)
    yield coordinator
    coordinator.kill()
