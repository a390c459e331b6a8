"""The documentation as a site: it builds without a warning, asks nobody else, and leaves no metric out."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import blocks_of
from tests.docs.desk import ROOT, Desk

DOCS = ROOT / "docs"
METRICS = DOCS / "metrics.md"
GUIDES = [
    "capabilities", "cli", "clients", "concepts", "embedding", "guarantees", "metrics", "operations",
    "quickstart", "retries-and-time", "storage", "testing", "workers",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a warning (a dead link or anchor, a page outside the navigation) is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_document_has_a_page(site: Path) -> None:
    for document in DOCS.glob("*.md"):
        page = site / ("" if document.stem == "index" else document.stem) / "index.html"
        assert f"{document.read_text().splitlines()[0].removeprefix('# ')}" in page.read_text()


@pytest.mark.slow
def test_the_site_asks_no_other_server_for_anything(site: Path) -> None:
    fetched = re.compile(r"""(?:\bsrc=|<link[^>]+href=|url\(|@import )["']?(?:https?:)?//[^"')\s>]+""")
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css"):
            assert fetched.findall(path.read_text()) == [], path.relative_to(site)


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_says_what_it_is_for_shows_it_and_says_what_can_go_wrong(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text()
    title, purpose = re.split(r"\n\n", text, maxsplit=2)[:2]
    assert title.startswith("# ")
    assert re.match(r"[\w`]", purpose), "begins with something else than a sentence"
    rules = text.index("\n## ")
    assert "```" in text[:rules], "shows nothing before its first section"
    assert "\n## What can go wrong\n" in text


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[str]:
    """Give the page of metrics of a coordinator that has a queue."""
    with Desk(tmp_path) as desk:
        desk.serve()
        desk.run("lineshaft", "enqueue", "a")
        with urllib.request.urlopen(f"{desk.url}/metrics", timeout=10) as answer:
            yield answer.read().decode()


def test_metrics_page_explains_every_metric_and_event(metrics: str) -> None:
    there = re.findall(r"^# TYPE (\w+) (\w+)$", metrics, re.MULTILINE)
    page = METRICS.read_text()
    explained = re.findall(r"^\| `(\w+)(?:\{[\w, ]+\})?` \| (\w+) \|", page, re.MULTILINE)
    assert sorted(explained) == sorted(there)

    events = set(re.findall(r'event="(\w+)"', metrics))
    [table] = re.findall(r"^\| event \| is \|\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    rows = " ".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) == events


def test_metrics_page_has_the_labels(metrics: str) -> None:
    for name, labels in re.findall(r"^\| `(\w+)\{([\w, ]+)\}`", METRICS.read_text(), re.MULTILINE):
        [sample] = re.findall(rf"^{name}(?:_count)?\{{([^}}]*)\}}", metrics, re.MULTILINE)[:1]
        assert re.findall(r"(\w+)=", sample) == labels.split(", "), name


def test_alerts_ask_for_metrics_and_events_that_are_there(metrics: str) -> None:
    names = set(re.findall(r"^(\w+)[{ ]", metrics, re.MULTILINE))
    [block] = [block for block in blocks_of(METRICS) if block.file == "lineshaft-rules.yml"]
    rules = yaml.safe_load(block.text)["groups"][0]["rules"]
    assert len(rules) > 10
    for rule in rules:
        asked = set(re.findall(r"\blineshaft_\w+", rule["expr"]))
        assert asked <= names, rule["alert"]
        for events in re.findall(r'event=~?"([\w|]+)"', rule["expr"]):
            assert all(f'event="{event}"' in metrics for event in events.split("|")), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
