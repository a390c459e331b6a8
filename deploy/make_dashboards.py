"""Write `lineshaft.ndjson` in `kibana/` and in `opensearch-dashboards/`: `python deploy/make_dashboards.py`.

Both products read saved objects of the form they had when one became two. What is here uses only what both
have kept: index patterns (Kibana shows them as data views), saved searches, visualizations by aggregation,
and dashboards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Saved = dict[str, Any]

TASKS = ("lineshaft-tasks", "lineshaft-tasks-*", "created_at")
HISTORY = ("lineshaft-history", "logs-lineshaft.task-*", "@timestamp")

# What a saved object says of the version that wrote it; later ones bring it up to date when they import it.
WRITTEN_BY = {
    "kibana": {"coreMigrationVersion": "8.0.0"},
    "opensearch-dashboards": {"migrationVersion": {}},
}
IS_A_TASK = "not gone: true"
IS_OPEN = f"{IS_A_TASK} and state: (scheduled or waiting or queued or claimed or running)"
NANOSECONDS = {
    "id": "duration",
    "params": {"inputFormat": "nanoseconds", "outputFormat": "asSeconds", "outputPrecision": 3},
}


def objects(product: str) -> list[Saved]:
    """Return all saved objects for "kibana" or "opensearch-dashboards", what others refer to first."""
    made = [
        index_pattern(*TASKS, shown="Lineshaft tasks"),
        index_pattern(
            *HISTORY,
            shown="Lineshaft history",
            formats=dict.fromkeys(("event.duration", "task.waited", "task.turnaround"), NANOSECONDS),
        ),
        *searches(),
        *history_visualizations(),
        *task_visualizations(),
    ]
    made += dashboards()
    return [saved | WRITTEN_BY[product] for saved in made]


# -- what there is --------------------------------------------------------------------------------------


def searches() -> list[Saved]:
    failures = ["task.name", "task.id", "event.reason", "error.type", "error.message", "task.attempt"]
    life = ["event.action", "task.name", "task.id", "task.state", "task.worker.id", "event.duration"]
    shown = ["state", "queue", "name", "task_id", "attempt", "run_at", "error.message"]
    return [
        search("failures", "Lineshaft: failed attempts", HISTORY, "event.outcome: failure", columns=failures),
        search("moves", "Lineshaft: every move of every task", HISTORY, "", columns=life),
        search("open-tasks", "Lineshaft: open tasks", TASKS, IS_OPEN, columns=shown),
    ]


def history_visualizations() -> list[Saved]:
    percentiles = {"percents": [50, 95, 99]}
    return [
        over_time(
            "ended",
            "Lineshaft: tasks that ended, by outcome",
            metrics=[metric("count")],
            split="event.outcome",
            query="event.action: task-end",
        ),
        over_time(
            "enqueued",
            "Lineshaft: tasks enqueued, by queue",
            metrics=[metric("count")],
            split="task.queue",
            query="event.action: task-enqueue",
        ),
        over_time(
            "durations",
            "Lineshaft: how long attempts take",
            metrics=[metric("percentiles", "event.duration", percentiles)],
            query="event.action: task-end",
            form="line",
        ),
        over_time(
            "waits",
            "Lineshaft: how long tasks wait for a worker",
            metrics=[metric("percentiles", "task.waited", percentiles)],
            query="event.action: task-start",
            form="line",
        ),
        table(
            "names",
            "Lineshaft: by name",
            HISTORY,
            metrics=[metric("count"), metric("percentiles", "event.duration", {"percents": [95]})],
            rows=["task.name", "event.outcome"],
            query="event.action: task-end",
        ),
        table(
            "errors",
            "Lineshaft: errors",
            HISTORY,
            metrics=[metric("count"), metric("max", "@timestamp")],
            rows=["error.type", "task.name"],
            query="event.outcome: failure",
        ),
        table(
            "lost-leases",
            "Lineshaft: workers that lost leases",
            HISTORY,
            metrics=[metric("count"), metric("max", "@timestamp")],
            rows=["task.worker.id"],
            query="event.action: lease-lost",
        ),
    ]


def task_visualizations() -> list[Saved]:
    return [
        table(
            "queues",
            "Lineshaft: open tasks, by queue and state",
            TASKS,
            metrics=[metric("count"), metric("min", "run_at")],
            rows=["queue", "state"],
            query=IS_OPEN,
        ),
        table(
            "retried",
            "Lineshaft: open tasks that have failed before, by name and error",
            TASKS,
            metrics=[metric("count"), metric("max", "attempt")],
            rows=["name", "error.type"],
            query=f"{IS_OPEN} and error.type: *",
        ),
    ]


def dashboards() -> list[Saved]:
    return [
        dashboard(
            "lineshaft-history-dashboard",
            "Lineshaft: what happened",
            [
                ("visualization", "ended"),
                ("visualization", "enqueued"),
                ("visualization", "durations"),
                ("visualization", "waits"),
                ("visualization", "names"),
                ("visualization", "errors"),
                ("visualization", "lost-leases"),
                ("search", "failures"),
            ],
        ),
        dashboard(
            "lineshaft-tasks-dashboard",
            "Lineshaft: what is there",
            [("visualization", "queues"), ("visualization", "retried"), ("search", "open-tasks")],
        ),
    ]


# -- how each is written ----------------------------------------------------------------------------------


def index_pattern(
    id: str, title: str, time: str, *, shown: str, formats: dict[str, Any] | None = None
) -> Saved:
    attributes = {
        "title": title,
        "timeFieldName": time,
        "name": shown,
        "fieldFormatMap": packed(formats or {}),
    }
    return saved("index-pattern", id, attributes, [])


def search(name: str, title: str, where: tuple[str, str, str], query: str, *, columns: list[str]) -> Saved:
    attributes = {
        "title": title,
        "description": "",
        "columns": columns,
        "sort": [[where[2], "desc"]],
        "kibanaSavedObjectMeta": {"searchSourceJSON": source(query)},
    }
    return saved("search", f"lineshaft-{name}", attributes, [refers_to(where)])


def over_time(
    name: str,
    title: str,
    *,
    metrics: list[Saved],
    query: str,
    split: str | None = None,
    form: str = "histogram",
) -> Saved:
    """Draw metrics of the history over time, in columns or lines."""
    buckets = [
        {
            "type": "date_histogram",
            "schema": "segment",
            "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 1},
        }
    ]
    if split is not None:
        buckets.append(terms(split, "group"))
    numbers = [str(number) for number, _ in enumerate(metrics, 1)]
    params = {
        "type": form,
        "addLegend": True,
        "addTooltip": True,
        "legendPosition": "right",
        "times": [],
        "addTimeMarker": False,
        "grid": {"categoryLines": False},
        "categoryAxes": [
            {
                "id": "CategoryAxis-1",
                "type": "category",
                "position": "bottom",
                "show": True,
                "scale": {"type": "linear"},
                "labels": {"show": True, "truncate": 100},
                "title": {},
            }
        ],
        "valueAxes": [
            {
                "id": "ValueAxis-1",
                "name": "LeftAxis-1",
                "type": "value",
                "position": "left",
                "show": True,
                "scale": {"type": "linear", "mode": "normal"},
                "labels": {"show": True, "rotate": 0, "filter": False, "truncate": 100},
                "title": {"text": ""},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": form,
                "mode": "stacked" if form == "histogram" else "normal",
                "data": {"id": number, "label": ""},
                "valueAxis": "ValueAxis-1",
                "drawLinesBetweenPoints": True,
                "showCircles": True,
            }
            for number in numbers
        ],
    }
    return visualization(name, title, HISTORY, form, params, [*metrics, *buckets], query)


def table(
    name: str, title: str, where: tuple[str, str, str], *, metrics: list[Saved], rows: list[str], query: str
) -> Saved:
    params = {"perPage": 10, "showPartialRows": False, "showMetricsAtAllLevels": False, "showTotal": False}
    buckets = [terms(field, "bucket") for field in rows]
    return visualization(name, title, where, "table", params, [*metrics, *buckets], query)


def metric(kind: str, field: str | None = None, more: dict[str, Any] | None = None) -> Saved:
    params = ({} if field is None else {"field": field}) | (more or {})
    return {"type": kind, "schema": "metric", "params": params}


def terms(field: str, schema: str) -> Saved:
    return {
        "type": "terms",
        "schema": schema,
        "params": {
            "field": field,
            "size": 10,
            "order": "desc",
            "orderBy": "1",
            "otherBucket": True,
            "otherBucketLabel": "other",
            "missingBucket": True,
            "missingBucketLabel": "none",
        },
    }


def visualization(
    name: str,
    title: str,
    where: tuple[str, str, str],
    form: str,
    params: dict[str, Any],
    aggregations: list[Saved],
    query: str,
) -> Saved:
    numbered = [{"id": str(number), "enabled": True, **each} for number, each in enumerate(aggregations, 1)]
    # Rows are ordered by their first metric, which is a count; a percentile is no single number to order by.
    for each in numbered:
        if each["type"] == "terms" and aggregations[0]["type"] != "count":
            each["params"] = each["params"] | {"orderBy": "_key"}
    attributes = {
        "title": title,
        "description": "",
        "uiStateJSON": "{}",
        "version": 1,
        "visState": packed({"title": title, "type": form, "params": params, "aggs": numbered}),
        "kibanaSavedObjectMeta": {"searchSourceJSON": source(query)},
    }
    return saved("visualization", f"lineshaft-{name}", attributes, [refers_to(where)])


def dashboard(id: str, title: str, content: list[tuple[str, str]]) -> Saved:
    """Lay out panels in two columns; a search takes the whole width."""
    panels, references = [], []
    x = y = 0
    for number, (kind, name) in enumerate(content, 1):
        width = 48 if kind == "search" else 24
        if x + width > 48:
            x, y = 0, y + 15
        place = {"x": x, "y": y, "w": width, "h": 15, "i": str(number)}
        panels.append(
            {
                "panelIndex": str(number),
                "gridData": place,
                "version": "7.10.2",
                "embeddableConfig": {},
                "panelRefName": f"panel_{number}",
            }
        )
        references.append({"name": f"panel_{number}", "type": kind, "id": f"lineshaft-{name}"})
        x, y = (0, y + 15) if x + width >= 48 else (x + width, y)
    attributes = {
        "title": title,
        "description": "",
        "hits": 0,
        "version": 1,
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 30_000},
        "optionsJSON": packed({"hidePanelTitles": False, "useMargins": True}),
        "panelsJSON": packed(panels),
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": packed({"query": {"query": "", "language": "kuery"}, "filter": []})
        },
    }
    return saved("dashboard", id, attributes, references)


def source(query: str) -> str:
    return packed(
        {
            "query": {"query": query, "language": "kuery"},
            "filter": [],
            "indexRefName": "kibanaSavedObjectMeta.searchSourceJSON.index",
        }
    )


def refers_to(where: tuple[str, str, str]) -> dict[str, str]:
    return {
        "name": "kibanaSavedObjectMeta.searchSourceJSON.index",
        "type": "index-pattern",
        "id": where[0],
    }


def saved(kind: str, id: str, attributes: dict[str, Any], references: list[dict[str, str]]) -> Saved:
    return {"id": id, "type": kind, "attributes": attributes, "references": references}


def packed(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def text_of(product: str) -> str:
    """Return the file for a product."""
    return "".join(f"{packed(each)}\n" for each in objects(product))


if __name__ == "__main__":
    for product in WRITTEN_BY:
        (HERE / product / "lineshaft.ndjson").write_text(text_of(product))
