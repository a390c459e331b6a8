"""Every measure of the stores runs, on tiny sizes; nothing is said about how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import environment, rounds
from bench.measures import MEASURES, SIDE_BY_SIDE
from bench.report import Run
from bench.rounds import Measured, Sizes
from bench.stores import report
from bench.stores.contenders import ALL, OTHERS, SERVERS, on
from tests import servers

TINY = Sizes(seconds=0.05, samples=3, share=0.01, rest=0.3, queued=1_000, rounds=1)
RAW = {name for name in MEASURES if name.startswith("raw_")}
STORE = {"store_bulk", "store_drain"}
COMMITS = {name for name in MEASURES if name.startswith("commit_")}
LOAD = {name for name in MEASURES if name.startswith("load_")}
OBVIOUS = set(SIDE_BY_SIDE) - {"round_trip_p50"}
EXPECTED = {
    "raw-memory": RAW,
    "raw-sqlite": RAW | STORE,
    "sdk-sqlite": set(SIDE_BY_SIDE),
    "bare-sqlite": COMMITS,
    "standing-memory": {"load_enqueue", "load_memory"},
    "standing-sqlite": LOAD,
    "obvious-in-order": OBVIOUS,
    "obvious-out-of-order": OBVIOUS,
    "bare-opensearch": COMMITS,
    "raw-opensearch": RAW | STORE,
    "standing-opensearch": LOAD | {"failover", "idle_requests"},
}
BY_KEY = {one.key: one for one in ALL}
MACHINE = {
    "cores": 2,
    "cpu": "a processor",
    "memory_gb": 8,
    "system": "Linux",
    "fdatasync_p50_ms": 0.1,
    "fdatasync_p99_ms": 0.2,
    "load_before": 0.0,
}


def run_of(*several: Measured) -> Run:
    return Run(date="2026-01-02", machine=MACHINE, sizes=TINY, versions={}, measured=list(several))


@pytest.fixture(scope="module")
def node() -> servers.SearchServer:
    return servers.opensearch()


@pytest.mark.slow
@pytest.mark.parametrize("key", EXPECTED)
def test_every_measure_of_a_store_runs(key: str, request: pytest.FixtureRequest) -> None:
    contender = BY_KEY[key]
    url, pid = "", 0
    match contender.server:
        case "opensearch":
            node: servers.SearchServer = request.getfixturevalue("node")
            url, pid = node.fresh(), node.pid
        case "memory":
            url = "memory://"
    told = rounds.one(contender, TINY, url, pid)
    assert set(told["figures"]) == EXPECTED[key]
    # Where little is measured memory and disk may not grow, and nothing may come in a moment of idleness.
    at_least = {name: 0.0 for name in EXPECTED[key] if not name.startswith(("load_", "idle_"))}
    assert all(told["figures"][name] > least for name, least in at_least.items())


def test_contenders_are_named_once_and_say_what_they_run_on() -> None:
    assert len(BY_KEY) == len(ALL)
    assert {on(one) for one in ALL} <= set(SERVERS)
    assert {one.key for one in OTHERS} == {"graphile", "pgboss", "procrastinate", "bullmq", "bullmq-durable"}
    assert all((environment.HERE.parent / one.source).exists() for one in ALL if one.interpreter == "own")


def test_the_tables_stand_by_what_one_runs_on() -> None:
    run = run_of(
        measured("raw-postgres", raw_bulk=50_000.0, raw_drain=30_000.0, raw_pick_up_p50=1.5),
        measured("graphile", drain=20_000.0, pick_up_p50=3.0),
        measured("bare-postgres", commit_1k_p50=0.5),
        measured("standing-postgres", idle_requests=1.0, failover=5.5),
        Measured(contender=BY_KEY["obvious-in-order"], failure="no node"),
    )
    assert report.side_by_side(run).splitlines()[2:] == [
        "| Obvious mapping, in order | OpenSearch | power loss | not measured: no node |  |  |  |  |  |",
        "| Lineshaft, raw client | PostgreSQL | power loss | – | – | 50,000 | 30,000 | 1.50 | – |",
        "| Graphile Worker | PostgreSQL | power loss | – | – | – | 20,000 | 3.00 | – |",
    ]
    assert "| PostgreSQL | 0.50 | – | – | – | – | 50,000 | – | 30,000 |" in report.layers(run)
    assert "| PostgreSQL | 1.00 | 5.50 | – | – | – | – |" in report.standing(run)
    assert report.goals(run).splitlines()[2:] == [
        "| PostgreSQL, pick-up p50 | 1.50 | ≤ 2 | yes |",
        "| PostgreSQL, drain | 30,000 | > 20,000 | yes |",
    ]


def test_a_run_of_nothing_has_no_tables(tmp_path: Path) -> None:
    assert not any((report.side_by_side(run_of()), report.layers(run_of()), report.goals(run_of())))


def measured(key: str, **figures: float) -> Measured:
    return Measured(contender=BY_KEY[key], figures=figures)
