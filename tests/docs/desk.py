"""A reader's desk: a folder, a shell, and the processes that the reader has started in other terminals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
SHOWN_ADDRESS = "127.0.0.1:7077"
_END = "--- end of block ---"
_START_UP = 30.0


class Desk:
    """Runs what a document or an example says, against a coordinator at an address of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{self.address}"
        self._started: list[subprocess.Popen[bytes]] = []
        self._shell: subprocess.Popen[str] | None = None

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shell is not None:
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            self._stop(self._shell)
        # The last started first, so that workers leave while their coordinator is still there.
        for process in reversed(self._started):
            self._stop(process)

    @property
    def environment(self) -> dict[str, str]:
        """What the processes here are given: this environment's commands, and where the coordinator is."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LINESHAFT_")}
        return kept | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
            "HOME": str(self.folder),
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "LINESHAFT_URL": self.url,
            "LINESHAFT_LISTEN": self.address,
        }

    def write(self, name: str, text: str) -> None:
        """Put a file on the desk."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(text))

    def serve(self, command: str = "lineshaft serve --store memory://") -> None:
        """Start a coordinator and wait until it is ready."""
        process = self.start(command)
        deadline = time.monotonic() + _START_UP
        while not _is_ready(self.url):
            assert process.poll() is None, f"{command!r} ended at once:\n{self.output_of(process)}"
            assert time.monotonic() < deadline, f"{command!r} is not ready:\n{self.output_of(process)}"
            time.sleep(0.02)  # another process comes up; there is nothing here to move its time with

    def start(self, command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command in the background; it is stopped with the desk."""
        with (self.folder / f".output-{len(self._started)}").open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self._here(command).strip()}"],
                cwd=self.folder,
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def output_of(self, process: subprocess.Popen[bytes]) -> str:
        """Read what a started command has printed so far."""
        return (self.folder / f".output-{self._started.index(process)}").read_text(errors="replace")

    def everything_printed(self) -> str:
        """Read what all started commands have printed, for the message of a failure."""
        return "\n".join(f"--- {one.args!r}\n{self.output_of(one)}" for one in self._started)

    def run(self, *command: str, **more: str) -> str:
        """Run a command to its end, which must be good, and return its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        printed = f"{done.stdout}\n{done.stderr}\n{self.everything_printed()}"
        assert done.returncode == 0, f"exit code {done.returncode}\n{printed}"
        return done.stdout

    def type(self, text: str) -> str:
        """Type into the desk's one shell and return what it prints; every command must end well."""
        shell = self._open_shell()
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(f"{self._here(text)}\nprintf '\\n%s\\n' '{_END}'\n")
        shell.stdin.flush()
        lines: list[str] = []
        for line in shell.stdout:
            if line.rstrip("\n") == _END:
                return self._there("".join(lines).removesuffix("\n"))
            lines.append(line)
        raise AssertionError(f"a command failed:\n{''.join(lines)}\n{self.everything_printed()}")

    def _open_shell(self) -> subprocess.Popen[str]:
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["sh", "-eu"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        return self._shell

    def _here(self, text: str) -> str:
        return text.replace(SHOWN_ADDRESS, self.address)

    def _there(self, text: str) -> str:
        """Read what was printed as on the reader's own desk."""
        return text.replace(self.address, SHOWN_ADDRESS)

    def _stop(self, process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                # The whole group: a shell worker has a curl and a heartbeat of its own.
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
