"""The conversations of the protocol with a tenant whose tasks are spread over three partitions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lineshaft.server.identity import Identity
from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from lineshaft.store.memory import MemoryStore
from lineshaft.wire import CALLS, PutTenant
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay

PARTITIONS = 3


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path) -> None:
    settings = ServerSettings(store="memory://", listen="127.0.0.1:0")
    async with running(settings, store=MemoryStore(shards=4)) as coordinator:
        body = PutTenant(partitions=PARTITIONS)
        await coordinator.calls.call(CALLS["put_tenant"], Identity(), id="default", body=body)
        await asyncio.to_thread(Replay(coordinator.url).run, path)
