"""The coordinator as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lineshaft.server.serve import Stopping, running
from lineshaft.server.settings import ServerSettings

PROGRAM = """
import asyncio, sys
from lineshaft.server.serve import serve
from lineshaft.server.settings import ServerSettings
asyncio.run(serve(ServerSettings(store=sys.argv[1], listen="127.0.0.1:0", grace=5)))
"""


class Process:
    def __init__(self, store: str) -> None:
        command = [sys.executable, "-W", "error", "-c", PROGRAM, store]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.split(" serves ")[1].split(",")[0] if " serves " in self.line else ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture(name="store")
def give_store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture(name="process")
def give_process(store: str) -> Iterator[Process]:
    process = Process(store)
    yield process
    process.process.kill()
    process.process.communicate()


def test_it_says_where_it_serves_what_and_how_durably(process: Process, store: str) -> None:
    assert process.url.startswith("http://127.0.0.1:")
    assert process.line.strip().endswith("durability: power loss")
    assert "jobs.db" in process.line
    assert process.call("GET", "/_health/ready")["owner"] == process.url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(process: Process, number: int) -> None:
    process.call("PUT", "/_tasks/a", {"name": "n"})
    assert process.end(number) == (0, "")


class _Told:
    """A coordinator that only writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stop(self) -> None:
        self.said.append("stop")

    def stop_at_once(self) -> None:
        self.said.append("at once")


def test_a_signal_that_arrives_twice_is_one() -> None:
    told: Any = _Told()
    stopping = Stopping(told)
    stopping.came(100.0)
    stopping.came(100.01)  # as from `timeout`, which signals the process and then its group
    assert told.said == ["stop"]
    stopping.came(101.0)  # somebody has lost patience
    assert told.said == ["stop", "at once"]


def test_what_was_acknowledged_is_there_after_a_kill(process: Process, store: str) -> None:
    process.call("PUT", "/_tasks/a", {"name": "n", "payload": {"x": 1}})
    process.end(signal.SIGKILL)
    again = Process(store)
    assert again.call("GET", "/_tasks/a")["payload"] == {"x": 1}
    assert again.end(signal.SIGTERM)[0] == 0


def test_a_second_one_on_the_same_store_is_refused_naming_the_first(process: Process, store: str) -> None:
    second = Process(store)
    _, errors = second.process.communicate(timeout=20)
    assert second.process.returncode != 0
    assert "StoreInUse" in errors
    assert process.url in errors


async def test_a_connection_that_comes_in_while_we_leave_holds_nobody_up() -> None:
    """Regression: uvicorn tells those to leave that it knows, and then waits for all, up to the grace."""
    async with running(ServerSettings(store="memory://", listen="127.0.0.1:0", grace=600)) as coordinator:
        server, loop = coordinator._server, asyncio.get_running_loop()
        connections = server.server_state.connections

        class Late:
            def shutdown(self) -> None:
                connections.discard(self)  # type: ignore[arg-type]

        [listening] = server.servers
        close = listening.close

        def close_and_let_one_in() -> None:
            close()
            loop.call_later(0.05, connections.add, Late())

        listening.close = close_and_let_one_in  # type: ignore[method-assign]
    assert not connections
