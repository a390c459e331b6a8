from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path, store: str, tmp_path: Path) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with running(ServerSettings(store=url, listen="127.0.0.1:0")) as coordinator:
        await asyncio.to_thread(Replay(coordinator.url).run, path)
