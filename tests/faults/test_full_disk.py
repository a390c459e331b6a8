"""The disk fills up while tasks are enqueued, and has room again."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
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


def fill(port: int, acknowledged: list[str]) -> tuple[int, str | None, Any]:
    """Enqueue until that is refused; return the refusal."""
    for _ in range(1_000):
        id = f"t{len(acknowledged)}"
        status, retry_after, answer = put(port, id)
        if status not in (200, 201):
            return status, retry_after, answer
        acknowledged.append(id)
    raise AssertionError("the disk does not fill up")


def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * BALLAST)
    acknowledged: list[str] = []
    with ending(coordinator := Coordinator(f"sqlite:///{small_disk / 'x.db'}")) as running:
        port = coordinator.port
        status, retry_after, answer = fill(port, acknowledged)
        assert (status, answer["error"]["type"]) == (503, "unavailable")
        assert "full" in answer["error"]["reason"] and "Free some space" in answer["error"]["reason"]
        assert retry_after is not None and int(retry_after) >= 1
        assert len(acknowledged) > 20
        status, ready = coordinator.call("GET", "/_health/ready")
        assert status == 503 and "full" in ready["reason"], ready
        assert coordinator.call("GET", "/_health/live")[0] == 200

        ballast.unlink()
        eventually(lambda: coordinator.call("GET", "/_health/ready")[0] == 200)
        acknowledged.append(f"t{len(acknowledged)}")
        assert put(port, acknowledged[-1])[0] in (200, 201)
        before = len(acknowledged)
        for id in ("after", "later"):
            assert put(port, id)[0] == 201
            acknowledged.append(id)
        # It works as before: what was enqueued is handed out and done.
        status, claimed = coordinator.call("POST", "/_tasks/_claim", {"max": 5})
        assert status == 200 and len(claimed["tasks"]) == 5
        for task in claimed["tasks"]:
            outcome = {"lease_token": task["lease_token"], "result": task["task_id"]}
            assert coordinator.call("POST", f"/_tasks/{task['task_id']}/_complete", outcome)[0] == 200
        # And until the disk is full once more.
        assert fill(port, acknowledged)[0] == 503
        assert len(acknowledged) > before + 2
        expected = sorted(acknowledged)

        running[0] = coordinator = coordinator.restarted()
        found = sorted(task["task_id"] for task in all_tasks(port))
        assert [id for id in expected if id not in found] == []
        assert len(set(found) - set(expected)) <= 1, "more than the one whose outcome nobody knows"
        assert coordinator.call("GET", f"/_tasks/{acknowledged[-1]}")[1]["payload"] == PAYLOAD
        done = coordinator.call("GET", f"/_tasks/{claimed['tasks'][0]['task_id']}")[1]
        assert (done["state"], done["result"]) == ("completed", done["task_id"])
