"""Calls made on a store itself, by a coordinator that lives for one call."""

from __future__ import annotations

from typing import Any

from lineshaft.cli.exits import ExitCode
from lineshaft.cli.trouble import Trouble
from lineshaft.engine.engine import Engine
from lineshaft.server.calls import Calls
from lineshaft.server.identity import ANYBODY, KeyRing
from lineshaft.store.urls import open_store
from lineshaft.wire import CALLS


async def call_store(url: str, name: str, *, id: str | None = None, body: Any = None) -> Any:
    """Open the store, make the call of that name as its operator, and close it.

    Raises `StoreInUse` where a coordinator is at work on it, and what else opening raises.
    """
    store = open_store(url)
    if store.tier == "none":
        raise Trouble(
            f"{store.url} forgets everything when this command ends",
            code=ExitCode.USAGE,
            hint="name a store that lasts, such as --store sqlite:///jobs.db, or a coordinator with --url",
        )
    # Where others may share the store they could not reach us: there must be none.
    address = "one command, no address" if store.exclusive else ""
    async with Engine(store, address=address, alone=True) as engine:
        ring = KeyRing(engine, engine.clock.now)
        await ring.load()
        return await Calls(engine, ring).call(CALLS[name], ANYBODY, id=id, body=body)
