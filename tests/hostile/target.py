"""The coordinator that is attacked, and what must hold of it whatever was sent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.faults.processes import call, eventually

SERVING = Path(__file__).with_name("serving.py")
LIMITS = {
    "receive": 1.0,
    "keep_alive": 2.0,
    "ping": 1.0,
    "payload": 1 << 20,
    "drain": 2 << 20,
    "batch": 2 << 20,
}
"""The shape of the real ones (10 s, 75 s, 8 MiB), but short enough to be waited for."""
LINGER = 1.0
"""How long (s) the coordinator reads on after it has refused."""
AT_MOST = LIMITS["keep_alive"] + LINGER + 5.0
"""A socket neither answered nor closed by then hangs: our longest limit, and room for a busy machine."""


class Target:
    """A coordinator with short limits on a SQLite file."""

    def __init__(self, path: Path, **limits: float) -> None:
        arguments = json.dumps(LIMITS | limits), f"sqlite:///{path}"
        self._log = path.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVING), *arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "serves http://" not in line:
            self.__exit__(None, None, None)
            raise AssertionError(f"the coordinator did not start: {self.log}")
        self.port = int(line.split(",")[0].rpartition(":")[2])

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    @property
    def log(self) -> str:
        """Return what the coordinator has complained of."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one well-formed call on a connection of its own."""
        return call(self.port, method, path, body, timeout=20)

    def rss(self) -> int:
        """Return how much memory it takes (bytes)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Return how many sockets it has open; files it opens as it needs them, whoever calls."""
        opened = f"/proc/{self.process.pid}/fd"
        found = 0
        for entry in os.listdir(opened):
            with contextlib.suppress(FileNotFoundError):
                found += os.readlink(f"{opened}/{entry}").startswith("socket:")
        return found

    def settle(self, descriptors: int) -> None:
        """Wait until no more than so many sockets are open."""
        eventually(lambda: self.descriptors() <= descriptors, within=AT_MOST + 10)

    def live_a_task(self) -> None:
        """Lead a task through its life; all of it must go as it does on the first day."""
        status, made = self.call("POST", "/_tasks", {"name": "life", "queue": "life", "payload": {"n": 1}})
        assert (status, made["created"]) == (201, True), made
        path = f"/_tasks/{made['task_id']}"
        status, claimed = self.call("POST", "/_tasks/_claim", {"queues": ["life"], "worker": {"id": "w"}})
        assert (status, claimed["task_id"], claimed["payload"]) == (200, made["task_id"], {"n": 1}), claimed
        token = {"lease_token": claimed["lease_token"]}
        status, beat = self.call("POST", path + "/_heartbeat", token)
        assert (status, beat["directive"]) == (200, "continue"), beat
        status, ended = self.call("POST", path + "/_complete", token | {"result": "done"})
        assert (status, ended["state"]) == (200, "completed"), ended
        status, read = self.call("GET", path)
        assert (status, read["state"], read["result"]) == (200, "completed", "done"), read
        assert self.call("DELETE", path)[0] == 200
