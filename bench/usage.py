"""What processes cost, as the kernel counts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def own_cpu() -> float:
    """Return the processor seconds that this process has taken, all threads."""
    return time.process_time()


def cpu_of(*pids: int) -> float:
    """Return the processor seconds that processes and their present and past children have taken.

    In steps of a clock tick (10 ms), so it is for what takes tenths of seconds.
    """
    ticks = 0
    seen: set[int] = set()
    left = list(pids)
    while left:
        pid = left.pop()
        if pid in seen:
            continue
        seen.add(pid)
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += sum(int(fields[place]) for place in (11, 12, 13, 14))
            for thread in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
                left.extend(int(child) for child in children.split())
        except OSError:
            continue  # it ended meanwhile; what it took is in its parent's account
    return ticks / _TICK


def rss_of(pid: int) -> float:
    """Return how much memory a process holds, in MB (10**6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
