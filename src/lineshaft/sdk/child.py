"""One worker process of a supervisor: `python -m lineshaft.sdk.child`, its orders as JSON on standard input.

Standard input stays open for as long as the supervisor lives. Its end means that the supervisor was killed,
and the process winds down as after a SIGTERM, so that none is ever left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
from pathlib import Path

import msgspec

from lineshaft.errors import LineshaftError
from lineshaft.sdk.held_ledger import HeldLedger
from lineshaft.sdk.loading import load_app
from lineshaft.sdk.worker import Worker
from lineshaft.sdk.worker_settings import WorkerSettings
from lineshaft.values.instants import format_instant
from lineshaft.wire.workers import Worker as Identity

MISCONFIGURED = 78
"""Exit code (EX_CONFIG) for what a restart cannot cure."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells its worker process; `url` takes the place of the App's own where it is
    given.
    """

    app: str
    directory: str
    settings: WorkerSettings
    identity: Identity
    ledger: str
    url: str | None = None
    log_level: str = "INFO"


def main() -> int:
    """Work until told to stop; give the exit code."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    lifeline = _take_stdin()
    faulthandler.enable()  # where a crash in an extension happened is told on standard error
    lines = logging.StreamHandler()
    lines.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s"))
    logging.basicConfig(level=orders.log_level, handlers=[lines])
    try:
        asyncio.run(_work(orders, lifeline))
    except LineshaftError as error:
        logging.getLogger("lineshaft.worker").error("%s", error.reason)
        return MISCONFIGURED
    return 0


class _Lines(logging.Formatter):
    """Instants in UTC with milliseconds, as the supervisor's own."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        return format_instant(int(record.created * 1000))


async def _work(orders: Orders, lifeline: int) -> None:
    client = load_app(orders.app, directory=Path(orders.directory))
    if orders.url is not None:
        client.served_at(orders.url)
    ledger = HeldLedger(Path(orders.ledger))
    worker = Worker(client, orders.settings, ledger=ledger, identity=orders.identity)
    _watch_supervisor(lifeline, worker, asyncio.get_running_loop())
    try:
        await worker.run(signals=True)
    finally:
        await client.close()


def _take_stdin() -> int:
    """Keep the line to the supervisor for ourselves: what handlers start inherits an empty standard input."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lifeline


def _watch_supervisor(lifeline: int, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    def watch() -> None:
        while os.read(lifeline, 1024):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(worker.drain, "its supervisor is gone")

    threading.Thread(target=watch, name="lineshaft-supervised", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
