from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from tests.transcripts.matching import Mismatch
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay, main


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path, store: str, tmp_path: Path) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with running(ServerSettings(store=url, listen="127.0.0.1:0")) as coordinator:
        await asyncio.to_thread(Replay(coordinator.url).run, path)


async def test_the_runner_needs_only_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(ServerSettings(listen="127.0.0.1:0")) as coordinator:
        for _ in range(2):
            assert await asyncio.to_thread(main, [coordinator.url, "bulk", "reports"]) == 0
    assert capsys.readouterr().out.split() == ["ok", "bulk", "ok", "reports"] * 2


@pytest.mark.parametrize(
    ("expected", "complaint"),
    [
        ("< 200", "expected 200, got 201"),
        ('< 201\n{"state": "running"}', 'body.state: expected "running", got "queued"'),
        ('< 201\n{"task_id": "<integer>"}', "body.task_id: expected"),
        ('< 201\n{"colour": 1}', "body.colour is missing"),
        ("< 201\nAllow: GET", "Allow: expected"),
        ("< 201\ncontains x y", "the answer has no x y"),
        ("< 201\nlacks task_id", "the answer has task_id"),
        ("< 201\nempty", "expected no body"),
    ],
)
async def test_a_transcript_that_is_wrong_says_where(expected: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text('> POST /_tasks\n{"name": "n"}\n' + expected + "\n")
    async with running(ServerSettings(listen="127.0.0.1:0")) as coordinator:
        with pytest.raises(Mismatch, match=r"wrong\.txt:3: ") as caught:
            await asyncio.to_thread(Replay(coordinator.url).run, path)
    assert complaint in str(caught.value)
