"""Coordinator and workers are killed and frozen, again and again, under load, and everything is said twice.

What happened is known from outside: clients note what was acknowledged to them, workers write a journal.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import WORKER, Coordinator, Line, Process, all_tasks, ending, eventually, insist

pytestmark = pytest.mark.faults

TASKS = 20_000
FAULTS = "KFKKFKKFKKFKKFK"
"""In this order: K kills the coordinator and a worker, F freezes a worker past its lease."""
ENQUEUERS = 3
BULK = 10
"""Tasks that are put at once; of every fourth such lot, one by one."""
WORKERS = 4
LEASE = 5.0


def worker(port: int, name: str, journal: Path, **options: Any) -> Process:
    told = [f"{key}={value}" for key, value in options.items()]
    return Process(sys.executable, str(WORKER), str(port), name, str(journal), *told)


def journalled(path: Path) -> list[dict[str, Any]]:
    """Return what the workers wrote; of one that was killed the last line may be cut."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def latest(path: Path) -> list[dict[str, Any]]:
    """Return the last that the workers wrote, much more than they can have in their hands."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200_000))
        lines = file.read().decode().splitlines()[1:]
    return [json.loads(line) for line in lines if line.endswith("}")]


class Clients:
    """Threads that put tasks, each of them twice, and note what was acknowledged."""

    def __init__(self, port: int, ids: list[str]) -> None:
        self._port = port
        self.acknowledged: list[str] = []
        self._allowed = 0
        self._more = threading.Condition()
        self._failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(ids[n::ENQUEUERS],), daemon=True)
            for n in range(ENQUEUERS)
        ]
        for thread in self._threads:
            thread.start()

    def allow(self, count: int) -> None:
        """Let so many tasks in; so that there is work for each fault to disturb."""
        with self._more:
            self._allowed = count
            self._more.notify_all()

    def allow_more(self, count: int) -> None:
        self.allow(self._allowed + count)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        assert not self._failed

    def _run(self, ids: list[str]) -> None:
        try:
            self._put(ids)
        except BaseException as error:
            self._failed.append(error)
            raise

    def _put(self, ids: list[str]) -> None:
        line = Line(self._port)
        for number, first in enumerate(range(0, len(ids), BULK)):
            some = ids[first : first + BULK]
            with self._more:
                self._more.wait_for(lambda: len(self.acknowledged) < self._allowed)
            for _ in range(2):
                put_each(line, some) if number % 4 == 0 else put_all(line, some)
            self.acknowledged += some
        line.close()


def put_each(line: Line, ids: list[str]) -> None:
    for id in ids:
        status, answer = line.insist("PUT", f"/_tasks/{id}", {"name": "n", "payload": {"id": id}})
        assert status in (200, 201), answer


def put_all(line: Line, ids: list[str]) -> None:
    tasks = [{"task_id": id, "name": "n", "payload": {"id": id}} for id in ids]
    status, answer = line.insist("POST", "/_tasks/_bulk", tasks)
    assert status == 200 and {item["status"] for item in answer["items"]} <= {200, 201}, answer


class Scene:
    """A coordinator and its workers, with a fault at a time."""

    def __init__(self, folder: Path, running: list[Process]) -> None:
        self.journal = folder / "journal"
        self.coordinator = Coordinator(f"sqlite:///{folder / 'x.db'}")
        self.port = self.coordinator.port
        self.running = running
        running.append(self.coordinator)
        self._chance = random.Random(0)
        self._workers = {f"w{n}": self._start(f"w{n}") for n in range(WORKERS)}

    def completed(self) -> int:
        return int(insist(self.port, "GET", "/_stats")[1]["counts"].get("completed", 0))

    def kill(self) -> None:
        """Kill the coordinator and a worker; start them again."""
        name = self._chance.choice(sorted(self._workers))
        self._workers[name].kill()
        self.coordinator = self.coordinator.restarted()
        self.running.append(self.coordinator)
        self._workers[name] = self._start(name)

    def freeze(self, clients: Clients) -> None:
        """Freeze a worker until another has a task of its, and let it go on as if nothing had been."""
        while not self._freeze(self._chance.choice(sorted(self._workers))):
            clients.allow_more(50)

    def _freeze(self, name: str) -> bool:
        """Return whether it has lost a lease; False where it was caught with nothing in its hands."""
        frozen = self._workers[name]
        assert frozen.process.poll() is None
        frozen.freeze()
        taken: list[bool] = []

        def is_known() -> bool:
            taken[:] = [True for id, fence in held.items() if self._fence(id) > fence]
            return bool(taken) or all(self._ended(id) for id in held)

        try:
            held = self._held(frozen.process.pid)
            eventually(is_known)
        finally:
            frozen.thaw()
        return bool(taken)

    def _held(self, pid: int) -> dict[str, int]:
        """Return the tasks, with their fences, that a worker has begun and not noted as ended."""
        held = {}
        for line in latest(self.journal):
            if line["pid"] == pid and line["what"] == "claimed":
                held[line["task_id"]] = line["fence"]
            elif line["pid"] == pid and line["what"] == "completed":
                held.pop(line["task_id"], None)
        return held

    def _fence(self, id: str) -> int:
        return int(self._task(id)["attempts"][-1]["fence"])

    def _ended(self, id: str) -> bool:
        return bool(self._task(id)["state"] == "completed")

    def _task(self, id: str) -> dict[str, Any]:
        task: dict[str, Any] = insist(self.port, "GET", f"/_tasks/{id}")[1]
        return task

    def _start(self, name: str) -> Process:
        started = worker(self.port, name, self.journal, lease=f"{LEASE}s", repeat=1)
        self.running.append(started)
        return started


class Stillness(threading.Thread):
    """Measures how long (s) this very process was not let run: then nobody else was either."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._total = 0.0
        self.start()

    def run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(0.05):
            now = time.monotonic()
            self._total += now - before if now - before > 1 else 0.0
            before = now

    def end(self) -> float:
        self._ended.set()
        self.join()
        return self._total


@pytest.mark.timeout(600)
def test_nothing_is_lost_made_up_or_completed_twice(tmp_path: Path) -> None:
    ids = [f"t{number}" for number in range(TASKS)]
    with ending() as running:
        scene = Scene(tmp_path, running)
        clients = Clients(scene.port, ids)
        share = TASKS // (len(FAULTS) + 1)
        for number, fault in enumerate(FAULTS):
            last = number == len(FAULTS) - 1
            clients.allow(TASKS if last else share * (number + 2))
            # The last fault strikes when what is left is little more than what it disturbs.
            enough = TASKS - 300 if last else share * (number + 1)
            eventually(lambda enough=enough: scene.completed() >= enough, within=120)  # type: ignore[misc]
            scene.kill() if fault == "K" else scene.freeze(clients)
        began, stillness = time.monotonic(), Stillness()
        clients.join()
        eventually(lambda: scene.completed() >= TASKS)
        drained = time.monotonic() - began - stillness.end()
        print(f"drained {drained:.1f} s after the last fault")
        assert sorted(clients.acknowledged) == sorted(ids)
        judge(scene.port, ids, journalled(scene.journal))
        assert drained < 2 * LEASE


def judge(port: int, ids: list[str], journal: list[dict[str, Any]]) -> None:
    """Hold what the coordinator says against what clients and workers were told."""
    tasks = {task["task_id"]: task for task in all_tasks(port)}
    assert sorted(tasks) == sorted(ids), "lost or made up"
    assert Counter(task["state"] for task in tasks.values()) == {"completed": len(ids)}
    outcomes = acknowledged(journal)
    assert not {id: fences for id, fences in outcomes.items() if len(fences) > 1}, "completed twice"
    line = Line(port)
    for id, [fence] in outcomes.items():
        _, task = line.insist("GET", f"/_tasks/{id}")
        assert task["result"]["fence"] == fence, "another outcome stands than the one acknowledged"
        last = task["attempts"][-1]
        assert (last["fence"], last["outcome"]) == (fence, "completed")
    line.close()
    # Only a worker that was killed between the answer and its note of it leaves a task out.
    assert len(outcomes) >= len(ids) - FAULTS.count("K")
    stale = sum(line["what"] == "completed" and line["status"] == 409 for line in journal)
    print(f"{len(outcomes)} completions acknowledged, {stale} refused as late")
    assert stale >= FAULTS.count("F")


def acknowledged(journal: list[dict[str, Any]]) -> dict[str, set[int]]:
    """Return under which fences each task's completion was acknowledged."""
    fences: dict[str, set[int]] = defaultdict(set)
    for line in journal:
        if line["what"] == "claimed":
            assert line["payload"] == {"id": line["task_id"]}, line
        elif line["what"] == "completed":
            assert line["status"] in (200, 409), line
            if line["status"] == 200:
                fences[line["task_id"]].add(line["fence"])
        elif line["what"] == "repeated":
            assert line["status"] == line["first"], line
    return fences
