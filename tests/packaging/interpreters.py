"""The Pythons that are to be found here, one of each version that the package says it runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.docs.desk import ROOT

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def versions() -> list[str]:
    """Return the versions that the package's classifiers promise, such as "3.11"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [text.removeprefix("Programming Language :: Python :: 3.") for text in project["classifiers"]]
    return [f"3.{minor}" for minor in named if minor.isdecimal()]


def find(version: str) -> str | None:
    """Return an interpreter of that version: this one, one of PATH, pyenv or uv, else None."""
    return next((place for place in _places(version) if _is(place, version)), None)


def _places(version: str) -> Iterator[str]:
    if version == RUNNING:
        yield sys.executable
    named = shutil.which(f"python{version}")
    if named is not None:
        yield named
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    for folder, pattern in ((pyenv, f"{version}*"), (uv, f"cpython-{version}*")):
        for home in sorted(folder.glob(pattern), reverse=True):
            yield str(home / "bin" / "python")


def _is(place: str, version: str) -> bool:
    # pyenv has a `python3.x` on PATH for every version that any of its Pythons has, which may only complain.
    asked = (place, "-c", "import sqlite3, ssl, sys; print('%d.%d' % sys.version_info[:2])")
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.returncode == 0 and told.stdout.strip() == version
