"""A claimer that has gone when its answer is ready."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.asgi import Edge


class GoneProtocol:
    """A connection that is lost just before the answer leaves."""

    gone = True
    left = False

    def mind_leaving(self) -> None:
        pass

    def leave(self) -> None:
        self.left = True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/_tasks/_claim", {}),
        ("/_tasks/_claim", {"max": 5}),
        ("/_tasks/_report", {"items": [], "claim": {"max": 5}}),
        ("/_tasks/_claim", {"start": False, "worker": {"id": "w"}}),
    ],
)
async def test_what_it_would_have_been_given_is_released_unburned(edge: Edge, path: str, body: Any) -> None:
    await edge.send("PUT", "/_tasks/a", {"name": "n"})
    protocol = GoneProtocol()
    answer = await edge.send("POST", path, body, protocol=protocol)
    assert (answer.status, protocol.left) == (0, True)
    task = (await edge.send("GET", "/_tasks/a")).json
    assert (task["state"], task["attempt"], task["lost_leases"]) == ("queued", 0, 0)
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["released"]


async def test_a_report_is_applied_also_when_nobody_hears_the_answer(edge: Edge) -> None:
    await edge.send("PUT", "/_tasks/a", {"name": "n"})
    task = (await edge.send("POST", "/_tasks/_claim", {})).json
    item = {"op": "complete", "task_id": "a", "lease_token": task["lease_token"]}
    await edge.send("POST", "/_tasks/_report", {"items": [item], "claim": {}}, protocol=GoneProtocol())
    assert (await edge.send("GET", "/_tasks/a")).json["state"] == "completed"
