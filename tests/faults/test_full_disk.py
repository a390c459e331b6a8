"""The disk fills up while tasks are enqueued, and has room again."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Coordinator, all_tasks, ending, eventually

pytestmark = pytest.mark.faults

SIZE = 8 << 20
BALLAST = 3 << 20
PAYLOAD = "x" * 30_000


@pytest.fixture(name="small_disk")
def give_small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def put(port: int, id: str) -> tuple[int, str | None, Any]:
    """Enqueue; return status, Retry-After and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
    body = json.dumps({"name": "n", "payload": PAYLOAD})
    connection.request("PUT", f"/_tasks/{id}", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.status, response.headers["Retry-After"], json.loads(response.read())
    connection.close()
    return answer


def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * BALLAST)
    with ending(coordinator := Coordinator(f"sqlite:///{small_disk / 'x.db'}")) as running:
        port = coordinator.port
        acknowledged: list[str] = []
        status, retry_after = 0, None
        answer: Any = None
        for number in range(1_000):
            status, retry_after, answer = put(port, f"t{number}")
            if status != 201:
                break
            acknowledged.append(f"t{number}")
        assert (status, answer["error"]["type"]) == (503, "unavailable")
        assert retry_after is not None and int(retry_after) >= 1
        assert len(acknowledged) > 20
        status, ready = coordinator.call("GET", "/_health/ready")
        assert status == 503 and "full" in ready["reason"], ready
        assert coordinator.call("GET", "/_health/live")[0] == 200

        ballast.unlink()
        eventually(lambda: coordinator.call("GET", "/_health/ready")[0] == 200)
        refused = f"t{len(acknowledged)}"
        assert put(port, refused)[0] in (200, 201)
        began = time.monotonic()
        assert put(port, "after")[0] == 201
        assert time.monotonic() - began < 2
        expected = sorted([*acknowledged, refused, "after"])
        assert sorted(task["task_id"] for task in all_tasks(port)) == expected

        running[0] = coordinator = coordinator.restarted()
        assert sorted(task["task_id"] for task in all_tasks(port)) == expected
        assert coordinator.call("GET", f"/_tasks/{acknowledged[-1]}")[1]["payload"] == PAYLOAD
