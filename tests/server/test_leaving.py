"""A claimer that has gone when its answer is ready."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lineshaft.server.answering import ClientGone
from lineshaft.server.responses import Response
from tests.server.asgi import Edge


class GoneProtocol:
    """A connection that is lost just before the answer leaves."""

    left = False

    def mind_leaving(self) -> None:
        pass

    async def reach(self) -> None:
        raise ClientGone

    async def respond(self, response: Response) -> None:
        """Write to nobody."""

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


class SlowProtocol(GoneProtocol):
    """A connection whose client has not read what it was sent before, and then hangs up."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()

    async def reach(self) -> None:
        self.asked.set()
        await self.hung_up.wait()
        raise ClientGone


async def test_whoever_hangs_up_without_having_read_so_far_holds_nothing(edge: Edge) -> None:
    await edge.send("PUT", "/_tasks/a", {"name": "n"})
    slow = SlowProtocol()
    claiming = asyncio.create_task(edge.send("POST", "/_tasks/_claim", {}, protocol=slow))
    await slow.asked.wait()
    assert (await edge.send("GET", "/_tasks/a")).json["state"] == "running"
    slow.hung_up.set()
    await claiming
    task = (await edge.send("GET", "/_tasks/a")).json
    assert (task["state"], task["attempt"], task["lost_leases"]) == ("queued", 0, 0)


async def test_what_a_repeated_claim_was_given_stays_when_the_first_requester_goes(edge: Edge) -> None:
    await edge.send("PUT", "/_tasks/a", {"name": "n"})
    slow, claim = SlowProtocol(), {"claim_id": "c"}
    claiming = asyncio.create_task(edge.send("POST", "/_tasks/_claim", claim, protocol=slow))
    await slow.asked.wait()
    given = (await edge.send("POST", "/_tasks/_claim", claim)).json
    slow.hung_up.set()
    await claiming
    done = {"lease_token": given["lease_token"]}
    assert (await edge.send("POST", "/_tasks/a/_complete", done)).status == 200
