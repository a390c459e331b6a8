"""`lineshaft demo`: the proof over real processes that are really killed, and the clean end of them all."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lineshaft.cli.exits import ExitCode
from tests.cli.runs import command, environment, run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    (root / "below" / "empty").mkdir(parents=True)
    for number in range(40):
        (root / "below" / f"{number}.txt").write_text(f"line of {number}\n" * number)
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to("nowhere")
    with open(os.fsencode(root) + b"/caf\xe9", "wb") as file:
        file.write(b"not UTF-8: \xe9")
    return root


def test_every_file_is_accounted_for_exactly_once(directory: Path) -> None:
    ended = run("demo", str(directory), "--json")
    assert ended.code == ExitCode.OK, ended.err
    told = ended.document
    proof, recovered = told["proof"], told["recovered"]
    assert proof["holds"] is True
    assert (proof["files"], proof["tasks"], proof["hashed"], told["links"]) == (41, 41, 41, 2)
    assert not any(proof[name] for name in ("missing", "duplicates", "unexpected", "unfinished", "wrong"))
    assert recovered["held_by_killed"] >= 1
    assert recovered["lost_leases"] >= recovered["held_by_killed"]
    assert recovered["retried"] >= 1
    assert recovered["downtime"] > 0


@pytest.mark.slow
def test_the_story_is_told_to_people(directory: Path) -> None:
    ended = run("demo", str(directory))
    assert ended.code == ExitCode.OK, ended.err
    assert "What was recovered" in ended.out
    assert "nothing was lost, nothing was counted twice" in ended.out
    assert "files/s" in ended.out
    assert ended.err.count("with SIGKILL") == 2


@pytest.mark.slow
def test_one_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "only").write_text("one\n")
    ended = run("demo", str(tmp_path), "--json")
    assert ended.code == ExitCode.OK, ended.err
    assert (ended.document["proof"]["files"], ended.document["recovered"]["lost_leases"]) == (1, 1)


def test_no_file_is_not_enough(tmp_path: Path) -> None:
    ended = run("demo", str(tmp_path))
    assert ended.code == ExitCode.USAGE
    assert "there is no file under" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_demo_leaves_nothing_behind(directory: Path, tmp_path: Path, number: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    demo = subprocess.Popen(
        command("demo", str(directory)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(scratch)),
    )
    with demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("· workers: processes"):
                break
        started = children_of(demo.pid)
        demo.send_signal(number)
        assert "Traceback" not in demo.stderr.read()
    assert demo.returncode == ExitCode.INTERRUPTED
    assert len(started) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert list(scratch.iterdir()) == []


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_the_standard_library_is_what_it_works_on_by_itself() -> None:
    ended = run("demo", "--json", timeout=120)
    assert ended.code == ExitCode.OK, ended.err
    assert ended.document["proof"]["hashed"] > 1000
