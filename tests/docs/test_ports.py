"""The programs that were ported from other queues do here what they did there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.desk import ROOT, Desk

PORTS = ROOT / "examples" / "coming_from"
PAID = "order 7: 5 paid\n"
"""What `before` printed with the peer itself, too."""

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Give a desk with a coordinator."""
    with Desk(tmp_path) as desk:
        desk.serve()
        yield desk


@pytest.mark.parametrize("peer", ["celery", "dramatiq"])
def test_python_port(desk: Desk, peer: str) -> None:
    shutil.copy(PORTS / peer / "after.py", desk.folder)
    desk.start("lineshaft worker after:app")
    assert desk.run("python", "after.py") == PAID
    assert _attempts_of_prices(desk, "fetch_price") == [3, 3]


def test_node_port(desk: Desk) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not here; that port needs it")
    shutil.copy(PORTS / "bullmq" / "after.mjs", desk.folder)
    desk.start("node after.mjs worker")
    assert desk.run("node", "after.mjs") == PAID
    assert _attempts_of_prices(desk, "fetchPrice") == [3, 3]


def test_every_peer_has_its_program_before_and_after_and_a_page() -> None:
    for folder in (one for one in PORTS.iterdir() if one.is_dir()):
        assert {path.stem for path in folder.iterdir() if path.is_file()} == {"before", "after"}
        assert (ROOT / "docs" / f"coming-from-{folder.name}.md").is_file()


def _attempts_of_prices(desk: Desk, name: str) -> list[int]:
    """Both were refused twice before a price came, as with the peer."""
    import json

    lines = desk.run("lineshaft", "tasks", "list", "--name", name, "--json", "--all").splitlines()
    return [json.loads(line)["attempt"] for line in lines]
