"""A coordinator in a process of its own, for the length of a measure."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.driving import Spec
from bench.own.raw import Line
from bench.usage import cpu_of, rss_of


class Coordinator(msgspec.Struct):
    """Where it listens, and what it costs."""

    url: str
    pid: int

    @property
    def cpu(self) -> float:
        """Processor seconds so far."""
        return cpu_of(self.pid)

    @property
    def rss(self) -> float:
        """Memory in MB."""
        return rss_of(self.pid)

    def commits(self) -> int:
        """Return how many commits it has made so far, over all shards."""
        line = Line(self.url)
        try:
            page = line.call(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").decode()
        finally:
            line.close()
        counters = [one for one in page.splitlines() if one.startswith("lineshaft_shard_commits_total{")]
        return sum(int(float(one.rpartition(" ")[2])) for one in counters)


@contextlib.contextmanager
def coordinator(store: str) -> Iterator[Coordinator]:
    """Run `lineshaft serve` for the length of the block."""
    serve = [
        sys.executable,
        "-m",
        "lineshaft",
        "serve",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--store",
        store,
    ]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                process.wait()
                said.seek(0)
                words = said.read().split() or [f"ended with {process.returncode}"]
                raise RuntimeError(f"no coordinator on {store}: {' '.join(words)[-300:]}")
            yield Coordinator(url=json.loads(line)["url"], pid=process.pid)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def store_of(spec: Spec, name: str = "bench") -> str:
    """Return the URL of the store that is measured: on the server that was started for it, or SQLite."""
    return spec.server or sqlite_in(Path(spec.scratch), name)


def sqlite_in(folder: Path, name: str = "bench") -> str:
    """Return the URL of a store in a folder."""
    return f"sqlite:///{folder}/{name}.db"
