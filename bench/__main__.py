"""Measure Lineshaft and its peers side by side: `python -m bench`, `make bench`.

python -m bench                                  everything: tables, plot and JSON into bench/results/
python -m bench --only lineshaft --quick         Lineshaft alone, in half a minute
python -m bench --peers celery,bullmq --rounds 5
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import contenders, environment, machine, report, rounds
from bench.measures import MEASURES


def main() -> None:
    """Measure as the command line says, print it, and write it unless told not to."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the blocks that end what was started
    given = _parser().parse_args()
    if given.show:
        shown = msgspec.json.decode(Path(given.show).read_bytes(), type=report.Run)
        _write(shown, into_documents=True, say=print)
        return
    chosen = _chosen(given)
    sizes = _sizes(given)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    if any(one.interpreter != "own" for one in chosen):
        environment.ensure(say)
    about = machine.describe()
    versions: dict[str, str] = {}
    measured = rounds.measure(chosen, sizes, say, versions)
    run = report.Run(
        date=datetime.date.today().isoformat(),  # noqa: DTZ011  # the day of whoever measures
        machine=about,
        sizes=sizes,
        versions=versions,
        measured=measured,
    )
    print_run(run)
    if not given.no_write:
        _write(run, into_documents=given.docs or _is_whole(given), say=say)


def _is_whole(given: argparse.Namespace) -> bool:
    return not (given.quick or given.only or given.peers or given.keys)


def _write(run: report.Run, *, into_documents: bool, say: Callable[[str], None]) -> None:
    # What is only a part must not take the place of the whole run of the day.
    data, text = report.write(
        run, run.date if into_documents else f"{run.date}-part", report.whole(run, link="../../")
    )
    plot = data.with_suffix(".svg")
    if environment.PYTHON.exists():
        command = [str(environment.PYTHON), "-m", "bench.plot", str(data), str(plot)]
        if subprocess.run(command, cwd=report.ROOT, check=False).returncode:
            say("the plot was not drawn")
    say(f"written: {text.relative_to(report.ROOT)}, .json, .svg")
    if into_documents:
        if plot.exists():
            shutil.copy(plot, report.ROOT / "docs" / "assets" / "performance.svg")
        report.fill(report.ROOT / "docs" / "performance.md", "bench", report.whole(run, link="../"))
        report.fill(report.ROOT / "README.md", "bench", report.short(run))
        say("docs/performance.md and README.md show them")


def print_run(run: report.Run) -> None:
    """Print every figure, with the extremes of the rounds."""
    for one in run.measured:
        print(f"\n{one.contender.title}" + (f": {one.failure}" if one.failure else ""))
        for name, figure in one.figures.items():
            costs = ", ".join(f"{who} {cost:.1f} µs" for who, cost in one.cpu.get(name, {}).items() if cost)
            least, most = one.spread[name]
            measure = MEASURES[name]
            print(
                f"  {measure.title:44} {figure:12.2f} {measure.unit:8} ({least:.2f} to {most:.2f})  {costs}"
            )
    print(f"\n{report.about(run)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", choices=["lineshaft", "peers"], help="measure one side alone")
    parser.add_argument("--peers", help="measure these (comma-separated keys), beside Lineshaft")
    parser.add_argument("--keys", help="measure exactly these (comma-separated keys)")
    parser.add_argument("--rounds", type=int, help="rounds of which the medians are taken (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the work")
    parser.add_argument(
        "--queued", type=int, help="tasks in the long queue (default 1000000; 0 leaves it out)"
    )
    parser.add_argument("--show", metavar="RUN.json", help="measure nothing; show this run in the documents")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument(
        "--docs", action="store_true", help="show it in the documents although it is not everything"
    )
    return parser


def _sizes(given: argparse.Namespace) -> rounds.Sizes:
    chosen: dict[str, Any] = {}
    if given.quick:
        chosen = {"seconds": 0.3, "samples": 50, "share": 0.1, "rest": 1.0, "queued": 20_000, "rounds": 1}
    for name in ("rounds", "queued"):
        if getattr(given, name) is not None:
            chosen[name] = getattr(given, name)
    return rounds.Sizes(**chosen)


def _chosen(given: argparse.Namespace) -> list[contenders.Contender]:
    if given.keys:
        return _named(given.keys, contenders.ALL)
    peers = _named(given.peers, contenders.PEERS) if given.peers else list(contenders.PEERS)
    own = [] if given.only == "peers" else list(contenders.OWN)
    return own + ([] if given.only == "lineshaft" else peers)


def _named(keys: str, among: tuple[contenders.Contender, ...]) -> list[contenders.Contender]:
    by_key = {one.key: one for one in among}
    unknown = [key for key in keys.split(",") if key not in by_key]
    if unknown:
        sys.exit(f"there is no {', '.join(unknown)}; there are {', '.join(by_key)}")
    return [by_key[key] for key in keys.split(",")]


if __name__ == "__main__":
    main()
