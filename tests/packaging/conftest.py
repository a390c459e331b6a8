"""Archives built once a run, and fresh environments in which nothing but the wheel is installed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.docs.desk import ROOT
from tests.packaging.interpreters import RUNNING, find


class Distributions(msgspec.Struct, frozen=True):
    """What the tree builds, and what is built from its sdist alone."""

    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


class Environment(msgspec.Struct, frozen=True):
    """An environment in which the wheel is installed."""

    folder: Path
    version: str

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        return self.folder / "lib" / f"python{self.version}" / "site-packages"


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build the sdist and the wheel, and a wheel from the unpacked sdist, where nothing else of us is."""
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    sdist = _build(ROOT, "sdist", folder)
    wheel = _build(ROOT, "wheel", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(source, filter="data")
    [unpacked] = source.iterdir()
    return Distributions(sdist, wheel, _build(unpacked, "wheel", folder / "of_sdist"))


def _build(tree: Path, target: str, folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder), cwd=tree)
    [built] = folder.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="session")
def installed(
    distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Environment]:
    """Give a function that installs the wheel for a version of Python, with extras ("[all]") or without.

    A missing Python skips the test.
    """

    @functools.cache
    def install(python: str, version: str, extras: str) -> Environment:
        folder = tmp_path_factory.mktemp(f"python{version}") / "env"
        uv("venv", "--quiet", "--python", python, str(folder))
        environment = Environment(folder, version)
        uv("pip", "install", "--quiet", "--python", environment.python, f"{distributions.wheel}{extras}")
        return environment

    def find_and_install(version: str, extras: str = "") -> Environment:
        python = find(version)
        if python is None:
            reason = f"no Python {version} on PATH, under pyenv or of uv (`uv python install {version}`)"
            assert version != RUNNING, reason
            pytest.skip(reason)
        return install(python, version, extras)

    return find_and_install


def uv(*arguments: str) -> str:
    """Run uv, which is never to download an interpreter behind our back."""
    return run(sys.executable, "-m", "uv", "--no-python-downloads", *arguments)


def run(*command: str, cwd: Path | None = None, may_fail: bool = False, **more: str) -> str:
    """Run a command to its end and return what it printed; nothing of this tree is on its path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LINESHAFT"))}
    done = subprocess.run(
        command, cwd=cwd, env=kept | more, capture_output=True, text=True, timeout=110, check=False
    )
    assert may_fail or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
