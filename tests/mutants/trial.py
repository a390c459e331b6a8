"""Trying a mutant: a copy of the package, mutated, and a test run of its own that imports the copy."""

from __future__ import annotations

import compileall
import enum
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.mutants.forge import ROOT, Forge, Request
from tests.mutants.mutant import Mutant

PATIENCE = 60
"""Seconds that one test may take; a mutant that only hangs is not caught."""


class Verdict(enum.Enum):
    """What became of a trial."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    CRASHED = "crashed"
    """Tests failed, but by no assertion: the code does not even run, which is no proof of the promise."""
    INVALID = "invalid"
    """Nothing was tried: no test ran, one could not be collected, or something else was imported."""


@dataclass(frozen=True)
class Trial:
    """A verdict, the test that said so, and what it said."""

    verdict: Verdict
    test: str
    told: str
    seconds: float


class Workshop:
    """A copy of the package, and a forge that runs tests against it; used by one thread at a time."""

    def __enter__(self) -> Workshop:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
            self._source = folder / "src"
            # With what is compiled already, though not what is just being written: times of files are kept.
            shutil.copytree(ROOT / "src", self._source, ignore=shutil.ignore_patterns("*.pyc.*"))
            compileall.compile_dir(self._source, quiet=2)
            self._forge = stack.enter_context(Forge())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, mutant: Mutant | None, tests: Sequence[str] = (), *, stop: bool = False) -> Trial:
        """Try a mutant with these tests, else with those that it names. Raises `Misfit`.

        `stop` ends the run at the first catch.
        """
        if mutant is None:
            return self._try(tests, stop=stop)
        tests = tests or [f"tests/{test}" for test in mutant.caught_by]
        with _applied(mutant, self._source / "lineshaft"):
            return self._try(tests, stop=stop)

    def _try(self, tests: Sequence[str], *, stop: bool) -> Trial:
        plugins = ("no:cacheprovider", "pytest_asyncio.plugin", "pytest_timeout", "tests.mutants.witness")
        options = [word for plugin in plugins for word in ("-p", plugin)] + ["-q", "--tb=short"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of libraries that the forge has read
        options += [f"--timeout={PATIENCE}", f"--mutant-source={self._source}"]
        options += ["--mutant-stop"] if stop else []
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            told = Path(folder) / "told.json"
            options += [f"--mutant-told={told}", f"--basetemp={folder}/tests"]
            request = Request(str(self._source), folder, [*options, *tests])
            began = time.monotonic()
            status = self._forge.run(request)
            printed = f"{request.printed.read_text(errors='replace')}\nexit status {status}"
            story = json.loads(told.read_text()) if told.exists() else None
            return _judge(story, printed, time.monotonic() - began)


@contextmanager
def _applied(mutant: Mutant, package: Path) -> Iterator[None]:
    """Mutate the copy for the time of the block."""
    with ExitStack() as stack:
        for file in dict.fromkeys(edit.file for edit in mutant.edits):
            path = package / file
            if path.exists():
                stack.callback(_restore, path, path.read_bytes(), path.stat().st_mtime_ns)
        for changed in mutant.apply(package):
            os.utime(changed, (0, 0))  # a time that nothing was compiled at
        yield


def _restore(path: Path, content: bytes, mtime: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime, mtime))


def _judge(told: dict[str, Any] | None, printed: str, seconds: float) -> Trial:
    def verdict(verdict: Verdict, test: str, said: str) -> Trial:
        return Trial(verdict, test, said, seconds)

    if told is None:
        return verdict(Verdict.INVALID, "", printed[-2000:])
    if told["elsewhere"]:
        return verdict(Verdict.INVALID, "", f"not from the copy: {', '.join(told['elsewhere'])}")
    if told["broken"]:
        return verdict(Verdict.INVALID, told["broken"][0], printed[-2000:])
    if not told["run"]:
        return verdict(Verdict.INVALID, "", f"no test has run\n{printed[-2000:]}")
    for failure in told["failures"]:
        if failure["kind"] == "assertion":
            return verdict(Verdict.CAUGHT, failure["test"], failure["told"])
    for failure in told["failures"]:
        return verdict(Verdict.CRASHED, failure["test"], failure["told"])
    return verdict(Verdict.SURVIVED, "", f"{told['run']} tests passed")
