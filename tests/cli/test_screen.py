"""The screen of `lineshaft top`: what a small terminal still shows."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import time

import msgspec
import pytest
from rich.console import Console

from lineshaft import wire
from lineshaft.cli.screen import live_view
from lineshaft.cli.top import Snapshot
from tests.cli.runs import command, environment

AT = "2026-01-02T03:04:05.678Z"
STATS = wire.Stats(
    counts={"running": 10, "failed": 5}, queues=1, workers=30, waiting_claims=0, waiting_results=0, leases=10,
    totals={}, position=7, now=AT, uptime=60, store="sqlite:///jobs.db", tier="power loss", version="0.1.0",
)  # fmt: skip


def task(number: int, state: str) -> wire.Task:
    error = {"type": "ValueError", "message": "no paper " * 40} if state == "failed" else None
    plain = {
        "task_id": f"{state}-{number}", "name": "mail", "queue": "default", "state": state, "priority": 0,
        "attempt": 1, "lost_leases": 0, "max_retries": 3, "created_at": AT, "run_at": AT, "started_at": AT,
        "finished_at": AT, "error": error,
    }  # fmt: skip
    return msgspec.json.decode(msgspec.json.encode(plain), type=wire.Task)


def worker(number: int) -> wire.WorkerInfo:
    return msgspec.convert(
        {
            "worker_id": f"worker-{number}", "held": 1, "seen_at": AT, "waiting": False, "draining": False,
            "capabilities": [], "resources": {}, "free": {},
        },
        wire.WorkerInfo,
    )  # fmt: skip


def queue(number: int) -> wire.Queue:
    return wire.Queue(
        queue=f"queue-{number}", paused=False, closed=False, backlog=0, running=1, oldest_age=0, workers=1,
        counts={}, position=7,
    )  # fmt: skip


@pytest.mark.parametrize("queues", [1, 20])
def test_tasks_come_before_workers_and_all_fits(queues: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    snapshot = Snapshot(
        stats=STATS,
        queues=[queue(number) for number in range(queues)],
        workers=[worker(number) for number in range(30)],
        running=[task(number, "running") for number in range(10)],
        failed=[task(number, "failed") for number in range(5)],
        rates={"enqueued": 1.0, "started": 1.0, "completed": 1.0, "failed": 0.1, "retried": 0.0, "lost": 0.0},
    )
    screen = Console(file=io.StringIO(), width=80, height=24)
    with screen.capture() as captured:
        screen.print(live_view("http://127.0.0.1:7077", snapshot, screen))
    shown = captured.get()
    assert len(shown.splitlines()) <= 24
    for text in ("Ctrl-C ends", "queue-0", "running-0", "failed-0", "ValueError", "workers 30"):
        assert text in shown
    left_out = queues - len(re.findall(r"^queue-\d+", shown, re.MULTILINE))
    assert (f"… and {left_out} more queues" in shown) is (left_out > 0)
    assert left_out > 0 or queues == 1
    roomy = Console(file=io.StringIO(), width=80, height=200)
    with roomy.capture() as captured:
        roomy.print(live_view("http://127.0.0.1:7077", snapshot, roomy))
    everything = captured.get()
    assert everything.index("running-9") < everything.index("failed-4") < everything.index("worker-29")


@pytest.mark.parametrize("height", range(12, 60))
def test_nothing_is_left_out_without_a_word(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    busy = msgspec.structs.replace(queue(17), backlog=9)
    snapshot = Snapshot(
        stats=STATS,
        queues=[*(queue(number) for number in range(17)), busy, queue(18), queue(19)],
        workers=[worker(number) for number in range(30)],
        running=[],
        failed=[],
    )
    screen = Console(file=io.StringIO(), width=80, height=height)
    with screen.capture() as captured:
        screen.print(live_view("http://127.0.0.1:7077", snapshot, screen))
    shown = captured.get()
    assert len(shown.splitlines()) <= height
    assert "queue-17" in shown  # the one with the most to do
    for what, every, pattern in (("queues", 20, r"^queue-\d+"), ("workers", 30, r"^worker-\d+")):
        there = len(re.findall(pattern, shown, re.MULTILINE))
        told = re.search(rf"… and (\d+) more {what}", shown)
        if told is not None:
            assert there + int(told[1]) == every
        else:
            assert there == every or len(shown.splitlines()) == height


def test_on_a_terminal_it_says_how_to_end_it(coordinator: str) -> None:
    ours, theirs = pty.openpty()
    terminal = environment(coordinator, TERM="xterm", LINES="24")
    watching = subprocess.Popen(command("top"), stdout=theirs, stderr=theirs, stdin=theirs, env=terminal)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 30
    try:
        while b"Ctrl-C ends" not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65_536)
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)
