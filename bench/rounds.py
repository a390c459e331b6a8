"""Rounds over all contenders, one after the other, each in fresh processes; medians in the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from bench import environment
from bench.contenders import Contender
from bench.servers import NoServer, Servers

TIMEOUT = 300
TIMEOUT_ONCE = 600
"""Seconds; those that are run once have more to do."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: `seconds` of each enqueueing, `samples` of each latency, `share` of each drain's
    tasks, `rest` seconds of doing nothing, `queued` tasks in the long queue, and `rounds` of it all.
    """

    seconds: float = 1.5
    samples: int = 200
    share: float = 1.0
    rest: float = 5.0
    queued: int = 1_000_000
    rounds: int = 3


class Measured(msgspec.Struct, kw_only=True):
    """The medians of one contender, or why there are none."""

    contender: Contender
    figures: dict[str, float] = {}
    cpu: dict[str, dict[str, float]] = {}
    """By figure: processor time a task, in µs, of `client`, `server` and `worker`."""
    spread: dict[str, tuple[float, float]] = {}
    """By figure: the least and the greatest of the rounds."""
    versions: dict[str, str] = {}
    failure: str | None = None


def measure(
    contenders: Iterable[Contender], sizes: Sizes, say: Callable[[str], None], versions: dict[str, str]
) -> list[Measured]:
    """Run all rounds, interleaved: a busy moment of the machine meets one round of everybody.

    Puts the versions of the servers into `versions`.
    """
    told: dict[str, list[dict[str, Any]]] = {}
    failures: dict[str, str] = {}
    given_up: set[str] = set()
    chosen = list(contenders)
    with Servers() as servers:
        for number in range(sizes.rounds):
            for contender in chosen:
                if contender.key in given_up or (contender.once and number):
                    continue
                say(f"round {number + 1} of {sizes.rounds}: {contender.title}")
                try:
                    told.setdefault(contender.key, []).append(_one(contender, sizes, servers))
                except Unmeasured as reason:
                    failures[contender.key] = str(reason)
                    if reason.final:
                        given_up.add(contender.key)
                    say(f"  {reason}")
        versions |= servers.versions
    return [_medians(one, told.get(one.key, []), failures.get(one.key)) for one in chosen]


class Unmeasured(Exception):
    """A contender could not be run; says why, in one line. `final`: another round would cost too much."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def _one(contender: Contender, sizes: Sizes, servers: Servers) -> dict[str, Any]:
    try:
        url, pid = servers.fresh(contender.server)
    except NoServer as reason:
        raise Unmeasured(str(reason)) from None
    return one(contender, sizes, url, pid)


def one(contender: Contender, sizes: Sizes, url: str, pid: int) -> dict[str, Any]:
    """Run a round of one, on the empty server at `url`. Raises Unmeasured."""
    scratch = tempfile.mkdtemp(prefix="bench-")
    try:
        spec = {
            "seconds": sizes.seconds,
            "samples": sizes.samples,
            "drain": max(200, int(contender.drain * sizes.share)),
            "rest": sizes.rest,
            "queued": sizes.queued,
            "scratch": scratch,
            "server": url,
            "server_pid": pid,
        }
        told = {"BENCH_SPEC": json.dumps(spec), "BENCH_SERVER": url, "BENCH_SCRATCH": scratch}
        return _driven(
            _command(contender),
            os.environ | told | {"BENCH_NODE": f"{environment.NODE}/"},
            TIMEOUT_ONCE if contender.once else TIMEOUT,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _driven(command: list[str], variables: dict[str, str], timeout: int) -> dict[str, Any]:
    try:
        driver = subprocess.Popen(
            command,
            env=variables | {"PYTHONPATH": str(environment.HERE.parent)},
            cwd=environment.HERE.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise Unmeasured(f"{error.strerror}: {command[0].rpartition('/')[2]}") from None
    try:
        printed, said = driver.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Unmeasured(f"took longer than {timeout} s", final=True) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)  # it, and what it has left running
        driver.communicate()
    lines = printed.splitlines()
    if driver.returncode or not lines:
        raise Unmeasured(_last_word(said) or f"ended with {driver.returncode}")
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def _last_word(said: str) -> str:
    """Return the line that names the error, in what a Python or Node.js program printed at its end."""
    if os.environ.get("BENCH_LOUD"):
        sys.stderr.write(said)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Mismatch)\b", line)]
    return (named or lines or [""])[-1][:200]


def _command(contender: Contender) -> list[str]:
    if contender.interpreter == "node":
        return ["node", str(environment.HERE / "peers" / "node" / contender.runs)]
    python = sys.executable if contender.interpreter == "own" else str(environment.PYTHON)
    driven = ["bench.drive", contender.runs] if ":" in contender.runs else [contender.runs]
    return [python, "-m", *driven]


def _medians(contender: Contender, told: list[dict[str, Any]], failure: str | None) -> Measured:
    if not told:
        return Measured(contender=contender, failure=failure or "not measured")
    measured = Measured(contender=contender, versions=told[-1].get("versions", {}))
    for name in told[0]["figures"]:
        values = [one["figures"][name] for one in told if name in one["figures"]]
        measured.figures[name] = statistics.median(values)
        measured.spread[name] = (min(values), max(values))
    for name, costs in told[0].get("cpu", {}).items():
        measured.cpu[name] = {
            who: statistics.median([one["cpu"][name].get(who, 0.0) for one in told if name in one["cpu"]])
            for who in costs
        }
    return measured
