"""Measure Lineshaft and its peers side by side: `python -m bench`, `make bench`.

python -m bench                                  everything: tables, plot and JSON into bench/results/
python -m bench --only lineshaft --quick         Lineshaft alone, in half a minute
python -m bench --peers celery,bullmq --rounds 5
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from bench import contenders, machine, rounds
from bench.measures import MEASURES


def main() -> None:
    """Measure as the command line says, and print or write what came of it."""
    given = _parser().parse_args()
    sizes = _sizes(given)
    chosen = _chosen(given)
    began = time.monotonic()
    about = machine.describe()
    measured = rounds.measure(
        chosen, sizes, lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)
    )
    for one in measured:
        print(f"\n{one.contender.title}" + (f": {one.failure}" if one.failure else ""))
        for name, figure in one.figures.items():
            costs = ", ".join(f"{who} {cost:.1f} µs" for who, cost in one.cpu.get(name, {}).items())
            least, most = one.spread[name]
            title, unit = MEASURES[name].title, MEASURES[name].unit
            print(f"  {title:44} {figure:12.2f} {unit:8} ({least:.2f} to {most:.2f})  {costs}")
    print(about)


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
