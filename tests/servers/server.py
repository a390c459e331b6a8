"""A real server process, as tests hold it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from tests.servers import run

START = 180.0  # seconds that a server may take to answer, on a busy machine
STOP = 30.0

KEEPER = Path(__file__).with_name("keeper.py")


class Server:
    """One process of a server, and its data in a folder of its own.

    A shared one is only looked at; a test that kills, freezes or stops its server starts it `private=True`.
    Subclasses say how it is started (`command`), when it is ready (`is_ready`), and what `fresh` is.
    """

    kind: ClassVar[str]

    url: str
    """Where it is, in the form in which `open_store` takes it, without a database or prefix."""
    pid: int

    def __init__(self, *, port: int, folder: Path, pid: int = 0, claims: tuple[run.Port, ...] = ()) -> None:
        self.port = port
        self.folder = folder
        self.pid = pid
        self._claims = claims  # none: it is another process's, shared with us

    @classmethod
    def attached(cls, record: dict[str, Any]) -> Self:
        """Return what another process of this run has started."""
        return cls(port=record["port"], folder=Path(record["folder"]), pid=record["pid"])

    def record(self) -> dict[str, Any]:
        return {"port": self.port, "folder": str(self.folder), "pid": self.pid}

    # What subclasses say.

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def user(self) -> int:
        return -1

    def is_ready(self) -> bool:
        """Tell whether it answers; may raise OSError while it does not."""
        raise NotImplementedError

    def fresh(self) -> str:
        """Return the URL of a store on this server in which there is nothing yet."""
        raise NotImplementedError

    # What tests do with it.

    def start(self) -> Self:
        """Start it and return once it answers."""
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> None:
        """Start it; it answers later."""
        keeper = [sys.executable, KEEPER, str(run.owner()), self.folder, str(self.user()), *self.command()]
        told = subprocess.run(
            keeper,
            env=os.environ | self.environment(),
            pass_fds=[claim.claim for claim in self._claims],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        if not told.stdout.strip():
            raise RuntimeError(f"{self.kind} could not be started: {self.command()[0]}")
        self.pid = int(told.stdout)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError):
                if self.is_ready():
                    return
            if not self.is_alive() or time.monotonic() > deadline:
                what = "took too long to start" if self.is_alive() else "ended while it started"
                raise RuntimeError(f"{self.kind} {what}:\n{self.output()[-4000:]}")
            time.sleep(0.05)

    def is_alive(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def output(self) -> str:
        """Return what it has printed."""
        return (self.folder / "output").read_text(errors="replace")

    def kill(self) -> None:
        """End it by SIGKILL, with all that it started, as it is."""
        self._signal(signal.SIGKILL)
        self._wait_for_end(STOP)

    def freeze(self) -> None:
        """Stop it by SIGSTOP: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Start it again on its data at the same port; one that still runs is stopped first."""
        if self.is_alive():
            self.stop()
        return self.start()

    def stop(self) -> None:
        """End it in good order."""
        if not self.is_alive():
            return
        self._must_be_ours()
        self.thaw()
        os.kill(self.pid, self.stop_signal())
        if not self._has_ended(STOP):
            self.kill()

    def stop_signal(self) -> signal.Signals:
        return signal.SIGTERM

    def remove(self) -> None:
        """End it and forget its data."""
        if self.is_alive():
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        for claim in self._claims:
            claim.free()
        self._claims = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _signal(self, sent: signal.Signals) -> None:
        self._must_be_ours()
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            for process in [server, *server.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(sent)

    def _must_be_ours(self) -> None:
        if not self._claims:
            raise RuntimeError(f"this {self.kind} is shared with other tests: start one with private=True")

    def _wait_for_end(self, seconds: float) -> None:
        if not self._has_ended(seconds):
            raise RuntimeError(f"{self.kind} (pid {self.pid}) did not end within {seconds} s")

    def _has_ended(self, seconds: float) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            try:
                psutil.Process(self.pid).wait(seconds)
            except psutil.TimeoutExpired:
                return False
        return True
