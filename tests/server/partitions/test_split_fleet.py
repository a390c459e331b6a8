"""A tenant whose partitions different coordinators have."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lineshaft.values.partitions import partition_of
from tests.cluster.fleet import Fleet, fleet
from tests.server.partitions.test_split_transcripts import PARTITIONS, run_name
from tests.transcripts.parsing import transcripts
from tests.transcripts.runner import Replay


@pytest.fixture(name="fleet")
async def give_fleet() -> AsyncIterator[Fleet]:
    async with fleet(2, shards=4) as given:
        status, answer = await given.call(
            given.ships[0], "PUT", "/_tenants/default", {"partitions": PARTITIONS}
        )
        assert (status, answer["partitions"]) == (200, PARTITIONS)
        for ship in given.ships:
            assert ship.coordinator.calls.partitioned["default"].count == PARTITIONS
        yield given


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
async def test_transcript(path: Path, fleet: Fleet) -> None:
    for ship in fleet.ships:
        if path.stem == "operations" and 0 not in ship.shards:
            continue  # it looks at the metrics of shard 0, which are its owner's
        run = run_name(path.stem)
        print(f"run {run}")
        await asyncio.to_thread(Replay(ship.url, run=run).run, path)


@pytest.mark.parametrize("seed", range(2))
async def test_tasks_that_come_and_go_at_two_coordinators_are_all_done_once(fleet: Fleet, seed: int) -> None:
    chance, total = random.Random(seed), 120
    done: Counter[str] = Counter()
    finished = asyncio.Event()

    async def produce(first: int) -> None:
        for n in range(first, first + total // 2, 10):
            body = [{"name": "n", "task_id": f"f{number}"} for number in range(n, n + 10)]
            status, answer = await fleet.call(chance.choice(fleet.ships), "POST", "/_tasks/_bulk", body)
            assert (status, {item["status"] for item in answer["items"]}) == (200, {201})

    async def work(number: int) -> None:
        while not finished.is_set():
            claim: dict[str, Any] = {"max": chance.randint(1, 5), "wait": "100ms"}
            if number % 2:
                claim |= {"worker": {"id": f"w{number}"}, "claim_id": f"{number}-{chance.random()}"}
            status, claimed = await fleet.call(chance.choice(fleet.ships), "POST", "/_tasks/_claim", claim)
            assert status == 200, claimed
            items = [
                {"op": "complete", "task_id": task["task_id"], "lease_token": task["lease_token"]}
                for task in claimed["tasks"]
            ]
            ship = chance.choice(fleet.ships)
            status, reported = await fleet.call(ship, "POST", "/_tasks/_report", {"items": items})
            assert [item["status"] for item in reported["items"]] == [200] * len(items)
            done.update(item["task_id"] for item in items)
            if len(done) == total:
                finished.set()

    async with asyncio.timeout(60):
        await asyncio.gather(produce(0), produce(total // 2), *(work(number) for number in range(4)))
    assert set(done.values()) == {1}
    _, stats = await fleet.call(fleet.ships[1], "GET", "/_stats")
    assert stats["counts"]["completed"] == total


async def test_partitions_move_with_their_shards(fleet: Fleet) -> None:
    ids = [f"m{number}" for number in range(12)]
    assert len({partition_of(id, PARTITIONS) for id in ids}) == PARTITIONS
    leaving, staying = fleet.ships
    await fleet.call(leaving, "POST", "/_tasks/_bulk", [{"name": "n", "task_id": id} for id in ids])
    waiting = asyncio.ensure_future(
        fleet.call(staying, "POST", "/_tasks/_claim", {"max": 1, "wait": "30s", "queues": ["later"]})
    )
    await fleet.until(lambda: _parked(fleet) >= PARTITIONS)
    await fleet.stop(leaving)
    status, listed = await fleet.call(staying, "GET", "/_tasks?state=queued")
    assert (status, sorted(task["task_id"] for task in listed["tasks"])) == (200, sorted(ids))
    status, claimed = await fleet.call(staying, "POST", "/_tasks/_claim", {"max": 100, "wait": "10s"})
    assert (status, len(claimed["tasks"])) == (200, len(ids))
    await fleet.call(staying, "PUT", "/_tasks/late", {"name": "n", "queue": "later"})
    status, answer = await waiting
    assert status == 200
    if not answer["tasks"]:  # it was sent away when the shard moved, and would have come again
        status, answer = await fleet.call(staying, "POST", "/_tasks/_claim", {"queues": ["later"], "max": 1})
    assert [task["task_id"] for task in answer["tasks"]] == ["late"]


def _parked(fleet: Fleet) -> int:
    return sum(metrics.parked for ship in fleet.ships for metrics in ship.engine.metrics())


async def test_a_coordinator_that_joins_knows_the_partitions(fleet: Fleet) -> None:
    await fleet.call(fleet.ships[0], "PUT", "/_tasks/a", {"name": "n"})
    ship = await fleet.launch()
    assert ship.coordinator.calls.partitioned["default"].count == PARTITIONS
    assert (await fleet.call(ship, "GET", "/_tasks/a"))[0] == 200
    status, refused = await fleet.call(ship, "PUT", "/_tenants/default", {"partitions": 2})
    assert (status, refused["error"]["field"]) == (409, "partitions")


class Crowd:
    """Clients and workers that find coordinators coming and going, and repeat what was not answered."""

    def __init__(self, fleet: Fleet, *, seed: int) -> None:
        self.fleet = fleet
        self.chance = random.Random(seed)
        self.moved = asyncio.Event()
        """Coordinators come and go no more."""
        self.sent: set[str] = set()
        self.done: set[str] = set()
        self.produced = False

    @property
    def over(self) -> bool:
        return self.produced and self.done == self.sent

    async def ask(self, method: str, path: str, body: Any) -> Any:
        """Make a call at whichever coordinator is there, until one answers."""
        while True:
            ship = self.chance.choice(self.fleet.ships)
            try:
                status, answer = await self.fleet.call(ship, method, path, body)
            except aiohttp.ClientError:
                continue  # it has just left
            if status not in (421, 429, 503):
                assert status == 200, answer
                return answer
            await asyncio.sleep(0.02)

    async def produce(self) -> None:
        while not self.moved.is_set():
            ids = [f"l{len(self.sent) + number}" for number in range(5)]
            answer = await self.ask("POST", "/_tasks/_bulk", [{"name": "n", "task_id": id} for id in ids])
            assert {item["status"] for item in answer["items"]} <= {200, 201}
            self.sent.update(ids)
        self.produced = True

    async def work(self, number: int) -> None:
        turn = 0
        while not self.over:
            turn += 1
            claim = {"max": 5, "wait": "200ms", "lease": "2s", "claim_id": f"{number}-{turn}"}
            claimed = await self.ask("POST", "/_tasks/_claim", claim)
            items = [
                {"op": "complete", "task_id": task["task_id"], "lease_token": task["lease_token"]}
                for task in claimed["tasks"]
            ]
            reported = await self.ask("POST", "/_tasks/_report", {"items": items})
            for item, answer in zip(items, reported["items"], strict=True):
                if answer["status"] == 200:
                    self.done.add(item["task_id"])
                else:  # its lease ran out while nobody answered
                    assert answer["error"]["type"] == "lease_lost", answer

    async def come_and_go(self, times: int) -> None:
        for _ in range(times):
            await self.fleet.launch()
            await self.fleet.until(lambda: self.fleet.settled)
            await self.fleet.stop(self.fleet.ships[0])
            await self.fleet.until(lambda: self.fleet.settled)
        self.moved.set()


async def completions(fleet: Fleet) -> Counter[str]:
    """Return how often each task was completed, as the change feed tells it."""
    told: Counter[str] = Counter()
    after = "0"
    while True:
        path = f"/_tasks/_changes?after={after}&limit=1000"
        status, feed = await fleet.call(fleet.ships[0], "GET", path)
        assert status == 200, feed
        if not feed["changes"]:
            return told
        told.update(change["task_id"] for change in feed["changes"] if change["state"] == "completed")
        after = feed["next"]


async def test_while_partitions_move_under_load_nothing_is_lost_and_nothing_done_twice(fleet: Fleet) -> None:
    crowd = Crowd(fleet, seed=5)
    async with asyncio.timeout(110):
        await asyncio.gather(crowd.come_and_go(4), crowd.produce(), *(crowd.work(n) for n in range(4)))
    told = await completions(fleet)
    assert set(told.values()) == {1}
    assert told.keys() == crowd.sent
    print(f"{len(crowd.sent)} tasks")
