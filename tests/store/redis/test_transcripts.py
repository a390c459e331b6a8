"""The protocol is the same on Valkey, to the last exchange of every transcript."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path, valkey_url: str) -> None:
    async with running(ServerSettings(store=f"{valkey_url}?shards=2", listen="127.0.0.1:0")) as coordinator:
        await asyncio.to_thread(Replay(coordinator.url).run, path)
