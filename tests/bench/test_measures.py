"""Every measure of Lineshaft runs, on tiny sizes; nothing is said about how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report, rounds
from bench.contenders import ALL, OWN, PEERS, Contender
from bench.environment import PACKAGES, REQUIREMENTS
from bench.measures import MEASURES, SIDE_BY_SIDE
from bench.own import raw
from bench.own.coordinator import coordinator, sqlite_in
from bench.rounds import Measured, Sizes

TINY = Sizes(seconds=0.05, samples=3, share=0.01, rest=0.1, queued=1_000, rounds=1)
SDK = set(SIDE_BY_SIDE)
EXPECTED = {
    "lineshaft": SDK,
    "lineshaft-embedded": SDK,
    "lineshaft-protocol": {name for name in MEASURES if name.startswith(("raw_", "store_"))},
    "lineshaft-standing": {name for name in MEASURES if name.startswith(("rest_", "backlog_"))},
}
ROOT = Path(__file__).parents[2]


def measured(contender: Contender, sizes: Sizes = TINY) -> Measured:
    [one] = rounds.measure([contender], sizes, lambda text: None, {})
    return one


def run_of(*several: Measured) -> report.Run:
    machine = {
        "cores": 2,
        "cpu": "a processor",
        "memory_gb": 8,
        "system": "Linux",
        "fdatasync_p50_ms": 0.1,
        "fdatasync_p99_ms": 0.2,
        "load_before": 0.0,
    }
    return report.Run(date="2026-01-02", machine=machine, sizes=TINY, versions={}, measured=list(several))


@pytest.mark.slow
@pytest.mark.parametrize("contender", OWN, ids=lambda one: one.key)
def test_every_measure_of_ours_runs(contender: Contender) -> None:
    one = measured(contender)
    assert one.failure is None
    assert set(one.figures) == EXPECTED[contender.key]
    # What is at rest may take nothing; all else takes something.
    assert all(figure > 0 for name, figure in one.figures.items() if name != "rest_cpu")


def test_the_raw_client_notices_what_is_missing(tmp_path: Path) -> None:
    with coordinator(sqlite_in(tmp_path)) as server:
        raw.enqueue_bulk(server.url, "short", 400)
        with pytest.raises(raw.Failed, match="400 of 500"):
            raw.drain(server.url, "short", 500)
        with pytest.raises(raw.Failed, match="404"), raw.lines(server.url, 1) as [line]:
            line.call(raw.post("/_tasks/nobody/_complete", b'{"lease_token": "x"}'))
        assert server.commits() > 0


def test_who_cannot_be_run_says_why() -> None:
    missing = Contender(
        key="none",
        title="None",
        runs="bench.own.none:None",
        interpreter="own",
        drain=1,
        survives="",
        settings="",
    )
    one = measured(missing)
    assert one.failure is not None and "No module named 'bench.own.none'" in one.failure
    assert f"not measured: {one.failure}" in report.side_by_side(run_of(one))


def test_losses_are_named() -> None:
    served, embedded = OWN[:2]
    keeps_nothing = PEERS[0]
    [keeps_all] = [one for one in PEERS if one.key == "huey-sqlite"]
    run = run_of(
        Measured(contender=served, figures={"drain": 1000.0, "pick_up_p50": 0.5}),
        Measured(contender=embedded, figures={"drain": 1800.0, "pick_up_p50": 0.4}),
        Measured(contender=keeps_nothing, figures={"drain": 2000.0, "pick_up_p50": 0.6}),
        Measured(contender=keeps_all, figures={"drain": 1500.0, "pick_up_p50": 0.7}),
    )
    assert report.losses(run) == (
        "Where others are ahead of us:\n\n"
        "* Drain by one worker process: Celery\\* 2,000; Huey on SQLite 1,500 "
        "(tasks/s; ours 1,000, embedded 1,800)\n\n"
        "\\* keeps nothing when the power fails, or when its server is killed."
    )


def test_a_document_takes_the_tables_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    report.fill(page, "bench", "new | \\1")
    assert page.read_text() == "before\n<!-- bench -->\nnew | \\1\n<!-- /bench -->\nafter\n"
    with pytest.raises(ValueError, match=r"page\.md has no place for others"):
        report.fill(page, "others", "new")


@pytest.mark.parametrize(("marker", "file"), [("bench", "{}.json"), ("bench-stores", "{}-stores.json")])
def test_the_documents_show_the_same_run(marker: str, file: str) -> None:
    dates = set()
    for name in ("README.md", "docs/performance.md"):
        shown = (
            (ROOT / name).read_text().partition(f"<!-- {marker} -->")[2].partition(f"<!-- /{marker} -->")[0]
        )
        dates.add(shown.partition("Measured on ")[2][:10])
    [date] = dates
    assert not date or (ROOT / "bench" / "results" / file.format(date)).exists()


def test_peers_are_pinned_and_named_once() -> None:
    assert len({one.key for one in ALL}) == len(ALL)
    lines = [one for one in REQUIREMENTS.read_text().splitlines() if not one.startswith("#")]
    assert all("==" in one and "://" not in one for one in lines)
    packages = json.loads((PACKAGES / "package.json").read_text())["dependencies"]
    locked = (PACKAGES / "package-lock.json").read_text()
    assert all(version[0].isdigit() for version in packages.values())
    assert "://" not in locked
    installed = json.loads(locked)["packages"]
    assert {name: installed[f"node_modules/{name}"]["version"] for name in packages} == packages


def test_the_sources_of_ours_exist() -> None:
    for one in OWN:
        assert (ROOT / one.source).exists(), one.key
