"""Coordinator and workers are killed, again and again, under load, and everything is said twice."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import WORKER, Coordinator, Process, all_tasks, ending, eventually, insist

pytestmark = pytest.mark.faults

TASKS = 3_000
KILLS = 5
ENQUEUERS = 3


def worker(port: int, name: str, journal: Path, **options: Any) -> Process:
    told = [f"{key}={value}" for key, value in options.items()]
    return Process(sys.executable, str(WORKER), str(port), name, str(journal), *told)


def enqueue(port: int, ids: list[str], seed: int, seen: list[str]) -> None:
    """Put tasks, many of them twice; note in `seen` what was acknowledged."""
    chance = random.Random(seed)
    for id in ids:
        for _ in range(1 + (chance.random() < 0.2)):
            status, answer = insist(port, "PUT", f"/_tasks/{id}", {"name": "n", "payload": {"id": id}})
            assert status in (200, 201), answer
        seen.append(id)


def journalled(path: Path) -> list[dict[str, Any]]:
    """Return what the workers wrote; of one that was killed the last line may be cut."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def test_nothing_is_lost_made_up_or_completed_twice(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    coordinator = Coordinator(f"sqlite:///{tmp_path / 'x.db'}")
    port = coordinator.port
    ids = [f"t{number}" for number in range(TASKS)]
    seen: list[str] = []
    enqueuers = [
        threading.Thread(target=enqueue, args=(port, ids[n::ENQUEUERS], n, seen), daemon=True)
        for n in range(ENQUEUERS)
    ]
    with ending(coordinator) as running:
        workers = [worker(port, f"w{n}", journal) for n in range(3)]
        running += workers
        for thread in enqueuers:
            thread.start()
        for kill in range(KILLS):
            enough = TASKS * (kill + 1) // (KILLS + 2)
            eventually(lambda enough=enough: len(seen) >= enough)  # type: ignore[misc]
            running[0] = coordinator = coordinator.restarted()
            workers[kill % 3].kill()
            running.append(again := worker(port, f"w{kill % 3}", journal))
            workers[kill % 3] = again
        for thread in enqueuers:
            thread.join()

        def open_tasks() -> int:
            _, stats = insist(port, "GET", "/_stats")
            return TASKS - int(stats["counts"].get("completed", 0))

        eventually(lambda: open_tasks() <= 0)
        judge(port, ids, journalled(journal))


def judge(port: int, ids: list[str], journal: list[dict[str, Any]]) -> None:
    tasks = {task["task_id"]: task for task in all_tasks(port)}
    assert sorted(tasks) == sorted(ids), "lost or made up"
    assert Counter(task["state"] for task in tasks.values()) == {"completed": TASKS}
    acknowledged: dict[str, set[int]] = defaultdict(set)
    for line in journal:
        if line["what"] == "completed":
            assert line["status"] in (200, 409), line
            if line["status"] == 200:
                acknowledged[line["task_id"]].add(line["fence"])
        elif line["what"] == "repeated":
            assert line["status"] == line["first"], line
    twice = {id: fences for id, fences in acknowledged.items() if len(fences) > 1}
    assert not twice
    for id, [fence] in acknowledged.items():
        _, task = insist(port, "GET", f"/_tasks/{id}")
        assert task["result"]["fence"] == fence, "another outcome stands than the one acknowledged"
        break_after = task["attempts"][-1]
        assert (break_after["fence"], break_after["outcome"]) == (fence, "completed")
