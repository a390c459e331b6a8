"""Any coordinator takes any request, and nobody notices who has the shard."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import msgspec
import pytest

from lineshaft.engine.engine import Engine
from lineshaft.errors import NotOwner
from lineshaft.server.forwarding import Ask
from lineshaft.server.identity import ANYBODY
from tests.cluster.fleet import fleet


async def test_a_task_lives_its_life_through_a_coordinator_that_does_not_have_it() -> None:
    async with fleet(2) as f:
        other = f.other()
        status, created = await f.call(other, "PUT", "/_tasks/a", {"name": "n", "payload": {"x": 2**63}})
        assert (status, created["created"]) == (201, True)
        status, claimed = await f.call(other, "POST", "/_tasks/_claim", {"worker": {"id": "w"}})
        assert (status, claimed["payload"]) == (200, {"x": 2**63})
        token = {"lease_token": claimed["lease_token"]}
        assert (await f.call(other, "POST", "/_tasks/a/_heartbeat", token))[1]["directive"] == "continue"
        status, _ = await f.call(other, "POST", "/_tasks/a/_complete", token | {"result": [1]})
        assert status == 200
        for ship in f.ships:
            status, task = await f.call(ship, "GET", "/_tasks/a")
            assert (status, task["state"], task["result"]) == (200, "completed", [1])
        status, found = await f.call(other, "GET", "/_tasks?state=completed")
        assert [task["task_id"] for task in found["tasks"]] == ["a"]
        assert (await f.call(other, "GET", "/_stats"))[1]["counts"]["completed"] == 1
        assert (await f.call(other, "POST", "/_tasks/_claim", {}))[0] == 204


async def test_an_answer_comes_back_as_it_was_given() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        asked: list[tuple[str, str, bytes | None, dict[str, str]]] = [
            ("GET", "/_tasks/none", None, {}),
            ("POST", "/_tasks", b"{", {"Content-Type": "application/json"}),
            ("POST", "/_tasks", b"{}", {"Content-Type": "text/plain"}),
            ("POST", "/_tasks", b'{"name": 1}', {"Content-Type": "application/json"}),
            ("GET", "/_tasks?limit=0", None, {}),
            ("PUT", "/_tasks/%2Fa%20b", b"{}", {"Content-Type": "application/json"}),
            ("DELETE", "/_tasks", None, {}),
            ("HEAD", "/_queues", None, {}),
            ("GET", "/_queues", None, {}),
        ]
        for method, path, body, headers in asked:
            answers = []
            for ship in (owner, other):
                async with f.client.request(method, ship.url + path, data=body, headers=headers) as answer:
                    shown = {
                        name.lower(): value
                        for name, value in answer.headers.items()
                        if name.lower() not in ("date", "content-length" if method == "HEAD" else "")
                    }
                    answers.append((answer.status, sorted(shown.items()), await answer.read()))
            assert answers[0] == answers[1], (method, path)


async def test_a_parked_claim_is_pushed_to_through_another_coordinator() -> None:
    async with fleet(2) as f:
        other = f.other()
        claim = asyncio.ensure_future(f.call(other, "POST", "/_tasks/_claim?wait=20s", {}))
        await f.until(
            lambda: (
                f.owner().engine.metrics()[0].parked + sum(m.parked for m in f.owner().engine.metrics()) > 0
            )
        )
        await f.call(f.owner(), "PUT", "/_tasks/a", {"name": "n"})
        status, claimed = await claim
        assert (status, claimed["task_id"]) == (200, "a")


async def test_a_client_that_hangs_up_leaves_nothing_parked_at_the_owner() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()

        def parked() -> int:
            return sum(metrics.parked for metrics in owner.engine.metrics())

        claim = asyncio.ensure_future(f.call(other, "POST", "/_tasks/_claim?wait=20s", {}))
        await f.until(lambda: parked() == 1)
        claim.cancel()
        await f.until(lambda: parked() == 0)


async def test_events_are_streamed_through() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        headers = {"Accept": "text/event-stream"}
        async with f.client.get(other.url + "/_tasks/_changes", headers=headers) as stream:
            assert stream.content_type == "text/event-stream"
            assert (await stream.content.readline()).startswith(b"id: ")
            await f.call(owner, "PUT", "/_tasks/a", {"name": "n"})
            lines = []
            while not any(line.startswith(b"data: ") for line in lines):
                lines.append(await stream.content.readline())
            change = json.loads(lines[-1].removeprefix(b"data: "))
            assert (change["task_id"], change["state"]) == ("a", "queued")


async def test_a_push_session_is_passed_through() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        async with f.client.ws_connect(other.url + "/_tasks/_session", protocols=["lineshaft.v1"]) as session:
            await session.send_json({"id": 1, "type": "hello", "body": {"worker": {"id": "w"}}})
            assert (await session.receive_json())["type"] == "welcome"
            await session.send_json({"id": 2, "type": "credit", "body": {"max": 1}})
            assert (await session.receive_json())["type"] == "credited"
            await f.call(owner, "PUT", "/_tasks/a", {"name": "n"})
            pushed = await session.receive_json()
            assert [task["task_id"] for task in pushed["body"]["tasks"]] == ["a"]


async def test_a_session_is_ended_when_its_shard_moves_and_goes_on_at_the_new_owner() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        hello = {"id": 1, "type": "hello", "body": {"worker": {"id": "w"}}}
        async with f.client.ws_connect(owner.url + "/_tasks/_session", protocols=["lineshaft.v1"]) as session:
            await session.send_json(hello)
            assert (await session.receive_json())["type"] == "welcome"
            await owner.engine.hand_over()
            assert (await session.receive()).type is aiohttp.WSMsgType.CLOSE
            assert session.close_code == 1012
        async with f.client.ws_connect(owner.url + "/_tasks/_session", protocols=["lineshaft.v1"]) as session:
            await session.send_json(hello)
            assert (await session.receive_json())["type"] == "welcome"
        assert other.engine.has("default")


async def test_a_coordinator_that_is_not_the_owner_says_so_and_does_not_forward_again() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        forwarder = owner.coordinator.calls.elsewhere._forwarder  # type: ignore[union-attr]
        headers = dict(forwarder.headers(ANYBODY, []))
        status, answer = await f.call(other, "GET", "/_tasks", headers=headers)
        assert (status, answer["error"]["type"]) == (421, "not_owner")


@pytest.mark.parametrize("path", ["/_tasks", "/_cluster/keys", "/_cluster/changed"])
async def test_nobody_passes_for_a_coordinator(path: str) -> None:
    async with fleet(2) as f:
        for headers in ({"Lineshaft-Forwarded": "eyJ9.00"}, {"Lineshaft-Forwarded": ""}):
            status, _ = await f.call(f.owner(), "POST", path, {}, headers=headers)
            assert status == 403
        if path.startswith("/_cluster"):
            assert (await f.call(f.owner(), "POST", path, {}))[0] == 404


# -- keys ---------------------------------------------------------------------------------------------


async def test_keys_are_known_everywhere_at_once_and_so_is_their_end() -> None:
    async with fleet(3) as f:
        admin: str | None = None
        for maker in (f.owner("_system"), f.other("_system")):
            key = admin
            status, made = await f.call(maker, "POST", "/_keys", {"name": "a", "scopes": ["admin"]}, key=key)
            assert status == 201
            admin = made["key"]
            for ship in f.ships:
                assert (await f.call(ship, "GET", "/_tasks", key=admin))[0] == 200
                assert (await f.call(ship, "GET", "/_tasks"))[0] == 401
        status, made = await f.call(
            f.ships[0], "POST", "/_keys", {"name": "b", "scopes": ["read"]}, key=admin
        )
        waiting = [
            asyncio.ensure_future(f.call(ship, "GET", "/_tasks/_changes?after=0&wait=30s", key=made["key"]))
            for ship in f.ships
        ]
        await asyncio.sleep(0.2)
        status, _ = await f.call(f.ships[1], "DELETE", f"/_keys/{made['key_id']}", key=admin)
        assert status == 200
        for ship in f.ships:
            assert (await f.call(ship, "GET", "/_tasks", key=made["key"]))[0] == 401
        async with asyncio.timeout(5):
            assert {status for status, _ in await asyncio.gather(*waiting)} == {401}


async def test_the_first_key_and_the_end_of_ones_own_are_answered_by_every_coordinator() -> None:
    async with fleet(2) as f:
        status, made = await f.call(f.other("_system"), "POST", "/_keys", {"name": "a", "scopes": ["admin"]})
        assert status == 201
        admin = made["key"]
        for ship in (f.other("_system"), f.owner("_system")):
            _, own = await f.call(ship, "POST", "/_keys", {"name": "b", "scopes": ["admin"]}, key=admin)
            ended = await f.call(ship, "DELETE", f"/_keys/{own['key_id']}", key=own["key"])
            assert ended == (200, {"key_id": own["key_id"]})
            assert (await f.call(ship, "GET", "/_keys", key=own["key"]))[0] == 401


async def test_keys_are_known_to_who_comes_later() -> None:
    async with fleet(2) as f:
        status, made = await f.call(f.owner("_system"), "POST", "/_keys", {"name": "a", "scopes": ["admin"]})
        assert status == 201
        late = await f.launch()
        assert (await f.call(late, "GET", "/_tasks"))[0] == 401
        assert (await f.call(late, "GET", "/_tasks", key=made["key"]))[0] == 200


# -- moving -------------------------------------------------------------------------------------------


async def test_no_request_fails_while_coordinators_come_and_go() -> None:
    """Clients enqueue and read through whoever is there, on kept connections, while all this happens."""
    async with fleet(2) as f:
        stop, done, failed = asyncio.Event(), 0, []

        async def enqueue(number: int) -> None:
            nonlocal done
            count = 0
            while not stop.is_set():
                ship = f.ships[(number + count) % len(f.ships)]
                count += 1
                path = f"/_tasks/{number}-{count}"
                try:
                    status, answer = await f.call(ship, "PUT", path, {"name": "n", "payload": count})
                    if status != 201:
                        failed.append((status, answer))
                    status, answer = await f.call(ship, "GET", path)
                    if (status, answer.get("payload")) != (200, count):
                        failed.append((status, answer))
                except aiohttp.ClientError as error:
                    failed.append((0, repr(error)))
                done += 1

        clients = [asyncio.ensure_future(enqueue(number)) for number in range(12)]
        for _ in range(2):
            await f.launch()
            await f.until(lambda: f.settled)
            await asyncio.sleep(0.1)
            await f.stop(f.owner())
            await f.until(lambda: f.settled)
        stop.set()
        await asyncio.gather(*clients)
        assert done > 50 and failed == []


async def test_a_worker_that_waits_at_a_coordinator_which_stops_is_given_nothing_and_no_error() -> None:
    async with fleet(3) as f:
        for ship in (f.other(), f.owner()):
            one = asyncio.ensure_future(f.call(ship, "POST", "/_tasks/_claim?wait=30s", {}))
            many = asyncio.ensure_future(f.call(ship, "POST", "/_tasks/_claim", {"max": 5, "wait": "30s"}))
            await asyncio.sleep(0.2)
            await f.stop(ship)
            assert (await one)[0] == 204
            status, answer = await many
            assert (status, answer["tasks"]) == (200, [])


async def test_after_its_owner_is_cut_off_a_shard_is_served_by_another() -> None:
    async with fleet(3, lease=1.0) as f:
        victim = f.owner()
        other = f.other()
        await f.call(other, "PUT", "/_tasks/a", {"name": "n"})
        victim.line.cut.set()
        f.ships.remove(victim)
        status, _ = await f.call(other, "PUT", "/_tasks/b", {"name": "n"})
        assert status == 201, "it waited for the next owner"
        assert (await f.call(other, "GET", "/_tasks/a"))[0] == 200
        victim.line.cut.clear()
        f.ships.append(victim)
        await f.until(lambda: f.settled)
        assert (await f.call(victim, "GET", "/_tasks/b"))[0] == 200


async def test_what_must_not_be_sent_twice_is_answered_with_503_when_its_owner_dies_under_it() -> None:
    async with fleet(2, lease=1.0) as f:
        victim, other = f.owner(), f.other()
        victim.line.cut.set()
        asked = asyncio.ensure_future(f.call(other, "POST", "/_tasks", {"name": "n"}))
        again = asyncio.ensure_future(f.call(other, "POST", "/_tasks", {"name": "n", "task_id": "a"}))
        status, answer = await asked
        assert (status, answer["error"]["type"]) == (503, "unavailable") and answer["retry_after"] >= 1
        assert (await again)[0] == 201
        victim.line.cut.clear()


async def test_where_the_owner_has_no_address_the_answer_is_421() -> None:
    async with fleet(1) as f:
        [ship] = f.ships
        async with Engine(f.shared.line()) as nameless:
            await f.until(lambda: len(ship.shards) == 2 and len(nameless.runners) == 2)
            taken = next(t for t in (f"t{n}" for n in range(99)) if nameless.has(t))
            forwarder = ship.coordinator.calls.elsewhere._forwarder  # type: ignore[union-attr]
            identity = msgspec.structs.replace(ANYBODY, tenant=taken)
            ask = Ask(
                tenant=taken,
                identity=identity,
                method="GET",
                target="/_tasks",
                headers=[],
                body=b"",
                may_repeat=lambda: True,
            )
            with pytest.raises(NotOwner, match="cannot be reached"):
                await forwarder.forward(ask)
        await f.until(lambda: len(ship.shards) == 4)
        response = await forwarder.forward(ask)
        assert response is None, "it is here by now"


async def test_what_was_leased_to_a_client_that_went_away_on_the_last_yard_is_given_back() -> None:
    async with fleet(2) as f:
        owner, other = f.owner(), f.other()
        for id in ("a", "b"):
            await f.call(owner, "PUT", f"/_tasks/{id}", {"name": "n"})
        cluster = other.coordinator._server._application._cluster  # type: ignore[attr-defined]
        ask = Ask(
            tenant="default",
            identity=ANYBODY,
            method="POST",
            target="/_tasks/_claim",
            headers=[(b"content-type", b"application/json")],
            body=b'{"max": 1}',
            may_repeat=lambda: True,
        )
        many = await cluster.forward(ask)
        ask.body = b"{}"
        one = await cluster.forward(ask)
        for answer in (many, one):
            cluster.give_back(ask, answer)

        async def counts() -> dict[str, int]:
            counted: dict[str, int] = (await f.call(owner, "GET", "/_stats"))[1]["counts"]
            return counted

        async with asyncio.timeout(10):
            while (await counts())["queued"] < 2:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
        assert (await f.call(owner, "GET", "/_tasks/a"))[1]["attempt"] == 0
