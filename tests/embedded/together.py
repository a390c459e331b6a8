"""Processes that share a file, and what became of their tasks."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from lineshaft import App
from lineshaft.store.file_lock import Holder
from lineshaft.wire import CALLS
from lineshaft.wire.history import ChangesQuery
from lineshaft.wire.tasks import Search

PROGRAM = Path(__file__).with_name("joined_process.py")
PATIENCE = 60.0


class Member:
    """One process; see `joined_process`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.stored: set[str] = set()
        self.errors: list[str] = []
        self._said: asyncio.Queue[list[str]] = asyncio.Queue()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, store: Path | str, name: str) -> Member:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            url_of(store),
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        member = cls(name, process)
        await member.heard("open")
        return member

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")

    async def heard(self, word: str) -> list[str]:
        """Wait until it says the word."""
        async with asyncio.timeout(PATIENCE):
            while (line := await self._said.get())[0] != word:
                assert line != ["gone"], f"{self.name} is gone before it said {word!r}"
        return line

    async def has_stored(self, count: int) -> None:
        """Wait until as many of its tasks are acknowledged."""
        deadline = time.monotonic() + PATIENCE
        while len(self.stored) < count:
            assert time.monotonic() < deadline, f"{self.name} has stored {len(self.stored)} of {count}"
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        self.tell("end")
        await self.heard("closed")
        assert await self.process.wait() == 0

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode().split():
            match line:
                case ["stored", task_id]:
                    self.stored.add(task_id)
                case ["error", *told]:
                    self.errors.append(" ".join(told))
                case _:
                    self._said.put_nowait(line)
        self._said.put_nowait(["gone"])


@asynccontextmanager
async def members(store: Path | str, *names: str) -> AsyncIterator[list[Member]]:
    """Start processes one after the other, so that the first has the file; what is left of them is killed."""
    started: list[Member] = []
    try:
        for name in names:
            started.append(await Member.start(store, name))  # noqa: PERF401 (those before it must be ended)
        yield started
    finally:
        for member in started:
            if member.process.returncode is None:
                await member.kill()


def url_of(store: Path | str) -> str:
    return store if isinstance(store, str) else f"sqlite:///{store}"


def holder(file: Path) -> Holder:
    """Return who says to have the file."""
    return msgspec.json.decode(Path(f"{file}.lock").read_bytes(), type=Holder)


async def all_done(store: Path | str, ids: set[str]) -> Counter[str]:
    """Wait until every one of the tasks has ended, as one more process that joins; count from the feed how
    often each was completed.
    """
    async with App(url_of(store), retry_for=30) as app:
        async with asyncio.timeout(PATIENCE):
            while True:
                open_states = ["scheduled", "queued", "claimed", "running"]
                left = await app.call(CALLS["find"], query=Search(state=",".join(open_states), limit=1))
                if not left.tasks:
                    break
                await asyncio.sleep(0.05)
        for task_id in ids:
            assert await app.handle(task_id).state() == "completed"
        found: Counter[str] = Counter()
        after = "0"
        while (page := await app.call(CALLS["changes"], query=ChangesQuery(after=after, limit=1000))).changes:
            after = page.next
            found.update(change.task_id for change in page.changes if change.state == "completed")
        return found
