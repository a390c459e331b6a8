"""Run as a script: keep one server, and let it not outlive the test run that it belongs to.

`keeper.py OWNER FOLDER UID COMMAND…` starts the command (as user UID, -1 for the present one) with its output
in FOLDER/output, prints its pid once it runs, and goes on in the background until the server ends. Should the
process OWNER end first, it ends the server and removes the folder: a test run that is killed leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

CHECK = 0.2  # seconds between two looks at the owner


def main(owner_pid: int, folder: Path, uid: int, command: list[str]) -> None:
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            print(pipe.read().strip())
        return
    os.close(reading)
    os.setsid()
    keep(owner_pid, folder, uid, command, writing)


def keep(owner_pid: int, folder: Path, uid: int, command: list[str], told: int) -> None:
    """Be the parent of the server. The ports that were claimed for it stay claimed by inherited locks."""
    owner = psutil.Process(owner_pid)
    as_user = {} if uid < 0 else {"user": uid, "group": uid, "extra_groups": []}
    with open(folder / "output", "ab") as output:
        server = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user,  # type: ignore[call-overload]  # keywords of one type each
        )
    for standard in (sys.stdin, sys.stdout, sys.stderr):  # whoever reads ours must see their end
        os.dup2(os.open(os.devnull, os.O_RDWR), standard.fileno())
    os.write(told, str(server.pid).encode())
    os.close(told)
    while server.poll() is None:
        if not owner.is_running() or owner.status() == psutil.STATUS_ZOMBIE:
            end(psutil.Process(server.pid))
            server.wait()
            shutil.rmtree(folder, ignore_errors=True)
            if not any(path.is_dir() for path in folder.parent.iterdir()):
                shutil.rmtree(folder.parent, ignore_errors=True)  # the run's; no other server is left in it
            return
        time.sleep(CHECK)


def end(server: psutil.Process) -> None:
    """Kill the server and whatever it started."""
    for process in [server, *server.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
