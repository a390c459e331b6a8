"""Directives of partitions, passed on to the other coordinators: one of them may have the worker's session.

They are rare, and few coordinators; so each tells all others. What is lost on the way comes with the task's
next heartbeat.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from lineshaft.core.replies import Directive
from lineshaft.engine.engine import Engine
from lineshaft.values.partitions import MARK

DIRECTIVES_PATH = "/_cluster/directives"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Directive]).decode


class Others(Protocol):
    """The way to all other coordinators."""

    async def tell_all(self, path: str, body: bytes) -> None:
        """Tell something, once, to each that can be reached soon."""


class Relay:
    """Tells other coordinators what workers of partitioned tenants are to hear at once, and hears them."""

    def __init__(self, engine: Engine, others: Others) -> None:
        self._engine = engine
        self._others = others
        self._pending: list[Directive] = []
        self._telling: asyncio.Task[None] | None = None
        self._hears = False
        """What is being told came from another coordinator."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Pass on for the length of the block."""
        try:
            with self._engine.directives(self._is_ours, self._add):
                yield
        finally:
            if self._telling is not None:
                self._telling.cancel()

    def hear(self, body: bytes) -> None:
        """Take what another coordinator tells. Raises `msgspec.MsgspecError`."""
        told: Sequence[Directive] = _decode(body)
        self._hears = True
        try:
            self._engine.tell(told)
        finally:
            self._hears = False

    def _is_ours(self, directive: Directive) -> bool:
        return MARK in directive.tenant and not self._hears

    def _add(self, directive: Directive) -> None:
        self._pending.append(directive)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._pending:
            told, self._pending = self._pending, []
            await self._others.tell_all(DIRECTIVES_PATH, _encode(told))
