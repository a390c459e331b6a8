"""A worker that knows nothing but HTTP, and repeats much of what it says as if answers had been lost.

    python raw_worker.py PORT ID JOURNAL [KEY=VALUE…]

It writes what it did to JOURNAL, a JSON object a line. `lease`, `max` and `seed` may be set; `repeat` is the
share of what is said twice; with `hold` it completes each task only after so many seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import time
from typing import Any


class Worker:
    def __init__(self, port: int, name: str, journal: str, options: dict[str, str]) -> None:
        self.port = port
        self.name = name
        self.chance = random.Random(options.get("seed", name))
        self.lease = options.get("lease", "2s")
        self.max = int(options.get("max", "10"))
        self.hold = float(options.get("hold", "0"))
        self.repeat = float(options.get("repeat", "0.2"))
        self.journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.connection: http.client.HTTPConnection | None = None
        self.claims = 0

    def run(self) -> None:
        while True:
            tasks = self.claim()
            for task in tasks:
                self.note("claimed", task)
            for task in tasks:
                if self.hold:
                    time.sleep(self.hold)
                self.complete(task)

    def claim(self) -> list[dict[str, Any]]:
        self.claims += 1
        body = {
            "claim_id": f"{self.name}-{os.getpid()}-{self.claims}",
            "worker": {"id": self.name, "incarnation": str(os.getpid())},
            "max": self.max,
            "wait": "5s",
            "lease": self.lease,
        }
        _, answer = self.insist("/_tasks/_claim", body)
        tasks: list[dict[str, Any]] = answer["tasks"]
        if tasks and self.chance.random() < self.repeat:
            _, again = self.insist("/_tasks/_claim", body)
            known = {task["lease_token"] for task in tasks}
            got = {task["lease_token"] for task in again["tasks"]}
            if got != known:
                # Only leases that have run out meanwhile may be missing, and a new claim brings others.
                self.note("claim changed", {"was": sorted(known), "is": sorted(got)})
                tasks = again["tasks"]
        return tasks

    def complete(self, task: dict[str, Any]) -> None:
        body = {"lease_token": task["lease_token"], "result": {"by": self.name, "fence": task["fence"]}}
        path = f"/_tasks/{task['task_id']}/_complete"
        status, answer = self.insist(path, body)
        self.note("completed", task, status=status, told=answer)
        if self.chance.random() < self.repeat:
            again, _ = self.insist(path, body)
            self.note("repeated", task, status=again, first=status)

    def insist(self, path: str, body: Any) -> tuple[int, Any]:
        while True:
            try:
                status, answer = self.send(path, body)
            except (OSError, http.client.HTTPException):
                self.connection = None
                time.sleep(0.02)
                continue
            if status not in (429, 503):
                return status, answer
            time.sleep(0.02)

    def send(self, path: str, body: Any) -> tuple[int, Any]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", path, json.dumps(body), headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read() or b"null")

    def note(self, what: str, about: dict[str, Any], **more: Any) -> None:
        kept = {key: about[key] for key in ("task_id", "fence", "payload", "was", "is") if key in about}
        line = json.dumps({"what": what, "worker": self.name, "pid": os.getpid()} | kept | more) + "\n"
        os.write(self.journal, line.encode())


if __name__ == "__main__":
    port, name, journal, *options = sys.argv[1:]
    Worker(int(port), name, journal, dict(option.split("=", 1) for option in options)).run()
