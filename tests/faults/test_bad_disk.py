"""A disk that cannot be written, breaks while work goes on, or has lost what was on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.processes import Coordinator, Line, Process, all_tasks, ending, eventually, serve

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

TASKS = 1_500
PAGE = 4096


# -- a place that cannot be written ------------------------------------------------------------------


@pytest.fixture(name="read_only")
def give_read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Give a function that makes a folder read-only, for root too."""
    mounted: list[Path] = []

    def make(folder: Path) -> None:
        if os.geteuid() != 0:
            folder.chmod(0o555)
            return
        bind = ["mount", "--bind", str(folder), str(folder)]
        if subprocess.run(bind, capture_output=True, check=False).returncode != 0:
            pytest.skip("root may not mount here, and nothing else is read-only for root")
        mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
    for folder in tmp_path.iterdir():
        if folder.is_dir():
            folder.chmod(0o755)


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_folder_is_refused_with_what_to_do(
    tmp_path: Path, read_only: Callable[[Path], None], there: bool
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    store = f"sqlite:///{folder / 'x.db'}"
    if there:
        with ending(coordinator := Coordinator(store)):
            assert coordinator.call("PUT", "/_tasks/a", {"name": "n"})[0] == 201
    read_only(folder)
    refused = subprocess.run(serve(store), capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert str(folder) in refused.stderr and "Traceback" not in refused.stderr
    assert re.search(r"cannot be (made or )?written|read-?only", refused.stderr, re.IGNORECASE), (
        refused.stderr
    )


# -- a disk that breaks and recovers -----------------------------------------------------------------


class FailingCoordinator(Process):
    """A coordinator of which system calls fail: strace gives the injection."""

    def __init__(self, store: str, injection: str) -> None:
        traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={injection.partition(':')[0]}"]
        command = [*traced, "-e", f"inject={injection}", *serve(store)]
        super().__init__(*command, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split(",")[0].rpartition(":")[2])

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)  # strace alone would let what it traces go on
        super().kill()


@pytest.mark.requires("strace")
@pytest.mark.parametrize(
    ("injection", "told"),
    [
        ("pwrite64:error=EROFS:when=250..261", "readonly|disk I/O error"),
        ("fdatasync:error=EIO:when=30..41", "disk I/O error"),
    ],
)
def test_a_disk_that_fails_for_a_while_is_told_and_work_goes_on(
    tmp_path: Path, injection: str, told: str
) -> None:
    store = f"sqlite:///{tmp_path / 'x.db'}"
    with ending(failing := FailingCoordinator(store, injection)) as running:
        line = Line(failing.port)
        acknowledged, refusals = [], []
        for number in range(60):
            id = f"t{number}"
            status, answer = line.call("PUT", f"/_tasks/{id}", {"name": "n", "payload": id}, timeout=60)
            if status == 503:
                refusals.append(answer["error"]["reason"])
                status, _ = line.insist("PUT", f"/_tasks/{id}", {"name": "n", "payload": id}, timeout=60)
            assert status in (200, 201)
            acknowledged.append(id)
        assert refusals, "nobody was told"
        assert all(re.search(told, reason) and "is tried again" in reason for reason in refusals), refusals
        assert line.call("GET", "/_health/ready")[0] == 200
        line.close()
        failing.kill()
        running.append(whole := Coordinator(store))
        assert sorted(task["task_id"] for task in all_tasks(whole.port)) == sorted(acknowledged)


# -- a file that is damaged --------------------------------------------------------------------------


@pytest.fixture(name="good", scope="module")
def give_good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a store of many tasks, a third of them completed, closed in good order."""
    path = tmp_path_factory.mktemp("good") / "x.db"
    with ending(coordinator := Coordinator(f"sqlite:///{path}")):
        line = Line(coordinator.port)
        for first in range(0, TASKS, 100):
            tasks = [
                {"task_id": f"t{n}", "name": "n", "payload": payload(n)} for n in range(first, first + 100)
            ]
            assert line.insist("POST", "/_tasks/_bulk", tasks)[0] == 200
        _, claimed = line.insist("POST", "/_tasks/_claim", {"max": TASKS // 3})
        items = [
            {
                "op": "complete",
                "task_id": task["task_id"],
                "lease_token": task["lease_token"],
                "result": task["task_id"],
            }
            for task in claimed["tasks"]
        ]
        assert line.insist("POST", "/_tasks/_report", {"items": items})[0] == 200
        line.close()
        coordinator.process.terminate()
        assert coordinator.process.wait(30) == 0
    return path


def payload(number: int) -> str:
    return f"payload of {number} " + "x" * 300


def damage(path: Path, part: float, how: str) -> None:
    """Damage a page, at this part of the file."""
    page = int(part * path.stat().st_size / PAGE)
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        match how:
            case "lost":
                file.write(b"\0" * PAGE)
            case "foreign":
                file.write(bytes(255 - n % 251 for n in range(PAGE)))
            case "head":
                file.write(b"\xff" * 16)


DAMAGES = [(part, how) for part in (0.15, 0.35, 0.55, 0.75, 0.95) for how in ("lost", "foreign", "head")]


def true_or_told(line: Line) -> tuple[int, int]:
    """Read all tasks: each is as acknowledged, or the damage is told. Return how many of each."""
    right = told = 0
    for number in range(TASKS):
        status, task = line.call("GET", f"/_tasks/t{number}")
        if status == 503:
            check_told(task["error"]["reason"])
            told += 1
        else:
            assert (status, task["payload"]) == (200, payload(number)), (number, task)
            right += 1
    return right, told


def check_told(reason: str) -> None:
    assert re.search(r"damaged|cannot be read", reason) and "restore a backup" in reason, reason


@pytest.mark.parametrize(("part", "how"), DAMAGES[::2])
def test_a_damaged_page_is_told_at_the_start_or_when_it_is_met(
    tmp_path: Path, good: Path, part: float, how: str
) -> None:
    path = tmp_path / "x.db"
    shutil.copy(good, path)
    damage(path, part, how)
    started = subprocess.Popen(
        serve(f"sqlite:///{path}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stderr is not None
    try:
        said = started.stdout.readline()
        if not said:
            assert started.wait(30) != 0
            complaint = started.stderr.read()
            assert "Traceback" not in complaint
            check_told(complaint)
            return
        line = Line(int(said.split(",")[0].rpartition(":")[2]))
        right, told = true_or_told(line)
        print(f"{right} tasks are right, of {told} the damage is told")
        line.close()
    finally:
        started.kill()
        started.communicate()


@pytest.mark.parametrize(("part", "how"), DAMAGES[1::4])
def test_a_page_that_is_damaged_while_it_runs_is_told_when_it_is_met(
    tmp_path: Path, good: Path, part: float, how: str
) -> None:
    path = tmp_path / "x.db"
    shutil.copy(good, path)
    with ending(coordinator := Coordinator(f"sqlite:///{path}")):
        damage(path, part, how)
        line = Line(coordinator.port)
        right, told = true_or_told(line)
        print(f"{right} tasks are right, of {told} the damage is told")
        status, answer = line.call("PUT", "/_tasks/new", {"name": "n"}, timeout=40)
        assert status in (201, 503), answer
        if status == 503:
            check_told(answer["error"]["reason"])
            eventually(lambda: coordinator.call("GET", "/_health/ready")[0] == 503)
        line.close()
