"""A well-behaved client as a process of its own: `neighbour.py PORT` works until its input ends.

It leads one task after another through its life, and prints the latencies of its calls (ms) and every answer
that was not the right one, as JSON.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any


class Neighbour:
    """Runs the client for the length of the block; then `latencies` (ms, sorted) and `wrong` are known."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.latencies: list[float] = []
        self.wrong: list[Any] = []

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        told, _ = self._process.communicate("", timeout=60)
        report = json.loads(told)
        self.latencies, self.wrong = sorted(report["latencies"]), report["wrong"]

    @property
    def p99(self) -> float:
        """Return the 99th percentile (ms)."""
        return self.latencies[int(len(self.latencies) * 0.99)]


def work(port: int) -> dict[str, list[Any]]:
    """Work until the input ends."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies: list[float] = []
    wrong: list[Any] = []

    def call(method: str, path: str, body: Any, expected: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read() or b"{}")
        latencies.append((time.perf_counter() - began) * 1000)
        if {key: answer.get(key) for key in expected} != expected:
            wrong.append([method, path, answer, expected])
        return answer

    number = 0
    while not over.is_set():
        number += 1
        id = f"neighbour-{id_of_run}-{number}"
        task = {"name": "good", "queue": id_of_run, "payload": number}
        call("PUT", f"/_tasks/{id}", task, {"task_id": id, "state": "queued", "created": True})
        claim = {"queues": [id_of_run], "worker": {"id": id_of_run}}
        held = call("POST", "/_tasks/_claim", claim, {"task_id": id, "payload": number, "attempt": 1})
        outcome = {"lease_token": held.get("lease_token", ""), "result": number}
        call("POST", f"/_tasks/{id}/_complete", outcome, {"task_id": id, "state": "completed"})
    connection.close()
    return {"latencies": latencies, "wrong": wrong}


if __name__ == "__main__":
    id_of_run = f"n{time.time_ns()}"
    sys.stdout.write(json.dumps(work(int(sys.argv[1]))))
