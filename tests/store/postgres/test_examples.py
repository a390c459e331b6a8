"""The examples of enqueueing in a transaction run, and show what they say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.desk import ROOT, Desk

EXAMPLES = ROOT / "examples" / "transactional_enqueue"


@pytest.fixture
def desk(tmp_path: Path, postgres_url: str) -> Iterator[Desk]:
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with Desk(tmp_path) as desk:
        desk.serve(f"lineshaft serve --store '{postgres_url}?shards=2'")
        desk.start("lineshaft worker shipping:app --queues shipping")
        yield desk


def test_a_task_exists_exactly_if_the_row_does(desk: Desk, postgres_url: str) -> None:
    for name in ("with_psycopg.py", "with_sqlalchemy.py"):
        assert desk.run("python", name, DATABASE_URL=postgres_url).splitlines() == [
            "rolled back: nothing is ordered",
            "committed: a pulley of order 2 is on its way",
            "orders: 1, tasks: 1",
        ]
