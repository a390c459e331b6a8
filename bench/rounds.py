"""Rounds over all contenders, one after the other, each in fresh processes; medians in the end."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from bench.contenders import Contender
from bench.servers import Servers

HERE = Path(__file__).parent
TIMEOUT = 180


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


def measure(contenders: Iterable[Contender], sizes: Sizes, say: Callable[[str], None]) -> list[Measured]:
    """Run all rounds, interleaved: a busy moment of the machine meets one round of everybody."""
    told: dict[str, list[dict[str, Any]]] = {}
    failures: dict[str, str] = {}
    chosen = list(contenders)
    with Servers() as servers:
        for number in range(sizes.rounds):
            for contender in chosen:
                if contender.key in failures or (contender.once and number):
                    continue
                say(f"round {number + 1} of {sizes.rounds}: {contender.title}")
                try:
                    told.setdefault(contender.key, []).append(_one(contender, sizes, servers))
                except Unmeasured as reason:
                    failures[contender.key] = str(reason)
                    say(f"  {reason}")
    return [_medians(one, told.get(one.key, []), failures.get(one.key)) for one in chosen]


class Unmeasured(Exception):
    """A contender could not be run; says why, in one line."""


def _one(contender: Contender, sizes: Sizes, servers: Servers) -> dict[str, Any]:
    scratch = tempfile.mkdtemp(prefix="bench-")
    try:
        url, pid = servers.fresh(contender.server)
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
        return _driven(_command(contender), os.environ | {"BENCH_SPEC": json.dumps(spec)})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _driven(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    try:
        ended = subprocess.run(
            command,
            env=environment | {"PYTHONPATH": str(HERE.parent)},
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unmeasured(f"{type(error).__name__}: {error}".splitlines()[0]) from None
    lines = ended.stdout.splitlines()
    if ended.returncode or not lines:
        if os.environ.get("BENCH_LOUD"):
            sys.stderr.write(ended.stderr)
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        raise Unmeasured(said[-1][:200] if said else f"ended with {ended.returncode}")
    told: dict[str, Any] = json.loads(lines[-1])
    return told


def _command(contender: Contender) -> list[str]:
    match contender.interpreter:
        case "own":
            return [sys.executable, "-m", contender.runs, *contender.arguments]
        case "node":
            return ["node", str(HERE / "peers" / contender.runs), *contender.arguments]
    return [str(HERE / ".peers" / "python" / "bin" / "python"), "-m", contender.runs, *contender.arguments]


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
