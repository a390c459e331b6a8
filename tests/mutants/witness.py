"""A pytest plugin that tells what became of a trial, and whether it was the mutant that was tried.

A failure counts as a catch only where a test (or the conformance suite) said so: an assertion, or an
exception that was expected and did not come; or where the coordinator refused what it must not refuse. Any
other error that comes out of the mutated code, a test that cannot be collected, a time-out or a warning is
told apart.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

_TESTS = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutants")
    group.addoption("--mutant-source", type=Path, help="the folder that `lineshaft` must come from")
    group.addoption("--mutant-told", type=Path, help="where to write what happened")
    group.addoption("--mutant-stop", action="store_true", help="stop at the first catch")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Witness(config), "mutants-witness")


class Witness:
    """What happened, written down at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._source: Path = config.getoption("--mutant-source").resolve()
        self._told: Path = config.getoption("--mutant-told")
        self._stop: bool = config.getoption("--mutant-stop")
        self._run = 0
        self._broken: list[str] = []
        self._failures: list[dict[str, str]] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        outcome: Any = yield
        report = outcome.get_result()
        if report.when == "call" and not report.skipped:
            self._run += 1
        if report.failed and call.excinfo is not None:
            error = call.excinfo.value
            kind = self._kind(error) if report.when == "call" else "crash"
            told = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            self._failures.append({"test": item.nodeid, "kind": kind, "told": told})
            if self._stop and kind == "assertion":
                item.session.shouldstop = "caught"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._broken.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        told = {
            "run": self._run,
            "broken": self._broken,
            "elsewhere": self._elsewhere(),
            "failures": self._failures,
        }
        self._told.write_text(json.dumps(told))

    def _elsewhere(self) -> list[str]:
        """Name the modules of the package that are not from the copy."""
        package = [name for name in sys.modules if name.partition(".")[0] == "lineshaft"]
        places = {name: Path(getattr(sys.modules[name], "__file__", None) or "") for name in package}
        elsewhere = [name for name, place in places.items() if self._source not in place.resolve().parents]
        return sorted(elsewhere if package else ["lineshaft"])

    def _kind(self, error: BaseException) -> str:
        if isinstance(error, BaseExceptionGroup):
            kinds = {self._kind(each) for each in error.exceptions}
            return "assertion" if "assertion" in kinds else "crash"
        if isinstance(error, AssertionError | pytest.fail.Exception) and error.__cause__ is not None:
            return self._kind(error.__cause__)  # the simulator wraps whatever ends a run
        is_judge = self._is_judge(_origin(error.__traceback__))
        return "assertion" if _is_refusal(error) or (is_judge and _is_assertion(error)) else "crash"

    def _is_judge(self, place: Path | None) -> bool:
        if place is None:
            return False
        conformance = self._source / "lineshaft" / "store" / "conformance"
        return _TESTS in place.parents or conformance in place.parents or "_pytest" in place.parts


def _origin(trace: TracebackType | None) -> Path | None:
    """Return the file in which an error was raised."""
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename).resolve()


def _is_assertion(error: BaseException) -> bool:
    """Tell whether a test says that something is not so; `[task] = claim()` says that there is just one."""
    told = str(error)
    if isinstance(error, pytest.fail.Exception):
        return not told.startswith("Timeout")  # which pytest-timeout says in the same words
    unpacking = isinstance(error, ValueError) and "values to unpack" in told
    return unpacking or isinstance(error, AssertionError)


def _is_refusal(error: BaseException) -> bool:
    """Tell whether the coordinator refused what a test asked of it; of no kind it is an internal error."""
    from lineshaft.errors import LineshaftError  # of the copy, which is not there when this is imported

    return isinstance(error, LineshaftError) and type(error) is not LineshaftError
