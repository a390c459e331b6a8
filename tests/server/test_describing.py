"""What the coordinator says of itself: /openapi.json and /metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lineshaft.engine.metrics import Metrics
from lineshaft.wire import CALLS
from tests.server.asgi import Edge


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


async def test_openapi_describes_every_call_and_every_reference_leads_somewhere(edge: Edge) -> None:
    described = (await edge.send("GET", "/openapi.json")).json
    assert described["openapi"].startswith("3.1")
    for call in CALLS.values():
        operation = described["paths"][call.path][call.method.lower()]
        assert operation["operationId"] == call.name
        assert ("requestBody" in operation) == (call.body is not None)
        assert {str(status) for status in call.statuses} <= set(operation["responses"])
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert ("id" in names) == ("{id}" in call.path)
    for reference in references(described):
        found = described
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    identifiers = [o["operationId"] for path in described["paths"].values() for o in path.values()]
    assert len(identifiers) == len(set(identifiers))


async def test_openapi_says_how_fields_are_spelled_and_what_is_reserved(edge: Edge) -> None:
    described = (await edge.send("GET", "/openapi.json")).json
    task = described["components"]["schemas"]["Enqueue"]["properties"]
    assert re.fullmatch(task["name"]["pattern"], "mail") and not re.fullmatch(task["name"]["pattern"], "a b")
    for field in ("unique", "group", "limits", "depends_on"):
        assert "not supported" in task[field]["description"] and task[field]["const"] is None
    assert "1 s to 24 h" in task["lease"]["anyOf"][0]["description"]
    claim = described["components"]["schemas"]["Claim"]["properties"]
    assert claim["queues"]["anyOf"][0]["minItems"] == 1
    [id, *_] = described["paths"]["/_tasks/{id}"]["get"]["parameters"]
    assert re.fullmatch(id["schema"]["pattern"], "a/b") and not re.fullmatch(id["schema"]["pattern"], "_a")
    followed = described["paths"]["/_tasks/_changes"]["get"]["responses"]["200"]["content"]
    assert set(followed) == {"application/json", "text/event-stream"}
    assert "101" in described["paths"]["/_tasks/_session"]["get"]["responses"]
    assert "431" in described["components"]["responses"]["Error"]["description"]


async def test_openapi_says_what_the_structs_say(edge: Edge) -> None:
    schemas = (await edge.send("GET", "/openapi.json")).json["components"]["schemas"]
    assert schemas["Enqueue"]["required"] == ["name"]
    assert schemas["Enqueue"]["additionalProperties"] is False
    assert schemas["Snooze"]["required"] == ["lease_token", "for"]
    assert "additionalProperties" not in schemas["Task"]


SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"(,[a-z]+="([^"\\\n]|\\.)*")*\})? -?[0-9][0-9.e+-]*')


async def test_metrics_are_what_prometheus_reads(edge: Edge) -> None:
    await edge.send("PUT", "/_tasks/a", {"name": "n", "queue": "q"})
    await edge.send("POST", "/_tasks/_claim", {})
    await edge.send("GET", "/nothing")
    answer = await edge.send("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line
    for field in Metrics.__struct_fields__:
        assert field == "shard" or any(line.startswith(f"lineshaft_shard_{field}") for line in lines), field
    for line in (
        'lineshaft_tasks{queue="q",state="running"} 1',
        'lineshaft_http_responses_total{status="404"} 1',
        "lineshaft_leases 1",
        'lineshaft_queue_paused{queue="q"} 0',
    ):
        assert line in lines
