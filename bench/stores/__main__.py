"""Measure Lineshaft on each of its stores, beside what else runs on the same servers: `make bench-stores`.

python -m bench.stores                                        everything: tables and JSON into bench/results/
python -m bench.stores --keys raw-postgres,graphile --no-write
python -m bench.stores --on opensearch --quick                what runs on one server
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import environment, machine, rounds
from bench.__main__ import print_run
from bench.contenders import Contender
from bench.report import ROOT, Run, fill, write
from bench.stores import contenders, report

MARKER = "bench-stores"


def main() -> None:
    """Measure as the command line says, print it, and write it unless told not to."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the blocks that end what was started
    given = _parser().parse_args()
    if given.show:
        shown = msgspec.json.decode(Path(given.show).read_bytes(), type=Run)
        _write(shown, into_documents=True, say=print)
        return
    chosen = _chosen(given)
    sizes = _sizes(given)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    environment.ensure(say)
    about = machine.describe()
    versions: dict[str, str] = {}
    measured = rounds.measure(chosen, sizes, say, versions)
    run = Run(
        date=datetime.date.today().isoformat(),  # noqa: DTZ011  # the day of whoever measures
        machine=about,
        sizes=sizes,
        versions=versions,
        measured=measured,
    )
    print_run(run)
    if not given.no_write:
        whole = not (given.quick or given.keys or given.on)
        _write(run, into_documents=given.docs or whole, say=say)


def _write(run: Run, *, into_documents: bool, say: Callable[[str], None]) -> None:
    name = f"{run.date}-stores" + ("" if into_documents else "-part")
    _, text = write(run, name, report.whole(run, link="../../"))
    say(f"written: {text.relative_to(ROOT)}, .json")
    if into_documents:
        fill(ROOT / "docs" / "performance.md", MARKER, report.whole(run, link="../"))
        fill(ROOT / "README.md", MARKER, report.short(run))
        say("docs/performance.md and README.md show them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.stores", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--keys", help="measure exactly these (comma-separated keys)")
    parser.add_argument("--on", help=f"measure what runs on these (of {', '.join(contenders.SERVERS)})")
    parser.add_argument("--rounds", type=int, help="rounds of which the medians are taken (default 3)")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the work")
    parser.add_argument("--queued", type=int, help="tasks in the long queue (default 1000000)")
    parser.add_argument("--show", metavar="RUN.json", help="measure nothing; show this run in the documents")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument(
        "--docs", action="store_true", help="show it in the documents although it is not everything"
    )
    return parser


def _sizes(given: argparse.Namespace) -> rounds.Sizes:
    chosen: dict[str, Any] = {"rest": 15.0}
    if given.quick:
        chosen = {"seconds": 0.3, "samples": 50, "share": 0.1, "rest": 3.0, "queued": 20_000, "rounds": 1}
    for name in ("rounds", "queued"):
        if getattr(given, name) is not None:
            chosen[name] = getattr(given, name)
    return rounds.Sizes(**chosen)


def _chosen(given: argparse.Namespace) -> list[Contender]:
    by_key = {one.key: one for one in contenders.ALL}
    wanted = given.keys.split(",") if given.keys else list(by_key)
    places = given.on.split(",") if given.on else list(contenders.SERVERS)
    unknown = [key for key in wanted if key not in by_key] + [
        one for one in places if one not in contenders.SERVERS
    ]
    if unknown:
        sys.exit(f"there is no {', '.join(unknown)}; there are {', '.join(by_key)}")
    return [by_key[key] for key in wanted if contenders.on(by_key[key]) in places]


if __name__ == "__main__":
    main()
