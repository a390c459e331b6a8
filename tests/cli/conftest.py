"""A coordinator and workers as real processes, on ports that the system gives."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.runs import Ended, command, environment, run_here

APP = """
import asyncio, os
from lineshaft import App

app = App()

@app.task()
def greet(name: str) -> str:
    return f"hello {name}"

@app.task(max_retries=0)
def break_down(reason: str) -> None:
    raise ValueError(reason)

@app.task()
async def sleep() -> None:
    await asyncio.sleep(600)

@app.task()
def pid() -> int:
    return os.getpid()
"""


class Process:
    """A `lineshaft` process that stays until the test has ended."""

    def __init__(self, process: subprocess.Popen[str], stream: IO[str]) -> None:
        self.process = process
        self._stream = stream
        self.first = ""
        """What it said until it was ready."""
        os.set_blocking(stream.fileno(), False)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Wait until it says `text`, and return what it said until then."""
        said = ""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            while text not in said:
                if not selector.select(seconds):
                    pytest.fail(f"it never said {text!r}, only {said!r}")
                chunk = os.read(self._stream.fileno(), 65_536).decode()
                if not chunk:
                    pytest.fail(f"it ended without saying {text!r}, only {said!r}")
                said += chunk
        return said

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Give a function that starts `lineshaft ARGUMENTS…` and waits until it says it is ready."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, ready: str, on: str = "stdout", **given: Any) -> Process:
            process = _begin(arguments, on=on, **given)
            stack.callback(_end, process)
            stream = process.stdout if on == "stdout" else process.stderr
            assert stream is not None
            started = Process(process, stream)
            started.first = started.wait_for(ready)
            return started

        yield begin


def _begin(
    arguments: tuple[str, ...], *, on: str, url: str = "", cwd: Path | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        # What nobody reads must not fill a pipe.
        stdout=subprocess.PIPE if on == "stdout" else subprocess.DEVNULL,
        stderr=subprocess.PIPE if on == "stderr" else subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env=environment(url),
    )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def coordinator(start: Callable[..., Process], tmp_path: Path) -> str:
    """Run a coordinator over SQLite, and give its URL."""
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    served = start("serve", "--store", store, "--listen", "127.0.0.1:0", "--json", ready="\n")
    url: str = json.loads(served.first)["url"]
    return url


@pytest.fixture
def lineshaft(coordinator: str) -> Callable[..., Ended]:
    """Give a function that runs `lineshaft ARGUMENTS…` against the coordinator, in this process."""

    def against(*arguments: str, **given: Any) -> Ended:
        return run_here(*arguments, url=coordinator, **given)

    return against


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Write a module `jobs` with an App, and give its directory."""
    (tmp_path / "jobs.py").write_text(APP)
    return tmp_path
