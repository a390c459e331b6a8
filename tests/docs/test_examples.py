"""Every file of examples/ runs, against a coordinator of its own, and does what it says."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.desk import ROOT, Desk

EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Give a desk with a copy of the examples on it."""
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with Desk(tmp_path) as desk:
        yield desk


def enqueue(desk: Desk, name: str, payload: Any, *options: str) -> Any:
    """Enqueue by the command line, wait, and return the result."""
    command = ("lineshaft", "enqueue", name, json.dumps(payload), "--wait-for", "60s", "--json", *options)
    task = json.loads(desk.run(*command))
    assert task["state"] == "completed", f"{task}\n{desk.everything_printed()}"
    return task["result"]


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not here; that worker needs it")


def test_every_example_has_a_test() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    tested = Path(__file__).read_text()
    assert [name for name in sorted(there) if f"{name}" not in tested and Path(name).stem not in tested] == []


def test_first_task(desk: Desk) -> None:
    desk.serve()
    desk.start("lineshaft worker first_task:app")
    assert desk.run("python", "first_task.py") == "invoice 3 is on its way\n"


def test_embedded(desk: Desk) -> None:
    first = desk.run("python", "embedded.py").splitlines()
    again = desk.run("python", "embedded.py").splitlines()
    assert first == ["new: 100", "sum of squares: 338350"]
    assert again == ["new: 0", "sum of squares: 338350"]


def test_worker_app(desk: Desk) -> None:
    desk.serve()
    desk.start("lineshaft worker worker_app:app --queues thumbnails=2,default")
    payload = {"image": {"path": "cat.png", "width": 4000, "height": 3000}, "longest": 400}
    assert enqueue(desk, "thumbnail", payload, "--queue", "thumbnails") == {
        "path": "cat.400.png",
        "width": 400,
        "height": 300,
    }
    Path(desk.folder, "cat.400.png").touch()
    assert enqueue(desk, "publish", {"path": "cat.400.png"}) is None


@pytest.mark.requires("curl")
def test_shell_worker(desk: Desk) -> None:
    desk.serve()
    desk.start("sh shell_worker.sh")
    digest = hashlib.sha256((EXAMPLES / "first_task.py").read_bytes()).hexdigest()
    assert enqueue(desk, "checksum", "first_task.py", "--task-id", "a/b:1") == digest


@pytest.mark.requires("curl")
def test_shell_worker_fails_what_it_cannot_do(desk: Desk) -> None:
    desk.serve()
    desk.start("sh shell_worker.sh")
    command = "lineshaft enqueue checksum '\"missing\"' --max-retries 0 --wait-for 60s --json || test $? = 1"
    task = json.loads(desk.run("sh", "-c", command))
    assert (task["state"], task["error"]["type"]) == ("failed", "exit")
    assert "missing" in task["error"]["message"]


def test_node_worker(desk: Desk) -> None:
    need("node")
    desk.serve()
    desk.start("node worker.mjs")
    assert enqueue(desk, "reverse", "shaft", "--task-id", "a/b:1") == "tfahs"


def test_go_worker(desk: Desk) -> None:
    need("go")
    cache = subprocess.run(
        ["go", "env", "GOCACHE"], capture_output=True, text=True, check=True
    ).stdout.strip()
    desk.run("go", "build", "-o", "go-worker", "worker.go", GOCACHE=cache)
    desk.serve()
    desk.start("./go-worker")
    assert enqueue(desk, "add", [1, 2, 2**60], "--task-id", "a/b:1") == 2**60 + 3


def test_exec_worker(desk: Desk) -> None:
    desk.serve()
    desk.start("sh exec_worker.sh")
    assert enqueue(desk, "count", "three short words", "--queue", "words") == 3


def test_progress_and_checkpoint(desk: Desk) -> None:
    printed = desk.run("python", "progress_and_checkpoint.py").splitlines()
    assert printed[-1] == "1000 rows in 2 attempts"


def test_capabilities(desk: Desk) -> None:
    printed = desk.run("python", "capabilities.py").splitlines()
    assert printed[-1] == "at most 2 at once on the machine with two GPUs"


def test_sync_facade(desk: Desk) -> None:
    desk.serve()
    desk.start("lineshaft worker sync_facade:app")
    assert "HTTP 200: report for Ada" in desk.run("python", "sync_facade.py")


def test_testing_a_retry(desk: Desk) -> None:
    desk.run("pytest", "-q", "-p", "no:cacheprovider", "testing_a_retry.py")
