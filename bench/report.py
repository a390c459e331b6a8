"""The tables that a run becomes, in `bench/results/` and between markers in documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from bench.contenders import POWER_LOSS
from bench.measures import OWN, SIDE_BY_SIDE, Measure
from bench.rounds import Measured, Sizes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"

COLUMNS = ("enqueue_one", "enqueue_64", "bulk", "drain", "pick_up_p50", "pick_up_p99", "round_trip_p50")
HEADS = ("One by one", "64 callers", "Bulk", "Drain", "Pick-up p50", "p99", "Round trip p50")

# What was set out for: the figure, of which contender, by which name.
TARGETS: tuple[tuple[str, str, Measure], ...] = (
    ("lineshaft-protocol", "raw_bulk", OWN["raw_bulk"]),
    ("lineshaft-protocol", "raw_drain", OWN["raw_drain"]),
    ("lineshaft", "drain", Measure("Drain by one Python worker process", "tasks/s", True, 25_000, 50_000)),
    ("lineshaft-protocol", "raw_single_64", OWN["raw_single_64"]),
    (
        "lineshaft-embedded",
        "enqueue_64",
        Measure("Embedded enqueue, one by one from 64 coroutines", "tasks/s", True, 40_000, 70_000),
    ),
    ("lineshaft-protocol", "raw_pick_up_p50", OWN["raw_pick_up_p50"]),
    ("lineshaft-protocol", "raw_pick_up_p99", OWN["raw_pick_up_p99"]),
    ("lineshaft", "pick_up_p50", Measure("Pick-up by an idle Python worker, p50", "ms", False, 0.6, 0.45)),
    ("lineshaft", "pick_up_p99", Measure("Pick-up by an idle Python worker, p99", "ms", False, 1.5, 0.9)),
    ("lineshaft", "round_trip_p50", Measure("`enqueue_and_wait`, p50", "ms", False, 1.0, 0.8)),
    *(("lineshaft-standing", name, OWN[name]) for name in OWN if name.startswith(("rest_", "backlog_"))),
    ("lineshaft-protocol", "store_bulk", OWN["store_bulk"]),
    ("lineshaft-protocol", "store_drain", OWN["store_drain"]),
)


class Run(msgspec.Struct, kw_only=True):
    """One run: when, on what, how much, and what came of it."""

    date: str
    machine: dict[str, Any]
    sizes: Sizes
    versions: dict[str, str]
    measured: list[Measured]

    def figure(self, key: str, name: str) -> float | None:
        """Return a median, None where it was not measured."""
        return next((one.figures.get(name) for one in self.measured if one.contender.key == key), None)


def write(run: Run, name: str, tables: str) -> list[Path]:
    """Write JSON and Markdown of that name into `bench/results/`; return the files."""
    RESULTS.mkdir(exist_ok=True)
    data, text = RESULTS / f"{name}.json", RESULTS / f"{name}.md"
    data.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    text.write_text(f"# Measured on {run.date}\n\n{tables}\n", encoding="utf-8")
    return [data, text]


def fill(document: Path, marker: str, text: str) -> None:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->`. ValueError without them."""
    before = document.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    after, found = re.subn(
        re.escape(begin) + ".*?" + re.escape(end),
        lambda _: f"{begin}\n{text}\n{end}",
        before,
        flags=re.DOTALL,
    )
    if found != 1:
        raise ValueError(f"{document.name} has no place for {marker}")
    document.write_text(after, encoding="utf-8")


def whole(run: Run, *, link: str) -> str:
    """Return all tables. `link` leads from the document to the root of the repository."""
    parts = [about(run), side_by_side(run), losses(run), targets(run), settings(run, link)]
    return "\n\n".join(part for part in parts if part)


def short(run: Run) -> str:
    """Return the table of the README."""
    return f"{side_by_side(run)}\n\n{losses(run)}\n\n{about(run)}"


def about(run: Run) -> str:
    """Return a paragraph on when and on what it was measured."""
    machine = run.machine
    text = (
        f"Measured on {run.date}: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']} GB, "
        f"{machine['system']}, fdatasync of 4 KB p50 {machine['fdatasync_p50_ms']} ms, "
        f"p99 {machine['fdatasync_p99_ms']} ms. Medians of {run.sizes.rounds} interleaved "
        f"round{'s' if run.sizes.rounds > 1 else ''}; all processes share the cores."
    )
    if run.sizes.share < 1:
        text += f" A quick run, of {run.sizes.share:.0%} of the work."
    if machine["load_before"] > machine["cores"] / 4:
        text += (
            f" **The machine was busy with other work** (load {machine['load_before']} before the run): the "
            "figures are lower, and noisier, than those of a quiet one."
        )
    return text


def side_by_side(run: Run) -> str:
    """Return the table of all contenders: tasks a second, and milliseconds."""
    rows = [one for one in run.measured if one.failure or any(name in one.figures for name in SIDE_BY_SIDE)]
    rows.sort(key=lambda one: one.contender.survives != POWER_LOSS)
    lines = []
    for one in rows:
        cells = [_cell(name, one.figures.get(name)) for name in COLUMNS]
        if one.failure:
            cells = [f"not measured: {one.failure}", *[""] * (len(COLUMNS) - 1)]
        lines.append([one.contender.title, one.contender.survives, *cells])
    return table(["", "Survives", *HEADS], lines)


def losses(run: Run) -> str:
    """Return who is ahead of us, and where; of ours the coordinator as a server is taken, as most are run."""
    lines = []
    for name, measure in SIDE_BY_SIDE.items():
        served, embedded = run.figure("lineshaft", name), run.figure("lineshaft-embedded", name)
        ours = embedded if served is None else served
        if ours is None:
            continue
        ahead = [
            (one.figures[name], one.contender.title + ("" if one.contender.survives == POWER_LOSS else "\\*"))
            for one in run.measured
            if not _is_own(one) and name in one.figures and _beats(one.figures[name], ours, measure)
        ]
        if ahead:
            ahead.sort(reverse=measure.more)
            named = "; ".join(f"{title} {_cell(name, figure)}" for figure, title in ahead)
            also = "" if served is None or embedded is None else f", embedded {_cell(name, embedded)}"
            lines.append(f"* {measure.title}: {named} ({measure.unit}; ours {_cell(name, ours)}{also})")
    if not lines:
        return ""
    star = (
        "\n\n\\* keeps nothing when the power fails, or when its server is killed."
        if any("*" in line[1:] for line in lines)
        else ""
    )
    return "Where others are ahead of us:\n\n" + "\n".join(lines) + star


def targets(run: Run) -> str:
    """Return the table of what was set out for, with the processor time a task."""
    lines = []
    for key, name, measure in TARGETS:
        figure = run.figure(key, name)
        if figure is None:
            continue
        [measured] = [one for one in run.measured if one.contender.key == key]
        title = measure.title.replace("1,000,000", f"{run.sizes.queued:,}")
        lines.append(
            [
                title,
                f"{number(figure)} {measure.unit}",
                _goal(measure.reach, measure),
                _goal(measure.aim, measure),
                *(
                    microseconds(measured.cpu.get(name, {}).get(who))
                    for who in ("server", "client", "worker")
                ),
            ]
        )
    if not lines:
        return ""
    heads = ["Lineshaft", "Measured", "Reach", "Aim", "Coordinator", "Client", "Worker"]
    return table(heads, lines) + (
        "\n\n*Reach* is what was set out for on a quiet machine of two cores, *aim* what would be better "
        "still; neither is a promise. The last three columns are processor time a task, in µs."
    )


def settings(run: Run, link: str) -> str:
    """Return who was run with what."""
    lines = []
    for one in run.measured:
        source = one.contender.source
        place = source if "://" in source else link + source
        versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        lines.append([one.contender.title, f"{one.contender.settings} ([source]({place}))", versions])
    servers = ", ".join(f"{name} {version}" for name, version in sorted(run.versions.items()))
    return table(["", "Settings", "Versions"], lines) + (f"\n\nServers: {servers}." if servers else "")


def _is_own(one: Measured) -> bool:
    return one.contender.interpreter == "own"


def _beats(theirs: float, ours: float, measure: Measure) -> bool:
    return theirs > ours if measure.more else theirs < ours


def _cell(name: str, figure: float | None) -> str:
    if figure is None:
        return "–"
    return f"{figure:,.0f}" if SIDE_BY_SIDE[name].more else f"{figure:.2f}"


def number(figure: float) -> str:
    """Return a figure with as many digits as matter."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def _goal(goal: float | None, measure: Measure) -> str:
    if goal is None:
        return ""
    return f"{'≥' if measure.more else '≤'} {goal:,g}"


def microseconds(cost: float | None) -> str:
    """Return a cost with one decimal, nothing for none."""
    return "" if not cost else f"{cost:.1f}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown; columns of figures stand at the right."""
    texts = ("", "On", "Survives", "Settings", "Versions")
    rule = ["---", *("---" if head in texts else "--:" for head in heads[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))
