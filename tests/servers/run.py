"""The test run that servers belong to: its folder, its ports, and what all its processes share.

A run is one call of pytest with all its xdist workers and whatever they start. It is known by the process at
its root: when that ends, the keeper of each server ends the server (see `keeper`).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import pwd
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

RUN = "LINESHAFT_TEST_RUN"  # tells processes that tests start to which run they belong

# Below the range from which the system gives ports to outgoing connections.
PORTS = range(21000, 32000)


def missing(reason: str) -> NoReturn:
    """End the test for want of a server: failed in CI, else skipped."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def owner() -> int:
    """Return the pid of the process at the root of this run."""
    told = os.environ.get(RUN, "")
    if told and psutil.pid_exists(int(told)):
        return int(told)
    pid = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    os.environ[RUN] = str(pid)
    return pid


def folder() -> Path:
    """Return the folder of this run; others may enter it, since some servers refuse to run as root."""
    root = psutil.Process(owner())
    path = Path(tempfile.gettempdir()) / f"lineshaft-run-{root.pid}-{int(root.create_time())}"
    if not path.exists() and root.pid == os.getpid():
        atexit.register(shutil.rmtree, path, ignore_errors=True)
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def new_folder(kind: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder()))
    path.chmod(0o755)
    return path


def shared(key: str, start: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record of what one process of this run has started under `key`, and start it if none has.

    The record is what `start` returned, with the pid of a process in it: one that has ended is started again.
    """
    with locked(folder() / f"{key}.lock"):
        record = folder() / f"{key}.json"
        if record.exists():
            found: dict[str, Any] = json.loads(record.read_text())
            if psutil.pid_exists(found["pid"]):
                return found
        made = start()
        record.write_text(json.dumps(made))
        return made


def next_number(key: str) -> int:
    """Count 1, 2, 3… over all processes of this run."""
    path = folder() / f"{key}.count"
    with locked(folder() / f"{key}.lock"):
        number = int(path.read_text()) + 1 if path.exists() else 1
        path.write_text(str(number))
        return number


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Port:
    """A port that no other test on this machine takes while this, or a server that inherits it, lives."""

    def __init__(self, among: range = PORTS) -> None:
        claims = Path(tempfile.gettempdir()) / f"lineshaft-ports-{os.getuid()}"
        claims.mkdir(exist_ok=True)
        for number in random.sample(among, len(among)):
            self.claim = os.open(claims / str(number), os.O_CREAT | os.O_RDWR)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_taken(number):
                    self.number = number
                    return
            os.close(self.claim)
        raise RuntimeError(f"no port is free among {among}")

    def free(self) -> None:
        os.close(self.claim)


def _is_taken(port: int) -> bool:
    import socket

    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def unprivileged() -> int:
    """Return the uid for servers that refuse to run as root; -1 where we are not root anyway."""
    if os.getuid() != 0:
        return -1
    return pwd.getpwnam("nobody").pw_uid


def give(path: Path, uid: int) -> None:
    """Let all of the folder belong to `uid`."""
    if uid < 0:
        return
    for place, _, files in os.walk(path):
        os.chown(place, uid, uid)
        for name in files:
            os.chown(Path(place) / name, uid, uid)


def cache() -> Path:
    """Return the folder for what is downloaded, kept between runs; all users may read it."""
    told = os.environ.get("LINESHAFT_TEST_CACHE")
    if told:
        path = Path(told)
    else:  # the home of root is closed to the users that servers run as
        path = Path("/var/cache") if os.getuid() == 0 else Path.home() / ".cache"
        path /= "lineshaft-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def reachable(path: Path) -> bool:
    """Tell whether other users can come to this path."""
    return all(
        place.stat().st_mode & 0o5 == 0o5 for place in [path, *path.resolve().parents] if place.is_dir()
    )


def copy_once(source: Path, target: Path) -> None:
    """Copy a folder, whole or not at all."""
    with locked(target.with_name(target.name + ".lock")):
        if not target.exists():
            half = target.with_name(target.name + ".half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(source, half, symlinks=True)
            half.rename(target)
