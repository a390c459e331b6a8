"""Processes that stand still for longer than their leases, and go on as if nothing had been."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Coordinator, ending, eventually, serve
from tests.faults.test_kill import journalled, worker

pytestmark = pytest.mark.faults


def test_the_late_outcome_of_a_frozen_worker_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with ending(coordinator := Coordinator(f"sqlite:///{tmp_path / 'x.db'}")) as running:
        coordinator.call("PUT", "/_tasks/a", {"name": "n"})
        frozen = worker(coordinator.port, "frozen", journal, lease="1s", max=1, hold=0.5)
        running.append(frozen)
        eventually(lambda: len(journalled(journal)) == 1)
        frozen.freeze()
        status, answer = coordinator.call("POST", "/_tasks/_claim", {"wait": "10s"})
        assert (status, answer["task_id"], answer["attempt"], answer["fence"]) == (200, "a", 2, 2)
        outcome = {"lease_token": answer["lease_token"], "result": "the other's"}
        assert coordinator.call("POST", "/_tasks/a/_complete", outcome)[0] == 200
        frozen.thaw()
        eventually(lambda: len(journalled(journal)) > 1)
        late = journalled(journal)[1]
        assert (late["what"], late["status"], late["told"]["error"]["type"]) == (
            "completed",
            409,
            "lease_lost",
        )
        task = coordinator.call("GET", "/_tasks/a")[1]
        assert (task["result"], task["lost_leases"]) == ("the other's", 1)


class Heart(threading.Thread):
    """A live worker, which says so every second to whomever may hear it."""

    def __init__(self, coordinator: Coordinator, task: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._coordinator = coordinator
        self._task = task
        self._stopping = threading.Event()
        self.statuses: list[int] = []

    def run(self) -> None:
        path = f"/_tasks/{self._task['task_id']}/_heartbeat"
        body = {"lease_token": self._task["lease_token"]}
        while not self._stopping.wait(1.0):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.statuses.append(self._coordinator.call("POST", path, body, timeout=1.0)[0])

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@pytest.mark.parametrize("lease", [2, 8])
def test_a_frozen_coordinator_costs_nobody_a_lease(tmp_path: Path, lease: int) -> None:
    frozen_for = 6.0
    with ending(coordinator := Coordinator(f"sqlite:///{tmp_path / 'x.db'}")):
        for id in ("a", "b"):
            coordinator.call("PUT", f"/_tasks/{id}", {"name": "n"})
        claim = {"max": 1, "lease": lease, "worker": {"id": "w"}}
        alive = coordinator.call("POST", "/_tasks/_claim", claim)[1]["tasks"][0]
        coordinator.call("POST", "/_tasks/_claim", {"max": 1, "lease": lease})
        heart = Heart(coordinator, alive)
        heart.start()
        eventually(lambda: len(heart.statuses) > 0)
        coordinator.freeze()
        time.sleep(frozen_for)
        coordinator.thaw()
        before = len(heart.statuses)
        eventually(lambda: len(heart.statuses) > before + 1)
        # The other worker has died meanwhile: that is seen, one lease after the thaw.
        status, answer = coordinator.call("POST", "/_tasks/_claim", {"wait": "20s"})
        assert (status, answer["task_id"]) == (200, "b")
        heart.stop()
        assert set(heart.statuses) == {200}
        outcome = {"lease_token": alive["lease_token"]}
        assert coordinator.call("POST", "/_tasks/a/_complete", outcome)[0] == 200
        assert coordinator.call("GET", "/_tasks/a")[1]["lost_leases"] == 0


def test_a_second_coordinator_is_refused_the_file(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'x.db'}"
    with ending(first := Coordinator(store)) as running:
        assert first.call("PUT", "/_tasks/a", {"name": "n"})[0] == 201
        for _ in range(2):  # also while the first stands still
            second = subprocess.run(serve(store), capture_output=True, text=True, timeout=30, check=False)
            assert second.returncode != 0
            assert f"in use by process {first.process.pid}" in second.stderr
            assert "Traceback" not in second.stderr
            first.freeze()
        first.thaw()
        assert first.call("PUT", "/_tasks/b", {"name": "n"})[0] == 201
        first.kill()
        running.append(third := Coordinator(store))
        assert [third.call("GET", f"/_tasks/{id}")[0] for id in ("a", "b")] == [200, 200]
