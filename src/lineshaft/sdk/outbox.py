"""What is to be told to the coordinator, until it has said that it knows.

One request at a time: while it is under way the next batch gathers, so batches grow with the load. A report
also asks for as many tasks as have become free. An outcome leaves only when it is acknowledged, or can no
longer be: the lease is lost, the task is gone, or the coordinator refuses what it says and takes a shorter
failure in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from lineshaft.errors import LineshaftError, Malformed, Unavailable
from lineshaft.sdk import reports
from lineshaft.sdk.refusals import refusal
from lineshaft.sdk.reports import Entry
from lineshaft.wire import CALLS
from lineshaft.wire.workers import Claim, Report, Reported

if TYPE_CHECKING:
    from lineshaft.sdk.pool import Pool

MAX_ITEMS = 500
MAX_BYTES = 4 * 1024 * 1024

_logger = logging.getLogger("lineshaft.worker")


class Outbox:
    """The entries of one pool, and the loop that sends them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._entries: deque[Entry] = deque()
        self._under_way: list[Entry] = []
        self._limit = MAX_ITEMS
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False

    def put(self, entry: Entry) -> None:
        """Send an entry with the next report."""
        self._entries.append(entry)
        self._wake.set()
        self._empty.clear()

    @property
    def waiting(self) -> bool:
        """Whether there is something that no report under way carries."""
        return bool(self._entries)

    async def until_empty(self) -> None:
        """Wait until everything is acknowledged."""
        await self._empty.wait()

    def close(self) -> list[str]:
        """End `run` once everything is sent; give the ids of the tasks whose outcome is not acknowledged
        yet.
        """
        self._closing = True
        self._wake.set()
        return [entry.held.task.task_id for entry in (*self._under_way, *self._entries) if entry.final]

    async def run(self) -> None:
        """Send until closed. Raises what no repetition cures."""
        while True:
            if self._entries:
                await self._send(self._next_batch())
            elif self._closing:
                return
            else:
                self._empty.set()
                self._wake.clear()
                await self._wake.wait()

    async def _send(self, batch: list[Entry]) -> None:
        self._under_way = batch
        claim, asked = self._pool.ask_with_report(batch)
        try:
            answer = await self._deliver(batch, claim)
        except LineshaftError as error:
            if not reports.is_about_content(error):
                raise
            self._divide(batch, error)
            return
        except (TypeError, ValueError) as error:
            self._divide(batch, Malformed(f"it cannot be written as JSON: {error}"))
            return
        finally:
            self._under_way = []
            self._pool.asked(-asked)
        self._settle(batch, answer)
        self._pool.accept(answer)
        self._pool.stir()

    async def _deliver(self, batch: list[Entry], claim: Claim | None) -> Reported:
        report = Report(items=[entry.item for entry in batch], claim=claim)
        session = self._pool.session
        if session is not None and claim is None:
            try:
                return await session.report(report)
            except Unavailable:
                pass  # whether it arrived or not: the same report by another way has the same answer
        answer: Reported = await self._pool.worker.call_until_answered(CALLS["report"], report, timeout=30.0)
        return answer

    def _next_batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while self._entries and len(batch) < self._limit:
            size += self._entries[0].size
            if batch and size > MAX_BYTES:
                break
            batch.append(self._entries.popleft())
        return batch

    def _divide(self, batch: list[Entry], error: LineshaftError) -> None:
        """The coordinator refused the batch as a whole: halve it, until the one that it is about is found."""
        if len(batch) == 1:
            self._refused(batch[0], error)
            return
        self._entries.extendleft(reversed(batch))
        self._limit = max(1, len(batch) // 2)

    def _settle(self, batch: list[Entry], answer: Reported) -> None:
        again: list[Entry] = []
        for entry, item in zip(batch, answer.items, strict=True):
            if item.error is None:
                self._pool.acknowledged(entry, item)
                continue
            error = refusal(item.error, status=item.status)
            if reports.is_temporary(error):
                again.append(entry)
            elif reports.is_final(error):
                self._pool.too_late(entry, error)
            else:
                self._refused(entry, error)
        self._limit = min(MAX_ITEMS, self._limit * 2)
        self._entries.extendleft(reversed(again))

    def _refused(self, entry: Entry, error: LineshaftError) -> None:
        _logger.error(
            "task %s: the coordinator refused its outcome: %s", entry.held.task.task_id, error.reason
        )
        substitute = reports.substitute(entry, error) if entry.final else None
        if substitute is not None:
            self._entries.appendleft(substitute)
        else:
            self._pool.too_late(entry, error)
