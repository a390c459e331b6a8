"""Who has the file: this process from now on, or another that is joined."""

from __future__ import annotations

import asyncio

import msgspec

from lineshaft.embedded.coordinator import Coordinator
from lineshaft.embedded.joining import Joined
from lineshaft.sdk.backoff import Backoff
from lineshaft.sdk.forking import whole_imports
from lineshaft.store.base import StoreInUse
from lineshaft.store.file_lock import holder_of
from lineshaft.store.sqlite import SQLiteStore
from lineshaft.store.urls import open_store

PATIENCE = 4.0
"""Seconds for a holder that cannot be joined to be gone: a command, or an owner that is just closing."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How an App opens its store: `api_key` is shown to a `lineshaft serve` that has the file; `listen` and
    `address` are where it is reached as a member of a cluster (see `MemberCoordinator`).
    """

    api_key: str | None = None
    listen: str | None = None
    address: str | None = None


async def open_or_join(url: str, manner: Manner, *, for_ever: bool = False) -> Coordinator | Joined:
    """Open the store at `url`, or join who has it open. Raises what `Coordinator.open` does.

    Between two owners there may be moments in which the file is neither free nor served; `StoreInUse` is
    raised after `PATIENCE` of them, or never.
    """
    store = open_store(url)
    if not store.exclusive:
        with whole_imports:
            from lineshaft.embedded.joining_cluster import MemberCoordinator

        return await MemberCoordinator.join(store, listen=manner.listen, address=manner.address)
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    backoff = Backoff(base=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
    while True:
        try:
            return await Coordinator.open(url)
        except StoreInUse:
            if not isinstance(store, SQLiteStore):
                raise
            joined = await _join(store.path, manner.api_key)
            if joined is not None:
                return joined
            pause = backoff.after_failure()
            if not for_ever and loop.time() + pause > until:
                raise
        await asyncio.sleep(pause)


async def _join(path: str, api_key: str | None) -> Joined | None:
    holder = holder_of(path)
    return None if holder is None else await Joined.open(path, holder, api_key=api_key)
