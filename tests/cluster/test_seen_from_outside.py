"""What people are told of several coordinators: health, metrics, doctor's findings, refusals."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import TestCase

import pytest

from lineshaft.cli.coordinator_checks import _others
from lineshaft.engine.engine import Engine
from lineshaft.errors import Invalid
from lineshaft.server.cluster_metrics import sample
from lineshaft.server.serve import running
from lineshaft.server.settings import ServerSettings
from lineshaft.store.base import StoreInUse
from lineshaft.wire import CoordinatorInfo, Health
from tests.cluster.crew import LEASE, Crew, with_crew
from tests.cluster.fleet import fleet


async def test_health_names_all_coordinators_and_who_has_what() -> None:
    async with fleet(2) as f:
        for ship in f.ships:
            status, health = await f.call(ship, "GET", "/_health/ready")
            assert status == 200 and health["owner"] == ship.url
            told = {one["address"]: one for one in health["coordinators"]}
            assert {url: one["shards"] for url, one in told.items()} == {s.url: s.shards for s in f.ships}
            assert [url for url, one in told.items() if one["here"]] == [ship.url]


async def test_health_says_where_the_roster_cannot_be_kept() -> None:
    async with fleet(2) as f:
        ship = f.ships[0]
        ship.line.refuses.add("swap_roster")
        await f.until(lambda: ship.engine.membership.trouble is not None)  # type: ignore[union-attr]
        status, health = await f.call(ship, "GET", "/_health/ready")
        assert status == 503 and "the roster of coordinators cannot be kept" in health["reason"]
        ship.line.refuses.clear()
        await f.until(lambda: ship.engine.trouble() is None)


async def test_metrics_tell_of_a_tenants_tasks_at_one_coordinator_only() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        await f.call(other, "PUT", "/_tasks/a", {"name": "n"})
        there, here = [(await f.call(ship, "GET", "/metrics"))[1] for ship in (owner, other)]
        assert 'lineshaft_tasks{queue="default",state="queued"} 1' in there
        assert "lineshaft_tasks{" not in here and "lineshaft_workers" not in here
        assert 'lineshaft_forwarded_requests_total{outcome="answered"} 1' in here
        for page in (there, here):
            assert "lineshaft_shards 2" in page and "lineshaft_coordinators 2" in page


def info(address: str, **more: object) -> CoordinatorInfo:
    fields: dict[str, object] = {
        "shards": [0],
        "here": False,
        "leaving": False,
        "version": "1",
        "joined_at": "2026-01-01T00:00:00Z",
        "silent_for": 0.1,
    }
    return CoordinatorInfo(address=address, **(fields | more))  # type: ignore[arg-type]


def found(*coordinators: CoordinatorInfo) -> list[tuple[str, str]]:
    health = Health(status="ok", coordinators=list(coordinators))
    return [(finding.status, finding.found) for finding in _others(health)]


def test_the_doctor_finds_what_keeps_coordinators_from_each_other() -> None:
    assert found(info("http://a:1"), info("http://b:1")) == [
        ("ok", "http://a:1 has 1 shards"),
        ("ok", "http://b:1 has 1 shards"),
    ]
    assert all(status == "warning" for status, _ in found(info("http://a:1"), info("http://a:1")))
    assert "other machines" in found(info("http://127.0.0.1:1"), info("http://b:1"))[0][1]
    assert [status for status, _ in found(info("http://127.0.0.1:1"), info("http://127.0.0.1:2"))] == [
        "ok"
    ] * 2
    assert "cannot reach" in found(info(""))[0][1]
    assert "silent for 60 s" in found(info("http://a:1", silent_for=60.0))[0][1]
    assert ("warning", "the coordinators are 1, 2") in found(
        info("http://a:1"), info("http://b:1", version="2")
    )


@with_crew("a")
async def test_a_command_on_the_store_itself_is_refused_while_a_coordinator_is_at_work(crew: Crew) -> None:
    [a] = crew.mates

    def alone() -> Engine:
        return Engine(crew.shared.line(), clock=crew.clock, limits=crew.limits, alone=True)

    silent = TestCase().assertNoLogs("lineshaft.engine", "WARNING")
    with silent, pytest.raises(StoreInUse, match="http://a"):
        await alone().__aenter__()
    assert crew.settled and len(crew.roster.members) == 1
    crew.kill(a)
    began = crew.clock.monotonic()
    async with alone() as engine:  # one that has died is waited for
        assert sorted(engine.runners) == [0, 1, 2, 3]
        assert crew.clock.monotonic() - began <= LEASE
    assert crew.roster.members == ()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"address": "coordinator-1:7077"}, "address"),
        ({"address": "http://coordinator-1:7077/path"}, "address"),
        ({"address": "redis://coordinator-1:7077"}, "address"),
        ({"address": "http://user@coordinator-1:7077"}, "address"),
        ({"ownership_lease": 0.1}, "ownership_lease"),
    ],
)
async def test_what_cannot_work_is_refused_at_the_start(wrong: dict[str, object], field: str) -> None:
    settings = ServerSettings(listen="127.0.0.1:0", **wrong)  # type: ignore[arg-type]
    with pytest.raises(Invalid) as refused:
        async with running(settings):
            pass
    assert refused.value.field == field


async def test_the_page_on_clustering_explains_every_metric_of_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clustering.md").read_text()
    explained = dict(re.findall(r"^\| `(lineshaft_\w+)(?:\{\w+\})?` \| (\w+) \|", page, re.MULTILINE))
    async with fleet(1) as f:
        families = sample(f.ships[0].engine, {})
    assert explained == {f"lineshaft_{family.name}": family.kind for family in families}
