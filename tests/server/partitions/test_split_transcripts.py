"""The conversations of the protocol with a tenant whose tasks are spread over three partitions."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from lineshaft.server.identity import Identity
from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from lineshaft.store.memory import MemoryStore
from lineshaft.values.partitions import partition_of
from lineshaft.wire import CALLS, PutTenant
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay

PARTITIONS = 3
TOGETHER = {
    "claims": ("-first", "-second", "-late"),  # tasks come in order of priority, which is a partition's
    "reports": tuple(f"-{number}" for number in range(1, 8)),  # tasks come in order of arrival, likewise
    "finding": ("-1", "-2", "-3"),  # what was enqueued within one millisecond is in no order over partitions
}
"""What follows `${run}` in the ids of tasks for whose order nothing is promised over partitions."""


def run_name(transcript: str) -> str:
    """Return a name by which those tasks are in one partition."""
    while True:
        run = "t" + secrets.token_hex(4)
        if len({partition_of(run + suffix, PARTITIONS) for suffix in TOGETHER.get(transcript, ())}) <= 1:
            return run


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path) -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0")
    async with running(settings, store=MemoryStore(shards=4)) as coordinator:
        body = PutTenant(partitions=PARTITIONS)
        await coordinator.calls.call(CALLS["put_tenant"], Identity(), id="default", body=body)
        run = run_name(path.stem)
        print(f"run {run}")
        await asyncio.to_thread(Replay(coordinator.url, run=run).run, path)
