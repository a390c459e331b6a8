"""Draws a run, with the matplotlib of the peers' environment: `… -m bench.plot RUN.json OUT.svg`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PANELS = (
    ("enqueue_64", "Enqueue one by one, 64 callers (tasks/s)"),
    ("bulk", "Bulk enqueue (tasks/s)"),
    ("drain", "Drain by one worker process (tasks/s)"),
    ("pick_up_p50", "Pick-up by an idle worker, p50 (ms)"),
)
OURS, DURABLE, OTHERS = "#00796b", "#5c6bc0", "#b0bec5"


def draw(run: dict[str, Any], target: Path) -> None:
    """Draw a panel of bars for each measure, on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bench"
    from matplotlib import pyplot
    from matplotlib.patches import Patch
    from matplotlib.ticker import NullFormatter

    figure, panels = pyplot.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for axes, (name, title) in zip(panels.flat, PANELS, strict=True):
        rows = [one for one in run["measured"] if name in one["figures"]]
        if not rows:
            axes.set_axis_off()
            continue
        rows.sort(key=lambda one: one["figures"][name], reverse=name.endswith("p50"))
        values = [one["figures"][name] for one in rows]
        bars = axes.barh(
            [one["contender"]["title"] for one in rows],
            values,
            color=[_colour(one["contender"]) for one in rows],
        )
        label = "{:,.2f}" if name.endswith("p50") else "{:,.0f}"
        axes.bar_label(bars, fmt=label, padding=3, fontsize=7)
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    legend = [
        Patch(color=OURS, label="Lineshaft: survives a power loss"),
        Patch(color=DURABLE, label="survives a power loss"),
        Patch(color=OTHERS, label="survives nothing"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(target, metadata={"Date": None, "Creator": None})


def _colour(contender: dict[str, Any]) -> str:
    if contender["interpreter"] == "own":
        return OURS
    return DURABLE if contender["survives"] == "power loss" else OTHERS


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
