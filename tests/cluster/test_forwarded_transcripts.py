"""The conversations of the protocol with a coordinator that has to forward every one of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cluster.fleet import fleet
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay

LOCAL = {"operations"}
"""`/metrics` tells of a tenant's tasks where its shard is."""


@pytest.mark.parametrize(
    "path", [path for path in transcripts() if path.stem not in LOCAL], ids=lambda path: path.stem
)
async def test_transcript(path: Path) -> None:
    async with fleet(2) as f:
        await asyncio.to_thread(Replay(f.other().url).run, path)
