"""The peers' environment: `bench/.peers`, made on first use and again when what it is made of changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PLACE = HERE / ".peers"
PYTHON = PLACE / "python" / "bin" / "python"
NODE = PLACE / "node"
REQUIREMENTS = HERE / "requirements.txt"
PACKAGES = HERE / "peers" / "node"


def ensure(say: Callable[[str], None]) -> None:
    """Install what is not installed yet; what cannot be is said, and the peers that need it fail."""
    _once("python", [REQUIREMENTS], lambda: _install_python(say), say)
    _once(
        "node", [PACKAGES / "package.json", PACKAGES / "package-lock.json"], lambda: _install_node(say), say
    )


def _once(name: str, made_of: list[Path], install: Callable[[], bool], say: Callable[[str], None]) -> None:
    digest = hashlib.sha256(sys.version.encode())
    for path in made_of:
        digest.update(path.read_bytes())
    stamp = PLACE / f"{name}.installed"
    if stamp.exists() and stamp.read_text(encoding="ascii") == digest.hexdigest():
        return
    say(f"installing the peers for {name}")
    shutil.rmtree(PLACE / name, ignore_errors=True)
    PLACE.mkdir(exist_ok=True)
    if install():
        stamp.write_text(digest.hexdigest(), encoding="ascii")


def _install_python(say: Callable[[str], None]) -> bool:
    if not _run([sys.executable, "-m", "venv", str(PLACE / "python")], say):
        return False
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if _run([*pip, "--requirement", str(REQUIREMENTS)], say):
        return True
    # One that cannot be had must not keep the others away.
    wanted = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    outcomes = [_run([*pip, "--no-deps", one], say) for one in wanted]
    return all(outcomes)


def _install_node(say: Callable[[str], None]) -> bool:
    if shutil.which("npm") is None:
        say("  there is no npm: the peers on Node.js are left out")
        return False
    NODE.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PACKAGES / name, NODE / name)
    return _run(["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(NODE)], say)


def _run(command: list[str], say: Callable[[str], None]) -> bool:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        say(f"  {' '.join(command[:4])} … failed: {said[-1][:200] if said else ended.returncode}")
    return not ended.returncode
