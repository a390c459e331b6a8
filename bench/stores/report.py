"""The tables of a run over the stores."""

from __future__ import annotations

from collections.abc import Callable

from bench import report
from bench.measures import SIDE_BY_SIDE, STORES
from bench.report import Run, microseconds, number, table
from bench.rounds import Measured
from bench.stores.contenders import SERVERS, on

COLUMNS = ("enqueue_one", "enqueue_64", "bulk", "drain", "pick_up_p50", "pick_up_p99")
HEADS = ("One by one", "64 callers", "Bulk", "Drain", "Pick-up p50", "p99")

RAW = {
    "enqueue_64": "raw_single_64",
    "bulk": "raw_bulk",
    "drain": "raw_drain",
    "pick_up_p50": "raw_pick_up_p50",
    "pick_up_p99": "raw_pick_up_p99",
}
"""By column, which figure of the raw client it shows."""

LAYERS = (
    ("commit_1k_p50", "Bare 1 KB p50"),
    ("commit_1k_p99", "p99"),
    ("commit_256k_p50", "256 KB p50"),
    ("commit_256k_p99", "p99"),
    ("store_bulk", "Store: bulk"),
    ("raw_bulk", "Coordinator: bulk"),
    ("store_drain", "Store: drain"),
    ("raw_drain", "Coordinator: drain"),
)
COSTS = (("raw_bulk", "bulk"), ("raw_drain", "drain"), ("raw_single_64", "single"))

# What was set out for: what it is, of which contender, by which name, how much, whether more is better.
Goal = tuple[str, str, str, float, bool]
GOALS: tuple[Goal, ...] = (
    ("OpenSearch, bulk enqueue", "raw-opensearch", "raw_bulk", 10_000, True),
    ("OpenSearch, drain", "raw-opensearch", "raw_drain", 10_000, True),
    ("OpenSearch, one by one from 64 connections", "raw-opensearch", "raw_single_64", 2_500, True),
    ("OpenSearch, pick-up p50", "raw-opensearch", "raw_pick_up_p50", 3.0, False),
    ("PostgreSQL, pick-up p50", "raw-postgres", "raw_pick_up_p50", 2.0, False),
    ("Valkey, pick-up p50", "raw-valkey-always", "raw_pick_up_p50", 1.5, False),
)
AHEAD = (
    ("PostgreSQL, drain", "raw-postgres", ("graphile", "pgboss", "procrastinate")),
    ("Valkey, drain", "raw-valkey-always", ("bullmq",)),
)
"""Whose drain is to be above whose."""


def whole(run: Run, *, link: str) -> str:
    """Return all tables. `link` leads from the document to the root of the repository."""
    parts = [
        report.about(run),
        side_by_side(run),
        layers(run),
        costs(run),
        standing(run),
        goals(run),
        report.settings(_once(run), link),
    ]
    return "\n\n".join(part for part in parts if part)


def short(run: Run) -> str:
    """Return the table of the README."""
    return f"{side_by_side(run)}\n\n{report.about(run)}"


def side_by_side(run: Run) -> str:
    """Return tasks a second and milliseconds of everybody, by what they run on."""
    kinds = ("raw-", "sdk-", "bare-", "standing-")
    rows = []
    for where in SERVERS:
        here = [one for one in run.measured if on(one.contender) == where]
        here = [one for one in here if not one.contender.key.startswith(kinds[2:])]
        here.sort(key=lambda one: not one.contender.key.startswith(kinds))
        rows += [_row(one) for one in here]
    return table(["", "On", "Survives", *HEADS], rows) if rows else ""


def _row(one: Measured) -> list[str]:
    raw = one.contender.key.startswith("raw-")
    cells = [_cell(name, one.figures.get(RAW.get(name, "") if raw else name)) for name in COLUMNS]
    if one.failure:
        cells = [f"not measured: {one.failure}", *[""] * (len(COLUMNS) - 1)]
    return [one.contender.title, SERVERS[on(one.contender)], one.contender.survives, *cells]


def layers(run: Run) -> str:
    """Return what is the database's, the store's and the coordinator's, for each store."""
    rows = _by_store(run, [name for name, _ in LAYERS], number)
    if not rows:
        return ""
    return table(["Commits (ms), tasks/s", *(head for _, head in LAYERS)], rows) + (
        "\n\n*Bare* is one writer that makes one commit after the other; *store* writes the rows of the "
        "raw client's bulk enqueue and drain in as many commits as the coordinator made; *coordinator* is "
        "the raw client's figure. Between the first two is our way to store things, between the last two "
        "HTTP, parsing, deciding and answering."
    )


def costs(run: Run) -> str:
    """Return the processor time a task, of the coordinator and of the store's server."""
    rows = []
    for where, title in SERVERS.items():
        found = next((one for one in run.measured if one.contender.key == f"raw-{where}"), None)
        if found is None or found.failure:
            continue
        shown = [
            microseconds(found.cpu.get(name, {}).get(who)) for name, _ in COSTS for who in ("server", "store")
        ]
        rows.append([title, *shown])
    heads = [head for _, name in COSTS for head in (f"Coordinator, {name}", f"server, {name}")]
    return table(["Processor time a task (µs)", *heads], rows) if rows else ""


def standing(run: Run) -> str:
    """Return what stands: at rest, with a long queue, after a kill."""
    names = [name for name in STORES if not name.startswith("commit_")]
    heads = [f"{STORES[name].title} ({STORES[name].unit})" for name in names]
    rows = _by_store(run, names, number)
    if not rows:
        return ""
    return table(["", *heads], rows).replace("1,000,000", f"{run.sizes.queued:,}")


def goals(run: Run) -> str:
    """Return what was set out for, and whether it is reached."""
    rows = []
    for title, key, name, goal, more in GOALS:
        figure = run.figure(key, name)
        if figure is not None:
            reached = figure >= goal if more else figure <= goal
            rows.append([title, number(figure), f"{'≥' if more else '≤'} {goal:,g}", _said(reached)])
    for title, key, others in AHEAD:
        ours = run.figure(key, "raw_drain")
        theirs = [one for other in others if (one := run.figure(other, "drain")) is not None]
        if ours is not None and theirs:
            best = max(theirs)
            rows.append([title, number(ours), f"> {number(best)}", _said(ours > best)])
    return table(["Set out for", "Measured", "Goal", "Reached"], rows) if rows else ""


def _by_store(run: Run, names: list[str], shown: Callable[[float], str]) -> list[list[str]]:
    rows = []
    for where, title in SERVERS.items():
        figures = {
            name: figure
            for one in run.measured
            if one.contender.interpreter == "own" and on(one.contender) == where
            for name, figure in one.figures.items()
            if name in names
        }
        if figures:
            cells = ["–" if name not in figures else shown(figures[name]) for name in names]
            rows.append([title, *cells])
    return rows


def _once(run: Run) -> Run:
    """Leave out of the settings what says nothing more: Lineshaft's on each store are said once."""
    kinds = ("sdk-", "bare-", "standing-")
    kept = [one for one in run.measured if not one.contender.key.startswith(kinds)]
    return Run(date=run.date, machine=run.machine, sizes=run.sizes, versions=run.versions, measured=kept)


def _said(reached: bool) -> str:  # it is the one thing to say
    return "yes" if reached else "no"


def _cell(name: str, figure: float | None) -> str:
    if figure is None:
        return "–"
    return f"{figure:,.0f}" if SIDE_BY_SIDE[name].more else f"{figure:.2f}"
