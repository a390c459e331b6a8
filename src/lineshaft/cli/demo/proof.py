"""The proof: what the coordinator says was done, against what lies on the disk.

Nothing of the run is believed. The directory is walked again by other code, every file is hashed again here,
and both are compared with every task that the coordinator holds. A file that changed, came or went while the
demo ran is told by its times and counted apart; everything else that does not fit is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import msgspec

from lineshaft.cli.demo.files import Measurement, measure_file, task_id

CLOCK_STEP = 100_000_000
"""Nanoseconds by which file systems' times may lag behind the clock."""


class Found(msgspec.Struct, frozen=True):
    """A task as the coordinator tells of it."""

    task_id: str
    state: str
    result: Measurement | None


class Proof(msgspec.Struct, kw_only=True):
    """How files and tasks compare; `holds` tells whether every file was accounted for exactly once."""

    files: int = 0
    """Regular files that the second walk found."""
    tasks: int = 0
    """Tasks that the coordinator holds."""
    completed: int = 0
    hashed: int = 0
    """Results whose hash was computed again, and is the same."""
    unreadable: int = 0
    """Files that neither a worker nor we could read."""
    bytes: int = 0
    lines: int = 0
    changed: int = 0
    """Files that changed while the demo ran, so that there is nothing to compare."""
    came: int = 0
    """Files that were made while the demo ran."""
    went: int = 0
    """Files that were deleted while the demo ran."""
    missing: list[str] = []
    """Files without a task."""
    duplicates: list[str] = []
    """Task ids that were listed more than once."""
    unexpected: list[str] = []
    """Tasks that no file stands behind."""
    unfinished: list[str] = []
    """Tasks that have not completed."""
    wrong: list[str] = []
    """Files whose result is not what the file says."""
    created_again: int = 0
    """Tasks that a second enqueue of everything made anew."""

    @property
    def holds(self) -> bool:
        """Tell whether every file was accounted for exactly once, with the right result."""
        return not (
            self.missing
            or self.duplicates
            or self.unexpected
            or self.unfinished
            or self.wrong
            or self.created_again
        )


def prove(
    enqueued: Mapping[str, str],
    walked: Iterable[str],
    found: Iterable[Found],
    *,
    started_ns: int,
    step: Callable[[], None],
) -> Proof:
    """Compare; `enqueued` maps task ids to paths, `started_ns` is when the first walk began."""
    proof = Proof()
    results = _by_id(found, proof)
    there = {task_id(path): path for path in walked}
    proof.files = len(there)
    proof.missing = [path for key, path in enqueued.items() if key not in results]
    for key in there.keys() - enqueued.keys():
        _not_enqueued(there[key], proof, started_ns)
    for key, result in results.items():
        if key not in enqueued:
            proof.unexpected.append(key)
        elif key in there:
            _compare(there[key], result, proof, started_ns)
        elif _touched_since(enqueued[key], started_ns):
            proof.went += 1
        else:
            proof.unexpected.append(key)
        step()
    return proof


def _by_id(found: Iterable[Found], proof: Proof) -> dict[str, Measurement | None]:
    results: dict[str, Measurement | None] = {}
    for task in found:
        proof.tasks += 1
        if task.task_id in results:
            proof.duplicates.append(task.task_id)
        if task.state == "completed" and task.result is not None:
            proof.completed += 1
        else:
            proof.unfinished.append(task.task_id)
        results[task.task_id] = task.result
    return results


def _not_enqueued(path: str, proof: Proof, started_ns: int) -> None:
    if _touched_since(path, started_ns):
        proof.came += 1
    else:
        proof.missing.append(path)


def _compare(path: str, result: Measurement | None, proof: Proof, started_ns: int) -> None:
    if result is None:  # counted as unfinished
        return
    here = measure_file(path)
    proof.bytes += result.bytes
    proof.lines += result.lines
    if here == result:
        if here.unreadable is None:
            proof.hashed += 1
        else:
            proof.unreadable += 1
    elif _touched_since(path, started_ns) or here.modified != result.modified != 0:
        proof.changed += 1
    else:
        proof.wrong.append(path)


def _touched_since(path: str, started_ns: int) -> bool:
    """Tell whether a file was made, changed or removed since; programs cannot set its ctime."""
    try:
        return os.lstat(path).st_ctime_ns >= started_ns - CLOCK_STEP
    except OSError:
        return True
