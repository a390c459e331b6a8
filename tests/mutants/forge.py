"""Runs pytest again and again, each time in a fork of one process that has read the libraries already.

Most of the time of a short test run goes into imports. So the forge imports what every run needs, but nothing
of the package itself: each fork imports that from the copy that it is given. One request a line comes in on
standard input (`Request`, as JSON); the exit status of the fork goes out.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    *("asyncio", "msgspec", "sqlite3", "pytest_asyncio.plugin", "pytest_timeout"),
    *("hypothesis", "hypothesis.stateful", "hypothesis.strategies"),
)
_FOREIGN = ("COV_CORE_", "COVERAGE_", "PYTEST_", "LINESHAFT_")
"""Beginnings of variables that belong to an outer run of tests or to a user's coordinator."""


@dataclass(frozen=True)
class Request:
    """One run: the folder with the package, a folder for what the run leaves behind, pytest's arguments."""

    source: str
    folder: str
    arguments: list[str]

    @property
    def printed(self) -> Path:
        """Return the file to which the run prints."""
        return Path(self.folder) / "printed"


class Forge:
    """The parent's end of a forge; used by one thread at a time."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.forge"],
            cwd=ROOT,
            env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Forge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        process.wait()

    def run(self, request: Request) -> int:
        """Do one run to its end; return its status as `os.waitstatus_to_exitcode` tells it."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(asdict(request)) + "\n")
        process.stdin.flush()
        status = process.stdout.readline()
        if not status:
            raise RuntimeError("the forge has gone; what it printed is above")
        return int(status)


def main() -> None:
    """Serve requests until there are no more."""
    for library in LIBRARIES:
        importlib.import_module(library)
    assert "lineshaft" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(Request(**json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(request: Request) -> None:
    """Be the run, in the fork, and end."""
    status: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        _redirect(request.printed)
        sys.dont_write_bytecode = True  # what is compiled in the copy is that of the code without a mutant
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["PYTHONPATH"] = request.source  # for the processes that tests start
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(Path(request.folder) / "hypothesis")
        sys.path.insert(0, request.source)
        status = int(pytest.main(request.arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _redirect(printed: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target, place in ((0, nothing), (1, output), (2, output)):
        os.dup2(place, target)


if __name__ == "__main__":
    main()
