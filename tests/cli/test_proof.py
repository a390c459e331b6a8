"""The demo's proof: what it accepts, and every way to lose a file or to count it twice that it finds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from lineshaft.cli.demo.files import (
    Measurement,
    find_files,
    measure_file,
    spelled,
    task_id,
    unspelled,
    walk_again,
)
from lineshaft.cli.demo.proof import Found, Proof, prove

LATER = time.time_ns() + 3_600_000_000_000
"""A start of the demo after which nothing was touched."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "below" / "empty").mkdir(parents=True)
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "below" / "b").write_bytes(b"\x00" * 3_000_000)
    (tmp_path / "below" / "c").touch()
    return tmp_path


def honest(root: Path) -> list[Found]:
    return [Found(task_id(path), "completed", measure_file(path)) for path in find_files(root).files]


def proven(
    root: Path, found: list[Found], *, enqueued: dict[str, str] | None = None, started_ns: int = LATER
) -> Proof:
    enqueued = {task_id(path): path for path in find_files(root).files} if enqueued is None else enqueued
    return prove(enqueued, walk_again(root), found, started_ns=started_ns, step=lambda: None)


def test_honest_work_holds(root: Path) -> None:
    proof = proven(root, honest(root))
    assert proof.holds
    assert (proof.files, proof.tasks, proof.completed, proof.hashed) == (3, 3, 3, 3)
    assert (proof.bytes, proof.lines) == (3_000_008, 2)


def test_a_lost_task_is_found(root: Path) -> None:
    proof = proven(root, honest(root)[1:])
    assert not proof.holds
    assert proof.missing == [find_files(root).files[0]]


def test_a_task_that_is_lost_with_its_file_is_found_too(root: Path) -> None:
    enqueued = {task_id(path): path for path in find_files(root).files}
    lost, *found = honest(root)
    Path(enqueued[lost.task_id]).unlink()
    assert proven(root, found, enqueued=enqueued, started_ns=0).missing == [enqueued[lost.task_id]]


def test_a_file_that_was_never_enqueued_is_found(root: Path) -> None:
    enqueued = {task_id(path): path for path in find_files(root).files[1:]}
    proof = proven(root, honest(root)[1:], enqueued=enqueued)
    assert not proof.holds
    assert proof.missing == [find_files(root).files[0]]


def test_a_task_listed_twice_is_found(root: Path) -> None:
    found = honest(root)
    proof = proven(root, [*found, found[0]])
    assert not proof.holds
    assert proof.duplicates == [found[0].task_id]


def test_a_task_without_a_file_is_found(root: Path) -> None:
    proof = proven(root, [*honest(root), Found("file-of-nobody", "completed", Measurement(sha256="0"))])
    assert not proof.holds
    assert proof.unexpected == ["file-of-nobody"]


def test_an_unfinished_task_is_found_once(root: Path) -> None:
    first, *others = honest(root)
    proof = proven(root, [Found(first.task_id, "failed", None), *others])
    assert not proof.holds
    assert (proof.unfinished, proof.missing, proof.wrong) == ([first.task_id], [], [])


def test_a_wrong_result_is_found(root: Path) -> None:
    first, *others = honest(root)
    assert first.result is not None
    forged = msgspec.structs.replace(first.result, lines=first.result.lines + 1)
    proof = proven(root, [Found(first.task_id, "completed", forged), *others])
    assert not proof.holds
    assert len(proof.wrong) == 1


def test_files_that_change_come_and_go_meanwhile_are_counted_apart(root: Path) -> None:
    started_ns = time.time_ns()
    enqueued = {task_id(path): path for path in find_files(root).files}
    found = honest(root)
    (root / "a").write_text("three\n")
    (root / "new").touch()
    (root / "below" / "c").unlink()
    proof = proven(root, found, enqueued=enqueued, started_ns=started_ns)
    assert proof.holds
    assert (proof.changed, proof.came, proof.went, proof.hashed) == (1, 1, 1, 1)


def test_an_unreadable_file_is_accounted_for_as_that(root: Path) -> None:
    # For root nothing is unreadable; a file that became a link is, for everybody.
    enqueued = {task_id(path): path for path in find_files(root).files}
    (root / "a").unlink()
    (root / "a").symlink_to("below/b")
    found = [Found(key, "completed", measure_file(path)) for key, path in enqueued.items()]
    assert found[0].result is not None
    assert found[0].result.unreadable is not None
    assert prove(enqueued, enqueued.values(), found, started_ns=LATER, step=lambda: None).unreadable == 1


def test_links_pipes_and_loops_are_passed_over(root: Path) -> None:
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    listing = find_files(root)
    assert (len(listing.files), listing.links, listing.special) == (3, 2, 1)
    assert sorted(listing.files) == sorted(walk_again(root))


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert measure_file(str(tmp_path / "pipe")).unreadable == "not a regular file any more"


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xff%\n"
    path = os.fsdecode(name)
    with open(name, "wb"):
        pass
    assert unspelled(spelled(path)) == path
    assert spelled(path).isascii()
    assert find_files(tmp_path).files == [path]
    assert measure_file(path).sha256 is not None
