"""Coordinators on one store, killed, frozen, stopped and started while tasks go through: what is lost?

    python -m tests.cluster.soak --store valkey --tasks 20000 --seed 1

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
from random import Random
from typing import Any

import aiohttp

from tests import servers
from tests.cluster.processes import PATIENCE, Clients, Served, crew

LEASE = "10s"
KINDS = ("kill", "freeze", "stop")


class Soak:
    """One soak: `run`, then `verdict`."""

    def __init__(self, clients: Clients, store: str, *, tasks: int, seed: int) -> None:
        self._clients = clients
        self._fleet = clients.fleet
        self._store = store
        self._tasks = tasks
        self._random = Random(seed)
        self._stopping = asyncio.Event()
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.completions: dict[str, set[str]] = {}
        """Lease tokens with which each task was completed, as far as was acknowledged."""
        self.mishaps: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()

    async def run(self, *, producers: int = 4, workers: int = 8) -> float:
        """Let all tasks go through, while things go wrong; return how long it took (seconds)."""
        began = time.monotonic()
        share = self._tasks // producers
        producing = [asyncio.create_task(self._produce(f"p{n}", share)) for n in range(producers)]
        working = [asyncio.create_task(self._work(f"w{n}")) for n in range(workers)]
        trouble = asyncio.create_task(self._trouble())
        await asyncio.gather(*producing)
        self._stopping.set()
        await trouble
        await self._clients.settled()
        await self._drained()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        return time.monotonic() - began

    async def _insist(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Ask one coordinator or another until one answers."""
        while True:
            served = self._random.choice(self._fleet)
            try:
                async with asyncio.timeout(30):
                    status, answer = await self._clients.ask(served, method, path, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.repeated[type(error).__name__] += 1
            else:
                if status not in (429, 503):
                    return status, answer
                self.repeated[str(status)] += 1
            await asyncio.sleep(self._random.uniform(0.02, 0.2))

    async def _produce(self, name: str, count: int) -> None:
        for number in range(0, count, 5):
            ids = [f"{name}-{number + n}" for n in range(5)]
            self.sent.update(ids)
            body = [{"name": "n", "task_id": id, "payload": id, "max_retries": 50} for id in ids]
            status, answer = await self._insist("POST", "/_tasks/_bulk", body)
            assert status == 200, answer
            for id, item in zip(ids, answer["items"], strict=True):
                assert item["status"] in (200, 201), item
                self.acknowledged.add(id)

    async def _work(self, name: str) -> None:
        count = 0
        while True:
            count += 1
            claim = {
                "claim_id": f"{name}.{count}",
                "max": 5,
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

    async def _trouble(self) -> None:
        """One mishap after the other, as long as something is produced, and at least one of each kind."""
        while not self._stopping.is_set() or len(self.mishaps) < len(KINDS):
            await asyncio.sleep(self._random.uniform(0.5, 2.0))
            kinds = [kind for kind in KINDS if not self.mishaps[kind]] or list(KINDS)
            kind, served = self._random.choice(kinds), self._random.choice(self._fleet)
            self.mishaps[kind] += 1
            if kind == "freeze":
                served.signal(signal.SIGSTOP)
                await asyncio.sleep(self._random.choice([1.0, 6.0]))
                served.signal(signal.SIGCONT)
                continue
            self._fleet.remove(served)
            served.signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
            await served.ended()
            self._fleet.append(await Served.start(self._store))

    async def _drained(self) -> None:
        async with asyncio.timeout(4 * PATIENCE):
            while True:
                _, stats = await self._insist("GET", "/_stats", None)
                if stats["counts"]["completed"] >= len(self.acknowledged):
                    return
                await asyncio.sleep(0.2)

    async def verdict(self) -> dict[str, int]:
        """Compare what is stored with what was acknowledged."""
        found: dict[str, dict[str, Any]] = {}
        after: str | None = None
        while True:
            path = "/_tasks?limit=1000" + (f"&after={after}" if after else "")
            _, page = await self._insist("GET", path, None)
            found |= {task["task_id"]: task for task in page["tasks"]}
            after = page.get("next")
            if after is None:
                break
        return {
            "acknowledged": len(self.acknowledged),
            "lost": sum(id not in found or found[id]["state"] != "completed" for id in self.acknowledged),
            "unexpected": sum(id not in self.sent for id in found),
            "completed twice": sum(len(tokens) > 1 for tokens in self.completions.values()),
        }


async def soak(store: str, *, tasks: int, seed: int) -> dict[str, int]:
    """Run one soak and print what it was like."""
    async with crew(store, 3) as clients:
        run = Soak(clients, store, tasks=tasks, seed=seed)
        took = await run.run()
        verdict = await run.verdict()
        kind = store.partition(":")[0]
        print(f"{kind}: {tasks} tasks in {took:.0f} s, seed {seed}; {dict(run.mishaps)}")
        print(f"{kind}: asked again after {dict(run.repeated)}")
        print(f"{kind}: {verdict}")
        return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak several coordinators on one store.")
    parser.add_argument("--store", choices=["valkey", "redis", "postgres", "opensearch"], default="valkey")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    url = getattr(servers, given.store)().fresh()
    verdict = asyncio.run(soak(url, tasks=given.tasks, seed=given.seed))
    raise SystemExit(any(verdict[what] for what in ("lost", "unexpected", "completed twice")))


if __name__ == "__main__":
    main()
