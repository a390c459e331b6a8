"""Coordinators on one store, and the servers of the store, killed and frozen while tasks go through.

    python -m tests.cluster.soak --store opensearch --tasks 20000 --mishaps all --seed 1

Producers and workers ask whichever coordinator they happen to, and repeat what was not answered, by task id,
claim id and lease token. In the end every acknowledged task must be there and completed, by one lease, and
nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import aiohttp

from tests.cluster.backing import Mishap, backing, kinds
from tests.cluster.processes import PATIENCE, Clients, Served, Start, crew

LEASE = "10s"
SHORT, LONG = 1.0, 7.0
"""For how long a coordinator stands still: within its ownership lease of 5 s, and beyond it."""
SAMPLE = 200
WRONG = ("lost", "made up", "completed twice", "other results")
OPEN = ("scheduled", "queued", "claimed", "running")


class Soak:
    """One soak: `run`, then `verdict`."""

    def __init__(
        self, clients: Clients, *, tasks: int, seed: int, lot: int = 5, patience: float = 30
    ) -> None:
        """`lot` tasks go in one request; after `patience` seconds without an answer another is asked."""
        self._clients = clients
        self._fleet = clients.fleet
        self._tasks = tasks
        self._lot = lot
        self._patience = patience
        self._random = Random(seed)
        self.enough = asyncio.Event()
        """Set: nothing more is produced than `tasks`."""
        self.produced = asyncio.Event()
        """Set when all is produced."""
        self.acknowledged: dict[str, float] = {}
        """When each task was acknowledged first (by the monotonic clock)."""
        self.sent: set[str] = set()
        self.completions: dict[str, set[str]] = {}
        """Lease tokens with which each task was completed, as far as was acknowledged."""
        self.mishaps: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()

    async def run(self, mishaps: Mapping[str, Mishap], *, producers: int = 4, workers: int = 8) -> float:
        """Let tasks go through while things go wrong; return how long it took (seconds).

        One mishap follows the other as long as something is produced, and something is produced until there
        was at least one of each.
        """
        began = time.monotonic()
        share = self._tasks // producers
        producing = [asyncio.create_task(self._produce(f"p{n}", share)) for n in range(producers)]
        working = [asyncio.create_task(self._work(f"w{n}")) for n in range(workers)]
        trouble = asyncio.create_task(self._trouble(mishaps))
        try:
            await _all([*producing, trouble], but_for=working)
            await self._clients.settled()
            await self._drained(working)
        finally:
            for task in (*producing, *working, trouble):
                task.cancel()
            await asyncio.gather(*producing, *working, trouble, return_exceptions=True)
        return time.monotonic() - began

    async def _insist(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Ask one coordinator or another until one answers."""
        while True:
            served = self._random.choice(self._fleet)
            try:
                async with asyncio.timeout(self._patience):
                    status, answer = await self._clients.ask(served, method, path, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.repeated[type(error).__name__] += 1
            else:
                if status not in (429, 503):
                    return status, answer
                self.repeated[str(status)] += 1
            await asyncio.sleep(self._random.uniform(0.02, 0.2))

    async def _produce(self, name: str, count: int) -> None:
        number = 0
        while number < count or not self.enough.is_set():
            ids = [f"{name}-{number + n}" for n in range(self._lot)]
            number += self._lot
            self.sent.update(ids)
            body = [{"name": "n", "task_id": id, "payload": id, "max_retries": 50} for id in ids]
            status, answer = await self._insist("POST", "/_tasks/_bulk", body)
            assert status == 200, answer
            now = time.monotonic()
            for id, item in zip(ids, answer["items"], strict=True):
                assert item["status"] in (200, 201), item
                self.acknowledged[id] = now
            if number >= count:  # the rest is only there so that no mishap finds all at rest
                await asyncio.sleep(0.1)
            if len(self.sent) >= self._tasks:
                self.produced.set()

    async def _work(self, name: str) -> None:
        count = 0
        while True:
            count += 1
            claim = {
                "claim_id": f"{name}.{count}",
                "max": self._lot,
                "wait": "2s",
                "lease": LEASE,
                "worker": {"id": name},
            }
            status, answer = await self._insist("POST", "/_tasks/_claim", claim)
            assert status == 200, answer
            if not answer["tasks"]:
                continue
            items = []
            for task in answer["tasks"]:
                assert task["payload"] == task["task_id"]
                token = task["lease_token"]
                items.append(
                    {"op": "complete", "task_id": task["task_id"], "lease_token": token, "result": token}
                )
            status, answer = await self._insist("POST", "/_tasks/_report", {"items": items})
            assert status == 200, answer
            for item, told in zip(items, answer["items"], strict=True):
                if told["status"] == 200:
                    self.completions.setdefault(item["task_id"], set()).add(item["lease_token"])

    async def _trouble(self, mishaps: Mapping[str, Mishap]) -> None:
        while not self.produced.is_set() or len(self.mishaps) < len(mishaps):
            await asyncio.sleep(self._random.uniform(0.5, 2.0))
            what = self._random.choice([what for what in mishaps if not self.mishaps[what]] or list(mishaps))
            self.mishaps[what] += 1
            await mishaps[what](self._random)
        self.enough.set()

    async def _drained(self, working: list[asyncio.Task[None]]) -> None:
        async def until_nothing_is_open() -> None:
            while True:
                _, stats = await self._insist("GET", "/_stats", None)
                if not any(stats["counts"].get(state) for state in OPEN):
                    return
                await asyncio.sleep(0.2)

        async with asyncio.timeout(5 * PATIENCE):
            await _all([asyncio.create_task(until_nothing_is_open())], but_for=working)

    async def stored(self) -> dict[str, dict[str, Any]]:
        """Return all tasks by id, as they are stored now."""
        found: dict[str, dict[str, Any]] = {}
        after: str | None = None
        while True:
            path = "/_tasks?limit=1000" + (f"&after={after}" if after else "")
            _, page = await self._insist("GET", path, None)
            found |= {task["task_id"]: task for task in page["tasks"]}
            after = page.get("next")
            if after is None:
                return found

    async def verdict(self) -> dict[str, int]:
        """Compare what is stored with what was acknowledged."""
        found = await self.stored()
        sample = self._random.sample(sorted(self.completions), min(SAMPLE, len(self.completions)))
        return {
            "acknowledged": len(self.acknowledged),
            "lost": sum(id not in found or found[id]["state"] != "completed" for id in self.acknowledged),
            "made up": sum(id not in self.sent for id in found),
            "completed twice": sum(len(tokens) > 1 for tokens in self.completions.values()),
            "other results": sum([await self._result(id) not in self.completions[id] for id in sample]),
        }

    async def _result(self, id: str) -> Any:
        _, task = await self._insist("GET", f"/_tasks/{id}", None)
        return task.get("result")


def mishaps_of_coordinators(
    fleet: list[Served], store: str, start: Start = Served.start
) -> dict[str, Mishap]:
    """Return what may happen to coordinators, each time to one of them."""

    async def freeze(random: Random) -> None:
        await stand_still(random.choice(fleet), SHORT)

    async def freeze_long(random: Random) -> None:
        await stand_still(random.choice(fleet), LONG)

    async def stand_still(served: Served, seconds: float) -> None:
        served.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        served.signal(signal.SIGCONT)

    async def kill(random: Random) -> None:
        await replace(random.choice(fleet), signal.SIGKILL)

    async def stop(random: Random) -> None:
        await replace(random.choice(fleet), signal.SIGTERM)

    async def replace(served: Served, number: int) -> None:
        fleet.remove(served)
        served.signal(number)
        await served.ended()
        fleet.append(await start(store))

    return {
        "coordinator killed": kill,
        "coordinator frozen": freeze,
        "coordinator frozen past its lease": freeze_long,
        "coordinator stopped": stop,
    }


async def soak(
    kind: str, *, tasks: int, seed: int, mishaps: str = "all", lot: int = 5, partitions: int = 1
) -> dict[str, int]:
    """Run one soak on servers of its own, and print what it was like."""
    async with backing(kind) as behind, crew(behind.url, 3) as clients:
        if partitions > 1:
            body = {"partitions": partitions}
            status, answer = await clients.ask(clients.fleet[0], "PUT", "/_tenants/default", body)
            assert status in (200, 201), answer
        known = {
            "coordinators": mishaps_of_coordinators(clients.fleet, behind.url),
            "servers": behind.mishaps,
        }
        chosen = known["coordinators"] | known["servers"] if mishaps == "all" else known[mishaps]
        run = Soak(clients, tasks=tasks, seed=seed, lot=lot)
        took = await run.run(chosen)
        verdict = await run.verdict()
        print(f"{kind}: {len(run.sent)} tasks in {took:.0f} s, seed {seed}; {dict(run.mishaps)}")
        print(f"{kind}: asked again after {dict(run.repeated)}")
        print(f"{kind}: {verdict}", flush=True)
        return verdict


async def _all(tasks: list[asyncio.Task[None]], *, but_for: list[asyncio.Task[None]]) -> None:
    """Wait for `tasks`; raise at once what ends one of them, or of those that go on."""
    pending = set(tasks)
    while pending:
        done, _ = await asyncio.wait({*pending, *but_for}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        pending -= done


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak several coordinators on one store.")
    parser.add_argument("--store", choices=kinds(), default="valkey")
    parser.add_argument("--tasks", type=int, default=20_000, help="at least so many (default 20000)")
    parser.add_argument("--mishaps", choices=["coordinators", "servers", "all"], default="all")
    parser.add_argument("--lot", type=int, default=5, help="tasks of one request (default 5)")
    parser.add_argument("--partitions", type=int, default=1, help="of the tenant (default 1)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    verdict = asyncio.run(
        soak(
            given.store,
            tasks=given.tasks,
            seed=given.seed,
            mishaps=given.mishaps,
            lot=given.lot,
            partitions=given.partitions,
        )
    )
    raise SystemExit(any(verdict[what] for what in WRONG))


if __name__ == "__main__":
    main()
