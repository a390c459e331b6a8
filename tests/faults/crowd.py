"""Many workers in one process, which come, work, fall silent and go: `python -m tests.faults.crowd OPTIONS`.

Options, as one JSON object: `port`; `name`, the beginning of the workers' ids; `count`; `queues`, of which
each worker serves one; `hold`, seconds within which tasks are done; `stay`, seconds after which on average a
worker leaves and comes again, half of them without a word; `lapse`, the share of tasks that a worker drops or
sits on until the lease is lost; `lease`; `seed`. Half of them claim over HTTP, half have a push session.

Tasks of the name "probe" are told on standard output with the time at which they came. SIGTERM lets all go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from typing import Any

import msgspec

from tests.faults.raw_lines import Gone, HttpLine, SessionLine


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    port: int
    name: str
    count: int
    queues: list[str]
    hold: float = 0.0
    stay: float = 60.0
    lapse: float = 0.0
    lease: float = 5.0
    seed: int = 0


class Left(Exception):
    """The worker has gone in the middle of its work."""


class Member:
    """One worker of the crowd."""

    def __init__(self, options: Options, number: int) -> None:
        self._options = options
        self._chance = random.Random(f"{options.seed} {options.name} {number}")
        self._queue = options.queues[number % len(options.queues)]
        self._worker = {"id": f"{options.name}{number}", "incarnation": str(os.getpid())}
        self._pushed = number % 2 == 0
        self._line: HttpLine | None = None

    async def live(self) -> None:
        """Come and go until cancelled."""
        try:
            while True:
                await self._visit()
        finally:
            if self._line is not None:
                self._line.close()

    async def _visit(self) -> None:
        stay = self._chance.expovariate(1 / self._options.stay)
        with contextlib.suppress(OSError, Gone, Left, TimeoutError):
            async with asyncio.timeout(stay):
                await (self._listen() if self._pushed else self._ask())
        if self._line is not None:
            self._line.close(abruptly=self._chance.random() < 0.5)
            self._line = None
        await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _ask(self) -> None:
        self._line = line = await HttpLine.open(self._options.port)
        claim = {
            "worker": self._worker,
            "queues": [self._queue],
            "wait": "50s",
            "max": 2,
            "lease": self._options.lease,
        }
        while True:
            status, answer = await line.call("POST", "/_tasks/_claim", claim)
            if status != 200:
                await asyncio.sleep(0.5)
                continue
            for task in answer["tasks"]:
                await self._do(task)
                await line.call(
                    "POST", f"/_tasks/{task['task_id']}/_complete", {"lease_token": task["lease_token"]}
                )

    async def _listen(self) -> None:
        self._line = line = await SessionLine.open(self._options.port)
        hello = {"worker": self._worker, "queues": [self._queue], "lease": self._options.lease, "holding": []}
        line.say("hello", hello, 1)
        while (await line.hear())["type"] != "welcome":
            pass
        line.say("credit", {"max": 2}, 2)
        while True:
            heard = await line.hear()
            if heard["type"] == "tasks":
                for task in heard["body"]["tasks"]:
                    await self._do(task)
                    line.say("complete", {"task_id": task["task_id"], "lease_token": task["lease_token"]}, 3)

    async def _do(self, task: dict[str, Any]) -> None:
        """Do a task; or sit on it until its lease is lost, and tell then; or leave with it."""
        if task["name"] == "probe":
            print(json.dumps({"id": task["task_id"], "at": time.monotonic()}), flush=True)
        if self._chance.random() < self._options.lapse:
            if self._chance.random() < 0.5:
                raise Left
            await asyncio.sleep(self._options.lease * 1.3)
        elif self._options.hold:
            await asyncio.sleep(self._chance.uniform(0, self._options.hold))


async def main(options: Options) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    members = []
    for number in range(options.count):
        members.append(asyncio.create_task(Member(options, number).live()))
        if number % 20 == 0:
            await asyncio.sleep(0.02)  # not all at once: the backlog of connections is bounded
    await stop.wait()
    for member in members:
        member.cancel()
    for ended in await asyncio.gather(*members, return_exceptions=True):
        if not isinstance(ended, asyncio.CancelledError):
            raise RuntimeError("a member of the crowd broke") from ended


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Options)))
