"""Valkey and PostgreSQL from the wheels of the peers, OpenSearch as tests have it; started on demand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Self

from bench import environment

SERVERLESS = {"memory": "memory://"}
"""Stores that have a URL and no server."""


class NoServer(Exception):
    """A server could not be started; says why."""


class Servers:
    """Starts servers on demand, and stops them at the end of the block."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._folders: list[str] = []
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.communicate()  # closes its standard input, which ends it
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def fresh(self, name: str | None) -> tuple[str, int]:
        """Return URL and pid of an empty server of that name; ("", 0) for None. Raises NoServer."""
        if name is None or name in SERVERLESS:
            return SERVERLESS.get(name or "", ""), 0
        process = self._running.get(name)
        if process is None:
            process = self._running[name] = self._start(name)
        else:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            del self._running[name]
            _, said = process.communicate()
            raise NoServer(
                f"{name} does not start: {(said.strip().splitlines() or ['no reason given'])[-1][:200]}"
            )
        told = json.loads(line)
        self.versions[name.partition("-")[0]] = told["version"]
        return told["url"], told["pid"]

    def _start(self, name: str) -> subprocess.Popen[str]:
        folder = tempfile.mkdtemp(prefix=f"bench-{name}-")
        self._folders.append(folder)
        try:
            return subprocess.Popen(
                _command(name, folder),
                env=os.environ | {"PYTHONPATH": str(environment.HERE.parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise NoServer(f"the peers' environment is missing: {error}") from None


def _command(name: str, folder: str) -> list[str]:
    if name == "opensearch":
        return [sys.executable, "-m", "bench.stores.server"]
    return [str(environment.PYTHON), "-m", "bench.peers.server", name, folder]
