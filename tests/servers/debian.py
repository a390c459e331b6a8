"""Programs that Debian brings: in CI they are installed when a test first wants them."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.servers import run


def program(name: str, *, package: str) -> str:
    """Return the path of a program; where it cannot be had the test is skipped, and fails in CI."""
    found = _find(name)
    if found is None and os.environ.get("CI") and os.getuid() == 0:
        _install(package)
        found = _find(name)
    if found is None:
        run.missing(f"{name} is missing here: apt-get install {package}")
    return found


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def _install(package: str) -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        return
    with run.locked(run.cache() / "apt.lock"):
        # Not to be started by its package: tests start their own.
        install = [apt, "install", "-y", "--no-install-recommends", package]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for steps in ([install], [[apt, "update"], install]):
            done = [subprocess.run(step, check=False, env=environment, capture_output=True) for step in steps]
            if done[-1].returncode == 0:
                break
