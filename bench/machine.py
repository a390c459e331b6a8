"""What the measurements were made on."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def describe(folder: str | None = None) -> dict[str, Any]:
    """Return cores, model, memory, kernel, load, and the times of an fdatasync of 4 KB in `folder` (ms)."""
    synced = fdatasync_times(folder)
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        # Without what a distribution or a build of one's own appends to the version.
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "fdatasync_p50_ms": round(statistics.median(synced) * 1e3, 3),
        "fdatasync_p99_ms": round(sorted(synced)[len(synced) * 99 // 100] * 1e3, 3),
    }


def fdatasync_times(folder: str | None = None, samples: int = 200) -> list[float]:
    """Append 4 KB and make them durable, again and again; return seconds of each."""
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(samples):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return took


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
