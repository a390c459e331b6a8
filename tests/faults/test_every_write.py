"""A process is killed at each change of the store's files, or the change fails: nothing is lost or halved.

What stands after the kill must be exactly what stood when the last call was acknowledged, or what the one
call under way makes of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lineshaft.embedded.coordinator import Coordinator
from tests.faults import failing_vfs
from tests.faults.scripted import REOPENED, STEPS, WHOLE, Answers, Step, opened, perform

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

AT_ONCE = 3
SYSCALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink")
OUTLINE = {
    *("state", "attempt", "lost_leases", "priority", "payload", "result", "error", "progress", "checkpoint"),
    *("attempts", "worker_id"),
}


async def picture(coordinator: Coordinator) -> dict[str, Any]:
    """Return all that can be seen of a store, but for what depends on when and who."""
    listed = await perform(coordinator, Step("", "search", None, lambda _: {"limit": 1000}), {})
    tasks = {}
    for row in listed["tasks"]:
        task = await perform(coordinator, Step("", "get", row["task_id"], lambda _: None), {})
        tasks[task["task_id"]] = timeless({key: task[key] for key in OUTLINE if key in task})
    queues = await perform(coordinator, Step("", "queues", None, lambda _: None), {})
    shown = {q["queue"]: (q["paused"], q["closed"], q["counts"]) for q in queues["queues"]}
    return {"tasks": tasks, "queues": shown}


def timeless(value: Any) -> Any:
    """Return a value without what it says of when."""
    if isinstance(value, dict):
        return {
            k: timeless(v) for k, v in value.items() if k not in ("at", "duration") and not k.endswith("_at")
        }
    return [timeless(each) for each in value] if isinstance(value, list) else value


async def pictures(store: str) -> list[dict[str, Any]]:
    """Return what is to be seen before the first step of the script, and after each."""
    seen: list[dict[str, Any]] = []
    answers: Answers = {}
    for steps in (STEPS, REOPENED):
        async with opened(store) as coordinator:
            if not seen:
                seen.append(await picture(coordinator))
            for step in steps:
                answers[step.name] = await perform(coordinator, step, answers)
                seen.append(await picture(coordinator))
    return seen


@pytest.fixture(name="expected", scope="module")
def give_expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    store = tmp_path_factory.mktemp("reference") / "x.db"
    return asyncio.run(pictures(f"sqlite:///{store}"))


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "ledger"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def judge(folder: Path, expected: list[dict[str, Any]]) -> int:
    """Check what a killed process has left; return how many of its calls were acknowledged."""
    acknowledged: int = sum("step" in line and line["step"] != "closed" for line in ledger_of(folder))
    store = f"sqlite:///{folder / 'x.db'}"
    standing = asyncio.run(reopened(store))
    assert standing in expected[acknowledged : acknowledged + 2], (
        f"after {acknowledged} calls, the last of them {WHOLE[acknowledged - 1].name}"
    )
    check_tables(folder / "x.db")
    return acknowledged


async def reopened(store: str) -> dict[str, Any]:
    """Return what stands in a store that was left behind; and see that it goes on."""
    async with opened(store) as coordinator:
        standing = await picture(coordinator)
        added = Step("", "put", "later", lambda _: {"name": "n", "payload": 1})
        assert (await perform(coordinator, added, {}))["created"]
    async with opened(store) as coordinator:
        after = await picture(coordinator)
        assert after["tasks"].pop("later")["payload"] == 1
        assert after["tasks"] == standing["tasks"]
    return standing


def check_tables(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not database.execute(
            "SELECT seq FROM ident WHERE seq NOT IN (SELECT seq FROM task)"
        ).fetchall()
        assert not database.execute(
            "SELECT seq FROM task WHERE seq NOT IN (SELECT seq FROM ident)"
        ).fetchall()
        for table in ("payload", "result", "checkpoint"):
            orphans = f"SELECT seq FROM {table} WHERE seq NOT IN (SELECT seq FROM task)"
            assert not database.execute(orphans).fetchall()


# -- beneath SQLite, in every Python -----------------------------------------------------------------


class Lives:
    """A process that lives the script in forks of its own, under a plan each."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.scripted"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def live(self, folder: Path, **plan: Any) -> int:
        """Return the exit status of one life, as a negative number that of the signal."""
        assert self._process.stdin is not None and self._process.stdout is not None
        folder.mkdir()
        order = {"store": f"sqlite:///{folder / 'x.db'}", "ledger": str(folder / "ledger"), "plan": plan}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0


@pytest.fixture(name="changes", scope="module")
def give_changes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Give how often the script changes a file."""
    if failing_vfs.library() is None:
        pytest.skip("this Python's SQLite hides its functions")
    folder = tmp_path_factory.mktemp("counted") / "life"
    with Lives() as lives:
        assert lives.live(folder) == 0
    return int(ledger_of(folder)[-1]["writes"])


def in_parallel(count: int, work: Any) -> list[Any]:
    """Return what `work(lives, number)` returns for the numbers 1 to `count`."""

    def some(first: int) -> list[Any]:
        with Lives() as lives:
            return [work(lives, number) for number in range(first, count + 1, AT_ONCE)]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [result for part in pool.map(some, range(1, AT_ONCE + 1)) for result in part]


def test_killed_at_every_change_of_a_file(
    tmp_path: Path, changes: int, expected: list[dict[str, Any]]
) -> None:
    """At each the process dies before the change; at every fourth also with half of it done."""

    def kill(lives: Lives, number: int) -> list[int]:
        reached = []
        for do in ("kill", "tear") if number % 4 == 0 else ("kill",):
            folder = tmp_path / f"{do}-{number}"
            assert lives.live(folder, at=number, do=do) == -signal.SIGKILL, f"change {number} was not made"
            reached.append(judge(folder, expected))
        return reached

    reached = Counter(count for counts in in_parallel(changes, kill) for count in counts)
    print(f"killed at each of {changes} changes; calls acknowledged before: {dict(sorted(reached.items()))}")
    assert set(reached) == set(range(len(WHOLE) + 1))


def test_an_error_at_every_change_of_a_file(
    tmp_path: Path, changes: int, expected: list[dict[str, Any]]
) -> None:
    """The change is refused, once or four times on end, for a full disk or a broken one."""
    plans = [{"do": do, "times": times} for do in ("error", "full") for times in (1, 4)]

    def fail(lives: Lives, number: int) -> None:
        folder = tmp_path / str(number)
        assert lives.live(folder, at=number, **plans[number % 4]) == 0, f"gave up at change {number}"
        assert judge(folder, expected) == len(WHOLE)

    in_parallel(changes, fail)


# -- beneath the process, where strace is there ------------------------------------------------------


def trace(folder: Path, *injections: str) -> subprocess.CompletedProcess[str]:
    """Live the script under strace, which meddles with what concerns the store's files."""
    folder.mkdir()
    files = [f"{folder / 'x.db'}{suffix}" for suffix in ("", "-wal", "-journal")]
    command = ["strace", "-f", "-o", str(folder / "trace"), "-e", f"trace={','.join(SYSCALLS)}"]
    for file in files:
        command += ["-P", file]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    command += [sys.executable, "-m", "tests.faults.scripted", f"sqlite:///{folder / 'x.db'}"]
    return subprocess.run(
        [*command, str(folder / "ledger")], capture_output=True, text=True, timeout=120, check=False
    )


def calls_in(folder: Path) -> dict[str, int]:
    """Return how often the busiest thread made each system call; strace counts thread by thread."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in (folder / "trace").read_text().splitlines():
        thread, _, rest = line.partition(" ")
        name = rest.strip().partition("(")[0]
        if name in SYSCALLS:
            counts[thread, name] += 1
    return {name: max(n for (_, each), n in counts.items() if each == name) for _, name in counts}


@pytest.fixture(name="made", scope="module")
def give_made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Give how often the script makes each system call."""
    folder = tmp_path_factory.mktemp("traced") / "life"
    lived = trace(folder)
    assert lived.returncode == 0, lived.stderr
    made = calls_in(folder)
    assert made["pwrite64"] > 100 and made["fdatasync"] > len(STEPS), made
    return made


def chosen(made: dict[str, int], *, beyond_opening: bool = False) -> list[tuple[str, int]]:
    """Return (system call, which of them): every twelfth write, every third of the others.

    Where opening fails it is tried again in a new thread, for which strace counts anew and fails it again;
    so errors strike only later. A third of the calls is more than opening makes.
    """
    found = []
    for name, count in sorted(made.items()):
        first = count // 3 if beyond_opening else 1
        found += [
            (name, number) for number in range(first, count + 1, 12 if name == "pwrite64" else 3) if first
        ]
    return found


def traced(work: Any, cases: list[tuple[str, int]]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda case: work(*case), cases))


@pytest.mark.requires("strace")
def test_killed_at_system_calls(tmp_path: Path, made: dict[str, int], expected: list[dict[str, Any]]) -> None:
    def kill(name: str, number: int) -> int:
        folder = tmp_path / f"{name}-{number}"
        trace(folder, f"{name}:signal=SIGKILL:when={number}")
        assert "killed by SIGKILL" in (folder / "trace").read_text(), f"{name} {number} was not made"
        return judge(folder, expected)

    reached = Counter(traced(kill, chosen(made)))
    print(
        f"of {made} killed at {reached.total()}; calls acknowledged before: {dict(sorted(reached.items()))}"
    )
    assert len(reached) > len(WHOLE) // 2


@pytest.mark.requires("strace")
def test_errors_of_system_calls(tmp_path: Path, made: dict[str, int], expected: list[dict[str, Any]]) -> None:
    def fail(name: str, number: int) -> None:
        error = ("EIO", "ENOSPC")[number % 2]
        folder = tmp_path / f"{name}-{number}"
        lived = trace(folder, f"{name}:error={error}:when={number}..{number + number % 3}")
        assert lived.returncode == 0, lived.stderr
        assert "(INJECTED)" in (folder / "trace").read_text(), f"{name} {number} was not made"
        assert judge(folder, expected) == len(WHOLE)

    traced(fail, chosen(made, beyond_opening=True))
