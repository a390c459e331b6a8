from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from lineshaft.errors import BY_TYPE, LineshaftError
from lineshaft.server.router import Router
from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from lineshaft.wire import CALLS
from tests.transcripts.matching import Mismatch
from tests.transcripts.parsing import Expect, Send, parse, transcripts
from tests.transcripts.runner import Replay, main


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path, store: str, tmp_path: Path) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with running(ServerSettings(store=url, listen="127.0.0.1:0")) as coordinator:
        await asyncio.to_thread(Replay(coordinator.url).run, path)


async def test_the_runner_needs_only_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(ServerSettings(store="memory://", listen="127.0.0.1:0")) as coordinator:
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
    async with running(ServerSettings(store="memory://", listen="127.0.0.1:0")) as coordinator:
        with pytest.raises(Mismatch, match=r"wrong\.txt:3: ") as caught:
            await asyncio.to_thread(Replay(coordinator.url).run, path)
    assert complaint in str(caught.value)


NOT_HERE = {"new_key", "revoke_key"}
"""From the first key on a coordinator asks for one: these are tried in tests/server."""


def test_every_call_and_every_status_of_success_is_in_a_transcript() -> None:
    router = Router(CALLS.values())
    seen: set[str] = set()
    for path in transcripts():
        for step in parse(path):
            if isinstance(step, Send):
                raw_path = re.sub(r"\$\{[^}]*\}", "x", step.path).partition("?")[0]
                with contextlib.suppress(LineshaftError):
                    seen.add(router.match(step.method, raw_path)[0].name)
    assert CALLS.keys() - seen == NOT_HERE


def test_every_error_that_can_be_caused_from_outside_is_in_a_transcript() -> None:
    steps = [step for path in transcripts() for step in parse(path)]
    bodies = " ".join(step.body for step in steps if isinstance(step, Expect))
    seen = set(re.findall(r'"type": "(\w+)"', bodies))
    caused_inside = {"error", "overloaded", "unavailable", "not_owner", "cursor_expired", "request_timeout"}
    assert {name for name, error in BY_TYPE.items() if error.status < 500} - caused_inside <= seen
