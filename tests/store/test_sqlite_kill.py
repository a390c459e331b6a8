"""A process that is killed in the middle of commits: what it was told is stored, is stored."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lineshaft.core.batch import Blob
from lineshaft.store.conformance.harness import SHARD, TENANT, acquire
from lineshaft.store.sqlite import SQLiteStore

COMMIT_ON = """
import asyncio, sys
from lineshaft.core.batch import Blob
from lineshaft.store.conformance.harness import acquire, change, row
from lineshaft.store.sqlite import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open(address="a")
    owner = await acquire(store)
    first = 10 * owner.position
    while True:
        rows = [row(first + n) for n in range(10)]
        blobs = [(Blob.PAYLOAD, task.seq, b"x" * 5000) for task in rows]
        await owner.commit(tasks=rows, changes=[change(task) for task in rows], blobs=blobs)
        print(owner.position, flush=True)
        first += 10

asyncio.run(main())
"""


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged = 0
    for _ in range(3):
        acknowledged = kill_after(tmp_path / "x.db", commits=chance.randrange(1, 60))
        store = SQLiteStore(tmp_path / "x.db")
        await store.open(address="a")
        owner = await acquire(store)
        snapshot = await owner.load()
        # The commit that was under way may have been made or not, but only as a whole.
        assert snapshot.position in (acknowledged, acknowledged + 1)
        assert [task.seq for task in snapshot.tasks] == list(range(10 * snapshot.position))
        blobs = await store.read(SHARD, [(Blob.PAYLOAD, task.seq) for task in snapshot.tasks])
        assert blobs == [b"x" * 5000] * len(blobs)
        assert None not in await store.get(SHARD, [(TENANT, task.id) for task in snapshot.tasks])
        log = await store.log(SHARD, 0, limit=10_000)
        assert [record.position for record in log.records] == list(range(1, snapshot.position + 1))
        await store.close()


def kill_after(path: Path, commits: int) -> int:
    """Kill a committing process once it has acknowledged so many; return the last position it told."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMIT_ON, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(commits)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    return int([line for line in said if line.endswith("\n")][-1])
