from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lineshaft.core.commands import Stats
from lineshaft.engine.engine import Engine
from lineshaft.errors import Forbidden, Invalid, Unauthorized
from lineshaft.server.identity import KeyRing
from lineshaft.server.serve import Coordinator, InsecureListen, running
from lineshaft.server.settings import ServerSettings
from lineshaft.store.memory import MemoryStore
from lineshaft.wire import CALLS, Call
from tests.server.asgi import Edge


@pytest.fixture(name="keys")
async def give_keys() -> AsyncIterator[KeyRing]:
    async with Engine(MemoryStore()) as engine:
        ring = KeyRing(engine, engine.clock.now)
        await ring.load()
        yield ring


async def test_until_a_key_is_made_anybody_is_the_default_tenant(keys: KeyRing) -> None:
    anybody = keys.identify(None)
    assert (anybody.tenant, anybody.may("admin"), anybody.may("work")) == ("default", True, True)
    await keys.create("first", tenant="default", scopes=["read"])
    with pytest.raises(Unauthorized):
        keys.identify(None)


async def test_a_key_names_tenant_and_scopes(keys: KeyRing) -> None:
    _, key = await keys.create("k", tenant="acme", scopes=["work", "enqueue"])
    identity = keys.identify(f"ApiKey {key}")
    assert (identity.tenant, set(identity.scopes)) == ("acme", {"enqueue", "work"})
    identity.require("work")
    identity.require("read|work")
    with pytest.raises(Forbidden, match="scope read"):
        identity.require("read")


async def test_keys_survive_in_the_store_hashed(keys: KeyRing) -> None:
    stored, key = await keys.create("k", tenant="acme", scopes=["read"])
    again = KeyRing(keys._engine, lambda: 0)
    await again.load()
    assert again.identify(f"apikey {key}").tenant == "acme"
    assert key.split("_", 2)[2].encode() not in stored.digest


async def test_a_wrong_key_is_refused(keys: KeyRing) -> None:
    _, key = await keys.create("k", tenant="acme", scopes=["read"])
    for wrong in (key[:-1], "xx" + key[2:], "", "ls_", key + "\xff"):
        with pytest.raises(Unauthorized):
            keys.identify(f"ApiKey {wrong}")


async def test_a_revoked_key_is_refused_and_keys_stay_required(keys: KeyRing) -> None:
    stored, key = await keys.create("k", tenant="acme", scopes=["read"])
    await keys.revoke(stored.key_id)
    for credentials in (f"ApiKey {key}", None):
        with pytest.raises(Unauthorized):
            keys.identify(credentials)
    assert keys.list() == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"tenant": "_system"}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"scopes": []}, "scopes"),
    ],
)
async def test_what_is_no_key(keys: KeyRing, wrong: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"name": "k", "tenant": "t", "scopes": ["read"]} | wrong
    with pytest.raises(Invalid) as caught:
        await keys.create(given.pop("name"), **given)
    assert caught.value.field == field


# Over HTTP.


async def make_key(edge: Edge, scopes: list[str], tenant: str = "default") -> dict[str, str]:
    _, key = await edge.keys.create("k", tenant=tenant, scopes=scopes)
    return {"authorization": f"ApiKey {key}"}


SCOPED = [call for call in CALLS.values() if call.scope]


@pytest.mark.parametrize("call", SCOPED, ids=lambda call: call.name)
async def test_a_call_needs_its_scope(edge: Edge, call: Call) -> None:
    path = call.path.replace("{id}", "x")
    fits = await make_key(edge, call.scope.split("|")[:1])
    others = await make_key(edge, [s for s in ("enqueue", "work", "read") if s not in call.scope.split("|")])
    admin = await make_key(edge, ["admin"])
    body = json.dumps({"lease_token": "x"}) if call.name == "cancel" else "{}"
    statuses = [
        (await edge.send(call.method, path, body.encode(), headers=headers)).status
        for headers in ({}, others, fits, admin)
    ]
    assert statuses[:2] == [401, 403]
    assert not {401, 403} & set(statuses[2:] if call.name != "cancel" else statuses[3:])


async def test_open_calls_need_no_key(edge: Edge) -> None:
    await make_key(edge, ["read"])
    for call in CALLS.values():
        if not call.scope:
            assert (await edge.send("GET", call.path)).status == 200


async def test_an_enqueuer_may_cancel_but_not_as_a_holder(edge: Edge) -> None:
    enqueuer, worker = await make_key(edge, ["enqueue"]), await make_key(edge, ["work"])
    await edge.send("PUT", "/_tasks/a", {"name": "n"}, headers=enqueuer)
    cancel = ("POST", "/_tasks/a/_cancel")
    assert (await edge.send(*cancel, {"lease_token": "x"}, headers=enqueuer)).status == 403
    assert (await edge.send(*cancel, {}, headers=worker)).status == 403
    assert (await edge.send(*cancel, {"lease_token": "x"}, headers=worker)).status == 409
    assert (await edge.send(*cancel, {}, headers=enqueuer)).status == 200


async def test_no_tenant_sees_another(edge: Edge) -> None:
    acme, other = await make_key(edge, ["admin"], "acme"), await make_key(edge, ["admin"], "other")
    assert (await edge.send("PUT", "/_tasks/a", {"name": "n", "payload": 1}, headers=acme)).status == 201
    assert (await edge.send("GET", "/_tasks/a", headers=other)).status == 404
    assert (await edge.send("GET", "/_tasks", headers=other)).json["tasks"] == []
    assert (await edge.send("GET", "/_queues", headers=other)).json["queues"] == []
    assert (await edge.send("POST", "/_tasks/_claim", {}, headers=other)).status == 204
    assert (await edge.send("POST", "/_tasks/_cancel", {"name": "n"}, headers=other)).json["matched"] == 0
    assert (await edge.send("GET", "/_tasks/_changes?after=0", headers=other)).json["changes"] == []
    assert (await edge.send("PUT", "/_tasks/a", {"name": "n", "payload": 2}, headers=other)).status == 201
    assert (await edge.send("GET", "/_tasks/a", headers=acme)).json["payload"] == 1
    assert b'queue="default"' in (await edge.send("GET", "/metrics", headers=acme)).body


async def test_keys_are_made_listed_and_revoked_over_http(edge: Edge) -> None:
    made = await edge.send("POST", "/_keys", {"name": "ops", "scopes": ["admin"]})
    assert made.status == 201
    operator = {"authorization": f"ApiKey {made.json['key']}"}
    guest = await edge.send(
        "POST", "/_keys", {"name": "g", "scopes": ["read", "admin"], "tenant": "acme"}, headers=operator
    )
    guests = {"authorization": f"ApiKey {guest.json['key']}"}
    assert len((await edge.send("GET", "/_keys", headers=operator)).json["keys"]) == 2
    [own] = (await edge.send("GET", "/_keys", headers=guests)).json["keys"]
    assert (own["tenant"], "key" in own) == ("acme", False)
    foreign = await edge.send(
        "POST", "/_keys", {"name": "x", "scopes": ["read"], "tenant": "default"}, headers=guests
    )
    assert foreign.status == 403
    path = f"/_keys/{made.json['key_id']}"
    assert (await edge.send("DELETE", path, headers=guests)).status == 404
    assert (await edge.send("DELETE", path, headers=operator)).status == 200
    assert (await edge.send("GET", "/_keys", headers=operator)).status == 401
    unknown_scope = await edge.send("POST", "/_keys", {"name": "x", "scopes": ["all"]}, headers=guests)
    assert unknown_scope.status == 422


async def test_a_session_needs_a_key_too(tmp_path: Any) -> None:
    settings = ServerSettings(store=f"sqlite:///{tmp_path}/jobs.db", listen="127.0.0.1:0")
    async with running(settings) as coordinator, aiohttp.ClientSession() as client:
        url = f"{coordinator.url}/_tasks/_session"
        await coordinator.calls.key_ring.create("k", tenant="default", scopes=["read"])
        for headers, protocols, status in (
            ({}, ("lineshaft.v1",), 401),
            ({"Host": "evil.example"}, ("lineshaft.v1",), 403),
            ({"Origin": "http://evil.example"}, ("lineshaft.v1",), 403),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.ws_connect(url, headers=headers, protocols=protocols)
            assert caught.value.status == status
            assert caught.value.headers is not None
            assert caught.value.headers["Content-Type"] == "application/json"


@contextlib.asynccontextmanager
async def long_lines(
    url: str, key: str | None
) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, aiohttp.ClientResponse, asyncio.Task[Any]]]:
    """Give a session, a stream of changes and a claim that waits, all with this key."""
    headers = {} if key is None else {"Authorization": f"ApiKey {key}"}
    async with (
        aiohttp.ClientSession(url, headers=headers) as client,
        client.ws_connect("/_tasks/_session", protocols=("lineshaft.v1",)) as session,
        client.get("/_tasks/_changes", headers={"Accept": "text/event-stream"}) as stream,
    ):
        await session.send_json({"id": 1, "type": "hello", "body": {"worker": {"id": "w"}}})
        assert (await session.receive_json())["type"] == "welcome"
        assert stream.status == 200

        async def claim() -> tuple[int, Any]:
            query = {"queues": "elsewhere", "wait": "50s"}
            async with client.post("/_tasks/_claim", params=query, json={}) as answer:
                return answer.status, await answer.json()

        claimed = asyncio.create_task(claim())
        try:
            yield session, stream, claimed
        finally:
            claimed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await claimed


async def parked(coordinator: Coordinator, claims: int) -> None:
    """Return when so many claims wait."""
    waiting = -1
    async with asyncio.timeout(20):
        while waiting != claims:
            waiting = (await coordinator.calls.engine.submit(Stats(tenant="default"))).waiting_claims


async def test_what_lasts_ends_with_its_key_and_with_no_other(tmp_path: Any) -> None:
    settings = ServerSettings(store=f"sqlite:///{tmp_path}/jobs.db", listen="127.0.0.1:0")
    async with running(settings) as coordinator:
        ring = coordinator.calls.key_ring
        stored, key = await ring.create("a", tenant="default", scopes=["work", "read"])
        _, other = await ring.create("b", tenant="default", scopes=["work", "read"])
        async with long_lines(coordinator.url, key) as lines, long_lines(coordinator.url, other) as others:
            await parked(coordinator, 2)
            await ring.revoke(stored.key_id)
            await ended(*lines)
            await others[0].send_json({"id": 2, "type": "credit", "body": {"max": 1}})
            assert (await others[0].receive_json())["type"] == "credited"
            assert not others[2].done()


async def test_what_began_without_a_key_ends_when_the_first_is_made(tmp_path: Any) -> None:
    settings = ServerSettings(store=f"sqlite:///{tmp_path}/jobs.db", listen="127.0.0.1:0")
    async with running(settings) as coordinator, long_lines(coordinator.url, None) as lines:
        await parked(coordinator, 1)
        await coordinator.calls.key_ring.create("first", tenant="default", scopes=["admin"])
        await ended(*lines)


async def ended(
    session: aiohttp.ClientWebSocketResponse, stream: aiohttp.ClientResponse, claim: asyncio.Task[Any]
) -> None:
    """Check that all of them are sent away."""
    async with asyncio.timeout(20):
        assert (await session.receive()).type is aiohttp.WSMsgType.CLOSE
        assert session.close_code == 1008
        await stream.content.read()  # to its end
        status, refused = await claim
    assert (status, refused["error"]["type"]) == (401, "unauthorized")


async def test_a_request_whose_key_ends_while_it_arrives_does_not_wait(keys: KeyRing) -> None:
    stored, key = await keys.create("k", tenant="default", scopes=["work"])
    identity = keys.identify(f"ApiKey {key}")
    keys.confirm(identity)
    await keys.revoke(stored.key_id)
    with pytest.raises(Unauthorized, match="revoked"):
        keys.confirm(identity)


async def test_another_subprotocol_is_refused() -> None:
    async with (
        running(ServerSettings(store="memory://", listen="127.0.0.1:0")) as coordinator,
        aiohttp.ClientSession() as client,
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(f"{coordinator.url}/_tasks/_session", protocols=("other",))
        assert caught.value.status == 400
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(f"{coordinator.url}/nothing", protocols=("lineshaft.v1",))
        assert caught.value.status == 404


# Where one may listen.


async def test_other_machines_are_served_only_with_keys_or_insecure(tmp_path: Any) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    with pytest.raises(InsecureListen, match="there is no API key"):
        async with running(ServerSettings(store=store, listen="0.0.0.0:0")):
            pass
    async with running(ServerSettings(store=store, listen="0.0.0.0:0", insecure=True)) as coordinator:
        await coordinator.calls.key_ring.create("k", tenant="default", scopes=["read"])
    async with running(ServerSettings(store=store, listen="0.0.0.0:0")):
        pass


@pytest.mark.parametrize("listen", ["7077", "localhost", ":7077", "127.0.0.1:x", "127.0.0.1:70777", ""])
async def test_an_address_that_is_none(listen: str) -> None:
    with pytest.raises(Invalid) as caught:
        async with running(ServerSettings(store="memory://", listen=listen)):
            pass
    assert caught.value.field == "listen"


async def test_an_address_in_use_says_so() -> None:
    async with running(ServerSettings(store="memory://", listen="127.0.0.1:0")) as first:
        with pytest.raises(Invalid, match="in use"):
            async with running(ServerSettings(store="memory://", listen=first.url.removeprefix("http://"))):
                pass
