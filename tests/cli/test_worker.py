"""`lineshaft worker` as a process: an App's tasks, any program's, signals, supervision and reload."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lineshaft.cli.exits import ExitCode
from tests.cli.conftest import Process
from tests.cli.runs import Ended

Lineshaft = Callable[..., Ended]
Start = Callable[..., Process]
READY = "is ready"


def test_a_task_comes_back_with_its_result(
    lineshaft: Lineshaft, start: Start, coordinator: str, app: Path
) -> None:
    start(
        "worker", "jobs:app", "--queues", "default=2,mail", url=coordinator, cwd=app, on="stderr", ready=READY
    )
    done = lineshaft("enqueue", "greet", '{"name": "ada"}', "--wait")
    assert (done.code, done.out) == (ExitCode.OK, '"hello ada"\n')
    document = lineshaft(
        "enqueue", "greet", '{"name": "bob"}', "--queue", "mail", "--wait", "--json"
    ).document
    assert (document["state"], document["result"]) == ("completed", "hello bob")


def test_a_task_that_fails_is_told_with_exit_code_1(
    lineshaft: Lineshaft, start: Start, coordinator: str, app: Path
) -> None:
    start("worker", "jobs:app", url=coordinator, cwd=app, on="stderr", ready=READY)
    failed = lineshaft("enqueue", "break_down", '{"reason": "no paper"}', "--max-retries", "0", "--wait")
    assert (failed.code, failed.out) == (ExitCode.FAILED, "")
    assert "ValueError: no paper" in failed.err
    wrong = lineshaft("enqueue", "greet", '{"nam": 1}', "--wait-for", "20s")
    assert wrong.code == ExitCode.FAILED
    assert "wrong_argument" in wrong.err


def test_a_worker_is_listed_drained_and_ends(
    lineshaft: Lineshaft, start: Start, coordinator: str, app: Path
) -> None:
    worker = start(
        "worker", "jobs:app", "--id", "w-1", "--resource", "gpu=1", "--capability", "es-query",
        url=coordinator, cwd=app, on="stderr", ready=READY,
    )  # fmt: skip
    assert lineshaft("enqueue", "greet", '{"name": "a"}', "--wait").code == ExitCode.OK
    [listed] = lineshaft("workers", "--json").document["workers"]
    assert (listed["worker_id"], listed["pid"]) == ("w-1", worker.process.pid)
    assert "es-query, gpu 1/1" in lineshaft("workers").out
    assert "w-1 claims no more" in lineshaft("workers", "drain", "w-1").out
    assert worker.process.wait(20) == 0


def test_sigterm_lets_a_worker_give_back_what_does_not_finish(
    lineshaft: Lineshaft, start: Start, coordinator: str, app: Path
) -> None:
    worker = start(
        "worker", "jobs:app", "--grace", "100ms", url=coordinator, cwd=app, on="stderr", ready=READY
    )
    lineshaft("enqueue", "sleep", "{}", "--task-id", "t")
    wait_for_state(lineshaft, "t", "running")
    assert worker.stop(signal.SIGTERM) == 0
    task = lineshaft("tasks", "get", "t", "--json").document
    assert (task["state"], task["attempt"], task["lost_leases"]) == ("queued", 0, 0)


def test_processes_are_supervised(lineshaft: Lineshaft, start: Start, coordinator: str, app: Path) -> None:
    worker = start(
        "worker", "jobs:app", "--processes", "2", "--concurrency", "1",
        url=coordinator, cwd=app, on="stderr", ready=READY,
    )  # fmt: skip
    first = int(lineshaft("enqueue", "pid", "{}", "--wait").out)
    assert first != worker.process.pid
    os.kill(first, signal.SIGKILL)
    assert lineshaft("enqueue", "greet", '{"name": "a"}', "--wait").code == ExitCode.OK
    assert worker.stop(signal.SIGTERM) == 0


def test_a_program_is_a_worker(lineshaft: Lineshaft, start: Start, coordinator: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import json, os, sys\n"
        "payload = json.load(sys.stdin)\n"
        "if payload == 'later' and os.environ['LINESHAFT_ATTEMPT'] == '1': sys.exit(75)\n"
        "if payload == 'never': sys.exit('no such thing' and 65)\n"
        "print(json.dumps({'got': payload, 'attempt': int(os.environ['LINESHAFT_ATTEMPT'])}))\n"
    )
    start(
        "worker", "--exec", f"{sys.executable} {script}", "--queues", "default,other",
        url=coordinator, on="stderr", ready=READY,
    )  # fmt: skip
    done = lineshaft("enqueue", "anything", '"now"', "--wait")
    assert json.loads(done.out) == {"got": "now", "attempt": 1}
    again = lineshaft("enqueue", "anything", '"later"', "--wait")
    assert json.loads(again.out) == {"got": "later", "attempt": 2}
    failed = lineshaft("enqueue", "anything", '"never"', "--wait")
    assert failed.code == ExitCode.FAILED
    assert "data_error: exited with 65" in failed.err


def test_a_program_takes_only_tasks_of_its_names(
    lineshaft: Lineshaft, start: Start, coordinator: str
) -> None:
    start("worker", "--exec", "cat", "--name", "mine", url=coordinator, on="stderr", ready=READY)
    lineshaft("enqueue", "yours", "1", "--task-id", "yours")
    assert lineshaft("enqueue", "mine", "2", "--wait").out == "2\n"
    assert lineshaft("tasks", "get", "yours", "--json").document["state"] == "queued"


def test_a_cancelled_program_is_ended(lineshaft: Lineshaft, start: Start, coordinator: str) -> None:
    start("worker", "--exec", "sleep 600", "--lease", "1s", url=coordinator, on="stderr", ready=READY)
    lineshaft("enqueue", "nap", "1", "--task-id", "t")
    wait_for_state(lineshaft, "t", "running")
    assert lineshaft("tasks", "cancel", "t").out == "t: running, its worker is asked to end it\n"
    assert lineshaft("tasks", "get", "t", "--wait-for", "20s", "--json").document["state"] == "cancelled"


def test_a_program_past_its_timeout_is_killed(lineshaft: Lineshaft, start: Start, coordinator: str) -> None:
    start("worker", "--exec", "sleep 600", url=coordinator, on="stderr", ready=READY)
    failed = lineshaft("enqueue", "nap", "1", "--timeout", "200ms", "--max-retries", "0", "--wait")
    assert failed.code == ExitCode.FAILED
    assert "timeout" in failed.err


def test_a_program_that_is_stopped_gives_its_task_back(
    lineshaft: Lineshaft, start: Start, coordinator: str
) -> None:
    worker = start("worker", "--exec", "sleep 600", "--grace", "0", url=coordinator, on="stderr", ready=READY)
    lineshaft("enqueue", "nap", "1", "--task-id", "t")
    wait_for_state(lineshaft, "t", "running")
    assert worker.stop() == 0
    assert lineshaft("tasks", "get", "t", "--json").document["state"] == "queued"


@pytest.mark.requires("watchfiles")
def test_a_changed_source_starts_the_worker_again(
    lineshaft: Lineshaft, start: Start, coordinator: str, app: Path
) -> None:
    worker = start("worker", "jobs:app", "--reload", url=coordinator, cwd=app, on="stderr", ready=READY)
    assert lineshaft("enqueue", "greet", '{"name": "a"}', "--wait").out == '"hello a"\n'
    source = app / "jobs.py"
    source.write_text(source.read_text().replace("hello", "good evening"))
    worker.wait_for(READY)
    assert lineshaft("enqueue", "greet", '{"name": "a"}', "--wait").out == '"good evening a"\n'
    assert worker.stop() == 0


def test_with_json_the_log_is_a_document_a_line(start: Start, coordinator: str) -> None:
    worker = start("worker", "--exec", "cat", "--json", url=coordinator, on="stderr", ready=READY)
    lines = [json.loads(line) for line in worker.first.splitlines() if line.endswith("}")]
    assert {"at", "level", "logger", "message"} <= set(lines[0])


def test_an_embedded_app_serves_its_worker_processes(start: Start, app: Path) -> None:
    source = app / "jobs.py"
    source.write_text(source.read_text().replace("App()", "App('sqlite:///embedded.db')"))
    worker = start("worker", "jobs:app", "--processes", "2", cwd=app, on="stderr", ready=READY)
    assert worker.stop(signal.SIGTERM) == 0


def wait_for_state(lineshaft: Lineshaft, task_id: str, state: str) -> None:
    """Ask until a task is in a state."""
    for _ in range(2000):
        if lineshaft("tasks", "get", task_id, "--json").document["state"] == state:
            return
    pytest.fail(f"{task_id} never was {state}")
