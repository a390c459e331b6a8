"""`lineshaft serve`, which counts itself on SIGUSR1: `python -m tests.faults.watched_serve STORE COUNTS`.

The counts go to the file COUNTS: asyncio tasks by name of their coroutine, objects by type, open descriptors.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from lineshaft.server.serve import Coordinator, serve
from lineshaft.server.settings import ServerSettings


def count(place: Path) -> None:
    """Write the counts; the file has its name once it is whole."""
    gc.collect()
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    objects = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    counts = {"tasks": tasks, "objects": objects, "descriptors": len(os.listdir("/proc/self/fd")) - 1}
    partial = place.with_suffix(".partial")
    partial.write_text(json.dumps(counts), encoding="utf-8")
    partial.rename(place)


def main(store: str, place: Path) -> None:
    def announce(coordinator: Coordinator) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, count, place)
        print(coordinator.startup_line, flush=True)

    asyncio.run(serve(ServerSettings(store=store, listen="127.0.0.1:0"), announce=announce))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
