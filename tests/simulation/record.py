"""What happened: a digest by which two runs are compared, counts of what went wrong, events for a story."""

from __future__ import annotations

import asyncio
from collections import Counter
from hashlib import blake2b
from typing import Any

from lineshaft.core import commands as c
from lineshaft.core.batch import Batch
from lineshaft.errors import LineshaftError
from lineshaft.store.base import Ownership
from tests.simulation.words import Event, of_answer, of_commit


class Record:
    """Notes what happens in one run; keeps events only where somebody will read them."""

    def __init__(self, *, keep: bool = False, loud: bool = False) -> None:
        """`loud` prints each event at once, `keep` collects them."""
        self.events: list[Event] = []
        self.lines = 0
        self.tally: Counter[str] = Counter()
        """Kind of trouble, or of what was watched → how often it really came about."""
        self._keep = keep
        self._loud = loud
        self._wanted = keep or loud
        self._digest = blake2b(digest_size=16)

    def say(self, who: str, what: str, *, about: frozenset[str] = frozenset()) -> None:
        """Note an event; `about` are the tasks that it concerns."""
        self._note(who, what)
        if self._wanted:
            self._add(Event(_now(), who, what, about, telling=True))

    def commit(self, who: str, ownership: Ownership, batch: Batch, fault: str | None) -> None:
        """Note that a commit is sent, and what will go wrong with it."""
        self._note(who, f"{ownership.epoch} {batch.position} {fault}")
        if self._wanted:
            self._add(of_commit(_now(), who, ownership, batch, fault))

    def answer(self, who: str, command: c.Command, reply: Any, *, lost: bool) -> None:
        """Note what somebody asked for, and what left the coordinator in answer (or was lost after that)."""
        told = reply.type if isinstance(reply, LineshaftError) else getattr(reply, "position", "")
        self._note(who, f"{type(command).__name__} {told}")
        if self._wanted:
            self._add(of_answer(_now(), who, command, reply, lost=lost))

    @property
    def digest(self) -> str:
        """Return what distinguishes this run from all others."""
        return self._digest.hexdigest()

    def _note(self, who: str, what: str) -> None:
        self.lines += 1
        self._digest.update(f"{_now():.4f} {who} {what}".encode())

    def _add(self, event: Event) -> None:
        if self._keep:
            self.events.append(event)
        if self._loud:
            print(event.line)


def _now() -> float:
    return asyncio.get_running_loop().time()
